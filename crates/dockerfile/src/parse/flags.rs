//! The flags of an instruction.

use crate::error::Fault;
use crate::suggest::nearest;

/// What a flag takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Takes {
    /// `--flag`, `--flag=true`, `--flag=false`.
    Bool,
    /// `--flag=value`, once.
    One,
    /// `--flag=value`, any number of times.
    Many,
}

/// The flags of one instruction, checked against those that it knows.
#[derive(Debug, Default)]
pub(crate) struct Flags(Vec<(&'static str, String)>);

impl Flags {
    pub(crate) fn parse(given: &[String], known: &[(&'static str, Takes)]) -> Result<Self, Fault> {
        let mut flags = Self::default();
        for flag in given {
            let text = flag.strip_prefix("--").unwrap_or(flag);
            let (name, value) = text
                .split_once('=')
                .map_or((text, None), |(name, value)| (name, Some(value)));
            let refuse = |message: String| Fault::new(message).at(format!("--{name}"));
            let Some(&(name, takes)) = known.iter().find(|(known, _)| *known == name) else {
                let names: Vec<String> =
                    known.iter().map(|(name, _)| format!("--{name}")).collect();
                let suggestion = nearest(&format!("--{name}"), names.iter().map(String::as_str));
                return Err(refuse(format!("unknown flag: --{name}")).suggest(suggestion));
            };
            if takes != Takes::Many && flags.0.iter().any(|(seen, _)| *seen == name) {
                return Err(refuse(format!("duplicate flag specified: --{name}")));
            }
            let value = match (takes, value.map(str::to_lowercase).as_deref()) {
                (Takes::Bool, None | Some("true")) => "true".to_owned(),
                (Takes::Bool, Some("false")) => "false".to_owned(),
                (Takes::Bool, Some("")) | (_, None) => {
                    return Err(refuse(format!("missing a value on flag: --{name}")));
                }
                (Takes::Bool, Some(other)) => {
                    return Err(refuse(format!(
                        "expecting boolean value for flag --{name}, not: {other}"
                    )));
                }
                (_, Some(_)) => value.unwrap_or_default().to_owned(),
            };
            flags.0.push((name, value));
        }
        Ok(flags)
    }

    /// The value of a flag that may be empty but counts as not given then.
    pub(crate) fn text(&self, name: &str) -> Option<String> {
        self.all(name).pop().filter(|value| !value.is_empty())
    }

    pub(crate) fn bool(&self, name: &str) -> Option<bool> {
        self.all(name).pop().map(|value| value == "true")
    }

    pub(crate) fn all(&self, name: &str) -> Vec<String> {
        self.0
            .iter()
            .filter(|(given, _)| *given == name)
            .map(|(_, value)| value.clone())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [(&str, Takes); 3] = [
        ("from", Takes::One),
        ("link", Takes::Bool),
        ("exclude", Takes::Many),
    ];

    fn parse(given: &[&str]) -> Result<Flags, Fault> {
        Flags::parse(
            &given
                .iter()
                .map(|&flag| flag.to_owned())
                .collect::<Vec<_>>(),
            &KNOWN,
        )
    }

    #[test]
    fn known_flags_are_taken() {
        let flags = parse(&["--from=a=b", "--link", "--exclude=x", "--exclude=y"]).expect("known");
        assert_eq!(flags.text("from").as_deref(), Some("a=b"));
        assert_eq!(
            (flags.bool("link"), flags.all("exclude").len()),
            (Some(true), 2)
        );
        assert_eq!(
            parse(&["--link=FALSE"]).expect("known").bool("link"),
            Some(false)
        );
        assert_eq!(parse(&["--from="]).expect("known").text("from"), None);
    }

    #[test]
    fn others_are_refused() {
        let check = |given: &[&str], expected: &str| {
            assert_eq!(parse(given).expect_err("wrong").message, expected)
        };
        check(&["--form=a"], "unknown flag: --form");
        check(&["--from"], "missing a value on flag: --from");
        check(&["--link="], "missing a value on flag: --link");
        check(
            &["--link=1"],
            "expecting boolean value for flag --link, not: 1",
        );
        check(&["--link", "--link"], "duplicate flag specified: --link");
        assert_eq!(
            parse(&["--form=a"])
                .expect_err("wrong")
                .suggestion
                .as_deref(),
            Some("--from")
        );
    }
}
