//! Vertex names: `[linux/amd64 build 2/3] RUN make`.

use buildyard_model::Platform;

use super::env::Env;
use crate::expand::Variables;

/// How the steps of a stage are counted and called.
#[derive(Debug, Clone, Default)]
pub(super) struct Numbering {
    /// The stage's name in front of its steps; empty if the file has only one stage.
    pub(super) stage: String,
    /// Steps named so far.
    pub(super) index: usize,
    /// Steps in all; 0 for images that only `--from` names: those have no prefix.
    pub(super) total: usize,
    /// The step comes from a trigger.
    pub(super) on_build: bool,
    /// Platforms are shown.
    pub(super) multi_platform: bool,
}

impl Numbering {
    /// The name of the next step.
    pub(super) fn next(&mut self, text: &str, platform: Option<&Platform>, env: &Env) -> String {
        self.index += 1;
        self.again(text, platform, env)
    }

    /// The name of one more operation of the step named last.
    pub(super) fn again(&self, text: &str, platform: Option<&Platform>, env: &Env) -> String {
        if self.total == 0 {
            return text.to_owned();
        }
        let mut name = String::from("[");
        if let Some(platform) = platform.filter(|_| self.multi_platform) {
            name += &format!("{platform}{} ", cross(platform, env));
        }
        if !self.stage.is_empty() {
            name += &format!("{} ", self.stage);
        }
        let width = self.total.to_string().len();
        name += &format!("{:width$}/{}] ", self.index, self.total);
        if self.on_build {
            name += "ONBUILD ";
        }
        name + text
    }
}

/// `->arm64` where the environment says that the step builds for another platform.
fn cross(platform: &Platform, env: &Env) -> String {
    let Some(target) = target_of(platform, env) else {
        return String::new();
    };
    if target.os != platform.os {
        return format!("->{target}");
    }
    match (
        target.architecture != platform.architecture,
        target.variant.is_empty(),
    ) {
        (false, _) => String::new(),
        (true, true) => format!("->{}", target.architecture),
        (true, false) => format!("->{}/{}", target.architecture, target.variant),
    }
}

/// The platform that `TARGETPLATFORM` or its parts name.
fn target_of(platform: &Platform, env: &Env) -> Option<Platform> {
    let (mut os, mut architecture, mut variant) = (None, None, None);
    for name in env.names() {
        match name {
            "TARGETPLATFORM" => {
                if let Some(Ok(target)) = env.get(name).map(str::parse) {
                    return Some(target);
                }
            }
            "TARGETOS" => os = env.get(name),
            "TARGETARCH" => architecture = env.get(name),
            "TARGETVARIANT" => variant = env.get(name),
            _ => {}
        }
    }
    os.or(architecture).or(variant)?;
    let or = |value: Option<&str>, other: &str| {
        value.filter(|v| !v.is_empty()).unwrap_or(other).to_owned()
    };
    let (os, architecture) = (
        or(os, &platform.os),
        or(architecture, &platform.architecture),
    );
    Some(Platform::new(
        &os,
        &architecture,
        variant.unwrap_or_default(),
    ))
}

/// The keyword in capitals.
pub(super) fn uppercase_keyword(text: &str) -> String {
    match text.split_once(' ') {
        Some((keyword, rest)) => format!("{} {rest}", keyword.to_uppercase()),
        None => text.to_uppercase(),
    }
}

/// The first line of a heredoc.
pub(super) fn summary(text: &str) -> String {
    let mut lines = text.trim().lines();
    let first = lines.next().unwrap_or_default();
    match lines.next() {
        Some(_) => format!("{first}..."),
        None => first.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_show_stage_number_and_platform() {
        let amd64 = Platform::new("linux", "amd64", "");
        let check = |numbering: Numbering, env: &[(&str, &str)], expected: &str| {
            let mut variables = Env::default();
            env.iter()
                .for_each(|(name, value)| variables.set(name, value));
            assert_eq!(
                numbering.clone().next("RUN x", Some(&amd64), &variables),
                expected
            );
        };
        let one = Numbering {
            total: 3,
            index: 1,
            ..Numbering::default()
        };
        check(one.clone(), &[], "[2/3] RUN x");
        check(
            Numbering {
                total: 0,
                ..one.clone()
            },
            &[],
            "RUN x",
        );
        check(
            Numbering {
                total: 12,
                stage: "build".into(),
                ..one.clone()
            },
            &[],
            "[build  2/12] RUN x",
        );
        check(
            Numbering {
                on_build: true,
                ..one.clone()
            },
            &[],
            "[2/3] ONBUILD RUN x",
        );
        let multi = Numbering {
            multi_platform: true,
            stage: "b".into(),
            ..one
        };
        check(multi.clone(), &[], "[linux/amd64 b 2/3] RUN x");
        check(
            multi.clone(),
            &[("TARGETPLATFORM", "linux/arm64")],
            "[linux/amd64->arm64 b 2/3] RUN x",
        );
        check(
            multi.clone(),
            &[("TARGETARCH", "arm"), ("TARGETVARIANT", "v6")],
            "[linux/amd64->arm/v6 b 2/3] RUN x",
        );
        check(
            multi.clone(),
            &[("TARGETOS", "windows")],
            "[linux/amd64->windows/amd64 b 2/3] RUN x",
        );
        check(
            multi,
            &[("TARGETARCH", "amd64")],
            "[linux/amd64 b 2/3] RUN x",
        );
    }

    #[test]
    fn heredocs_are_summed_up() {
        assert_eq!(
            (summary("\n a\nb\n"), summary("a\n"), summary("")),
            ("a...".into(), "a".into(), String::new())
        );
    }
}
