//! Platforms, `os/architecture[/variant]`, normalised as containerd does
//! (`platforms.Normalize`): `x86_64` is `amd64`, `aarch64` and `arm64/v8` are `arm64`, `arm` is `arm/v7`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A normalised platform.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Platform {
    /// `linux`.
    pub os: String,
    /// GOARCH's name of the architecture.
    pub architecture: String,
    /// `v7` of `arm/v7`; empty for the architecture's default.
    pub variant: String,
}

/// A text that names no platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a platform (want os/architecture or os/architecture/variant, e.g. linux/arm64)"
)]
pub struct ParsePlatformError(String);

impl Platform {
    /// The platform of these parts, normalised.
    pub fn new(os: &str, architecture: &str, variant: &str) -> Self {
        let os = os.to_ascii_lowercase();
        let os = if os == "macos" {
            "darwin".to_owned()
        } else {
            os
        };
        let (architecture, variant) = normalize(
            &architecture.to_ascii_lowercase(),
            &variant.to_ascii_lowercase(),
        );
        Self {
            os,
            architecture,
            variant,
        }
    }

    /// The platform this program was compiled for.
    pub fn native() -> Self {
        Self::new("linux", std::env::consts::ARCH, "")
    }

    /// The form used in directory names: `linux_amd64`, `linux_arm_v7`.
    pub fn file_name(&self) -> String {
        self.to_string().replace('/', "_")
    }
}

fn normalize(architecture: &str, variant: &str) -> (String, String) {
    let (architecture, variant) = match (architecture, variant) {
        ("i386", _) => ("386", ""),
        ("x86_64" | "x86-64" | "amd64", "v1") => ("amd64", ""),
        ("x86_64" | "x86-64", variant) => ("amd64", variant),
        ("aarch64" | "arm64", "8" | "v8" | "v8.0") => ("arm64", ""),
        ("aarch64", variant) => ("arm64", variant),
        ("armhf", _) | ("arm", "" | "7") => ("arm", "v7"),
        ("armel", _) => ("arm", "v6"),
        ("arm", "5") => ("arm", "v5"),
        ("arm", "6") => ("arm", "v6"),
        ("arm", "8") => ("arm", "v8"),
        ("powerpc64le" | "powerpc64", variant) => ("ppc64le", variant),
        other => other,
    };
    (architecture.to_owned(), variant.to_owned())
}

impl FromStr for Platform {
    type Err = ParsePlatformError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refuse = || ParsePlatformError(text.chars().take(100).collect());
        let parts: Vec<&str> = text.split('/').collect();
        let well_formed = |part: &&str| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
        };
        if !parts.iter().all(well_formed) {
            return Err(refuse());
        }
        match parts[..] {
            [os, architecture] => Ok(Self::new(os, architecture, "")),
            [os, architecture, variant] => Ok(Self::new(os, architecture, variant)),
            [one] => single(one).ok_or_else(refuse),
            _ => Err(refuse()),
        }
    }
}

/// `linux` is the operating system on this architecture, `arm64` the architecture on Linux.
fn single(part: &str) -> Option<Platform> {
    const OSES: [&str; 4] = ["linux", "windows", "darwin", "freebsd"];
    const ARCHITECTURES: [&str; 13] = [
        "amd64", "x86_64", "x86-64", "arm64", "aarch64", "arm", "armhf", "armel", "386", "i386",
        "riscv64", "ppc64le", "s390x",
    ];
    let part = part.to_ascii_lowercase();
    if OSES.contains(&part.as_str()) {
        return Some(Platform::new(&part, std::env::consts::ARCH, ""));
    }
    let known =
        ARCHITECTURES.contains(&part.as_str()) || ["loong64", "mips64le"].contains(&part.as_str());
    known.then(|| Platform::new("linux", &part, ""))
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if !self.variant.is_empty() {
            write!(f, "/{}", self.variant)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<Platform> for String {
    fn from(platform: Platform) -> Self {
        platform.to_string()
    }
}

impl TryFrom<String> for Platform {
    type Error = ParsePlatformError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        assert_eq!(
            text.parse::<Platform>().map(|p| p.to_string()).as_deref(),
            Ok(expected),
            "{text}"
        );
    }

    #[test]
    fn platforms_are_normalised() {
        check("linux/amd64", "linux/amd64");
        check("Linux/x86_64", "linux/amd64");
        check("linux/arm64/v8", "linux/arm64");
        check("linux/arm", "linux/arm/v7");
        check("linux/arm/v6", "linux/arm/v6");
        check("arm64", "linux/arm64");
        check("linux/amd64/v3", "linux/amd64/v3");
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "/",
            "linux/",
            "linux/amd64/v1/x",
            "nonsense",
            "linux/am d64",
        ] {
            assert!(text.parse::<Platform>().is_err(), "{text}");
        }
    }
}
