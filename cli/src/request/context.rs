//! Where the context and the Dockerfile come from.

use std::path::{Path, PathBuf};

use super::RequestError;

/// The context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContextSource {
    /// A directory of this machine.
    Directory(PathBuf),
    /// A Git or HTTP URL that the farm fetches.
    Remote(String),
}

/// The Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DockerfileSource {
    /// A file of this machine: its directory (sent for `<file>.dockerignore` too) and its name in it.
    File {
        /// The directory.
        dir: PathBuf,
        /// The file's name.
        name: String,
    },
    /// Read from standard input.
    Stdin,
    /// A path inside a remote context.
    InContext(String),
}

impl DockerfileSource {
    /// The name that the frontend asks for.
    pub fn file_name(&self) -> String {
        match self {
            Self::File { name, .. } | Self::InContext(name) => name.clone(),
            Self::Stdin => "Dockerfile".into(),
        }
    }
}

/// The context and the Dockerfile that `CONTEXT` and `-f` name.
pub(super) fn sources(
    context: &str,
    file: Option<&str>,
) -> Result<(ContextSource, DockerfileSource), RequestError> {
    if context == "-" {
        return Err(RequestError::Conflict(
            "a context on standard input is not supported: unpack it into a directory and name that",
        ));
    }
    let remote = is_remote(context);
    let dockerfile = match file {
        Some("-") => DockerfileSource::Stdin,
        Some(file) if remote => DockerfileSource::InContext(file.to_owned()),
        None if remote => DockerfileSource::InContext("Dockerfile".into()),
        Some(file) => split_file(Path::new(file))?,
        None => DockerfileSource::File {
            dir: PathBuf::from(context),
            name: "Dockerfile".into(),
        },
    };
    let context = if remote {
        ContextSource::Remote(context.to_owned())
    } else {
        ContextSource::Directory(context.into())
    };
    Ok((context, dockerfile))
}

fn split_file(file: &Path) -> Result<DockerfileSource, RequestError> {
    let refuse = |reason| RequestError::value("file", &file.to_string_lossy(), reason);
    let name = file
        .file_name()
        .ok_or_else(|| refuse("not the path of a file"))?;
    let name = name
        .to_str()
        .ok_or_else(|| refuse("the name is not UTF-8"))?
        .to_owned();
    let dir = match file.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir.to_path_buf(),
        _ => PathBuf::from("."),
    };
    Ok(DockerfileSource::File { dir, name })
}

/// The forms that BuildKit takes for URLs.
fn is_remote(context: &str) -> bool {
    [
        "http://",
        "https://",
        "git://",
        "ssh://",
        "git@",
        "github.com/",
    ]
    .iter()
    .any(|prefix| context.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dockerfile_is_found_beside_the_context_or_where_it_is_named() {
        let file = |dir: &str, name: &str| DockerfileSource::File {
            dir: dir.into(),
            name: name.into(),
        };
        let check = |context: &str, given: Option<&str>, expected: DockerfileSource| {
            assert_eq!(
                sources(context, given).unwrap().1,
                expected,
                "{context} {given:?}"
            );
        };
        check(".", None, file(".", "Dockerfile"));
        check("app", None, file("app", "Dockerfile"));
        check("app", Some("Other"), file(".", "Other"));
        check(
            "app",
            Some("app/docker/Web.Dockerfile"),
            file("app/docker", "Web.Dockerfile"),
        );
        check("app", Some("-"), DockerfileSource::Stdin);
        check(
            "https://example.org/app.git#main",
            None,
            DockerfileSource::InContext("Dockerfile".into()),
        );
        check(
            "git@example.org:app.git",
            Some("x/D"),
            DockerfileSource::InContext("x/D".into()),
        );
    }

    #[test]
    fn a_context_on_standard_input_is_refused() {
        assert!(matches!(sources("-", None), Err(RequestError::Conflict(_))));
    }
}
