//! COPY and ADD.

use super::Request;
use super::flags::{Flags, Takes};
use crate::error::Fault;
use crate::instruction::Copy;
use crate::lex::heredoc;

const COPY: [(&str, Takes); 6] = [
    ("chown", Takes::One),
    ("from", Takes::One),
    ("chmod", Takes::One),
    ("link", Takes::Bool),
    ("parents", Takes::Bool),
    ("exclude", Takes::Many),
];

const ADD: [(&str, Takes); 7] = [
    ("chown", Takes::One),
    ("chmod", Takes::One),
    ("link", Takes::Bool),
    ("keep-git-dir", Takes::Bool),
    ("checksum", Takes::One),
    ("unpack", Takes::Bool),
    ("exclude", Takes::Many),
];

pub(super) fn copy(request: &Request) -> Result<Copy, Fault> {
    let flags = Flags::parse(&request.parts.flags, &COPY)?;
    let mut copy = common(request, &flags)?;
    copy.from = flags.text("from");
    copy.parents = flags.bool("parents").unwrap_or(false);
    if let Some(from) = copy.from.as_ref().filter(|from| from.contains('$')) {
        let message = "variable expansion is not supported for --from, define a new stage with FROM using ARG from \
                       global scope as a workaround";
        return Err(Fault::new(message).at(from.clone()));
    }
    Ok(copy)
}

pub(super) fn add(request: &Request) -> Result<Copy, Fault> {
    let flags = Flags::parse(&request.parts.flags, &ADD)?;
    let mut copy = common(request, &flags)?;
    copy.checksum = flags.text("checksum");
    copy.unpack = flags.bool("unpack");
    Ok(copy)
}

/// What both have: sources, destination, owner, mode.
fn common(request: &Request, flags: &Flags) -> Result<Copy, Fault> {
    let mut words = request.list()?;
    let keyword = request.keyword();
    let destination = words.pop().filter(|_| !words.is_empty()).ok_or_else(|| {
        Fault::new(format!(
            "{keyword} requires at least two arguments, but only one was provided. Destination could not be determined"
        ))
    })?;
    if heredoc::mark(&destination).is_some() {
        return Err(Fault::new(format!(
            "{keyword} cannot accept a heredoc as a destination"
        ))
        .at(destination));
    }
    let mut copy = Copy {
        destination,
        chown: flags.text("chown"),
        chmod: flags.text("chmod"),
        link: flags.bool("link").unwrap_or(false),
        exclude: flags.all("exclude"),
        ..Copy::default()
    };
    for word in words {
        match heredoc::mark(&word)
            .and_then(|mark| request.heredocs.iter().find(|read| read.name == mark.name))
        {
            Some(heredoc) => copy.heredocs.push(heredoc.clone()),
            None => copy.sources.push(word),
        }
    }
    Ok(copy)
}
