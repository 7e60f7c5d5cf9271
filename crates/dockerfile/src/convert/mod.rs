//! From instructions to operations.
//!
//! For each target platform the stages are [planned](plan): which are needed, which images they start from, what ONBUILD
//! adds. When all images are known, each needed stage is [worked off](stage::Stage::run) in its order, and every
//! instruction becomes operations in one builder that all platforms share: what they have in common is one step.
//!
//! Order, names and semantics are those of BuildKit's `frontend/dockerfile/dockerfile2llb`.

mod action;
mod chmod;
mod config;
mod env;
mod expose;
mod mount;
mod mount_options;
mod name;
mod path;
mod plan;
mod quote;
mod resolve;
mod run;
mod signal;
mod stage;
mod stages;
mod transfer;
mod work;

use std::collections::BTreeMap;

use bollard_buildkit_proto::pb;
use buildyard_image::ImageConfig;
use buildyard_model::{Digest, Platform};

use crate::error::{ConvertError, Problem};
use crate::instruction::Dockerfile;
use crate::limits;
use crate::options::Options;
use crate::position::Lines;
use crate::warning::Warning;
use plan::Plan;
use work::Work;

/// The base images that the caller has resolved, by normalised reference and platform, as asked for.
pub type Images = BTreeMap<(String, Platform), ResolvedImage>;

/// An image as the registry knows it.
#[derive(Debug, Clone, PartialEq)]
pub struct ResolvedImage {
    /// The digest that its reference stands for (of the index, if it is one).
    pub digest: Digest,
    /// The configuration of the platform asked for.
    pub config: ImageConfig,
}

/// An image that must be resolved before the conversion can go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageRequest {
    /// Normalised, with a tag or digest: `docker.io/library/alpine:latest`.
    pub reference: String,
    /// For which platform.
    pub platform: Platform,
    /// The instruction that names it.
    pub lines: Lines,
    /// The vertex name under which BuildKit shows the look-up.
    pub name: String,
}

/// How far a conversion came.
#[derive(Debug, Clone, PartialEq)]
pub enum Conversion {
    /// These images must be resolved first; then convert again with them added. It may happen more than once, because
    /// triggers of a base image can name further images.
    NeedsImages(Vec<ImageRequest>),
    /// It is done.
    Done(Box<Build>),
}

/// What is to be built.
#[derive(Debug, Clone, PartialEq)]
pub struct Build {
    /// One per platform, in the order in which they were asked for.
    pub targets: Vec<Target>,
    /// What is worth telling.
    pub warnings: Vec<Warning>,
}

/// The outcome for one platform.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    /// The platform of the image.
    pub platform: Platform,
    /// The operations; empty for an image without layers.
    pub definition: pb::Definition,
    /// The image's configuration, without `created` and without layers. Its history starts with the base image's.
    pub config: ImageConfig,
}

/// Converts a Dockerfile for all platforms asked for. `ignore` are the patterns of the ignore file, which become part of
/// the build context's operation.
///
/// # Errors
/// The first thing that is wrong, with the lines of the instruction.
pub fn convert(
    file: &Dockerfile,
    options: &Options,
    images: &Images,
    ignore: &[String],
) -> Result<Conversion, ConvertError> {
    if file.stages.is_empty() {
        return Err(Problem::NoStages.into());
    }
    let mut work = Work::new(file, options, images);
    let mut plans = Vec::new();
    for platform in targets(options) {
        plans.push(Plan::new(&mut work, platform)?);
    }
    if !work.requests.is_empty() {
        return Ok(Conversion::NeedsImages(work.requests));
    }
    let mut outcomes = Vec::new();
    for plan in plans {
        outcomes.push(plan.run(&mut work)?);
    }
    work.set_context(ignore);
    let source = work.source_info();
    let mut targets = Vec::new();
    let mut bytes = 0;
    for outcome in outcomes {
        let definition = work.builder.definition(outcome.output, Some(&source));
        // What platforms share is in the definition of each.
        bytes += definition.def.iter().map(Vec::len).sum::<usize>();
        if bytes > limits::DEFINITION_BYTES {
            let limit = limits::DEFINITION_BYTES;
            return Err(Problem::TooMuch {
                what: "bytes of operations",
                limit,
            }
            .into());
        }
        targets.push(Target {
            platform: outcome.platform,
            definition,
            config: outcome.config,
        });
    }
    Ok(Conversion::Done(Box::new(Build {
        targets,
        warnings: file.warnings.clone(),
    })))
}

/// The target platforms; nothing asked for is the build platform, implicitly.
fn targets(options: &Options) -> Vec<plan::TargetPlatform> {
    let explicit = |platform: &Platform| plan::TargetPlatform {
        platform: platform.clone(),
        implicit: false,
    };
    match options.platforms.is_empty() {
        true => vec![plan::TargetPlatform {
            platform: options.build_platform.clone(),
            implicit: true,
        }],
        false => options.platforms.iter().map(explicit).collect(),
    }
}

#[cfg(test)]
mod tests;
