//! `buildyard builder setup`: the command that makes a buildx builder of a farm.
//!
//! buildx's remote driver knows `tcp://` and `unix://`, and client certificates by the driver options `cacert`, `cert`,
//! `key`; an `https://` farm is therefore written as `tcp://` with certificates.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::args::{FarmArgs, SetupArgs};
use crate::connect::{Farm, Target};
use crate::exit::Failure;

/// Prints the command, or runs it.
///
/// # Errors
/// The farm cannot be used by buildx, buildx is not installed, or it fails.
pub async fn run(args: &SetupArgs) -> Result<(), Failure> {
    let farm = Farm::new(&args.farm)?;
    let words = buildx_words(args, &farm, &absolute)?;
    if !args.create {
        let quoted: Vec<String> = words.iter().map(|word| shell_quoted(word)).collect();
        println!("docker buildx {}", quoted.join(" "));
        return Ok(());
    }
    let program = find_buildx(&|name| std::env::var_os(name)).ok_or_else(|| {
        Failure::Asked(anyhow::anyhow!(
            "cannot find docker-buildx (looked in PATH and in Docker's cli-plugins); install it, or leave --create out \
             and run the command yourself"
        ))
    })?;
    let status = tokio::process::Command::new(&program)
        .args(&words)
        .status()
        .await
        .with_context(|| format!("cannot run {}", program.display()))?;
    if status.success() {
        Ok(())
    } else {
        Err(Failure::Asked(anyhow::anyhow!(
            "{} failed: {status}",
            program.display()
        )))
    }
}

/// The words behind `docker buildx`.
fn buildx_words(
    args: &SetupArgs,
    farm: &Farm,
    absolute: &dyn Fn(&Path) -> PathBuf,
) -> Result<Vec<String>, Failure> {
    let endpoint = match farm.target() {
        Target::Unix(path) => format!("unix://{}", absolute(path).display()),
        Target::Tcp { .. } => format!("tcp://{}", farm.authority()),
    };
    let mut words: Vec<String> = ["create", "--driver", "remote", "--name", &args.name]
        .map(String::from)
        .into();
    if args.make_default {
        words.push("--use".into());
    }
    if let Some(options) = driver_options(&args.farm, farm, absolute)? {
        words.extend(["--driver-opt".into(), options]);
    }
    words.push(endpoint);
    Ok(words)
}

fn driver_options(
    args: &FarmArgs,
    farm: &Farm,
    absolute: &dyn Fn(&Path) -> PathBuf,
) -> Result<Option<String>, Failure> {
    if farm.uses_tls() && args.ca.is_none() {
        return Err(Failure::usage(
            "buildx needs the farm's certificate authority as a file: give --ca (and --cert, --key if the farm asks for them)",
        ));
    }
    let files = [
        ("cacert", &args.ca),
        ("cert", &args.cert),
        ("key", &args.key),
    ];
    let mut options = Vec::new();
    for (name, file) in files {
        let Some(file) = file else { continue };
        let path = absolute(file).display().to_string();
        if path.contains([',', '"']) {
            return Err(Failure::usage(format!(
                "buildx cannot take a path with commas or quotes: {path}"
            )));
        }
        options.push(format!("{name}={path}"));
    }
    Ok((!options.is_empty()).then(|| options.join(",")))
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// buildx as a program of its own, which it can be run as.
fn find_buildx(env: &dyn Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let in_path = env("PATH")
        .map(|path| std::env::split_paths(&path).collect::<Vec<_>>())
        .unwrap_or_default();
    let config = env("DOCKER_CONFIG")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(env("HOME")?).join(".docker")));
    let plugins = config.map(|config| config.join("cli-plugins"));
    let system = [
        "/usr/local/lib",
        "/usr/local/libexec",
        "/usr/lib",
        "/usr/libexec",
    ]
    .map(|dir| PathBuf::from(dir).join("docker/cli-plugins"));
    in_path
        .into_iter()
        .chain(plugins)
        .chain(system)
        .map(|dir| dir.join("docker-buildx"))
        .find(|path| path.is_file())
}

fn shell_quoted(word: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_./:=,@[]".contains(&b);
    if !word.is_empty() && word.bytes().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(builder: &str, files: bool, make_default: bool) -> Result<String, Failure> {
        let file = |name: &str| files.then(|| PathBuf::from(name));
        let farm = FarmArgs {
            builder: Some(builder.into()),
            ca: file("ca"),
            cert: file("cert"),
            key: file("key"),
        };
        let args = SetupArgs {
            farm: farm.clone(),
            name: "farm".into(),
            create: false,
            make_default,
        };
        let words = buildx_words(&args, &Farm::new(&farm)?, &|path| {
            Path::new("/abs").join(path)
        })?;
        Ok(words.join(" "))
    }

    #[test]
    fn the_command_has_the_farms_address_and_certificates() {
        let check = |builder: &str, files, make_default, expected: &str| {
            assert_eq!(
                words(builder, files, make_default).unwrap(),
                expected,
                "{builder}"
            );
        };
        check(
            "http://127.0.0.1:8372",
            false,
            false,
            "create --driver remote --name farm tcp://127.0.0.1:8372",
        );
        check(
            "unix:///run/b.sock",
            false,
            true,
            "create --driver remote --name farm --use unix:///run/b.sock",
        );
        check(
            "https://farm.example:1",
            true,
            false,
            "create --driver remote --name farm --driver-opt cacert=/abs/ca,cert=/abs/cert,key=/abs/key tcp://farm.example:1",
        );
        assert_eq!(
            words("https://farm.example", false, false)
                .unwrap_err()
                .number(),
            2
        );
    }

    #[test]
    fn words_are_quoted_for_the_shell() {
        assert_eq!(shell_quoted("tcp://[::1]:1"), "tcp://[::1]:1");
        assert_eq!(shell_quoted("a b"), "'a b'");
        assert_eq!(shell_quoted("it's"), r"'it'\''s'");
    }

    #[test]
    fn buildx_is_found_in_path_and_among_the_plugins() {
        let dir = tempfile::tempdir().unwrap();
        let plugins = dir.path().join("cli-plugins");
        std::fs::create_dir_all(&plugins).unwrap();
        std::fs::write(plugins.join("docker-buildx"), "").unwrap();
        let config = dir.path().as_os_str().to_owned();
        let found = find_buildx(&|name| (name == "DOCKER_CONFIG").then(|| config.clone()));
        assert_eq!(found, Some(plugins.join("docker-buildx")));
    }
}
