//! Annotations by attribute: `annotation[-LEVEL][[PLATFORM]].KEY=VALUE`, as BuildKit's exporters take them.

use std::collections::BTreeMap;

use buildyard_model::Platform;

use super::ExportError;
use super::attributes::Attributes;

/// Annotations of one image or index.
pub(super) type Texts = BTreeMap<String, String>;

/// All annotations of an output.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Annotations {
    pub(super) index: Texts,
    pub(super) index_descriptor: Texts,
    manifest: Scoped,
    manifest_descriptor: Scoped,
}

/// By platform; `None` is for all of them.
type Scoped = BTreeMap<Option<Platform>, Texts>;

impl Annotations {
    pub(super) fn parse(attributes: &mut Attributes) -> Result<Self, ExportError> {
        let mut annotations = Self::default();
        for (name, value) in attributes.beginning_with("annotation") {
            let refuse = |cause: &str| attributes.refuse(format!("annotation {name:?}: {cause}"));
            let rest = &name["annotation".len()..];
            let (level, platform, key) =
                split(rest).ok_or_else(|| refuse("want annotation[-LEVEL][[PLATFORM]].KEY"))?;
            let platform = match platform {
                None => None,
                Some(text) => Some(
                    text.parse::<Platform>()
                        .map_err(|cause| refuse(&cause.to_string()))?,
                ),
            };
            let texts = match (level, &platform) {
                ("" | "-manifest", _) => annotations.manifest.entry(platform).or_default(),
                ("-manifest-descriptor", _) => {
                    annotations.manifest_descriptor.entry(platform).or_default()
                }
                ("-index", None) => &mut annotations.index,
                ("-index-descriptor", None) => &mut annotations.index_descriptor,
                ("-index" | "-index-descriptor", Some(_)) => {
                    return Err(refuse("an index has no platform"));
                }
                _ => {
                    return Err(refuse(
                        "the level is not manifest, manifest-descriptor, index or index-descriptor",
                    ));
                }
            };
            texts.insert(key.to_owned(), value);
        }
        Ok(annotations)
    }

    /// Those of a platform's manifest.
    pub(super) fn manifest(&self, platform: &Platform) -> Texts {
        scoped(&self.manifest, platform)
    }

    /// Those of the descriptor that points to it.
    pub(super) fn manifest_descriptor(&self, platform: &Platform) -> Texts {
        scoped(&self.manifest_descriptor, platform)
    }

    /// Refuses annotations that have no place in these images.
    pub(super) fn check(
        &self,
        platforms: &[&Platform],
        has_index: bool,
    ) -> Result<(), ExportError> {
        let of_index = !self.index.is_empty() || !self.index_descriptor.is_empty();
        if of_index && !has_index {
            let cause = "index annotations not supported for single platform export";
            return Err(ExportError::Refused(cause.to_owned()));
        }
        let named = self
            .manifest
            .keys()
            .chain(self.manifest_descriptor.keys())
            .flatten();
        match named
            .into_iter()
            .find(|platform| !platforms.contains(platform))
        {
            None => Ok(()),
            Some(missing) => Err(ExportError::Refused(format!(
                "invalid annotation: no platform {missing} found in source"
            ))),
        }
    }
}

fn scoped(all: &Scoped, platform: &Platform) -> Texts {
    let both = [all.get(&None), all.get(&Some(platform.clone()))];
    both.into_iter()
        .flatten()
        .flatten()
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

/// Level, platform and key of what follows `annotation`.
fn split(rest: &str) -> Option<(&str, Option<&str>, &str)> {
    let end = rest.find(['.', '['])?;
    let (level, rest) = rest.split_at(end);
    let (platform, key) = match rest.strip_prefix('[') {
        None => (None, rest.strip_prefix('.')?),
        Some(rest) => {
            let (platform, rest) = rest.split_once(']')?;
            (Some(platform), rest.strip_prefix('.')?)
        }
    };
    (!key.is_empty()).then_some((level, platform, key))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(attrs: &[(&str, &str)]) -> Result<Annotations, String> {
        let attrs = attrs
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_string()))
            .collect();
        let annotations = Annotations::parse(&mut Attributes::new("image", &attrs));
        annotations.map_err(|error| error.to_string())
    }

    fn platform(text: &str) -> Platform {
        text.parse().expect("the test's platforms are well formed")
    }

    #[test]
    fn annotations_have_a_level_and_a_platform() {
        let annotations = parsed(&[
            ("annotation.org.x", "all"),
            ("annotation-manifest[linux/arm64].org.x", "arm"),
            ("annotation[linux/arm64/v8].y", "1"),
            ("annotation-index.i", "2"),
            ("annotation-manifest-descriptor.d", "3"),
            ("annotation-index-descriptor.e", "4"),
        ]);
        let annotations = annotations.expect("they are well formed");
        let texts = |pairs: &[(&str, &str)]| -> Texts {
            pairs
                .iter()
                .map(|(key, value)| (key.to_string(), value.to_string()))
                .collect()
        };
        assert_eq!(
            annotations.manifest(&platform("linux/amd64")),
            texts(&[("org.x", "all")])
        );
        assert_eq!(
            annotations.manifest(&platform("linux/arm64")),
            texts(&[("org.x", "arm"), ("y", "1")])
        );
        assert_eq!(annotations.index, texts(&[("i", "2")]));
        assert_eq!(
            annotations.manifest_descriptor(&platform("linux/amd64")),
            texts(&[("d", "3")])
        );
        assert_eq!(annotations.index_descriptor, texts(&[("e", "4")]));
        let (amd64, arm64) = (platform("linux/amd64"), platform("linux/arm64"));
        assert!(annotations.check(&[&amd64, &arm64], true).is_ok());
        assert!(annotations.check(&[&amd64, &arm64], false).is_err());
        assert!(annotations.check(&[&amd64], true).is_err());
    }

    #[test]
    fn other_annotations_are_refused() {
        for name in [
            "annotation",
            "annotation.",
            "annotation-what.x",
            "annotation[x.y",
            "annotation[nonsense].x",
            "annotation-index[linux/amd64].x",
        ] {
            assert!(parsed(&[(name, "v")]).is_err(), "{name}");
        }
    }
}
