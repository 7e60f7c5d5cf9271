use super::*;
use pb::user_opt::User::{ById, ByName};

fn exec(text: &str) -> pb::ExecOp {
    case(text).exec()
}

fn meta(text: &str) -> pb::Meta {
    exec(text).meta.expect("every exec has one")
}

fn mount(text: &str) -> pb::Mount {
    exec(&format!("FROM a\nRUN {text} x"))
        .mounts
        .pop()
        .expect("it has mounts")
}

#[test]
fn a_run_carries_what_was_set() {
    let found = meta("FROM a\nENV A=1 B=2\nARG C=3\nENV A=4\nWORKDIR /w\nUSER u\nRUN echo $A");
    assert_eq!(found.args, ["/bin/sh", "-c", "echo $A"]);
    assert_eq!(found.env, ["PATH=/bin", "B=2", "C=3", "A=4"]);
    assert_eq!((found.cwd.as_str(), found.user.as_str()), ("/w", "u"));
    assert!(found.remove_mount_stubs_recursive);
    let scratch = meta("FROM scratch\nRUN [\"/x\"]");
    assert_eq!(
        (scratch.args, scratch.cwd.as_str()),
        (vec!["/x".to_owned()], "/")
    );
    assert_eq!(
        scratch.env,
        ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
    );
    assert_eq!(
        meta("FROM a\nSHELL [\"/b\", \"-x\"]\nRUN y").args,
        ["/b", "-x", "y"]
    );
}

#[test]
fn options_reach_the_step() {
    let found = case("FROM a\nRUN x")
        .attrs(&[
            ("add-hosts", "db=10.0.0.1"),
            ("hostname", "h"),
            ("ulimit", "nofile=1:2"),
            ("shm-size", "4096"),
            ("force-network-mode", "none"),
            ("build-arg:http_proxy", "p"),
        ])
        .exec();
    let meta = found.meta.as_ref().expect("every exec has one");
    assert_eq!((meta.hostname.as_str(), meta.extra_hosts.len()), ("h", 1));
    assert_eq!(
        (meta.ulimit[0].hard, found.network()),
        (2, pb::NetMode::None)
    );
    assert_eq!(meta.proxy_env.as_ref().expect("set").http_proxy, "p");
    assert!(!meta.env.iter().any(|entry| entry.contains("proxy")));
    let shm = found
        .mounts
        .iter()
        .find(|mount| mount.dest == "/dev/shm")
        .expect("it is mounted");
    assert_eq!(shm.tmpfs_opt, Some(pb::TmpfsOpt { size: 4096 }));
    assert_eq!(
        exec("FROM a\nRUN --network=host x").network(),
        pb::NetMode::Host
    );
}

#[test]
fn heredocs_are_run() {
    assert_eq!(
        meta("FROM a\nRUN <<-EOF\n\ta\n\t\tb\nEOF").args[2],
        "a\nb\n"
    );
    assert_eq!(
        meta("FROM a\nRUN <<A cat <<B\na\nA\nb\nB").args[2],
        "<<A cat <<B\na\nA\nb\nB"
    );
    let script = exec("FROM a\nRUN <<EOF\n#!/bin/x\ny\nEOF");
    assert_eq!(
        script.meta.expect("every exec has one").args,
        ["/bin/sh", "-c", "/dev/pipes/EOF"]
    );
    let mount = script.mounts.last().expect("it is mounted");
    assert_eq!(
        (
            mount.dest.as_str(),
            mount.readonly,
            mount.output,
            mount.input
        ),
        ("/dev/pipes/", true, -1, 1)
    );
}

#[test]
fn mounts_are_placed() {
    let found = exec(
        "FROM a\nWORKDIR /w\nRUN --mount=target=z --mount=target=/b,from=q,src=/s --mount=type=tmpfs,target=/t,size=1m x",
    );
    let mounts: Vec<_> = found
        .mounts
        .iter()
        .map(|m| {
            (
                m.dest.as_str(),
                m.input,
                m.output,
                m.selector.as_str(),
                m.readonly,
                m.mount_type(),
            )
        })
        .collect();
    use pb::MountType::{Bind, Tmpfs};
    assert_eq!(
        mounts,
        [
            ("/", 0, 0, "", false, Bind),
            ("/b", 1, -1, "/s", true, Bind),
            ("/t", -1, -1, "", false, Tmpfs),
            ("/w/z", 2, -1, "", true, Bind),
        ]
    );
    assert!(!mount("--mount=target=/m,rw").readonly);
    assert!(!mount("--mount=target=/m,ro=false").readonly);
    assert_eq!(
        exec("FROM a\nENV T=/v\nRUN --mount=target=$T x").mounts[1].dest,
        "/v"
    );
}

#[test]
fn caches_are_mounted() {
    let found = mount("--mount=type=cache,target=/c/");
    assert_eq!(
        (
            found.mount_type(),
            found.input,
            found.output,
            found.readonly
        ),
        (pb::MountType::Cache, -1, -1, false)
    );
    assert_eq!(
        found.cache_opt,
        Some(pb::CacheOpt {
            id: "//c".into(),
            sharing: 0
        })
    );
    let found = mount("--mount=type=cache,target=/c,id=i,sharing=locked");
    assert_eq!(
        found.cache_opt,
        Some(pb::CacheOpt {
            id: "/i".into(),
            sharing: pb::CacheSharingOpt::Locked.into()
        })
    );
    let owned = case("FROM a\nRUN --mount=type=cache,target=/c,uid=5,mode=0700 x");
    assert_eq!(owned.exec().mounts[1].selector, "/cache");
    assert!(
        owned
            .names()
            .iter()
            .any(|name| name == "[internal] settings cache mount permissions")
    );
    let namespace = case("FROM a\nRUN --mount=type=cache,target=/c x")
        .attrs(&[("build-arg:BUILDKIT_CACHE_MOUNT_NS", "n")]);
    assert_eq!(
        namespace.exec().mounts[1]
            .cache_opt
            .clone()
            .expect("set")
            .id,
        "n//c"
    );
}

#[test]
fn secrets_are_mounted_or_set() {
    let found = mount("--mount=type=secret,id=s");
    assert_eq!(
        (found.dest.as_str(), found.mount_type(), found.output),
        ("/run/secrets/s", pb::MountType::Secret, -1)
    );
    let secret = |id: &str, uid, mode, optional| pb::SecretOpt {
        id: id.into(),
        uid,
        gid: 0,
        mode,
        optional,
    };
    assert_eq!(found.secret_opt, Some(secret("s", 0, 0o400, true)));
    let found = mount("--mount=type=secret,target=/x/y,required,uid=7,mode=0444");
    assert_eq!(
        (found.dest.as_str(), found.secret_opt),
        ("/x/y", Some(secret("y", 7, 0o444, false)))
    );
    let case =
        case("FROM a\nENV TOKEN=visible\nRUN --mount=type=secret,id=s,env=TOKEN echo $TOKEN");
    let found = case.exec();
    assert_eq!(found.mounts.len(), 1);
    assert_eq!(
        found.secretenv,
        [pb::SecretEnv {
            id: "s".into(),
            name: "TOKEN".into(),
            optional: true
        }]
    );
    assert!(case.names().iter().any(|name| name.ends_with("echo ****")));
}

#[test]
fn copies_say_how() {
    let (_, copies) =
        case("FROM a\nWORKDIR /w\nCOPY --chown=app:1 --chmod=0640 --exclude=*.o x/ $PATH y/")
            .copies();
    assert_eq!(copies.len(), 2);
    let copy = &copies[0];
    assert_eq!(
        (copy.src.as_str(), copy.dest.as_str(), copy.mode),
        ("/x", "/w/y/", 0o640)
    );
    assert!(
        copy.follow_symlink
            && copy.dir_copy_contents
            && copy.create_dest_path
            && copy.allow_wildcard
    );
    assert!(copy.allow_empty_wildcard && !copy.attempt_unpack_docker_compatibility);
    assert_eq!(
        (copy.timestamp, &copy.exclude_patterns[..]),
        (-1, &["*.o".to_owned()][..])
    );
    let owner = copy.owner.clone().expect("set");
    let user = |user: Option<pb::UserOpt>| user.and_then(|user| user.user);
    assert_eq!(
        user(owner.user),
        Some(ByName(pb::NamedUserOpt {
            name: "app".into(),
            input: 0
        }))
    );
    assert_eq!(user(owner.group), Some(ById(1)));
    assert_eq!(copies[1].src, "/bin");
    let symbolic = case("FROM a\nCOPY --chmod=u+x x /").copies().1.remove(0);
    assert_eq!((symbolic.mode, symbolic.mode_str.as_str()), (-1, "u+x"));
    let add = |flag: &str| {
        case(&format!("FROM a\nADD {flag} x /"))
            .copies()
            .1
            .remove(0)
    };
    assert!(add("").attempt_unpack_docker_compatibility);
    assert!(!add("--unpack=false").attempt_unpack_docker_compatibility);
}

#[test]
fn actions_are_chained() {
    let (op, _) = case("FROM a\nCOPY x y /d/").copies();
    let Some(pb::op::Op::File(file)) = &op.op else {
        panic!("a file operation")
    };
    let numbers: Vec<_> = file
        .actions
        .iter()
        .map(|a| (a.input, a.secondary_input, a.output))
        .collect();
    assert_eq!((op.inputs.len(), numbers), (2, vec![(0, 1, -1), (2, 1, 0)]));
    let (op, _) = case("FROM scratch\nCOPY x y /d/").copies();
    let Some(pb::op::Op::File(file)) = &op.op else {
        panic!("a file operation")
    };
    let numbers: Vec<_> = file
        .actions
        .iter()
        .map(|a| (a.input, a.secondary_input, a.output))
        .collect();
    assert_eq!(
        (op.inputs.len(), numbers),
        (1, vec![(-1, 0, -1), (1, 0, 0)])
    );
    assert_eq!(op.platform, None);
}

#[test]
fn parents_are_kept() {
    let copy = |sources: &str| {
        case(&format!("FROM a\nCOPY --parents {sources} /d/"))
            .copies()
            .1
            .remove(0)
    };
    let plain = copy("./x/y");
    assert_eq!(
        (plain.src.as_str(), &plain.include_patterns[..]),
        ("/", &["x/y".to_owned()][..])
    );
    assert_eq!(plain.required_paths, ["/x/y"]);
    let pivot = copy("p/./x/*.c");
    assert_eq!(
        (pivot.src.as_str(), &pivot.include_patterns[..]),
        ("/p", &["x/*.c".to_owned()][..])
    );
    assert!(pivot.required_paths.is_empty());
}

#[test]
fn heredocs_become_files() {
    let case = case("FROM a\nENV A=1\nCOPY <<one <<'two' /d/\n$A \"q\"\none\n$A\ntwo");
    let files: Vec<_> = ops(&case.target())
        .into_iter()
        .filter_map(|op| match op.op {
            Some(pb::op::Op::File(file)) => match file.actions.into_iter().next()?.action? {
                pb::file_action::Action::Mkfile(file) => {
                    Some((file.path, file.mode, String::from_utf8(file.data).ok()?))
                }
                _ => None,
            },
            _ => None,
        })
        .collect();
    assert_eq!(
        files,
        [
            ("/one".into(), 0o644, "1 \"q\"\n".to_owned()),
            ("/two".into(), 0o644, "$A\n".to_owned())
        ]
    );
    let sources: Vec<_> = case.copies().1.into_iter().map(|copy| copy.src).collect();
    assert_eq!(sources, ["/one", "/two"]);
}

#[test]
fn linked_copies_do_not_see_what_they_lie_on() {
    let case = case("FROM a\nCOPY --link --chown=app x /d/");
    let (op, copies) = case.copies();
    assert_eq!(op.inputs.len(), 1, "the context only");
    let owner = copies[0]
        .owner
        .clone()
        .and_then(|owner| owner.user)
        .and_then(|user| user.user);
    assert_eq!(
        owner,
        Some(ByName(pb::NamedUserOpt {
            name: "app".into(),
            input: -1
        }))
    );
    let graph = graph(&case.target());
    let merge = graph.steps().last().expect("there are steps");
    assert!(matches!(&merge.op.op, Some(pb::op::Op::Merge(merge)) if merge.inputs.len() == 2));
    assert_eq!(merge.name.text, "[2/2] LINK COPY --link --chown=app x /d/");
    let group = |number: usize| {
        graph.steps()[number]
            .name
            .progress_group
            .clone()
            .expect("it is in a group")
    };
    let (files, merged) = (
        group(graph.steps().len() - 2),
        group(graph.steps().len() - 1),
    );
    assert_eq!(
        (files.id == merged.id, files.weak, merged.weak),
        (true, true, false)
    );
    let alone = super::case("FROM scratch\nCOPY --link x /");
    assert!(
        ops(&alone.target())
            .iter()
            .all(|op| !matches!(op.op, Some(pb::op::Op::Merge(_))))
    );
}

#[test]
fn a_workdir_makes_a_directory() {
    let target = case("FROM a\nUSER app\nWORKDIR /w").target();
    let op = ops(&target).pop().expect("there are steps");
    let Some(pb::op::Op::File(file)) = op.op else {
        panic!("a file operation")
    };
    let Some(pb::file_action::Action::Mkdir(mkdir)) = file.actions[0].action.clone() else {
        panic!("a mkdir")
    };
    assert_eq!(
        (mkdir.path.as_str(), mkdir.mode, mkdir.make_parents),
        ("/w", 0o755, true)
    );
    assert!(mkdir.owner.is_some());
}

#[test]
fn images_are_pinned() {
    let source = |text: &str| {
        let found = ops(&case(text).target())
            .into_iter()
            .find_map(|op| match op.op {
                Some(pb::op::Op::Source(source)) => Some((source.identifier, op.platform)),
                _ => None,
            });
        found.expect("there is a source")
    };
    let (identifier, platform) = source("FROM --platform=linux/arm/v7 localhost:5000/a:1\nRUN x");
    assert_eq!(
        identifier,
        format!("docker-image://{}", pinned("localhost:5000/a:1"))
    );
    let platform = platform.expect("set");
    assert_eq!(
        (
            platform.os.as_str(),
            platform.architecture.as_str(),
            platform.variant.as_str()
        ),
        ("linux", "arm", "v7")
    );
}
