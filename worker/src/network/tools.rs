//! Entering network namespaces, and the programs that make rules for them: `nft`, and `iptables` where the machine
//! forwards nothing by default.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::process::{Command, Output, Stdio};

use rustix::thread::LinkNameSpaceType;

use super::NetworkError;

/// Runs `work` on a thread in the network namespace of `file`.
pub(super) fn inside<T: Send>(
    file: &File,
    work: impl FnOnce() -> Result<T, NetworkError> + Send,
) -> Result<T, NetworkError> {
    let what = "entering a network namespace";
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            rustix::thread::move_into_link_name_space(
                file.as_fd(),
                Some(LinkNameSpaceType::Network),
            )
            .map_err(|errno| NetworkError::io(what)(errno.into()))?;
            work()
        });
        thread.join().unwrap_or_else(|_| {
            Err(NetworkError::io(what)(io::Error::other(
                "the thread panicked",
            )))
        })
    })
}

/// Feeds rules to `nft`; all or none take effect.
pub(super) fn nft(what: &'static str, rules: &str) -> Result<(), NetworkError> {
    feed(
        Command::new("nft").args(["-f", "-"]),
        "nft",
        "nftables",
        what,
        rules,
    )
}

/// What `iptables` prints; `None` if it is not there or refuses.
pub(super) fn iptables(arguments: &[&str]) -> Option<String> {
    let output = Command::new("iptables")
        .arg("-w")
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

fn feed(
    command: &mut Command,
    program: &'static str,
    package: &'static str,
    what: &'static str,
    text: &str,
) -> Result<(), NetworkError> {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut child = command.spawn().map_err(missing(program, package))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that has refused already does not read on; its status says so.
        let _ = stdin.write_all(text.as_bytes());
    }
    let output = child.wait_with_output().map_err(NetworkError::io(what))?;
    judge(output, what).map(drop)
}

fn judge(output: Output, what: &'static str) -> Result<Output, NetworkError> {
    if output.status.success() {
        return Ok(output);
    }
    Err(NetworkError::Refused {
        what,
        message: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}

fn missing(program: &'static str, package: &'static str) -> impl FnOnce(io::Error) -> NetworkError {
    move |source| NetworkError::Missing {
        program,
        package,
        source,
    }
}
