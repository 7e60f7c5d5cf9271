//! How a command ends: the exit codes that scripts rely on, and who is at fault in each.

use std::process::ExitCode;

/// Why a command did not succeed.
#[derive(Debug)]
pub enum Failure {
    /// What was asked for cannot be done: the Dockerfile, a command in it, a registry's refusal. Exit code 1.
    Asked(anyhow::Error),
    /// The command line is wrong. Exit code 2.
    Usage(String),
    /// The farm could not do it: out of reach, no worker, an internal error. Exit code 3.
    Farm(anyhow::Error),
    /// The user interrupted. Exit code 130.
    Interrupted,
}

impl Failure {
    /// A wrong command line, in words.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::Usage(message.into())
    }

    /// The process's exit code.
    pub fn code(&self) -> ExitCode {
        ExitCode::from(self.number())
    }

    /// The exit code as a number.
    pub fn number(&self) -> u8 {
        match self {
            Self::Asked(_) => 1,
            Self::Usage(_) => 2,
            Self::Farm(_) => 3,
            Self::Interrupted => 130,
        }
    }

    /// Writes the error to standard error, its causes behind it on the same line.
    pub fn report(&self) {
        match self {
            Self::Asked(error) | Self::Farm(error) => eprintln!("ERROR: {error:#}"),
            Self::Usage(message) => eprintln!("ERROR: {message}\n\nTry 'buildyard --help'."),
            Self::Interrupted => eprintln!("ERROR: interrupted"),
        }
    }
}

/// An error of this machine (a file that cannot be read, a program that is missing) counts as the asker's.
impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Asked(error)
    }
}

/// Decides by the status code who is at fault: the farm where it is unavailable, exhausted or broken, else the asker.
impl From<tonic::Status> for Failure {
    fn from(status: tonic::Status) -> Self {
        use tonic::Code;
        let mut message = status.message().to_owned();
        if let Some(cause) = root_cause(&status).filter(|cause| !message.contains(cause)) {
            // The connection failed; the status says no more than that.
            message = format!("{message}: {cause}");
        }
        let error = anyhow::anyhow!(message);
        match status.code() {
            Code::Unavailable
            | Code::ResourceExhausted
            | Code::DeadlineExceeded
            | Code::Internal
            | Code::DataLoss
            | Code::Aborted
            | Code::Cancelled => Self::Farm(error),
            Code::Unimplemented if status.message().is_empty() => Self::Farm(anyhow::anyhow!(
                "the endpoint does not speak BuildKit's API"
            )),
            _ => Self::Asked(error),
        }
    }
}

/// The innermost error behind one, e.g. the alert of TLS behind "transport error"; none where there is nothing behind it.
pub fn root_cause(error: &dyn std::error::Error) -> Option<String> {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.last().map(ToString::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_code_decides_who_is_at_fault() {
        let check =
            |status: tonic::Status, code: u8| assert_eq!(Failure::from(status).number(), code);
        check(tonic::Status::unknown("process did not complete"), 1);
        check(tonic::Status::invalid_argument("no such stage"), 1);
        check(tonic::Status::unauthenticated("registry says no"), 1);
        check(
            tonic::Status::unimplemented("ssh mounts are not supported"),
            1,
        );
        check(tonic::Status::unavailable("no worker for linux/arm64"), 3);
        check(tonic::Status::internal("store"), 3);
    }
}
