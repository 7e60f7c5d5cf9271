//! The instructions of a Dockerfile, parsed but not expanded: variables and quotes are still in the words.

use buildyard_image::Healthcheck;

use crate::lex::heredoc::Heredoc;
use crate::position::Lines;
use crate::warning::Warning;

/// A Dockerfile that was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Dockerfile {
    /// The file's name, for error messages and source maps.
    pub filename: String,
    /// The file as it came.
    pub source: Vec<u8>,
    /// The escape character: `\` or a backtick.
    pub escape: char,
    /// The options of a `# check=` directive, not evaluated.
    pub check: Option<String>,
    /// The ARG instructions before the first stage.
    pub globals: Vec<Global>,
    /// The stages, in their order.
    pub stages: Vec<Stage>,
    /// What is worth telling.
    pub warnings: Vec<Warning>,
}

/// An ARG instruction before the first stage.
#[derive(Debug, Clone, PartialEq)]
pub struct Global {
    /// Its lines.
    pub lines: Lines,
    /// The arguments that it declares.
    pub arguments: Vec<Argument>,
}

/// A stage: FROM and what follows it.
#[derive(Debug, Clone, PartialEq)]
pub struct Stage {
    /// The name given by AS, in lowercase.
    pub name: Option<String>,
    /// Image or stage that it starts from.
    pub base: String,
    /// `--platform`.
    pub platform: Option<String>,
    /// The FROM instruction as written.
    pub original: String,
    /// The lines of the FROM instruction.
    pub lines: Lines,
    /// The instructions, FROM left out.
    pub instructions: Vec<Instruction>,
}

/// One instruction.
#[derive(Debug, Clone, PartialEq)]
pub struct Instruction {
    /// Its lines, heredocs included.
    pub lines: Lines,
    /// As written, continuation lines joined, heredocs left out.
    pub original: String,
    /// What it says.
    pub kind: Kind,
}

/// What an instruction says.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// ADD.
    Add(Copy),
    /// ARG.
    Arg(Vec<Argument>),
    /// CMD.
    Cmd(CommandLine),
    /// COPY.
    Copy(Copy),
    /// ENTRYPOINT.
    Entrypoint(CommandLine),
    /// ENV.
    Env(Vec<Pair>),
    /// EXPOSE.
    Expose(Vec<String>),
    /// FROM; stands in [`Stage`], never among its instructions.
    From(From),
    /// HEALTHCHECK.
    Healthcheck(Healthcheck),
    /// LABEL.
    Label(Vec<Pair>),
    /// MAINTAINER.
    Maintainer(String),
    /// ONBUILD: the instruction's text, heredocs included.
    Onbuild(String),
    /// RUN.
    Run(Run),
    /// SHELL.
    Shell(Vec<String>),
    /// STOPSIGNAL.
    StopSignal(String),
    /// USER.
    User(String),
    /// VOLUME.
    Volume(Vec<String>),
    /// WORKDIR.
    Workdir(String),
}

/// FROM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct From {
    /// Image or stage.
    pub base: String,
    /// The name given by AS, in lowercase.
    pub name: Option<String>,
    /// `--platform`.
    pub platform: Option<String>,
}

/// `name=value` of ENV and LABEL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// Name.
    pub name: String,
    /// Value.
    pub value: String,
}

/// `name` or `name=default` of ARG.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Argument {
    /// Name.
    pub name: String,
    /// Default.
    pub default: Option<String>,
}

/// The command of RUN, CMD and ENTRYPOINT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandLine {
    /// A line for the shell.
    Shell(String),
    /// Arguments, from the JSON form.
    Exec(Vec<String>),
}

/// RUN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// The command.
    pub command: CommandLine,
    /// Heredocs of the command.
    pub heredocs: Vec<Heredoc>,
    /// `--mount`s as written; variables in them are expanded before they are read.
    pub mounts: Vec<MountFlag>,
    /// `--network`.
    pub network: Network,
}

/// A `--mount` flag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountFlag {
    /// The comma separated fields, split.
    pub fields: Vec<String>,
    /// The stage or image of `from=`, which is never expanded.
    pub from: Option<String>,
}

/// `RUN --network`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Network {
    /// What the build says.
    #[default]
    Default,
    /// No network.
    None,
    /// The host's network.
    Host,
}

/// COPY and ADD.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Copy {
    /// Paths to copy.
    pub sources: Vec<String>,
    /// Heredocs to make files of.
    pub heredocs: Vec<Heredoc>,
    /// Where to.
    pub destination: String,
    /// `--from`: stage, number of a stage, or image (COPY).
    pub from: Option<String>,
    /// `--chown`.
    pub chown: Option<String>,
    /// `--chmod`.
    pub chmod: Option<String>,
    /// `--link`.
    pub link: bool,
    /// `--parents` (COPY).
    pub parents: bool,
    /// `--exclude`s.
    pub exclude: Vec<String>,
    /// `--checksum` (ADD).
    pub checksum: Option<String>,
    /// `--unpack` (ADD); the default depends on the source.
    pub unpack: Option<bool>,
}

/// Keywords, in the order in which they are suggested.
pub const KEYWORDS: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];
