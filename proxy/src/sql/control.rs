//! What the control statements say: SET, RESET, SHOW, DISCARD, DEALLOCATE and transaction control, read from their parse trees.

use pg_query::NodeEnum;
use pg_query::protobuf::{DiscardMode, Node, TransactionStmt, TransactionStmtKind, VariableSetKind, VariableSetStmt, a_const};

use super::facts::{Extent, Kind, Refusal, SessionState};
use super::settings::{NODE_SETTING, Parameters, is_same_setting, refused_setting};
use crate::wire::SqlState;

/// The meaning of a control statement.
pub(super) fn kind(tree: NodeEnum, parameters: &Parameters) -> Kind {
    match tree {
        NodeEnum::TransactionStmt(statement) => transaction(statement),
        NodeEnum::VariableSetStmt(statement) => set(&statement, parameters),
        NodeEnum::VariableShowStmt(statement) => show(&statement.name, parameters),
        NodeEnum::DeallocateStmt(statement) => {
            Kind::Deallocate { name: (!statement.name.is_empty()).then(|| statement.name.into()) }
        }
        NodeEnum::DiscardStmt(statement) if statement.target() == DiscardMode::DiscardAll => Kind::DiscardAll,
        _ => Kind::Other { state: None },
    }
}

fn transaction(statement: TransactionStmt) -> Kind {
    let chain = statement.chain;
    match statement.kind() {
        TransactionStmtKind::TransStmtBegin | TransactionStmtKind::TransStmtStart => Kind::Begin,
        TransactionStmtKind::TransStmtCommit => Kind::Commit { chain },
        TransactionStmtKind::TransStmtRollback => Kind::Rollback { chain },
        TransactionStmtKind::TransStmtSavepoint => Kind::Savepoint { name: statement.savepoint_name.into() },
        TransactionStmtKind::TransStmtRelease => Kind::Release { name: statement.savepoint_name.into() },
        TransactionStmtKind::TransStmtRollbackTo => Kind::RollbackTo { name: statement.savepoint_name.into() },
        TransactionStmtKind::TransStmtPrepare => Kind::PrepareTransaction,
        TransactionStmtKind::TransStmtCommitPrepared | TransactionStmtKind::TransStmtRollbackPrepared => {
            Kind::Other { state: None }
        }
        TransactionStmtKind::Undefined => {
            refused(SqlState::FEATURE_NOT_SUPPORTED, "this transaction statement is not supported".to_owned(), None)
        }
    }
}

fn show(name: &str, parameters: &Parameters) -> Kind {
    if let Some(parameter) = parameters.find(name) {
        Kind::ShowRegion { column: parameter.into() }
    } else if is_same_setting(name, NODE_SETTING) {
        Kind::ShowNode { column: NODE_SETTING.into() }
    } else {
        Kind::Other { state: None }
    }
}

fn set(statement: &VariableSetStmt, parameters: &Parameters) -> Kind {
    let local = statement.is_local;
    let is_ours = parameters.find(&statement.name).is_some();
    match statement.kind() {
        VariableSetKind::VarSetValue if is_ours => set_region(statement),
        VariableSetKind::VarSetValue => set_other(statement),
        VariableSetKind::VarSetDefault | VariableSetKind::VarReset if is_ours => Kind::ResetRegion { local },
        VariableSetKind::VarSetDefault if local => other(&statement.name, Extent::Transaction),
        VariableSetKind::VarSetDefault | VariableSetKind::VarReset => other(&statement.name, Extent::Start),
        VariableSetKind::VarSetCurrent if is_ours => refused(
            SqlState::FEATURE_NOT_SUPPORTED,
            format!("SET {} FROM CURRENT is not supported", statement.name),
            Some("Name the region in a SET."),
        ),
        VariableSetKind::VarSetCurrent => other(&statement.name, extent(local)),
        VariableSetKind::VarResetAll => Kind::ResetAll,
        // PostgreSQL's gram.y names these three, in capitals, which no setting is named in.
        VariableSetKind::VarSetMulti => match statement.name.as_str() {
            "TRANSACTION" => Kind::SetTransaction,
            "SESSION CHARACTERISTICS" => other("", Extent::Session),
            _ => Kind::Other { state: None },
        },
        VariableSetKind::Undefined => {
            refused(SqlState::FEATURE_NOT_SUPPORTED, "this form of SET is not supported".to_owned(), None)
        }
    }
}

fn set_region(statement: &VariableSetStmt) -> Kind {
    let [argument] = statement.args.as_slice() else {
        return refused(SqlState::INVALID_PARAMETER_VALUE, format!("SET {} takes only one argument", statement.name), None);
    };
    if let Some(value) = value(argument) {
        return Kind::SetRegion { value: value.into(), local: statement.is_local };
    }
    // libpg_query's grammar takes a parameter here, PostgreSQL's does not. No other value can stand here.
    let parameter = match &argument.node {
        Some(NodeEnum::ParamRef(parameter)) => parameter.number,
        _ => 0,
    };
    refused(SqlState::SYNTAX_ERROR, format!("syntax error at or near \"${parameter}\""), None)
}

fn set_other(statement: &VariableSetStmt) -> Kind {
    let values = || statement.args.iter().filter_map(value);
    if let Some(refusal) = values().find_map(|value| refused_setting(&statement.name, &value)) {
        return Kind::Refused(refusal);
    }
    // Whatever is created while pg_temp is in the path may be a temporary object.
    if is_same_setting(&statement.name, "search_path") && values().any(|schema| schema.to_ascii_lowercase().contains("pg_temp")) {
        return Kind::Other { state: Some(SessionState::TemporaryTable) };
    }
    other(&statement.name, extent(statement.is_local))
}

fn other(name: &str, extent: Extent) -> Kind {
    Kind::SetOther { name: name.into(), extent }
}

fn extent(local: bool) -> Extent {
    if local { Extent::Transaction } else { Extent::Session }
}

/// One value of a SET, as PostgreSQL's `flatten_set_variable_args` writes it.
fn value(argument: &Node) -> Option<String> {
    let Some(NodeEnum::AConst(constant)) = &argument.node else { return None };
    match constant.val.as_ref()? {
        a_const::Val::Sval(text) => Some(text.sval.clone()),
        a_const::Val::Ival(integer) => Some(integer.ival.to_string()),
        a_const::Val::Fval(float) => Some(float.fval.clone()),
        a_const::Val::Boolval(_) | a_const::Val::Bsval(_) => None,
    }
}

fn refused(sqlstate: SqlState, message: String, hint: Option<&'static str>) -> Kind {
    Kind::Refused(Refusal { sqlstate, message: message.into(), hint })
}
