//! The kernel's programs, as they were built: which there are, where each belongs, and how they are loaded.

use std::path::Path;

use aya::programs::{Program, ProgramError};
use aya::{Ebpf, EbpfError, EbpfLoader};

use super::Absent;
use super::sys::AttachType;

/// What `cargo xtask ebpf` has built from `ebpf/`.
static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("DOMICILE_EBPF_OBJECT"));

/// The programs of the cgroup, in the order in which they are attached: what the others go by comes first.
pub(super) const PROGRAMS: [(&str, AttachType); 9] = [
    ("setsockopt_tag", AttachType::Setsockopt),
    ("ingress_count", AttachType::Ingress),
    ("sockops_states", AttachType::SockOps),
    ("egress_verify", AttachType::Egress),
    ("create_limit", AttachType::SockCreate),
    ("sendmsg4_allow", AttachType::Sendmsg4),
    ("sendmsg6_allow", AttachType::Sendmsg6),
    ("connect4_allow", AttachType::Connect4),
    ("connect6_allow", AttachType::Connect6),
];
/// The program that chooses a worker; listening sockets have it, not the cgroup.
pub(super) const STEER: &str = "reuseport_steer";

/// The maps, which are also the names of their pins.
pub(super) const MAPS: [&str; 11] =
    ["allow", "sockets", "flows", "nodes", "events", "policy", "workers", "steering", "listeners", "denials", "names"];

/// Loads all programs and makes the maps, or opens those that are pinned in `pins` already.
pub(super) fn load(pins: &Path) -> Result<Ebpf, Absent> {
    let mut loader = EbpfLoader::new();
    for map in MAPS {
        loader.map_pin_path(map, pins.join(map));
    }
    let mut object = loader.load(OBJECT).map_err(|error| refused(&error))?;
    for (name, program) in object.programs_mut() {
        load_program(program).map_err(|error| refused_program(name, &error))?;
    }
    Ok(object)
}

fn load_program(program: &mut Program) -> Result<(), ProgramError> {
    match program {
        Program::CgroupSockopt(program) => program.load(),
        Program::CgroupSkb(program) => program.load(),
        Program::SockOps(program) => program.load(),
        Program::CgroupSock(program) => program.load(),
        Program::CgroupSockAddr(program) => program.load(),
        Program::SkReuseport(program) => program.load(),
        _ => Err(ProgramError::UnexpectedProgramType),
    }
}

fn refused(error: &EbpfError) -> Absent {
    Absent::ObjectRefused { text: with_causes(error) }
}

/// The last line of the verifier's log says what it did not like; the whole of it is for `cargo xtask ebpf --stats`.
fn refused_program(name: &str, error: &ProgramError) -> Absent {
    let text = match error {
        ProgramError::LoadError { io_error, verifier_log } => {
            let log = verifier_log.to_string();
            let last = log.lines().rev().find(|line| !line.starts_with("processed") && !line.trim().is_empty());
            format!("{name}: {io_error}{}", last.map_or_else(String::new, |line| format!(" ({line})")))
        }
        error => format!("{name}: {}", with_causes(error)),
    };
    Absent::ObjectRefused { text }
}

/// An error with what caused it.
pub(super) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_object_has_what_is_attached_and_pinned() {
        let object = aya_obj_names();
        for name in PROGRAMS.map(|(name, _)| name).iter().chain(&MAPS).chain([&STEER]) {
            assert!(object.contains(&(*name).to_owned()), "{name}");
            assert!(name.len() <= 15, "the kernel cuts {name} off");
        }
    }

    /// All strings of the object's symbol table.
    fn aya_obj_names() -> Vec<String> {
        let zero_ended = OBJECT.split(|byte| *byte == 0);
        zero_ended.filter_map(|name| String::from_utf8(name.to_vec()).ok()).collect()
    }
}
