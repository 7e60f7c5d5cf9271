//! Environment variables in the order in which they were last set.

use std::collections::BTreeMap;

use crate::expand::Variables;

/// An environment.
#[derive(Debug, Clone, Default)]
pub(super) struct Env {
    values: BTreeMap<String, (u64, String)>,
    next: u64,
}

impl Env {
    /// Sets a variable; it moves to the end.
    pub(super) fn set(&mut self, name: &str, value: &str) {
        self.values
            .insert(name.to_owned(), (self.next, value.to_owned()));
        self.next += 1;
    }

    /// `NAME=value`, last set last.
    pub(super) fn list(&self) -> Vec<String> {
        let mut entries: Vec<_> = self
            .values
            .iter()
            .map(|(name, (order, value))| (order, name, value))
            .collect();
        entries.sort();
        entries
            .into_iter()
            .map(|(_, name, value)| format!("{name}={value}"))
            .collect()
    }

    /// Names, last set last.
    pub(super) fn names(&self) -> Vec<&str> {
        let mut entries: Vec<_> = self
            .values
            .iter()
            .map(|(name, (order, _))| (*order, name.as_str()))
            .collect();
        entries.sort_unstable();
        entries.into_iter().map(|(_, name)| name).collect()
    }

    /// How many bytes [`list`](Self::list) has, about.
    pub(super) fn bytes(&self) -> usize {
        self.values
            .iter()
            .map(|(name, (_, value))| name.len() + value.len() + 2)
            .sum()
    }
}

impl Variables for Env {
    fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(|(_, value)| value.as_str())
    }
}

/// Sets a variable in a configuration's list; one that is there keeps its place.
pub(super) fn set_in_list(list: &mut Vec<String>, name: &str, value: &str) {
    let entry = format!("{name}={value}");
    match list.iter_mut().find(|old| split(old).0 == name) {
        Some(old) => *old = entry,
        None => list.push(entry),
    }
}

/// The name and the value of `NAME=value`.
pub(super) fn split(entry: &str) -> (&str, &str) {
    entry.split_once('=').unwrap_or((entry, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_set_again_moves_to_the_end() {
        let mut env = Env::default();
        for (name, value) in [("B", "1"), ("A", "2"), ("B", "3")] {
            env.set(name, value);
        }
        assert_eq!(env.list(), ["A=2", "B=3"]);
        assert_eq!(
            (env.names(), env.get("B"), env.get("C")),
            (vec!["A", "B"], Some("3"), None)
        );
    }

    #[test]
    fn in_a_configuration_it_keeps_its_place() {
        let mut list = vec!["A=1".to_owned(), "AB=2".to_owned()];
        set_in_list(&mut list, "A", "3");
        set_in_list(&mut list, "C", "4");
        assert_eq!(list, ["A=3", "AB=2", "C=4"]);
    }
}
