//! The parts that file operations are made of.

use bollard_buildkit_proto::pb;
use buildyard_llb::build::Output;

/// Actions of one operation; each works on the outcome of the one before.
#[derive(Default)]
pub(super) struct Actions {
    inputs: Vec<Output>,
    has_base: bool,
    pub(super) actions: Vec<(Option<usize>, pb::FileActionCopy)>,
}

impl Actions {
    /// The file system that the first action works on.
    pub(super) fn base(&mut self, base: Option<Output>) {
        self.has_base = base.is_some();
        self.inputs.extend(base);
    }

    /// Adds an action that copies from `source`; `None` is an empty file system.
    pub(super) fn copy(&mut self, source: Option<Output>, action: pb::FileActionCopy) {
        let input =
            source.map(
                |source| match self.inputs.iter().position(|&input| input == source) {
                    Some(number) => number,
                    None => {
                        self.inputs.push(source);
                        self.inputs.len() - 1
                    }
                },
            );
        self.actions.push((input, action));
    }

    /// Numbers: an input, -1 for an empty file system, or, counted on from the inputs, the outcome of an action.
    pub(super) fn finish(self) -> (pb::FileOp, Vec<Output>) {
        let (inputs, count) = (self.inputs.len(), self.actions.len());
        let number = |number: usize| number as i64;
        let actions = self
            .actions
            .into_iter()
            .enumerate()
            .map(|(at, (source, action))| pb::FileAction {
                input: match at {
                    0 => {
                        if self.has_base {
                            0
                        } else {
                            -1
                        }
                    }
                    _ => number(inputs + at - 1),
                },
                secondary_input: source.map_or(-1, number),
                output: if at + 1 == count { 0 } else { -1 },
                action: Some(pb::file_action::Action::Copy(action)),
            });
        (
            pb::FileOp {
                actions: actions.collect(),
            },
            self.inputs,
        )
    }
}

/// `user[:group]`, each a number or a name; `root` is 0. Names are looked up in the file system of `input`.
pub(super) fn owner(text: &str, input: i64) -> pb::ChownOpt {
    let one = |name: &str| {
        let id = if name == "root" {
            Some(0)
        } else {
            name.parse::<i32>().ok()
        };
        let user = match id {
            Some(id) => pb::user_opt::User::ById(id as u32),
            None if name.is_empty() => pb::user_opt::User::ById(0),
            None => pb::user_opt::User::ByName(pb::NamedUserOpt {
                name: name.to_owned(),
                input,
            }),
        };
        pb::UserOpt { user: Some(user) }
    };
    let (user, group) = text
        .split_once(':')
        .map_or((text, None), |(user, group)| (user, Some(group)));
    pb::ChownOpt {
        user: Some(one(user)),
        group: group.map(one),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_are_numbers_or_names() {
        use pb::user_opt::User::{ById, ByName};
        let check = |text: &str, user: pb::user_opt::User, group: Option<pb::user_opt::User>| {
            let found = owner(text, 3);
            assert_eq!(found.user.and_then(|user| user.user), Some(user), "{text}");
            assert_eq!(found.group.and_then(|group| group.user), group, "{text}");
        };
        let name = |name: &str| {
            ByName(pb::NamedUserOpt {
                name: name.to_owned(),
                input: 3,
            })
        };
        check("1000", ById(1000), None);
        check("1:2", ById(1), Some(ById(2)));
        check("root:www", ById(0), Some(name("www")));
        check("app", name("app"), None);
    }
}
