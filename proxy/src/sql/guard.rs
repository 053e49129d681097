//! Guards: the ways by which a server could be made to send data elsewhere, or fetch it, behind the proxy.
//!
//! Here stands what each is called and the names by which it is known: of functions, extensions and languages. That a statement is
//! one of them is found in `guarded`; what becomes of it is for the policy to say.

use std::ops::{BitOr, BitOrAssign};

/// One way out of a server. Its place in [`Guard::ALL`] is its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Guard {
    /// Functions of the extension `dblink`, and the extension itself.
    Dblink,
    /// Foreign data wrappers, servers, user mappings and foreign tables.
    ForeignData,
    /// Subscriptions of logical replication.
    Subscriptions,
    /// Publications of logical replication.
    Publications,
    /// `COPY … TO PROGRAM` and `FROM PROGRAM`.
    CopyProgram,
    /// COPY with a file of the server.
    CopyFile,
    /// `lo_import` and `lo_export`, which read and write files of the server.
    LargeObjectFiles,
    /// Functions that read, list or write files of the server.
    ServerFiles,
    /// `ALTER SYSTEM`.
    AlterSystem,
    /// Functions that make replication slots or read from them.
    ReplicationSlots,
    /// Code in languages that may do whatever the server's process may.
    UntrustedLanguages,
    /// `LOAD`.
    Load,
    /// Extensions that talk to the network, and their functions.
    NetworkExtensions,
    /// FunctionCall of a function that is not PostgreSQL's own: the message has its number, which says nothing.
    FunctionCalls,
}

impl Guard {
    /// Every guard.
    pub const ALL: [Self; 14] = [
        Self::Dblink,
        Self::ForeignData,
        Self::Subscriptions,
        Self::Publications,
        Self::CopyProgram,
        Self::CopyFile,
        Self::LargeObjectFiles,
        Self::ServerFiles,
        Self::AlterSystem,
        Self::ReplicationSlots,
        Self::UntrustedLanguages,
        Self::Load,
        Self::NetworkExtensions,
        Self::FunctionCalls,
    ];

    /// Its name in `[residency.guards]`.
    pub fn as_str(self) -> &'static str {
        let rule = self.rule();
        rule.split_once('.').map_or(rule, |(_, name)| name)
    }

    /// Its name as a rule: in audit records and errors.
    pub fn rule(self) -> &'static str {
        match self {
            Self::Dblink => "guards.dblink",
            Self::ForeignData => "guards.foreign_data",
            Self::Subscriptions => "guards.subscriptions",
            Self::Publications => "guards.publications",
            Self::CopyProgram => "guards.copy_program",
            Self::CopyFile => "guards.copy_file",
            Self::LargeObjectFiles => "guards.large_object_files",
            Self::ServerFiles => "guards.server_files",
            Self::AlterSystem => "guards.alter_system",
            Self::ReplicationSlots => "guards.replication_slots",
            Self::UntrustedLanguages => "guards.untrusted_languages",
            Self::Load => "guards.load",
            Self::NetworkExtensions => "guards.network_extensions",
            Self::FunctionCalls => "guards.function_calls",
        }
    }

    /// The guard of a function, by its name.
    pub(super) fn of_function(name: &str) -> Option<Self> {
        let begins = |prefixes: &[&str]| prefixes.iter().any(|prefix| name.starts_with(prefix));
        if name == "dblink" || begins(&["dblink_"]) {
            Some(Self::Dblink)
        } else if begins(&["lo_import", "lo_export"]) {
            Some(Self::LargeObjectFiles)
        } else if begins(&["pg_read_file", "pg_read_binary_file", "pg_ls_", "pg_stat_file", "pg_file_", "pg_logdir_ls"]) {
            Some(Self::ServerFiles)
        } else if begins(&[
            "pg_create_logical_replication_slot",
            "pg_create_physical_replication_slot",
            "pg_copy_logical_replication_slot",
            "pg_copy_physical_replication_slot",
            "pg_logical_slot_",
            "pg_replication_slot_advance",
            "pg_sync_replication_slots",
        ]) {
            Some(Self::ReplicationSlots)
        } else if begins(&["http_get", "http_post", "http_put", "http_patch", "http_delete", "http_head", "query_export_to_s3"]) {
            Some(Self::NetworkExtensions)
        } else {
            None
        }
    }

    /// The guard of one of PostgreSQL's own functions, by its number in `pg_proc`, which never changes. Functions that were made later
    /// have numbers from [`FIRST_NORMAL_OBJECT`] on.
    pub fn of_function_number(number: u32) -> Option<Self> {
        match number {
            FIRST_NORMAL_OBJECT.. => Some(Self::FunctionCalls),
            764 | 765 | 767 => Some(Self::LargeObjectFiles),
            // pg_stat_file, pg_read_file, pg_read_binary_file, pg_ls_dir and its kin, in the order of versions 9.1 to 18.
            2623..=2625
            | 3293
            | 3295
            | 3297
            | 3307
            | 3826..=3828
            | 6208
            | 6209
            | 3353
            | 3354
            | 5029..=5031
            | 6270..=6272
            | 8504
            | 8505
            | 9220 => Some(Self::ServerFiles),
            3779 | 3782..=3786 | 3878 | 4220..=4224 | 9929 => Some(Self::ReplicationSlots),
            // query_to_xml and its kin, ts_stat and ts_rewrite run a text that is among the arguments.
            2924 | 2927 | 2930 | 3684 | 3685 | 3689 | 3690 => Some(Self::FunctionCalls),
            _ => None,
        }
    }

    /// The guard of an extension, by its name.
    pub(super) fn of_extension(name: &str) -> Option<Self> {
        let has = |parts: &[&str]| parts.iter().any(|part| name.contains(part));
        if name.starts_with("dblink") {
            Some(Self::Dblink)
        } else if has(&["fdw", "multicorn", "wrappers", "plproxy", "citus"]) {
            Some(Self::ForeignData)
        } else if has(&["plpython", "plperlu", "pltclu", "plluau", "pljava", "plsh", "plr"]) && name != "plrust" {
            Some(Self::UntrustedLanguages)
        } else if name == "adminpack" || name == "orafce" {
            Some(Self::ServerFiles)
        } else if name.starts_with("pglogical") {
            Some(Self::Subscriptions)
        } else if has(&["http", "pg_net", "curl", "aws_", "azure", "amqp", "kafka", "pg_background", "pg_cron", "pg_tle"]) {
            Some(Self::NetworkExtensions)
        } else {
            None
        }
    }

    /// The guard of a language: of every one that is not known to be harmless.
    pub(super) fn of_language(name: &str) -> Option<Self> {
        (!TRUSTED_LANGUAGES.contains(&name)).then_some(Self::UntrustedLanguages)
    }
}

/// The languages in which code can do no more than SQL can.
const TRUSTED_LANGUAGES: &[&str] = &["sql", "plpgsql", "plperl", "pltcl", "plv8", "plcoffee", "plls", "pllua", "plrust"];

/// Whether a function runs a text that it is given as a statement.
pub(super) fn runs_text(function: &str) -> bool {
    let begins = |prefix| function.starts_with(prefix);
    begins("query_to_xml") || begins("crosstab") || matches!(function, "ts_stat" | "ts_rewrite" | "connectby" | "xpath_table")
}

/// PostgreSQL's `FirstNormalObjectId` (transam.h).
const FIRST_NORMAL_OBJECT: u32 = 16_384;

/// A set of guards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct GuardSet(u16);

impl GuardSet {
    /// No guard.
    pub const NONE: Self = Self(0);

    /// Whether there is none in it.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether `guard` is in it.
    pub fn contains(self, guard: Guard) -> bool {
        self.0 & Self::from(guard).0 != 0
    }

    /// The first that is in both.
    pub fn first_common(self, other: Self) -> Option<Guard> {
        let common = Self(self.0 & other.0);
        if common.is_empty() { None } else { Guard::ALL.into_iter().find(|guard| common.contains(*guard)) }
    }
}

impl From<Guard> for GuardSet {
    fn from(guard: Guard) -> Self {
        Self(1 << guard as u16)
    }
}

impl From<Option<Guard>> for GuardSet {
    fn from(guard: Option<Guard>) -> Self {
        guard.map_or(Self::NONE, Self::from)
    }
}

impl FromIterator<Guard> for GuardSet {
    fn from_iter<T: IntoIterator<Item = Guard>>(guards: T) -> Self {
        guards.into_iter().map(Self::from).fold(Self::NONE, |all, one| all | one)
    }
}

impl BitOr for GuardSet {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for GuardSet {
    fn bitor_assign(&mut self, other: Self) {
        *self = *self | other;
    }
}
