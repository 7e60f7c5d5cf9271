//! Registering an emulator with the machine itself.

use std::fs;
use std::io;
use std::path::Path;

use rustix::mount::MountFlags;

use super::architecture::Architecture;

const DIRECTORY: &str = "/proc/sys/fs/binfmt_misc";

/// Registers `interpreter`, mounting `binfmt_misc` first if nobody has. The registration outlives the worker.
pub(super) fn register(architecture: &Architecture, interpreter: &Path) -> io::Result<()> {
    let register = Path::new(DIRECTORY).join("register");
    if !register.exists() {
        rustix::mount::mount(
            "binfmt_misc",
            DIRECTORY,
            "binfmt_misc",
            MountFlags::empty(),
            None,
        )?;
    }
    let entry = Path::new(DIRECTORY).join(architecture.entry_name());
    if entry.exists() {
        // From an earlier worker, perhaps with an emulator that is gone: -1 removes it.
        fs::write(&entry, "-1")?;
    }
    fs::write(&register, architecture.registration(interpreter))
}
