//! What is started in a container: user, environment, hosts, name servers.

use buildyard_layer::NameFiles;
use buildyard_layer::names::{NameError, lookup_user};
use buildyard_llb::pb;
use buildyard_proto::v1 as proto;

use crate::agent::job::Job;
use crate::agent::machine::Machine;
use crate::network::StepNetwork;
use crate::runner::{Process, Rlimit, User};

/// BuildKit's default (`util/system.DefaultPathEnvUnix`).
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The process that an operation's meta describes.
pub(super) fn process(meta: &pb::Meta, names: &NameFiles) -> Result<Process, NameError> {
    let user = lookup_user(names, &meta.user)?;
    let mut env = meta.env.clone();
    if !env.iter().any(|variable| variable.starts_with("PATH=")) {
        env.insert(0, DEFAULT_PATH.to_owned());
    }
    if let Some(proxy) = &meta.proxy_env {
        let pairs = [
            ("http_proxy", &proxy.http_proxy),
            ("https_proxy", &proxy.https_proxy),
            ("ftp_proxy", &proxy.ftp_proxy),
            ("no_proxy", &proxy.no_proxy),
            ("all_proxy", &proxy.all_proxy),
        ];
        for (name, value) in pairs.into_iter().filter(|(_, value)| !value.is_empty()) {
            env.push(format!("{name}={value}"));
            env.push(format!("{}={value}", name.to_uppercase()));
        }
    }
    Ok(Process {
        args: meta.args.clone(),
        env,
        cwd: if meta.cwd.is_empty() {
            "/".to_owned()
        } else {
            meta.cwd.clone()
        },
        user: User {
            uid: user.uid,
            gid: user.gid,
            additional_gids: user.groups,
        },
        rlimits: meta
            .ulimit
            .iter()
            .map(|limit| Rlimit {
                name: limit.name.clone(),
                soft: limit.soft.cast_unsigned(),
                hard: limit.hard.cast_unsigned(),
            })
            .collect(),
    })
}

/// Secrets that the step wants in its environment.
pub(super) async fn add_secrets(
    machine: &Machine,
    job: &Job,
    exec: &pb::ExecOp,
    process: &mut Process,
) -> Result<(), String> {
    for wanted in &exec.secretenv {
        match secret(machine, job, &wanted.id).await? {
            Some(data) => {
                let text = String::from_utf8(data).map_err(|_| {
                    format!(
                        "secret {}: not UTF-8, so it cannot be an environment variable",
                        wanted.id
                    )
                })?;
                process.env.push(format!("{}={text}", wanted.name));
            }
            None if wanted.optional => {}
            None => return Err(format!("secret {}: not found", wanted.id)),
        }
    }
    Ok(())
}

/// A secret of the job's client.
pub(super) async fn secret(
    machine: &Machine,
    job: &Job,
    id: &str,
) -> Result<Option<Vec<u8>>, String> {
    let request = proto::GetSecretRequest {
        job: job.spec.id.clone(),
        id: id.to_owned(),
    };
    let reply = machine.link.call(|mut client| {
        let request = request.clone();
        async move { client.get_secret(request).await }
    });
    let reply = reply
        .await
        .map_err(|status| format!("secret {id}: {}", status.message()))?;
    Ok(reply.found.then(|| reply.data.to_vec()))
}

/// `/etc/hosts`: this host, and what the client adds.
pub(super) fn hosts(meta: &pb::Meta) -> String {
    let name = if meta.hostname.is_empty() {
        "buildkitsandbox"
    } else {
        &meta.hostname
    };
    let mut text =
        format!("127.0.0.1\tlocalhost {name}\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    for host in &meta.extra_hosts {
        text.push_str(&format!("{}\t{}\n", host.ip, host.host));
    }
    text
}

/// `/etc/resolv.conf` of the machine, without name servers that a private network cannot reach.
pub(super) fn resolv_conf(network: &StepNetwork) -> String {
    let own = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    if matches!(network, StepNetwork::Host) {
        return own;
    }
    let kept = without_loopback(&own);
    if kept
        .lines()
        .any(|line| line.trim_start().starts_with("nameserver"))
    {
        return kept;
    }
    let resolved = std::fs::read_to_string("/run/systemd/resolve/resolv.conf").unwrap_or_default();
    without_loopback(&resolved)
}

fn without_loopback(text: &str) -> String {
    let loopback = |line: &str| {
        let mut words = line.split_whitespace();
        words.next() == Some("nameserver")
            && words.next().is_some_and(|address| {
                address
                    .parse::<std::net::IpAddr>()
                    .is_ok_and(|ip| ip.is_loopback())
            })
    };
    text.lines()
        .filter(|line| !loopback(line))
        .map(|line| format!("{line}\n"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_name_servers_are_left_out() {
        let text = "search a\nnameserver 127.0.0.53\nnameserver 10.0.0.1\n  nameserver ::1\noptions edns0\n";
        assert_eq!(
            without_loopback(text),
            "search a\nnameserver 10.0.0.1\noptions edns0\n"
        );
    }

    #[test]
    fn a_process_has_a_path_and_its_proxies() {
        let meta = pb::Meta {
            args: vec!["sh".into()],
            env: vec!["A=1".into()],
            proxy_env: Some(pb::ProxyEnv {
                http_proxy: "p".into(),
                ..Default::default()
            }),
            user: "7:8".into(),
            ..Default::default()
        };
        let process = process(&meta, &NameFiles::default()).unwrap();
        assert_eq!(
            process.env,
            [DEFAULT_PATH, "A=1", "http_proxy=p", "HTTP_PROXY=p"]
        );
        assert_eq!((process.user.uid, process.user.gid), (7, 8));
        assert_eq!(process.cwd, "/");
    }
}
