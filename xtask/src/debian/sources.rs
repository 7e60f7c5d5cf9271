//! Where this machine gets its packages from: apt's own lists, in both of their formats (sources.list(5)).

use std::path::Path;

use anyhow::Context;

/// One place that packages come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Source {
    /// The archive's address.
    pub(crate) uri: String,
    /// The file with the keys that the archive is signed with; none: those apt trusts anyway.
    pub(crate) signed_by: Option<String>,
}

/// The machine's source of the suite `suite`.
///
/// # Errors
/// None is configured.
pub(crate) fn of_suite(suite: &str) -> anyhow::Result<Source> {
    let mut files = vec![Path::new("/etc/apt/sources.list").to_owned()];
    if let Ok(listed) = std::fs::read_dir("/etc/apt/sources.list.d") {
        let mut paths: Vec<_> = listed
            .filter_map(|entry| Some(entry.ok()?.path()))
            .collect();
        paths.sort();
        files.extend(paths);
    }
    files
        .iter()
        .find_map(|path| {
            let text = std::fs::read_to_string(path).ok()?;
            match path.extension()?.to_str()? {
                "sources" => in_stanzas(&text, suite),
                "list" => in_lines(&text, suite),
                _ => None,
            }
        })
        .with_context(|| format!("no source of {suite} is configured under /etc/apt"))
}

/// Looks through paragraphs of `Key: value` lines.
fn in_stanzas(text: &str, suite: &str) -> Option<Source> {
    text.split("\n\n").find_map(|stanza| {
        let field = |name: &str| {
            let mut fields = stanza.lines().filter_map(|line| line.split_once(':'));
            let (_, value) = fields.find(|(key, _)| key.eq_ignore_ascii_case(name))?;
            Some(value.trim())
        };
        let has = |name, word| field(name).is_some_and(|v| v.split_whitespace().any(|w| w == word));
        let wanted = has("Types", "deb") && has("Suites", suite) && !has("Enabled", "no");
        wanted.then_some(())?;
        Some(Source {
            uri: field("URIs")?.split_whitespace().next()?.to_owned(),
            signed_by: field("Signed-By")
                .filter(|key| key.starts_with('/'))
                .map(str::to_owned),
        })
    })
}

/// Looks through lines such as `deb [signed-by=FILE] ADDRESS SUITE main`.
fn in_lines(text: &str, suite: &str) -> Option<Source> {
    text.lines().find_map(|line| {
        let rest = line.trim().strip_prefix("deb")?;
        let rest = rest.strip_prefix([' ', '\t'])?.trim_start();
        let (options, rest) = match rest.strip_prefix('[') {
            Some(rest) => rest.split_once(']')?,
            None => ("", rest),
        };
        let mut words = rest.split_whitespace();
        let (uri, name) = (words.next()?, words.next()?);
        let mut options = options.split_whitespace();
        (name == suite).then(|| Source {
            uri: uri.to_owned(),
            signed_by: options.find_map(|o| Some(o.strip_prefix("signed-by=")?.to_owned())),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(uri: &str, signed_by: Option<&str>) -> Option<Source> {
        Some(Source {
            uri: uri.into(),
            signed_by: signed_by.map(Into::into),
        })
    }

    #[test]
    fn stanzas_are_read() {
        let text = "Types: deb\n# a note\nURIs: http://a/x http://b/x\nSuites: bookworm bookworm-updates\nSigned-By: /k.gpg\n\n\
                    Types: deb-src\nURIs: http://s/x\nSuites: trixie\n\n\
                    Types: deb\nEnabled: no\nURIs: http://off/x\nSuites: trixie\n\n\
                    Types: deb\nURIs: http://c/x\nSuites: trixie\n";
        let check = |suite, expected| assert_eq!(in_stanzas(text, suite), expected, "{suite}");
        check("bookworm", source("http://a/x", Some("/k.gpg")));
        check("trixie", source("http://c/x", None));
        check("sid", None);
    }

    #[test]
    fn lines_are_read() {
        let text = "# deb http://off/x bookworm main\ndeb-src http://s/x bookworm main\n\
                    deb [arch=amd64 signed-by=/k.gpg] http://a/x bookworm main contrib\ndeb http://b/x trixie main\n";
        let check = |suite, expected| assert_eq!(in_lines(text, suite), expected, "{suite}");
        check("bookworm", source("http://a/x", Some("/k.gpg")));
        check("trixie", source("http://b/x", None));
        check("sid", None);
    }
}
