//! Packages of Debian and Ubuntu: installing them, and unpacking some into a folder without installing them.
//!
//! Where packages come from is always the machine's own configuration of apt; nothing here names a server.

mod fetch;
mod os;
mod sources;

pub(crate) use fetch::{Fetch, fetch};
pub(crate) use os::Os;

use std::process::Command;

use crate::command::{execute, is_root};

/// Installs packages with one update of the package lists before.
///
/// # Errors
/// No rights to do so, or apt fails.
pub(crate) fn install(packages: &[&str]) -> anyhow::Result<()> {
    execute(apt_get().arg("--quiet=2").arg("update"))?;
    execute(
        apt_get()
            .args(["--quiet=2", "--yes", "--no-install-recommends", "install"])
            .args(packages),
    )
}

fn apt_get() -> Command {
    let mut command = if is_root() {
        Command::new("apt-get")
    } else {
        let mut sudo = Command::new("sudo");
        sudo.args(["DEBIAN_FRONTEND=noninteractive", "apt-get"]);
        sudo
    };
    command.env("DEBIAN_FRONTEND", "noninteractive");
    command
}
