//! `[regions]` and `[residency]`: names, and that every region that is used is declared.
//!
//! What the rules mean is decided in [`crate::policy`]; here they are only read.

use std::collections::BTreeSet;

use super::document::{Entry, Section};
use super::mistake::suggestion;
use super::value::{is_custom_setting, is_name, network, shown};
use super::{Jwt, Node, Region, Residency, Role};
use crate::limits::REGIONS_MAX;
use crate::policy::{BindSource, NoRegion, Proof, Unbound};
use crate::sql::{Guard, GuardSet};
use crate::target::TargetSessionAttrs;
use crate::wire::sqlstate::SqlState;

/// What a name of a region or a node must be.
pub(super) const NAME_FORM: &str = "1 to 63 letters, digits, \"-\", \"_\" or \".\"";
/// The only placeholder of `block_message`.
const PLACEHOLDER: &str = "{reason}";
/// In the place of regions: those that the token says.
const CLAIM: &str = "claim";
/// A setting that the proxy answers itself.
const NODE_PARAMETER: &str = "domicile.node";

/// The declared regions, in the order of the file.
pub(super) fn regions(root: &Section<'_>) -> Vec<Region> {
    root.section("regions", |section| {
        let mut regions = Vec::new();
        for (name, entry) in section.all() {
            if !is_name(name) {
                entry.mistake(format!("the name of a region must be {NAME_FORM}, not \"{}\"", shown(name)));
            } else if matches!(name, "block" | "client") {
                entry.mistake(format!("a region cannot be named \"{name}\": residency.unbound gives that word another meaning"));
            } else if regions.len() == REGIONS_MAX {
                entry.mistake(format!("there are more than {REGIONS_MAX} regions: remove some"));
            }
            let jurisdiction =
                |region: &Section<'_>| region.entry("jurisdiction").and_then(|entry| entry.text()).map(str::to_owned);
            let jurisdiction = entry.section().and_then(|region| region.read(jurisdiction));
            regions.push(Region { name: name.to_owned(), jurisdiction });
        }
        regions
    })
}

/// A region that the entry names, which must be declared.
pub(super) fn declared(entry: &Entry<'_>, regions: &[Region]) -> Option<String> {
    let name = entry.parsed("the name of a declared region", Some)?;
    require_declared(entry, name, regions).then(|| name.to_owned())
}

fn require_declared(entry: &Entry<'_>, name: &str, regions: &[Region]) -> bool {
    if regions.iter().any(|region| region.name == name) {
        return true;
    }
    let mut text = suggestion(name, regions.iter().map(|region| region.name.as_str()));
    if text.is_empty() {
        text = format!(": declare it with [regions.{}]", if is_name(name) { name } else { "<name>" });
    }
    entry.mistake(format!("{}: region \"{}\" is not declared{text}", entry.name, shown(name)));
    false
}

/// `[residency]`.
pub(super) fn read(section: &Section<'_>, regions: &[Region], nodes: &[Node], jwt: Option<&Jwt>) -> Residency {
    let unbound_entry = section.entry("unbound");
    let no_region_entry = section.entry("no_region");
    let default_entry = section.entry("default_region");
    let enforce_entry = section.entry("enforce");

    let residency = Residency {
        parameters: parameters(section),
        unbound: unbound_entry.as_ref().and_then(|entry| unbound(entry, regions)).unwrap_or(Unbound::Block),
        no_region: no_region_entry
            .as_ref()
            .and_then(|entry| entry.word(&[("block", NoRegion::Block), ("default", NoRegion::Default)]))
            .unwrap_or(NoRegion::Block),
        default_region: default_entry.as_ref().and_then(|entry| declared(entry, regions)),
        enforce: enforce_entry.as_ref().and_then(Entry::boolean).unwrap_or(true),
        guards: guards(section),
        block_message: block_message(section),
        block_sqlstate: block_sqlstate(section),
        binds: binds(section, regions, nodes, jwt),
    };

    if let (Some(entry), None, NoRegion::Default) = (&no_region_entry, &default_entry, residency.no_region) {
        entry.mistake("residency.no_region = \"default\" leads nowhere: set residency.default_region too");
    }
    if let (Some(entry), None, false) = (&enforce_entry, &default_entry, residency.enforce) {
        entry.mistake(
            "residency.enforce = false sends what would be blocked to the default region: set residency.default_region too",
        );
    }
    if let (Some(entry), Some(region)) = (&default_entry, &residency.default_region)
        && !nodes.iter().any(|node| node.region == *region)
    {
        entry.warning(format!("the default region \"{region}\" has no node: whatever leads there is denied"));
    }
    match &unbound_entry {
        Some(entry) if residency.unbound == Unbound::Client && !residency.binds.is_empty() => {
            entry.warning("residency.unbound = \"client\" lets every login that no bind rule matches choose any region");
        }
        None if residency.unbound == Unbound::Block && residency.binds.is_empty() => {
            section.warning("no login is admitted: add a [[residency.bind]], or set residency.unbound");
        }
        Some(_) | None => {}
    }
    residency
}

fn parameters(section: &Section<'_>) -> Vec<String> {
    let Some(entry) = section.entry("parameters") else {
        return vec!["domicile.region".to_owned(), "helios.region".to_owned()];
    };
    let elements = entry.elements("names such as \"domicile.region\"");
    if elements.as_ref().is_some_and(Vec::is_empty) {
        entry.mistake("residency.parameters is empty: no session could say its region; name one, such as \"domicile.region\"");
    }
    let mut names = Vec::new();
    for element in elements.unwrap_or_default() {
        let what = "a setting's name with a dot in it, such as \"domicile.region\"";
        let Some(name) = element.parsed(what, |text| is_custom_setting(text).then(|| text.to_ascii_lowercase())) else {
            continue;
        };
        if name == NODE_PARAMETER {
            element.mistake(format!("{} cannot be \"{NODE_PARAMETER}\": SHOW answers it with the session's node", element.name));
        } else if names.contains(&name) {
            element.mistake(format!("{}: \"{name}\" is already in the list: remove one", element.name));
        }
        names.push(name);
    }
    names
}

fn unbound(entry: &Entry<'_>, regions: &[Region]) -> Option<Unbound> {
    let words = ["block", "client"];
    let word = entry.parsed("\"block\", \"client\" or the name of a region", Some)?;
    let known = regions.iter().any(|region| region.name == word);
    match word {
        "block" => Some(Unbound::Block),
        "client" => Some(Unbound::Client),
        region if known => Some(Unbound::Region(region.to_owned())),
        other => {
            let names = regions.iter().map(|region| region.name.as_str());
            let near = suggestion(other, words.into_iter().chain(names));
            entry.mistake(format!(
                "{} must be \"block\", \"client\" or a declared region, not \"{}\"{near}",
                entry.name,
                shown(other)
            ));
            None
        }
    }
}

/// `[residency.guards]`.
fn guards(section: &Section<'_>) -> GuardSet {
    section.section("guards", |section| {
        let is_denied = |guard: &Guard| {
            let verdict = section.entry(guard.as_str()).and_then(|entry| entry.word(&[("deny", true), ("allow", false)]));
            verdict.unwrap_or(true)
        };
        Guard::ALL.into_iter().filter(is_denied).collect()
    })
}

fn block_message(section: &Section<'_>) -> String {
    let default = || format!("Query blocked by route plugin: {PLACEHOLDER}");
    let Some(entry) = section.entry("block_message") else { return default() };
    let Some(text) = entry.text() else { return default() };
    if text.replace(PLACEHOLDER, "").contains(['{', '}']) {
        entry.mistake(format!("{} has an unknown placeholder: the only one is {PLACEHOLDER}", entry.name));
    }
    text.to_owned()
}

fn block_sqlstate(section: &Section<'_>) -> SqlState {
    let what = "the five characters of an SQLSTATE that is an error, such as \"42000\"";
    // Classes 00, 01 and 02 are success, warning and no data (errcodes.txt).
    let is_error = |text: &str| !["00", "01", "02"].iter().any(|class| text.starts_with(class));
    let parse = |text: &str| text.parse().ok().filter(|_| is_error(text));
    section
        .entry("block_sqlstate")
        .and_then(|entry| entry.parsed(what, parse))
        .unwrap_or(SqlState::SYNTAX_ERROR_OR_ACCESS_RULE_VIOLATION)
}

fn binds(section: &Section<'_>, regions: &[Region], nodes: &[Node], jwt: Option<&Jwt>) -> Vec<BindSource> {
    let with = |role| nodes.iter().filter(|node| node.role == role).map(|node| node.region.as_str()).collect::<BTreeSet<&str>>();
    let (primaries, replicas) = (with(Role::Primary), with(Role::Replica));
    let mut matches_all = None;
    let mut index = 0;
    section.sections("bind", |bind| {
        let text = |key: &'static str| bind.entry(key).and_then(|entry| entry.text()).map(str::to_owned);
        let what = "an address or a network, such as \"10.0.0.0/8\"";
        let rule = BindSource {
            user: text("user"),
            database: text("database"),
            from: bind.entry("from").and_then(|entry| entry.parsed(what, network)),
            proofs: proofs(bind, jwt),
            regions: granted(bind, regions),
            target: bind.entry("target_session_attrs").and_then(|entry| entry.word(&TargetSessionAttrs::ALL)).unwrap_or_default(),
            replication: bind.entry("replication").and_then(|entry| entry.boolean()).unwrap_or_default(),
            label: format!("residency.bind[{index}]"),
        };
        let servers = if rule.target.is_for_standbys() { &replicas } else { &primaries };
        let all = rule.target == TargetSessionAttrs::Any || rule.target == TargetSessionAttrs::PreferStandby;
        let has_nodes = |region: &str| primaries.contains(region) || replicas.contains(region);
        for region in rule.regions.iter().map(String::as_str).filter(|region| !all && has_nodes(region)) {
            if !servers.contains(region) {
                let kind = if rule.target.is_for_standbys() { "replica" } else { "primary" };
                bind.warning(format!(
                    "{}: target_session_attrs is \"{}\", and no node of region \"{region}\" has the role \"{kind}\"",
                    rule.label, rule.target
                ));
            }
        }
        if let Some(first) = &matches_all {
            let text = format!("{} is never reached: {first} before it matches every login", rule.label);
            bind.warning(text);
        } else if rule.user.is_none() && rule.database.is_none() && rule.from.is_none() && rule.proofs.is_empty() {
            matches_all = Some(rule.label.clone());
        }
        index += 1;
        rule
    })
}

/// What a login must have proved.
fn proofs(bind: &Section<'_>, jwt: Option<&Jwt>) -> Vec<Proof> {
    let certificate = bind.entry("certificate").and_then(|entry| entry.text()).map(str::to_owned);
    let mut proofs: Vec<Proof> = certificate.map(Proof::Certificate).into_iter().collect();
    for (name, entry) in bind.section("claims", |claims| claims.all()) {
        if jwt.is_none() {
            entry.mistake(format!("{} is for tokens: say by [auth.jwt] whose are good", entry.name));
        }
        proofs.extend(entry.text().map(|value| Proof::Claim { name: name.to_owned(), value: value.to_owned() }));
    }
    if let Some(entry) = bind.entry("regions").filter(is_claim) {
        if jwt.is_none_or(|jwt| jwt.regions_claim.is_none()) {
            entry.mistake(format!("{} = \"{CLAIM}\" needs auth.jwt.regions_claim", entry.name));
        }
        proofs.push(Proof::ClaimedRegions);
    }
    proofs
}

fn is_claim(entry: &Entry<'_>) -> bool {
    entry.value.as_str() == Some(CLAIM)
}

/// The regions of a rule; all of them, if the token says which.
fn granted(bind: &Section<'_>, regions: &[Region]) -> Vec<String> {
    let granted = bind.required("regions", "[\"eu-west\"]", |entry| {
        if is_claim(entry) {
            return Some(regions.iter().map(|region| region.name.clone()).collect());
        }
        let elements = entry.elements("declared regions")?;
        if elements.is_empty() {
            entry.mistake(format!(
                "{} is empty: a rule grants at least one region, the first being where a session starts",
                entry.name
            ));
        }
        Some(elements.iter().filter_map(|element| declared(element, regions)).collect())
    });
    granted.unwrap_or_default()
}
