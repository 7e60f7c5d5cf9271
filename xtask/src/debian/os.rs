//! Which distribution this is, from `/etc/os-release` (os-release(5)).

use anyhow::{Context, bail};

/// What matters of `/etc/os-release`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Os {
    /// The distribution: `debian`, `ubuntu`.
    pub(crate) id: String,
    /// The name of its release, e.g. `bookworm`; this is the name of its suite too.
    pub(crate) codename: String,
}

impl Os {
    /// Reads it.
    ///
    /// # Errors
    /// The file is missing, or this is neither Debian nor Ubuntu.
    pub(crate) fn of_this_machine() -> anyhow::Result<Self> {
        let path = "/etc/os-release";
        let text = std::fs::read_to_string(path).with_context(|| format!("reading {path}"))?;
        let os = Self::parse(&text).with_context(|| format!("{path} names no release"))?;
        if !["debian", "ubuntu"].contains(&os.id.as_str()) {
            bail!(
                "the set-up knows Debian and Ubuntu, this is {:?}: install what Debian calls {}, docker-registry and \
                 docker-buildx yourself",
                os.id,
                crate::setup::packages().join(", ")
            );
        }
        Ok(os)
    }

    fn parse(text: &str) -> Option<Self> {
        let field = |name: &str| {
            let mut lines = text.lines().filter_map(|line| line.split_once('='));
            let (_, value) = lines.find(|(key, _)| *key == name)?;
            Some(value.trim_matches(['"', '\'']).to_owned())
        };
        Some(Self {
            id: field("ID")?,
            codename: field("VERSION_CODENAME")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_release_is_read() {
        let check = |text: &str, expected: Option<(&str, &str)>| {
            let os = Os::parse(text);
            let found = os.as_ref().map(|os| (os.id.as_str(), os.codename.as_str()));
            assert_eq!(found, expected, "{text}");
        };
        check(
            "PRETTY_NAME=\"Debian GNU/Linux 12\"\nVERSION_CODENAME=bookworm\nID=debian\n",
            Some(("debian", "bookworm")),
        );
        check(
            "ID='ubuntu'\nVERSION_CODENAME=\"noble\"",
            Some(("ubuntu", "noble")),
        );
        check("ID=arch\n", None);
    }
}
