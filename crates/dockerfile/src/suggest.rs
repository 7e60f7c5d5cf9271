//! "Did you mean": the known name nearest to one that is not known.

/// The name among `known` that `given` was probably meant to be, as it is spelled there.
pub(crate) fn nearest<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let given = given.to_lowercase();
    known
        .into_iter()
        .map(|name| {
            (
                strsim::damerau_levenshtein(&given, &name.to_lowercase()),
                name,
            )
        })
        .filter(|&(distance, name)| distance > 0 && distance <= 1 + name.chars().count() / 4)
        .min()
        .map(|(_, name)| name.to_owned())
}

/// ` (did you mean X?)` or nothing.
pub(crate) fn hint(suggestion: Option<&str>) -> String {
    suggestion
        .map(|name| format!(" (did you mean {name}?)"))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_found() {
        let known = ["FROM", "RUN", "COPY", "HEALTHCHECK"];
        let check = |given, expected: Option<&str>| {
            assert_eq!(nearest(given, known).as_deref(), expected, "{given}")
        };
        check("FORM", Some("FROM"));
        check("rnu", Some("RUN"));
        check("COPPY", Some("COPY"));
        check("HEALTCHEK", Some("HEALTHCHECK"));
        check("BANANA", None);
        check("", None);
    }
}
