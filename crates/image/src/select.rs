//! Which entry of an index serves a platform: the rules of containerd's `platforms.Only`.

use buildyard_model::Platform;

use crate::{Descriptor, Index};

/// The platforms whose images run on `wanted`, best first: the platform itself, lower variants of its architecture, then
/// the 32-bit architecture that its processors also execute.
pub fn accepted_platforms(wanted: &Platform) -> Vec<Platform> {
    let with = |architecture: &str, variant: &str| Platform::new(&wanted.os, architecture, variant);
    let mut accepted = vec![wanted.clone()];
    let below = |prefix: &str, floor: u32| -> Vec<String> {
        let version: u32 = wanted
            .variant
            .strip_prefix(prefix)
            .and_then(|v| v.parse().ok())
            .unwrap_or(0);
        (floor..version)
            .rev()
            .map(|v| format!("{prefix}{v}"))
            .collect()
    };
    match wanted.architecture.as_str() {
        "amd64" => {
            accepted.extend(below("v", 1).iter().map(|variant| with("amd64", variant)));
            accepted.push(with("386", ""));
        }
        "arm" => accepted.extend(below("v", 5).iter().map(|variant| with("arm", variant))),
        "arm64" => {
            if !wanted.variant.is_empty() {
                accepted.push(with("arm64", ""));
            }
            accepted.extend(["v8", "v7", "v6", "v5"].map(|variant| with("arm", variant)));
        }
        _ => {}
    }
    accepted
}

/// Whether an entry is an attestation of another entry (BuildKit's `vnd.docker.reference.type`, platform unknown/unknown).
pub fn attestation(entry: &Descriptor) -> bool {
    entry.annotations.contains_key("vnd.docker.reference.type")
        || entry
            .platform
            .as_ref()
            .is_some_and(|p| p.os == "unknown" && p.architecture == "unknown")
}

/// What an index has for a platform.
#[derive(Debug, Clone, PartialEq)]
pub enum PlatformChoice<'a> {
    /// This entry.
    Entry(&'a Descriptor),
    /// No entry names a platform that fits, but these name none: their configurations tell.
    Unnamed(Vec<&'a Descriptor>),
    /// Nothing; these are there.
    Missing(Vec<Platform>),
}

/// Chooses the entry of an index for a platform. Entries for attestations are never chosen and never listed. Of several
/// that fit equally the first is taken.
pub fn choose<'a>(index: &'a Index, wanted: &Platform) -> PlatformChoice<'a> {
    let entries: Vec<&Descriptor> = index
        .manifests
        .iter()
        .filter(|entry| !attestation(entry))
        .collect();
    let named = || {
        entries
            .iter()
            .filter_map(|entry| Some((*entry, entry.platform.as_ref()?.normalized())))
    };
    for accepted in accepted_platforms(wanted) {
        if let Some((entry, _)) = named().find(|(_, platform)| *platform == accepted) {
            return PlatformChoice::Entry(entry);
        }
    }
    let unnamed: Vec<&Descriptor> = entries
        .iter()
        .filter(|entry| entry.platform.is_none())
        .copied()
        .collect();
    if !unnamed.is_empty() {
        return PlatformChoice::Unnamed(unnamed);
    }
    let mut available: Vec<Platform> = named().map(|(_, platform)| platform).collect();
    available.dedup();
    PlatformChoice::Missing(available)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DescriptorPlatform, MediaTypes};

    fn platform(text: &str) -> Platform {
        text.parse().expect("the test's platforms are well formed")
    }

    fn entry(text: &str) -> Descriptor {
        let mut entry = Descriptor::of(MediaTypes::Oci.manifest(), text.as_bytes());
        let mut parts = text.split('/');
        let mut part = || parts.next().unwrap_or_default().to_owned();
        let (os, architecture, variant) = (part(), part(), part());
        entry.platform = Some(DescriptorPlatform {
            os,
            architecture,
            variant,
            ..Default::default()
        });
        entry
    }

    fn check(entries: &[&str], wanted: &str, expected: Option<&str>) {
        let index = Index::new(
            MediaTypes::Oci,
            entries.iter().map(|text| entry(text)).collect(),
        );
        let chosen = match choose(&index, &platform(wanted)) {
            PlatformChoice::Entry(found) => Some(found.digest),
            _ => None,
        };
        assert_eq!(
            chosen,
            expected.map(|text| entry(text).digest),
            "{wanted} of {entries:?}"
        );
    }

    #[test]
    fn the_best_entry_is_chosen() {
        check(
            &["linux/amd64", "linux/arm64"],
            "linux/arm64",
            Some("linux/arm64"),
        );
        check(&["linux/arm64/v8"], "linux/arm64", Some("linux/arm64/v8"));
        check(
            &["linux/arm/v5", "linux/arm/v6"],
            "linux/arm/v7",
            Some("linux/arm/v6"),
        );
        check(&["linux/arm/v7"], "linux/arm/v6", None);
        check(
            &["linux/amd64", "linux/amd64/v2"],
            "linux/amd64/v3",
            Some("linux/amd64/v2"),
        );
        check(
            &["linux/amd64", "linux/amd64/v3"],
            "linux/amd64",
            Some("linux/amd64"),
        );
        check(&["linux/amd64/v3"], "linux/amd64/v2", None);
        check(&["linux/386"], "linux/amd64", Some("linux/386"));
        check(&["linux/arm/v7"], "linux/arm64", Some("linux/arm/v7"));
        check(&["windows/amd64", "unknown/unknown"], "linux/amd64", None);
    }

    #[test]
    fn what_is_there_is_listed_without_attestations() {
        let index = Index::new(
            MediaTypes::Oci,
            ["linux/amd64", "unknown/unknown", "linux/arm/v7"]
                .map(entry)
                .to_vec(),
        );
        let missing = choose(&index, &platform("linux/riscv64"));
        assert_eq!(
            missing,
            PlatformChoice::Missing(vec![platform("linux/amd64"), platform("linux/arm/v7")])
        );
    }

    #[test]
    fn entries_without_a_platform_are_asked_last() {
        let mut plain = entry("linux/amd64");
        plain.platform = None;
        let index = Index::new(MediaTypes::Oci, vec![plain.clone(), entry("linux/arm64")]);
        assert_eq!(
            choose(&index, &platform("linux/s390x")),
            PlatformChoice::Unnamed(vec![&plain])
        );
        assert!(matches!(
            choose(&index, &platform("linux/arm64")),
            PlatformChoice::Entry(_)
        ));
    }
}
