//! From text to instructions.
//!
//! Checks each instruction by itself. What depends on others (stages, variables, base images) is
//! [`convert`](crate::convert)'s.

mod flags;
mod from;
mod health;
mod pairs;
mod run;
mod transfer;

use flags::Flags;

use crate::error::{Fault, SyntaxError};
use crate::instruction::{CommandLine, Dockerfile, Global, Instruction, KEYWORDS, Kind, Stage};
use crate::lex::directive::check_directive;
use crate::lex::heredoc::{self, Heredoc};
use crate::lex::lines::{Logical, Reader};
use crate::lex::words::{self, Parts};
use crate::limits;
use crate::position::Lines;
use crate::suggest::nearest;
use crate::warning::Warning;

/// A file to parse.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// Its name, for messages and source maps.
    pub filename: &'a str,
    /// Its content.
    pub bytes: &'a [u8],
}

/// Reads a Dockerfile.
///
/// # Errors
/// The first thing that is wrong, with its place.
pub fn parse(source: &Source<'_>) -> Result<Dockerfile, SyntaxError> {
    let refuse = |message: String, line| Fault::new(message).within(source.bytes, Lines::one(line));
    if source.bytes.len() > limits::FILE_BYTES {
        return Err(refuse(
            format!("the file has more than {} bytes", limits::FILE_BYTES),
            1,
        ));
    }
    if source.bytes.is_empty() {
        return Err(refuse("the Dockerfile cannot be empty".to_owned(), 1));
    }
    let mut file = Dockerfile {
        filename: source.filename.to_owned(),
        source: source.bytes.to_vec(),
        escape: '\\',
        check: check_directive(source.bytes),
        globals: Vec::new(),
        stages: Vec::new(),
        warnings: Vec::new(),
    };
    let mut reader = Reader::new(source.bytes);
    let mut count = 0;
    while let Some(logical) = reader.logical()? {
        count += 1;
        if count > limits::INSTRUCTIONS {
            return Err(refuse(
                format!("more than {} instructions", limits::INSTRUCTIONS),
                logical.lines.start,
            ));
        }
        let warning = logical
            .empty_continuation
            .filter(|_| !skips(file.check.as_deref(), "NoEmptyContinuation"));
        file.warnings
            .extend(warning.map(Warning::empty_continuation));
        let instruction = instruction(logical, &mut reader, source.bytes)?;
        let lines = instruction.lines;
        add(&mut file, instruction).map_err(|fault| fault.within(source.bytes, lines))?;
    }
    file.escape = reader.escape;
    match count {
        0 => Err(refuse(
            "file with no instructions".to_owned(),
            reader.line(),
        )),
        _ => Ok(file),
    }
}

/// One instruction of an ONBUILD trigger, which was taken out of its file. The escape character is always `\`.
pub(crate) fn parse_trigger(text: &str) -> Result<Instruction, SyntaxError> {
    let refuse = |message: &str| Fault::new(message).within(text.as_bytes(), Lines::one(1));
    let mut reader = Reader::new(text.as_bytes());
    let logical = reader.logical()?.ok_or_else(|| refuse("it is empty"))?;
    let instruction = instruction(logical, &mut reader, text.as_bytes())?;
    if reader.logical()?.is_some() {
        return Err(refuse("it must be a single instruction"));
    }
    match instruction.kind {
        Kind::From(_) | Kind::Maintainer(_) | Kind::Onbuild(_) => {
            Err(refuse("the instruction isn't allowed here"))
        }
        _ => Ok(instruction),
    }
}

/// Puts an instruction where it belongs.
fn add(file: &mut Dockerfile, instruction: Instruction) -> Result<(), Fault> {
    let Instruction {
        lines,
        original,
        kind,
    } = instruction;
    match (kind, file.stages.last_mut()) {
        (Kind::From(from), _) => {
            if file.stages.len() >= limits::STAGES {
                return Err(Fault::new(format!("more than {} stages", limits::STAGES)));
            }
            let crate::instruction::From {
                base,
                name,
                platform,
            } = from;
            file.stages.push(Stage {
                name,
                base,
                platform,
                original,
                lines,
                instructions: Vec::new(),
            });
        }
        (Kind::Arg(arguments), None) => file.globals.push(Global { lines, arguments }),
        (_, None) => {
            return Err(Fault::new(
                "no build stage in current context: only ARG can stand before FROM",
            ));
        }
        (kind, Some(stage)) => stage.instructions.push(Instruction {
            lines,
            original,
            kind,
        }),
    }
    Ok(())
}

/// Whether the options of a check directive skip this rule.
fn skips(options: Option<&str>, rule: &str) -> bool {
    let parts = options
        .unwrap_or_default()
        .split(';')
        .filter_map(|option| option.trim().strip_prefix("skip="));
    parts
        .flat_map(|rules| rules.split(','))
        .any(|name| name.trim() == rule || name.trim() == "all")
}

/// Parses the instruction and reads its heredocs.
fn instruction(
    logical: Logical,
    reader: &mut Reader<'_>,
    source: &[u8],
) -> Result<Instruction, SyntaxError> {
    let mut lines = logical.lines;
    let parts = words::split(&logical.text);
    let mut heredocs = if takes_heredocs(&parts) {
        heredoc::marks(&logical.text)
    } else {
        Vec::new()
    };
    if !heredocs.is_empty() {
        lines.end = heredoc::read(&mut heredocs, reader, source, lines)?;
    }
    let original = logical.text.trim().to_owned();
    let request = Request {
        parts,
        heredocs,
        escape: reader.escape,
    };
    let kind = request
        .parse()
        .map_err(|fault| fault.within(source, logical.lines))?;
    Ok(Instruction {
        lines,
        original,
        kind,
    })
}

/// Whether a `<<` in this instruction begins a heredoc.
fn takes_heredocs(parts: &Parts) -> bool {
    match parts.keyword.to_ascii_uppercase().as_str() {
        "ADD" | "COPY" | "RUN" => !matches!(words::json(&parts.rest), Ok(Some(_))),
        "ONBUILD" => {
            let inner = words::split(&parts.rest);
            !inner.keyword.eq_ignore_ascii_case("ONBUILD") && takes_heredocs(&inner)
        }
        _ => false,
    }
}

/// An instruction to parse.
struct Request {
    parts: Parts,
    heredocs: Vec<Heredoc>,
    escape: char,
}

impl Request {
    fn parse(mut self) -> Result<Kind, Fault> {
        let keyword = self.parts.keyword.to_ascii_uppercase();
        Ok(match keyword.as_str() {
            "ADD" => Kind::Add(transfer::add(&self)?),
            "ARG" => Kind::Arg(pairs::arguments(&self)?),
            "CMD" => Kind::Cmd(self.command_line()?),
            "COPY" => Kind::Copy(transfer::copy(&self)?),
            "ENTRYPOINT" => Kind::Entrypoint(self.command_line()?),
            "ENV" => Kind::Env(pairs::pairs(&self)?),
            "EXPOSE" => Kind::Expose(self.ports()?),
            "FROM" => Kind::From(from::from(&self)?),
            "HEALTHCHECK" => Kind::Healthcheck(health::healthcheck(&self)?),
            "LABEL" => Kind::Label(pairs::pairs(&self)?),
            "MAINTAINER" => Kind::Maintainer(self.single()?),
            "ONBUILD" => Kind::Onbuild(self.trigger()?),
            "RUN" => Kind::Run(run::run(&mut self)?),
            "SHELL" => Kind::Shell(self.shell()?),
            "STOPSIGNAL" => Kind::StopSignal(self.single()?),
            "USER" => Kind::User(self.single()?),
            "VOLUME" => Kind::Volume(self.volumes()?),
            "WORKDIR" => Kind::Workdir(self.single()?),
            _ => {
                let given = &self.parts.keyword;
                return Err(Fault::new(format!("unknown instruction: {given}"))
                    .at(given.clone())
                    .suggest(nearest(given, KEYWORDS)));
            }
        })
    }

    fn keyword(&self) -> String {
        self.parts.keyword.to_ascii_uppercase()
    }

    /// Refuses flags.
    fn no_flags(&self) -> Result<(), Fault> {
        Flags::parse(&self.parts.flags, &[]).map(drop)
    }

    /// Everything behind the keyword, which must not be empty.
    fn single(&self) -> Result<String, Fault> {
        self.no_flags()?;
        match self.parts.rest.is_empty() {
            true => Err(Fault::new(format!(
                "{} requires exactly one argument",
                self.keyword()
            ))),
            false => Ok(self.parts.rest.clone()),
        }
    }

    fn at_least_one<T>(&self, found: Vec<T>) -> Result<Vec<T>, Fault> {
        match found.is_empty() {
            true => Err(Fault::new(format!(
                "{} requires at least one argument",
                self.keyword()
            ))),
            false => Ok(found),
        }
    }

    fn command_line(&self) -> Result<CommandLine, Fault> {
        self.no_flags()?;
        self.shell_or_exec()
    }

    fn shell_or_exec(&self) -> Result<CommandLine, Fault> {
        Ok(match words::json(&self.parts.rest).map_err(Fault::new)? {
            Some(arguments) => CommandLine::Exec(arguments),
            None => CommandLine::Shell(self.parts.rest.clone()),
        })
    }

    /// The JSON form's strings, or the words.
    fn list(&self) -> Result<Vec<String>, Fault> {
        Ok(words::json(&self.parts.rest)
            .map_err(Fault::new)?
            .unwrap_or_else(|| words::plain(&self.parts.rest)))
    }

    fn ports(&self) -> Result<Vec<String>, Fault> {
        self.no_flags()?;
        let mut ports = self.at_least_one(words::plain(&self.parts.rest))?;
        ports.sort();
        Ok(ports)
    }

    fn volumes(&self) -> Result<Vec<String>, Fault> {
        self.no_flags()?;
        let volumes: Vec<_> = self
            .list()?
            .iter()
            .map(|volume| volume.trim().to_owned())
            .collect();
        if volumes.iter().any(String::is_empty) {
            return Err(Fault::new("VOLUME specified can not be an empty string"));
        }
        self.at_least_one(volumes)
    }

    fn shell(&self) -> Result<Vec<String>, Fault> {
        self.no_flags()?;
        match words::json(&self.parts.rest).map_err(Fault::new)? {
            Some(arguments) => self.at_least_one(arguments),
            None => Err(Fault::new(
                "SHELL requires the arguments to be in JSON form",
            )),
        }
    }

    /// The instruction behind ONBUILD with its heredocs, checked.
    fn trigger(&self) -> Result<String, Fault> {
        self.no_flags()?;
        let mut text = self.parts.rest.clone();
        let inner = words::split(&text);
        match inner.keyword.to_ascii_uppercase().as_str() {
            "" => return Err(Fault::new("ONBUILD requires at least one argument")),
            "ONBUILD" => {
                return Err(Fault::new(
                    "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed",
                ));
            }
            keyword @ ("FROM" | "MAINTAINER") => {
                return Err(Fault::new(format!(
                    "{keyword} isn't allowed as an ONBUILD trigger"
                )));
            }
            _ => {}
        }
        for heredoc in &self.heredocs {
            text.push('\n');
            text.push_str(&heredoc.content);
            text.push_str(&heredoc.name);
        }
        let request = Self {
            parts: inner,
            heredocs: self.heredocs.clone(),
            escape: self.escape,
        };
        request.parse()?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests;
