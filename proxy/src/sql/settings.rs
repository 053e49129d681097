//! Names and values of settings: which are the region's, and which would change how the texts themselves are to be read.

use super::facts::Refusal;
use crate::wire::SqlState;

/// The setting that names the node of the session's backend. It can only be shown.
pub const NODE_SETTING: &str = "domicile.node";

/// The configured region parameters.
pub(super) struct Parameters(Box<[Box<str>]>);

impl Parameters {
    pub(super) fn new(names: &[String]) -> Self {
        Self(names.iter().map(|name| name.as_str().into()).collect())
    }

    /// The parameter that `name` names, as the configuration spells it.
    pub(super) fn find(&self, name: &str) -> Option<&str> {
        self.0.iter().map(|parameter| &**parameter).find(|parameter| is_same_setting(parameter, name))
    }
}

/// Whether two names are the same setting: PostgreSQL's `guc_name_compare` folds A to Z and nothing else.
pub(super) fn is_same_setting(one: &str, other: &str) -> bool {
    one.eq_ignore_ascii_case(other)
}

/// Why a session must not be given this value of this setting (22023), whether by a statement or in its StartupMessage.
///
/// Statements are read here in an encoding whose characters contain no ASCII bytes. In another one a quote might end a string for one
/// side only.
pub fn refused_setting(name: &str, value: &str) -> Option<Refusal> {
    (is_guarded(name) && has_ascii_trail_bytes(value)).then(|| Refusal {
        sqlstate: SqlState::INVALID_PARAMETER_VALUE,
        message: format!("invalid value for parameter \"client_encoding\": \"{value}\"").into(),
        hint: Some("Characters of this encoding contain ASCII bytes, so statements in it can not be read; use UTF8."),
    })
}

/// Whether only a harmless value can be given to this setting, see [`refused_setting`].
pub(super) fn is_guarded(name: &str) -> bool {
    is_same_setting(name, "client_encoding")
}

/// PostgreSQL's client-only encodings (pg_wchar.h) under all their names (encnames.c), which compare by letters and digits only.
fn has_ascii_trail_bytes(encoding: &str) -> bool {
    let name: String = encoding.chars().filter(char::is_ascii_alphanumeric).map(|letter| letter.to_ascii_lowercase()).collect();
    matches!(
        name.as_str(),
        "sjis"
            | "mskanji"
            | "shiftjis"
            | "win932"
            | "windows932"
            | "shiftjis2004"
            | "big5"
            | "win950"
            | "windows950"
            | "gbk"
            | "win936"
            | "windows936"
            | "uhc"
            | "win949"
            | "windows949"
            | "gb18030"
            | "johab"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_change_how_texts_are_read_are_refused() {
        for value in
            ["SJIS", "Shift_JIS", "MS-Kanji", "windows932", "SHIFT_JIS_2004", "Big5", "WIN 950", "gbk", "UHC", "gb18030", "JOHAB"]
        {
            assert!(refused_setting("CLIENT_ENCODING", value).is_some(), "{value}");
        }
        for value in ["UTF8", "utf-8", "LATIN1", "EUC_JP", "SQL_ASCII", "WIN1252", "EUC_JIS_2004", "EUC_TW", "MULE_INTERNAL"] {
            assert_eq!(refused_setting("client_encoding", value), None, "{value}");
        }
        assert_eq!(refused_setting("application_name", "SJIS"), None);
    }

    #[test]
    fn names_fold_ascii_and_nothing_else() {
        let parameters = Parameters::new(&["Helios.region".to_owned()]);
        assert_eq!(parameters.find("helios.REGION"), Some("Helios.region"));
        assert_eq!(parameters.find("helios.reg\u{131}on"), None);
        assert_eq!(Parameters::new(&["app.kreis".to_owned()]).find("app.\u{212a}reis"), None);
    }
}
