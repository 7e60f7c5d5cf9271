//! FROM.

use super::Request;
use super::flags::{Flags, Takes};
use crate::error::Fault;
use crate::instruction::From;
use crate::lex::words;

pub(super) fn from(request: &Request) -> Result<From, Fault> {
    let flags = Flags::parse(&request.parts.flags, &[("platform", Takes::One)])?;
    let words = words::plain(&request.parts.rest);
    let (base, name) = match &words[..] {
        [base] => (base, None),
        [base, r#as, name] if r#as.eq_ignore_ascii_case("as") => (base, Some(stage_name(name)?)),
        _ => return Err(Fault::new("FROM requires either one or three arguments")),
    };
    Ok(From {
        base: base.clone(),
        name,
        platform: flags.text("platform"),
    })
}

fn stage_name(name: &str) -> Result<String, Fault> {
    let lower = name.to_lowercase();
    let well_formed = lower.starts_with(|c: char| c.is_ascii_lowercase())
        && lower
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b));
    well_formed.then_some(lower).ok_or_else(|| {
        let message =
            format!("invalid name for build stage: {name:?}, name can't start with a number or contain symbols");
        Fault::new(message).at(name)
    })
}
