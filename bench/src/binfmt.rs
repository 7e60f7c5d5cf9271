//! The kernel's registration of the emulator (binfmt_misc), which the reference engine needs for the other platform.
//!
//! Ours has one of its own, in a user namespace. The reference's is the machine's: it is made for the run, from the line that
//! the package of the emulator brings, under a name of our own. Newer kernels forget it with the last mount of the file
//! system, thus with the run's name spaces; elsewhere it is removed.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};
use buildyard_tests::emulator;

/// The name of our registration. One that a killed run left has it too.
const NAME: &str = "buildyard-bench";
/// Where the kernel's documentation has it mounted.
const DIR: &str = "/proc/sys/fs/binfmt_misc";

/// Registers the emulator unless somebody else has; done inside, whose mounts end with the run.
///
/// # Errors
/// The package is not there, or the kernel refuses.
pub(crate) fn register() -> anyhow::Result<()> {
    let program = Path::new(emulator())
        .file_name()
        .and_then(|name| name.to_str())
        .and_then(|name| name.strip_suffix("-static"))
        .context("the emulator has a name")?;
    let file = format!("/usr/lib/binfmt.d/{program}.conf");
    let line = std::fs::read_to_string(&file)
        .with_context(|| format!("reading {file}, which qemu-user-static should have brought"))?;
    let line = ours(&line, program).with_context(|| format!("{file} has no line for {program}"))?;
    // The new /proc of the name spaces has none mounted.
    run(Command::new("mount").args(["-t", "binfmt_misc", "binfmt_misc", DIR]))?;
    if Path::new(DIR).join(NAME).exists() || others_have(program) {
        return Ok(());
    }
    std::fs::write(Path::new(DIR).join("register"), &line)
        .with_context(|| format!("the kernel does not take {line:?}"))
}

/// Whether the machine has a registration that works in containers: the kernel has its program open (flag F).
fn others_have(program: &str) -> bool {
    let entries = std::fs::read_dir(DIR).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(program))
        .filter_map(|entry| std::fs::read_to_string(entry.path()).ok())
        .any(|text| works(&text))
}

fn works(entry: &str) -> bool {
    let flags = entry.lines().find_map(|line| line.strip_prefix("flags:"));
    entry.starts_with("enabled") && flags.is_some_and(|flags| flags.contains('F'))
}

/// Removes what [`register`] made if the kernel has kept it; done outside, when all is over.
///
/// # Errors
/// It stays behind.
pub(crate) fn forget() -> anyhow::Result<()> {
    let script = format!(
        "mount -t binfmt_misc binfmt_misc {DIR}; [ ! -e {DIR}/{NAME} ] || printf %s -1 > {DIR}/{NAME}"
    );
    // Mounted in a name space that ends with the shell.
    run(Command::new("unshare").args(["--mount", "--", "sh", "-euc", &script]))
        .with_context(|| format!("the registration {NAME} in binfmt_misc may stay behind"))
}

/// The package's line under our name.
fn ours(text: &str, program: &str) -> Option<String> {
    let mut lines = text.lines().map(str::trim);
    let rest = lines.find_map(|line| line.strip_prefix(&format!(":{program}:")))?;
    Some(format!(":{NAME}:{rest}"))
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let output = command
        .output()
        .with_context(|| format!("running {command:?}"))?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        bail!("{command:?}: {}: {}", output.status, errors.trim());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_packages_line_gets_our_name() {
        let check = |text, expected: Option<&str>| {
            assert_eq!(ours(text, "qemu-aarch64").as_deref(), expected);
        };
        check(
            "# a note\n:qemu-aarch64:M::\\x7f:\\xff:/usr/bin/qemu:OPF\n",
            Some(":buildyard-bench:M::\\x7f:\\xff:/usr/bin/qemu:OPF"),
        );
        check(":qemu-aarch64_be:M::\\x7f:\\xff:/usr/bin/qemu:OPF", None);
    }

    #[test]
    fn only_what_works_in_containers_counts() {
        let check = |text, expected| assert_eq!(works(text), expected, "{text}");
        check("enabled\ninterpreter /usr/bin/qemu\nflags: POCF\n", true);
        check("enabled\ninterpreter /usr/bin/qemu\nflags: OC\n", false);
        check("disabled\ninterpreter /usr/bin/qemu\nflags: F\n", false);
    }
}
