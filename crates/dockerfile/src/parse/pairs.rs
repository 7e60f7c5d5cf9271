//! ENV, LABEL and ARG.

use super::Request;
use crate::error::Fault;
use crate::instruction::{Argument, Pair};
use crate::lex::words;

/// `name=value …`, or the old form `name value`.
pub(super) fn pairs(request: &Request) -> Result<Vec<Pair>, Fault> {
    request.no_flags()?;
    let rest = &request.parts.rest;
    let words = request.at_least_one(words::quoted(rest, request.escape))?;
    if words.first().is_some_and(|word| !word.contains('=')) {
        return old_form(request, rest).map(|pair| vec![pair]);
    }
    words.iter().map(|word| pair(request, word)).collect()
}

fn old_form(request: &Request, rest: &str) -> Result<Pair, Fault> {
    match rest.split_once(words::is_blank) {
        Some((name, value)) => Ok(Pair {
            name: name.to_owned(),
            value: value.trim_start_matches(words::is_blank).to_owned(),
        }),
        None => Err(Fault::new(format!(
            "{} must have two arguments",
            request.keyword()
        ))),
    }
}

fn pair(request: &Request, word: &str) -> Result<Pair, Fault> {
    let Some((name, value)) = word.split_once('=') else {
        let message =
            format!("Syntax error - can't find = in {word:?}. Must be of the form: name=value");
        return Err(Fault::new(message).at(word));
    };
    if name.is_empty() {
        return Err(blank_name(request, word));
    }
    Ok(Pair {
        name: name.to_owned(),
        value: value.to_owned(),
    })
}

/// `name` or `name=default`, any number of them.
pub(super) fn arguments(request: &Request) -> Result<Vec<Argument>, Fault> {
    request.no_flags()?;
    let words = request.at_least_one(words::quoted(&request.parts.rest, request.escape))?;
    let argument = |word: &String| match word.split_once('=') {
        Some(("", _)) => Err(blank_name(request, word)),
        Some((name, default)) => Ok(Argument {
            name: name.to_owned(),
            default: Some(default.to_owned()),
        }),
        None => Ok(Argument {
            name: word.clone(),
            default: None,
        }),
    };
    words.iter().map(argument).collect()
}

fn blank_name(request: &Request, word: &str) -> Fault {
    Fault::new(format!("{} names can not be blank", request.keyword())).at(word)
}
