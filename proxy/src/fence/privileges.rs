//! Giving up what only the start needs: the user, the capabilities, and the way back to them.

use nix::unistd::{Gid, Uid, User, initgroups, setresgid, setresuid};
use rustix::thread::{CapabilitySet, CapabilitySets, remove_capability_from_bounding_set, set_capabilities, set_no_new_privs};

use super::Absent;

/// The group of a user, for what it is given access to.
pub(super) fn group_of(user: &str) -> Result<u32, Absent> {
    find(user).map(|user| user.gid.as_raw()).map_err(|text| Absent::failed("user", text))
}

fn find(user: &str) -> Result<User, String> {
    match User::from_name(user) {
        Ok(Some(found)) => Ok(found),
        Ok(None) => Err(format!("there is no user \"{user}\" on this host")),
        Err(error) => Err(format!("looking for user \"{user}\": {error}")),
    }
}

/// What a process is left with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Privileges {
    /// It had none to give up.
    None,
    /// It is this user now.
    User(String),
    /// It has no capabilities any more; but it is still root's, which owns files that could undo the fence.
    StillRoot,
}

/// Becomes `user`, or gives up all capabilities if there is none to become. Nothing that is executed from here on gets more.
///
/// Capabilities are the thread's: this is called before there are others.
///
/// # Errors
/// The user is not there, or cannot be become.
pub fn drop_privileges(user: Option<&str>) -> Result<Privileges, String> {
    if !rustix::process::geteuid().is_root() {
        return match user {
            Some(user) if find(user)?.uid != Uid::effective() => Err(format!("only root can become user \"{user}\"")),
            Some(_) | None => Ok(Privileges::None),
        };
    }
    set_no_new_privs(true).map_err(|error| format!("PR_SET_NO_NEW_PRIVS: {error}"))?;
    for capability in CapabilitySet::all().iter() {
        // One that this kernel does not have cannot be got either.
        if let Err(error) = remove_capability_from_bounding_set(capability) {
            tracing::trace!(?capability, %error, "not in the bounding set");
        }
    }
    let become_user = |user: &User| {
        let name = std::ffi::CString::new(user.name.as_str()).map_err(|_| nix::Error::EINVAL)?;
        initgroups(&name, user.gid)?;
        setresgid(user.gid, user.gid, user.gid)?;
        setresuid(user.uid, user.uid, user.uid)
    };
    if let Some(name) = user {
        let user = find(name)?;
        become_user(&user).map_err(|error| format!("becoming user \"{name}\": {error}"))?;
        if Uid::effective() != user.uid || Gid::effective() != user.gid {
            return Err(format!("user \"{name}\" was not become"));
        }
    }
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, none).map_err(|error| format!("giving up capabilities: {error}"))?;
    Ok(user.map_or(Privileges::StillRoot, |user| Privileges::User(user.to_owned())))
}
