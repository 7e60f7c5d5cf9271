//! What became of a container, and what its step made.

use std::sync::Arc;

use anyhow::Context;
use buildyard_layer::{FlatFiles, capture};
use buildyard_llb::pb;
use buildyard_model::Chain;

use super::StepError;
use super::mounts::Prepared;
use crate::agent::failure;
use crate::agent::machine::Machine;
use crate::agent::spec::JobStep;
use crate::agent::step::Made;
use crate::runner::{Exit, Limits, Ran, RunnerError};

/// A command that succeeded.
pub(super) struct Succeeded {
    stubs: Vec<Vec<u8>>,
}

/// Tells success from failure. The text of a failed command is BuildKit's; clients match on it.
pub(super) fn judge(
    step: &JobStep,
    meta: &pb::Meta,
    limits: &Limits,
    ran: Result<Ran, RunnerError>,
) -> Result<Succeeded, StepError> {
    let digest = step.step.digest;
    let failed = |code: i32, more: &str| {
        let command = meta.args.join(" ");
        let message =
            format!("process {command:?} did not complete successfully: exit code: {code}{more}");
        StepError::from(failure::of_step(digest, message, code))
    };
    let ran = match ran {
        Ok(ran) => ran,
        Err(RunnerError::Start(text)) if concerns_command(&text) => {
            let message = format!(
                "process {:?} did not complete successfully: {text}",
                meta.args.join(" ")
            );
            return Err(failure::of_step(digest, message, 127).into());
        }
        // The runtime's own words where its first process did not get as far as the command.
        Err(RunnerError::Start(text)) if text.contains("OOM-killed") => {
            return Err(failed(137, &out_of_memory(limits)));
        }
        Err(error) => return Err(anyhow::Error::from(error).into()),
    };
    match ran.exit {
        Exit::Code(code) if meta.valid_exit_codes.contains(&code) => {
            Ok(Succeeded { stubs: ran.stubs })
        }
        Exit::Code(0) if meta.valid_exit_codes.is_empty() => Ok(Succeeded { stubs: ran.stubs }),
        Exit::Code(code) => Err(failed(code, "")),
        Exit::OutOfMemory { code } => Err(failed(code, &out_of_memory(limits))),
        Exit::Cancelled => Err(failure::cancelled(digest).into()),
    }
}

/// What is said of a command that was killed for memory: `cannot allocate memory` is BuildKit's text.
fn out_of_memory(limits: &Limits) -> String {
    let why = match limits.memory {
        Some(bytes) => format!(
            "it needed more than the {} MiB that its worker gives to a step (--step-memory)",
            bytes >> 20
        ),
        None => "its worker's memory ran out".to_owned(),
    };
    format!(": cannot allocate memory: killed by the kernel because {why}")
}

/// Whether the runtime could not start the container because of the command: a program or directory that the image lacks,
/// or that is no program. Everything else lies in this machine.
fn concerns_command(text: &str) -> bool {
    ["exec: \"", "exec /", "chdir to cwd"]
        .iter()
        .any(|said| text.contains(said))
}

impl Succeeded {
    /// Makes layers of what the step wrote.
    pub(super) async fn finish(
        self,
        machine: &Arc<Machine>,
        flats: &FlatFiles,
        mut prepared: Prepared,
        emulator: String,
    ) -> Result<Made, StepError> {
        let mut made = Made {
            outputs: Vec::new(),
            layers: Vec::new(),
            emulator,
        };
        let mut outputs = std::mem::take(&mut prepared.outputs);
        outputs.sort_by_key(|output| output.index);
        for output in outputs {
            let flats = flats.clone();
            let stubs = if output.is_root {
                self.stubs.clone()
            } else {
                Vec::new()
            };
            let threads = std::thread::available_parallelism().map_or(1, usize::from);
            let captured = tokio::task::spawn_blocking(move || {
                let captured = capture(&output.upper.dir(), &output.tree, &stubs, &flats, threads);
                captured.map(|captured| (captured, output.index, output.base))
            });
            let (captured, index, base) = captured
                .await
                .expect("capturing does not panic")
                .context("making a layer of what the step wrote")?;
            let toc = Arc::new(captured.toc);
            let id = toc.layer_id();
            machine.layers.remember(id, toc.clone());
            made.outputs
                .resize(index.max(made.outputs.len()), Chain::scratch());
            made.outputs.push(base.with(id));
            made.layers.push((id, toc));
        }
        Ok(made)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_named_where_there_is_one() {
        let limited = Limits {
            memory: Some(3 << 30),
            ..Limits::default()
        };
        assert!(out_of_memory(&limited).contains("the 3072 MiB that its worker gives to a step"));
        assert!(out_of_memory(&Limits::default()).contains("its worker's memory ran out"));
    }

    #[test]
    fn the_image_and_the_machine_are_told_apart() {
        let check =
            |text: &str, command: bool| assert_eq!(concerns_command(text), command, "{text}");
        let init = "unable to start container process: error during container init: ";
        check(
            &format!("{init}exec: \"/no\": stat /no: no such file or directory"),
            true,
        );
        check("exec /text: exec format error", true);
        check("no cgroup mount found in mountinfo", false);
        check(&format!("{init}error mounting \"proc\" to rootfs"), false);
    }
}
