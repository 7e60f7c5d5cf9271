//! Instructions that change the image's configuration. WORKDIR makes a directory too.

use bollard_buildkit_proto::pb;
use buildyard_llb::build::Node;

use super::action::owner;
use super::env::set_in_list;
use super::name::uppercase_keyword;
use super::path::normalize;
use super::quote::{list, quoted_list, quoted_number};
use super::stage::Running;
use super::{expose, run, signal};
use crate::duration;
use crate::error::Problem;
use crate::instruction::{Argument, CommandLine, Kind, Pair};
use buildyard_image::Healthcheck;

/// Arguments that never become variables.
const NO_VARIABLES: [&str; 2] = ["BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"];

pub(super) fn configure(running: &mut Running<'_, '_>, kind: &Kind) -> Result<(), Problem> {
    match kind {
        Kind::Arg(arguments) => argument(running, arguments),
        Kind::Cmd(command) => cmd(running, command),
        Kind::Entrypoint(command) => entrypoint(running, command),
        Kind::Env(pairs) => env(running, pairs),
        Kind::Expose(ports) => expose::expose(running, ports),
        Kind::Healthcheck(check) => healthcheck(running, check),
        Kind::Label(pairs) => label(running, pairs),
        Kind::Maintainer(name) => maintainer(running, name),
        Kind::Onbuild(trigger) => {
            running
                .config()
                .on_build
                .get_or_insert_default()
                .push(trigger.clone());
            Ok(())
        }
        Kind::Shell(shell) => {
            running.config().shell = Some(shell.clone());
            running.history(format!("SHELL {}", list(shell)), true)
        }
        Kind::StopSignal(text) => stop_signal(running, text),
        Kind::User(text) => user(running, text),
        Kind::Volume(volumes) => volume(running, volumes),
        Kind::Add(_) | Kind::Copy(_) | Kind::From(_) | Kind::Run(_) | Kind::Workdir(_) => Ok(()),
    }
}

fn argument(running: &mut Running<'_, '_>, arguments: &[Argument]) -> Result<(), Problem> {
    let mut text = String::from("ARG");
    for argument in arguments {
        let given = running.work.options.build_args.get(&argument.name).cloned();
        let value = match (given, &argument.default) {
            (Some(given), _) => Some(given),
            (None, Some(default)) => Some(running.expand(default)?),
            (None, None) => running.target.globals.get(&argument.name).cloned(),
        };
        text.push_str(&format!(" {}", argument.name));
        if let Some(value) = &value {
            text.push_str(&format!("={value}"));
            if !NO_VARIABLES.contains(&argument.name.as_str()) {
                running.stage.state.env.set(&argument.name, value);
            }
        }
        running.stage.arguments.push(Argument {
            name: argument.name.clone(),
            default: value,
        });
    }
    running.history(text, true)
}

fn cmd(running: &mut Running<'_, '_>, command: &CommandLine) -> Result<(), Problem> {
    let args = run::arguments(running, command);
    let text = format!("CMD {}", quoted_list(&args));
    running.stage.has_cmd = true;
    running.config().cmd = Some(args).filter(|args| !args.is_empty());
    running.config().args_escaped = true;
    running.history(text, true)
}

fn entrypoint(running: &mut Running<'_, '_>, command: &CommandLine) -> Result<(), Problem> {
    let args = run::arguments(running, command);
    let text = format!("ENTRYPOINT {}", quoted_list(&args));
    running.config().entrypoint = Some(args).filter(|args| !args.is_empty());
    // A base image's default arguments are not those of another program.
    if !running.stage.has_cmd {
        running.config().cmd = None;
    }
    running.history(text, true)
}

fn expand_pair(running: &mut Running<'_, '_>, pair: &Pair) -> Result<(String, String), Problem> {
    Ok((running.expand(&pair.name)?, running.expand(&pair.value)?))
}

/// All pairs of one instruction see the variables as they were before it.
fn env(running: &mut Running<'_, '_>, pairs: &[Pair]) -> Result<(), Problem> {
    let pairs: Vec<_> = pairs
        .iter()
        .map(|pair| expand_pair(running, pair))
        .collect::<Result<_, _>>()?;
    let mut text = String::from("ENV");
    for (name, value) in pairs {
        text.push_str(&format!(" {name}={value}"));
        running.stage.state.env.set(&name, &value);
        let list = running.config().env.get_or_insert_default();
        set_in_list(list, &name, &value);
        let entries = list.len();
        running.work.spend(entries)?;
    }
    running.history(text, true)
}

fn label(running: &mut Running<'_, '_>, pairs: &[Pair]) -> Result<(), Problem> {
    let mut text = String::from("LABEL");
    for pair in pairs {
        let (name, value) = expand_pair(running, pair)?;
        text.push_str(&format!(" {name}={value}"));
        running
            .config()
            .labels
            .get_or_insert_default()
            .insert(name, value);
    }
    running.history(text, true)
}

fn maintainer(running: &mut Running<'_, '_>, name: &str) -> Result<(), Problem> {
    running.stage.image.author = name.to_owned();
    running.history(format!("MAINTAINER {name}"), true)
}

fn user(running: &mut Running<'_, '_>, text: &str) -> Result<(), Problem> {
    let user = running.expand(text)?;
    running.stage.state.user.clone_from(&user);
    running.config().user.clone_from(&user);
    running.history(format!("USER {user}"), true)
}

fn volume(running: &mut Running<'_, '_>, volumes: &[String]) -> Result<(), Problem> {
    let volumes: Vec<_> = volumes
        .iter()
        .map(|volume| running.expand(volume))
        .collect::<Result<_, _>>()?;
    if volumes.iter().any(String::is_empty) {
        return Err(Problem::Invalid(
            "VOLUME specified can not be an empty string".to_owned(),
        ));
    }
    let set = running.config().volumes.get_or_insert_default();
    set.extend(
        volumes
            .iter()
            .map(|volume| (volume.clone(), Default::default())),
    );
    running.history(format!("VOLUME {}", list(&volumes)), true)
}

fn stop_signal(running: &mut Running<'_, '_>, text: &str) -> Result<(), Problem> {
    let signal = running.expand(text)?;
    if !signal::is_signal(&signal) {
        return Err(Problem::Invalid(format!("invalid signal: {signal}")));
    }
    running.config().stop_signal.clone_from(&signal);
    running.history(format!("STOPSIGNAL {signal}"), true)
}

fn healthcheck(running: &mut Running<'_, '_>, check: &Healthcheck) -> Result<(), Problem> {
    let text = format!(
        "HEALTHCHECK &{{{} \"{}\" \"{}\" \"{}\" \"{}\" {}}}",
        quoted_list(&check.test),
        duration::format(check.interval),
        duration::format(check.timeout),
        duration::format(check.start_period),
        duration::format(check.start_interval),
        quoted_number(check.retries),
    );
    running.config().healthcheck = Some(check.clone());
    running.history(text, true)
}

/// WORKDIR: makes the directory, owned by the current user.
pub(super) fn workdir(
    running: &mut Running<'_, '_>,
    path: &str,
    original: &str,
) -> Result<(), Problem> {
    let path = running.expand(path)?;
    let current = running.stage.image.config.working_dir.clone();
    let dir = normalize(
        if current.is_empty() { "/" } else { &current },
        &path,
        false,
    );
    // BuildKit's configurations have absolute ones as they were written.
    running.config().working_dir = match path.starts_with('/') {
        true => path,
        false => dir.clone(),
    };
    running.stage.state.dir.clone_from(&dir);
    let makes_layer = dir != "/";
    if makes_layer {
        let base = running.stage.state.output;
        let user = running.stage.state.user.clone();
        let action = pb::FileActionMkDir {
            path: dir.clone(),
            mode: 0o755,
            make_parents: true,
            owner: (!user.is_empty()).then(|| owner(&user, if base.is_some() { 0 } else { -1 })),
            timestamp: running.timestamp(),
        };
        let action = pb::FileAction {
            input: if base.is_some() { 0 } else { -1 },
            secondary_input: -1,
            output: 0,
            action: Some(pb::file_action::Action::Mkdir(action)),
        };
        let text = uppercase_keyword(
            &running
                .expand(original)
                .unwrap_or_else(|_| original.to_owned()),
        );
        let platform = running.platform();
        let name = running
            .stage
            .numbering
            .next(&text, Some(&platform), &running.stage.state.env);
        let size = name.len() + dir.len();
        let node = Node::new(pb::op::Op::File(pb::FileOp {
            actions: vec![action],
        }))
        .inputs(base)
        .name(name)
        .cap("file.base")
        .location(running.lines.to_pb());
        running.stage.state.output = Some(running.work.add(node, size)?);
    }
    let written = running.config().working_dir.clone();
    running.history(format!("WORKDIR {written}"), !makes_layer)
}
