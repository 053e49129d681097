//! What one server process remembers for its session.

use std::collections::{BTreeMap, BTreeSet};

use super::text::is_region;

/// The settings that a server reports with ParameterStatus.
pub const REPORTED: [&str; 2] = ["TimeZone", "application_name"];
/// The name under which the reference keeps the region, however it is spelled.
const REGION: &str = "domicile.region";

/// One setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// What RESET goes back to.
    pub start: String,
    /// What is left after COMMIT.
    pub kept: String,
    pub current: String,
}

/// What a transaction may change and its end may undo.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Session {
    pub settings: BTreeMap<String, Setting>,
    pub temporary: BTreeSet<String>,
    pub listens: BTreeSet<String>,
    /// Cursors WITH HOLD and their tags.
    pub held: BTreeMap<String, String>,
    /// Notifications that go out when the transaction commits.
    pub notifies: Vec<(String, String)>,
}

impl Session {
    /// Settings with these values, `startup` instead of what the server's configuration says.
    pub fn new(startup: &[(String, String)]) -> Self {
        let configured = [("TimeZone", "UTC"), ("application_name", ""), ("work_mem", "4MB"), ("search_path", "public")];
        let mut session = Self::default();
        for (name, value) in configured {
            session.declare(name, value);
        }
        for (name, value) in startup {
            session.declare(name, value);
        }
        session
    }

    /// Makes a setting known, with what it starts from.
    pub fn declare(&mut self, name: &str, start: &str) {
        let value = start.to_owned();
        self.settings.insert(name.to_owned(), Setting { start: value.clone(), kept: value.clone(), current: value });
    }

    pub fn setting(&self, name: &str) -> Option<&Setting> {
        self.settings.get(if is_region(name) { REGION } else { name })
    }

    /// SET and RESET (no value). False: there is no such setting.
    pub fn set(&mut self, name: &str, value: Option<&str>, local: bool) -> bool {
        let Some(setting) = self.settings.get_mut(if is_region(name) { REGION } else { name }) else { return false };
        let value = value.map_or_else(|| setting.start.clone(), str::to_owned);
        if !local {
            setting.kept.clone_from(&value);
        }
        setting.current = value;
        true
    }

    pub fn reset_all(&mut self) {
        for setting in self.settings.values_mut() {
            setting.kept.clone_from(&setting.start);
            setting.current.clone_from(&setting.start);
        }
    }

    /// What COMMIT makes of it; returns the notifications that this session hears.
    pub fn commit(&mut self) -> Vec<(String, String)> {
        for setting in self.settings.values_mut() {
            setting.current.clone_from(&setting.kept);
        }
        let notifies = std::mem::take(&mut self.notifies);
        notifies.into_iter().filter(|(channel, _)| self.listens.contains(channel)).collect()
    }

    /// What is not as it was when the session began.
    pub fn residue(&self) -> Vec<String> {
        let settings = self.settings.iter().filter(|(_, setting)| setting.current != setting.start);
        let settings = settings.map(|(name, setting)| format!("setting {name} = {}", setting.current));
        let temporary = self.temporary.iter().map(|name| format!("temporary table {name}"));
        let listens = self.listens.iter().map(|name| format!("LISTEN {name}"));
        let held = self.held.keys().map(|name| format!("held cursor {name}"));
        settings.chain(temporary).chain(listens).chain(held).collect()
    }
}

/// What the end of the transaction may go back to.
#[derive(Clone, Debug)]
pub struct Undo {
    pub before: Session,
    pub savepoints: Vec<(String, Session)>,
}
