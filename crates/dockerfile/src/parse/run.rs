//! RUN: its flags and command. The fields of mounts are only split here: variables in them are expanded first.

use super::Request;
use super::flags::{Flags, Takes};
use crate::error::Fault;
use crate::instruction::{CommandLine, MountFlag, Network, Run};
use crate::suggest::nearest;

const FLAGS: [(&str, Takes); 4] = [
    ("mount", Takes::Many),
    ("network", Takes::One),
    ("security", Takes::One),
    ("device", Takes::Many),
];

pub(super) fn run(request: &mut Request) -> Result<Run, Fault> {
    let flags = Flags::parse(&request.parts.flags, &FLAGS)?;
    let command = request.shell_or_exec()?;
    if matches!(&command, CommandLine::Exec(args) if args.is_empty()) {
        return Err(Fault::new("RUN requires at least one argument"));
    }
    if !flags.all("device").is_empty() {
        return Err(Fault::new("--device is not supported yet").at("--device"));
    }
    security(&flags)?;
    let mounts = flags
        .all("mount")
        .iter()
        .map(|flag| mount(flag))
        .collect::<Result<_, _>>()?;
    let network = network(&flags)?;
    Ok(Run {
        command,
        heredocs: std::mem::take(&mut request.heredocs),
        mounts,
        network,
    })
}

fn network(flags: &Flags) -> Result<Network, Fault> {
    match flags.text("network").as_deref() {
        None | Some("default") => Ok(Network::Default),
        Some("none") => Ok(Network::None),
        Some("host") => Ok(Network::Host),
        Some(other) => Err(
            Fault::new(format!("network mode {other:?} is not supported"))
                .at("--network")
                .suggest(nearest(other, ["default", "none", "host"])),
        ),
    }
}

fn security(flags: &Flags) -> Result<(), Fault> {
    let refuse = |message: String| Fault::new(message).at("--security");
    match flags.text("security").as_deref() {
        None | Some("sandbox") => Ok(()),
        Some("insecure") => Err(refuse(
            "--security=insecure is not supported: steps never run privileged".to_owned(),
        )),
        Some(other) => Err(refuse(format!("security {other:?} is not supported"))),
    }
}

/// Splits a mount's fields and takes `from` out of them.
fn mount(flag: &str) -> Result<MountFlag, Fault> {
    let fields = crate::csv::fields(flag).map_err(|problem| Fault::new(problem).at("--mount"))?;
    let mut from = None;
    for field in &fields {
        let (key, value) = field.split_once('=').unwrap_or((field, ""));
        if key.eq_ignore_ascii_case("from") {
            if value.find('$').is_some_and(|at| at + 1 < value.len()) {
                let message =
                    "'from' doesn't support variable expansion, define alias stage instead";
                return Err(Fault::new(message).at(value));
            }
            from = Some(value.to_owned()).filter(|value| !value.is_empty());
        }
    }
    Ok(MountFlag { fields, from })
}
