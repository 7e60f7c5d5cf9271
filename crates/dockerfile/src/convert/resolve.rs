//! Base images and the triggers that they bring.

use bollard_buildkit_proto::pb;
use buildyard_image::RootFs;
use buildyard_llb::build::Node;

use super::ImageRequest;
use super::plan::Plan;
use super::stage::empty_image;
use super::stages::config_bytes;
use super::work::Work;
use crate::error::{ConvertError, Problem};
use crate::instruction::Kind;
use crate::parse::parse_trigger;
use crate::reference::Reference;

/// The image without anything.
pub(super) const SCRATCH: &str = "scratch";

/// Looks up the images that are needed, and runs their triggers, which may need more.
pub(super) fn resolve(plan: &mut Plan, work: &mut Work<'_>) -> Result<(), ConvertError> {
    loop {
        let reachable = plan.reachable();
        for number in 0..plan.stages.list.len() {
            let stage = &plan.stages.list[number];
            if stage.base.is_some() || stage.resolved {
                continue;
            }
            if stage.base_name == SCRATCH {
                scratch(plan, number);
            } else if reachable.contains(&number) {
                image(plan, work, number)?;
            }
        }
        if !work.requests.is_empty() {
            return Ok(());
        }
        let mut more = false;
        for number in reachable {
            plan.stages.inherit(number, work)?;
            more |= triggers(plan, number)?;
        }
        if !more {
            return Ok(());
        }
        plan.stages.check_cycles()?;
    }
}

fn scratch(plan: &mut Plan, number: usize) {
    let stage = &mut plan.stages.list[number];
    stage.resolved = true;
    stage.image = empty_image(&plan.target.platform);
    stage.platform = Some(plan.target.platform.clone());
    stage.done = stage.unregistered;
}

fn image(plan: &mut Plan, work: &mut Work<'_>, number: usize) -> Result<(), ConvertError> {
    let stage = &mut plan.stages.list[number];
    let lines = stage.lines;
    let reference = Reference::parse(&stage.base_name).map_err(|problem| {
        Problem::BadReference {
            name: stage.base_name.clone(),
            problem,
        }
        .at(lines)
    })?;
    let platform = stage
        .platform
        .clone()
        .unwrap_or_else(|| plan.target.platform.clone());
    let key = (reference.to_string(), platform.clone());
    let Some(found) = work.images.get(&key) else {
        let shown = if work.options.multi_platform {
            format!("{platform} ")
        } else {
            String::new()
        };
        let name = format!("[{shown}internal] load metadata for {reference}");
        if !work
            .requests
            .iter()
            .any(|r| r.reference == key.0 && r.platform == platform)
        {
            work.requests.push(ImageRequest {
                reference: key.0,
                platform,
                lines,
                name,
            });
        }
        return Ok(());
    };
    let empty = found.config.rootfs.diff_ids.is_empty()
        && found.config.history.iter().all(|h| h.empty_layer);
    work.spend(config_bytes(&found.config))
        .map_err(|problem| problem.at(lines))?;
    stage.image = found.config.clone();
    stage.image.created = None;
    stage.image.rootfs = RootFs::default();
    if !empty {
        let reference = reference.with_digest(found.digest);
        let text = format!("FROM {reference}");
        let name = stage
            .numbering
            .next(&text, Some(&platform), &Default::default());
        let source = pb::SourceOp {
            identifier: format!("docker-image://{reference}"),
            ..Default::default()
        };
        let node = Node::new(pb::op::Op::Source(source))
            .platform(&platform)
            .name(name)
            .describe("com.docker.dockerfile.v1.command", stage.original.clone())
            .cap("source.image")
            .location(lines.to_pb());
        stage.state.output = Some(
            work.add(node, text.len())
                .map_err(|problem| problem.at(lines))?,
        );
        stage.state.shown_platform = Some(platform.clone());
    }
    stage.platform = Some(platform);
    stage.resolved = true;
    stage.done = stage.unregistered;
    Ok(())
}

/// Puts the triggers of a stage's base in front of its instructions. Returns whether they need more stages.
fn triggers(plan: &mut Plan, number: usize) -> Result<bool, ConvertError> {
    let stage = &mut plan.stages.list[number];
    let lines = stage.lines;
    if stage.done {
        return Ok(false);
    }
    let mut texts = stage.image.config.on_build.take().unwrap_or_default();
    if let Some(base) = stage.base.filter(|_| !stage.triggers_taken) {
        stage.triggers_taken = true;
        let of_base = plan.stages.list[base]
            .commands
            .iter()
            .filter_map(|command| match &command.instruction.kind {
                Kind::Onbuild(text) => Some(text.clone()),
                _ => None,
            });
        texts.extend(of_base);
    }
    if texts.is_empty() {
        return Ok(false);
    }
    let own = std::mem::take(&mut plan.stages.list[number].commands);
    let mut more = false;
    for text in &texts {
        let mut instruction = parse_trigger(text).map_err(|error| {
            let trigger = text.chars().take(200).collect();
            Problem::BadTrigger {
                trigger,
                problem: error.message,
            }
            .at(lines)
        })?;
        instruction.lines = lines;
        let command = plan.stages.command(instruction, true)?;
        more |= plan.stages.attach(number, command);
    }
    let stage = &mut plan.stages.list[number];
    stage.commands.extend(own);
    stage.numbering.total += texts.len();
    Ok(more)
}
