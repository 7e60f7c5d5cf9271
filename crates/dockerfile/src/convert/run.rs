//! RUN.

use bollard_buildkit_proto::pb;
use buildyard_llb::build::{Node, Output};

use super::mount::{self, Mount};
use super::name::{summary, uppercase_keyword};
use super::stage::Running;
use crate::error::Problem;
use crate::expand::{Expander, Variables};
use crate::instruction::{CommandLine, Network, Run};

/// Where heredocs with an interpreter of their own are mounted.
const PIPES: &str = "/dev/pipes/";

pub(super) fn run(running: &mut Running<'_, '_>, run: &Run, original: &str) -> Result<(), Problem> {
    let mut mounts = vec![Mount::root(running.stage.state.output)];
    let (args, shown) = command(running, run, original, &mut mounts)?;
    let mut secrets = Vec::new();
    mount::mounts(running, run, &mut mounts, &mut secrets)?;
    let options = running.work.options;
    if options.shm_size > 0 {
        mounts.push(Mount::tmpfs("/dev/shm", options.shm_size));
    }
    let name = step_name(running, &shown, &secrets);
    let created_by = history(running, &args);
    let platform = running.platform();
    let mut exec = pb::ExecOp {
        meta: Some(meta(running, args)),
        network: network(run.network, options.network).into(),
        ..Default::default()
    };
    let inputs = place(&mut exec, mounts, secrets);
    let size = prost_size(&exec) + name.len();
    let mut node = Node::new(pb::op::Op::Exec(exec.clone()))
        .inputs(inputs)
        .platform(&platform)
        .name(name)
        .describe("com.docker.dockerfile.v1.command", original)
        .ignore_cache(running.stage.ignore_cache)
        .location(running.lines.to_pb());
    for cap in caps(&exec) {
        node = node.cap(cap);
    }
    running.stage.state.output = Some(running.work.add(node, size)?);
    running.history(created_by, false)
}

/// What is run and how it is shown. A heredoc that begins with `#!` becomes a file that is mounted.
fn command(
    running: &mut Running<'_, '_>,
    run: &Run,
    original: &str,
    mounts: &mut Vec<Mount>,
) -> Result<(Vec<String>, String), Problem> {
    let CommandLine::Shell(line) = &run.command else {
        return Ok((arguments(running, &run.command), original.into()));
    };
    let Some(first) = run.heredocs.first() else {
        return Ok((with_shell(running, line), original.into()));
    };
    if crate::lex::heredoc::mark(line).is_none() {
        // The shell reads these heredocs itself.
        let mut script = line.clone();
        for heredoc in &run.heredocs {
            script += &format!("\n{}{}", heredoc.content, heredoc.name);
        }
        return Ok((with_shell(running, &script), original.into()));
    }
    let text = first.text();
    let shown = format!("{original} ({})", summary(&first.content));
    if !text.starts_with("#!") || running.stage.image.os == "windows" {
        return Ok((with_shell(running, &text), shown));
    }
    let file = inline_file(running, &first.name, 0o755, text)?;
    mounts.push(Mount::read_only(PIPES, Some(file), "/"));
    Ok((
        with_shell(running, &format!("{PIPES}{}", first.name)),
        shown,
    ))
}

/// A file made of a heredoc, on an empty file system.
pub(super) fn inline_file(
    running: &mut Running<'_, '_>,
    name: &str,
    mode: i32,
    text: String,
) -> Result<Output, Problem> {
    let size = text.len() + name.len();
    let action = pb::FileActionMkFile {
        path: super::path::normalize("/", name, false),
        mode,
        data: text.into_bytes(),
        owner: None,
        timestamp: -1,
    };
    let action = pb::FileAction {
        input: -1,
        secondary_input: -1,
        output: 0,
        action: Some(pb::file_action::Action::Mkfile(action)),
    };
    let node = Node::new(pb::op::Op::File(pb::FileOp {
        actions: vec![action],
    }))
    .name("[internal] preparing inline document")
    .cap("file.base");
    running.work.add(node, size)
}

/// The arguments of a command line.
pub(super) fn arguments(running: &Running<'_, '_>, command: &CommandLine) -> Vec<String> {
    match command {
        CommandLine::Exec(arguments) => arguments.clone(),
        CommandLine::Shell(line) => with_shell(running, line),
    }
}

fn with_shell(running: &Running<'_, '_>, line: &str) -> Vec<String> {
    let image = &running.stage.image;
    let mut arguments = match &image.config.shell {
        Some(shell) if !shell.is_empty() => shell.clone(),
        _ if image.os == "windows" => vec!["cmd".to_owned(), "/S".to_owned(), "/C".to_owned()],
        _ => vec!["/bin/sh".to_owned(), "-c".to_owned()],
    };
    arguments.push(line.to_owned());
    arguments
}

fn meta(running: &Running<'_, '_>, args: Vec<String>) -> pb::Meta {
    let (state, options) = (&running.stage.state, running.work.options);
    pb::Meta {
        args,
        env: state.env.list(),
        cwd: state.dir.clone(),
        user: state.user.clone(),
        proxy_env: proxy(&options.build_args),
        extra_hosts: options.extra_hosts.clone(),
        hostname: options.hostname.clone(),
        ulimit: options.ulimits.clone(),
        cgroup_parent: String::new(),
        remove_mount_stubs_recursive: true,
        valid_exit_codes: Vec::new(),
    }
}

/// Proxies are build arguments that need no ARG: they reach the step beside its environment, so that they are in no key.
fn proxy(build_args: &std::collections::BTreeMap<String, String>) -> Option<pb::ProxyEnv> {
    let mut proxy = pb::ProxyEnv::default();
    let mut any = false;
    for (name, value) in build_args {
        let field = match name.to_ascii_lowercase().as_str() {
            "http_proxy" => &mut proxy.http_proxy,
            "https_proxy" => &mut proxy.https_proxy,
            "ftp_proxy" => &mut proxy.ftp_proxy,
            "no_proxy" => &mut proxy.no_proxy,
            "all_proxy" => &mut proxy.all_proxy,
            _ => continue,
        };
        field.clone_from(value);
        any = true;
    }
    any.then_some(proxy)
}

fn network(of_step: Network, of_build: pb::NetMode) -> pb::NetMode {
    match of_step {
        Network::Default => of_build,
        Network::None => pb::NetMode::None,
        Network::Host => pb::NetMode::Host,
    }
}

/// Orders the mounts by their destination, as BuildKit does, and numbers inputs and outputs. Secrets come last.
fn place(
    exec: &mut pb::ExecOp,
    mut mounts: Vec<Mount>,
    secrets: Vec<mount::Secret>,
) -> Vec<Output> {
    mounts.sort_by(|a, b| a.message.dest.cmp(&b.message.dest));
    let mut inputs: Vec<Output> = Vec::new();
    for Mount {
        mut message,
        source,
    } in mounts
    {
        message.input = match source {
            None => -1,
            Some(output) => match inputs.iter().position(|&input| input == output) {
                Some(number) => number as i64,
                None => {
                    inputs.push(output);
                    inputs.len() as i64 - 1
                }
            },
        };
        exec.mounts.push(message);
    }
    for secret in secrets {
        exec.secretenv.extend(secret.variable);
        exec.mounts.extend(secret.mount);
    }
    inputs
}

/// The name of the step: the command with the variables that are set, quotes kept; secrets are hidden.
fn step_name(running: &mut Running<'_, '_>, shown: &str, secrets: &[mount::Secret]) -> String {
    let how = Expander::new(running.work.file.escape)
        .keep_quotes()
        .keep_unset();
    let mut env = running.stage.state.env.clone();
    for variable in secrets.iter().filter_map(|secret| secret.variable.as_ref()) {
        env.set(&variable.name, "****");
    }
    let text = running
        .work
        .expand_with(how, shown, &env)
        .map_or_else(|_| shown.to_owned(), |found| found.text);
    let platform = running.stage.state.shown_platform.clone();
    running.stage.numbering.next(
        &uppercase_keyword(&text),
        platform.as_ref(),
        &running.stage.state.env,
    )
}

/// `RUN |1 A=b /bin/sh -c x # buildkit`: the arguments declared so far, each once, and the command.
fn history(running: &Running<'_, '_>, args: &[String]) -> String {
    let mut declared: Vec<(&str, &str)> = Vec::new();
    let mut places = std::collections::BTreeMap::new();
    for argument in &running.stage.arguments {
        let value = running
            .stage
            .state
            .env
            .get(&argument.name)
            .or(argument.default.as_deref())
            .unwrap_or_default();
        match places.get(argument.name.as_str()) {
            Some(&place) => declared[place] = (argument.name.as_str(), value),
            None => {
                places.insert(argument.name.as_str(), declared.len());
                declared.push((argument.name.as_str(), value));
            }
        }
    }
    let mut parts = Vec::new();
    if !declared.is_empty() {
        parts.push(format!("|{}", declared.len()));
        parts.extend(
            declared
                .iter()
                .map(|(name, value)| format!("{name}={value}")),
        );
    }
    parts.extend(args.iter().cloned());
    format!("RUN {} # buildkit", parts.join(" "))
}

fn prost_size(exec: &pb::ExecOp) -> usize {
    let meta = exec
        .meta
        .iter()
        .flat_map(|meta| meta.args.iter().chain(&meta.env));
    meta.map(|text| text.len() + 4).sum::<usize>() + exec.mounts.len() * 64 + 64
}

/// The capabilities that BuildKit's clients name for such a step.
fn caps(exec: &pb::ExecOp) -> Vec<&'static str> {
    let mut caps = vec![
        "exec.meta.base",
        "exec.meta.removemountstubs.recursive",
        "exec.mount.bind",
    ];
    let meta = exec.meta.iter();
    caps.extend(
        meta.clone()
            .filter(|meta| meta.proxy_env.is_some())
            .map(|_| "exec.meta.proxyenv"),
    );
    caps.extend(
        meta.filter(|meta| !meta.ulimit.is_empty())
            .map(|_| "exec.meta.ulimit"),
    );
    caps.extend((exec.network != i32::from(pb::NetMode::Unset)).then_some("exec.meta.network"));
    caps.extend((!exec.secretenv.is_empty()).then_some("exec.secretenv"));
    for mount in &exec.mounts {
        caps.extend((!mount.selector.is_empty()).then_some("exec.mount.selector"));
        caps.extend(match mount.mount_type() {
            pb::MountType::Cache => &["exec.mount.cache", "exec.mount.cache.sharing"][..],
            pb::MountType::Tmpfs => &["exec.mount.tmpfs", "exec.mount.tmpfs.size"],
            pb::MountType::Secret => &["exec.mount.secret"],
            pb::MountType::Bind | pb::MountType::Ssh => &[],
        });
    }
    caps
}
