//! File steps and differences against naive models: a map that the steps are played on one path at a time.

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;

use buildyard_layer::fileop::{
    Content, CopyAction, FileStep, MkdirAction, MkfileAction, RmAction, SymlinkAction, apply,
};
use buildyard_layer::{CopySource, Kind, Time, Tree, diff, path_cmp};
use buildyard_model::Digest;
use proptest::prelude::*;
use support::*;

/// Kind, mode and owner by path; the root is not in it.
#[derive(Debug, Clone, Default, PartialEq)]
struct Model(BTreeMap<String, (String, u32, u32)>);

struct Refused;

impl Model {
    fn of(tree: &Tree) -> Self {
        let nodes = tree.walk(b"").skip(1);
        Self(
            nodes
                .map(|node| {
                    let path = String::from_utf8_lossy(node.path).into_owned();
                    (
                        path,
                        (kind_text(&node.entry.kind), node.entry.mode, node.entry.uid),
                    )
                })
                .collect(),
        )
    }

    fn kind(&self, path: &str) -> Option<&str> {
        if path.is_empty() {
            Some("dir")
        } else {
            self.0.get(path).map(|(kind, ..)| kind.as_str())
        }
    }

    fn is_dir(&self, path: &str) -> bool {
        self.kind(path) == Some("dir")
    }

    /// Replaces the first link on the way by its target and starts again.
    fn real(&self, path: &str, last: bool) -> Result<String, Refused> {
        let mut path: Vec<String> = path
            .split('/')
            .filter(|part| !part.is_empty())
            .map(str::to_owned)
            .collect();
        for _ in 0..=255 {
            let link = (1..=path.len()).find_map(|n| {
                let target = self
                    .kind(&path[..n].join("/"))?
                    .strip_prefix("-> ")?
                    .to_owned();
                (last || n < path.len()).then_some((n, target))
            });
            let Some((n, target)) = link else {
                for n in 1..path.len() {
                    if self
                        .kind(&path[..n].join("/"))
                        .is_some_and(|kind| kind != "dir")
                    {
                        return Err(Refused);
                    }
                }
                return Ok(path.join("/"));
            };
            // A file on the way is refused before a link behind it is found.
            for k in 1..n {
                assert!(
                    self.kind(&path[..k].join("/"))
                        .is_none_or(|kind| !kind.starts_with("->"))
                );
            }
            let target = target.split('/').map(str::to_owned);
            path = path[..n - 1]
                .iter()
                .cloned()
                .chain(target)
                .chain(path[n..].iter().cloned())
                .collect();
        }
        Err(Refused)
    }

    fn remove(&mut self, path: &str) {
        self.0
            .retain(|other, _| other != path && !other.starts_with(&format!("{path}/")));
    }

    fn mkdirs(&mut self, path: &str) -> Result<(), Refused> {
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        for n in 1..=parts.len() {
            let dir = parts[..n].join("/");
            match self.kind(&dir) {
                None => _ = self.0.insert(dir, ("dir".to_owned(), 0o755, 0)),
                Some("dir") => {}
                Some(_) => return Err(Refused),
            }
        }
        Ok(())
    }

    fn step(&mut self, source: &Model, step: &FileStep<'_>) -> Result<(), Refused> {
        match step {
            FileStep::Mkdir(action) => {
                let path = self.real(&action.path, true)?;
                self.mkdirs(&path)
            }
            FileStep::Mkfile(action) => {
                let path = self.real(&action.path, true)?;
                if path.is_empty() || self.is_dir(&path) || !self.is_dir(parent(&path)) {
                    return Err(Refused);
                }
                self.0.insert(
                    path,
                    (format!("file {}", &Digest::of("made").hex()[..6]), 0o640, 0),
                );
                Ok(())
            }
            FileStep::Symlink(action) => {
                let path = self.real(&action.newpath, true)?;
                if self.kind(&path).is_some() || !self.is_dir(parent(&path)) {
                    return Err(Refused);
                }
                self.0
                    .insert(path, (format!("-> {}", action.oldpath), 0o777, 0));
                Ok(())
            }
            FileStep::Rm(action) => {
                let path = self.real(&action.path, false)?;
                self.remove(&path);
                Ok(())
            }
            FileStep::Copy(_, action) => self.copy(source, action),
            FileStep::Unpack(..) => unreachable!("not generated"),
        }
    }

    fn copy(&mut self, source: &Model, action: &CopyAction) -> Result<(), Refused> {
        let from = source.real(&action.source.src, action.source.follow_symlink)?;
        let is_dir = match source.kind(&from) {
            None => return Err(Refused),
            Some(kind) => kind == "dir",
        };
        let given = action.dest.trim_matches('/');
        let above = if action.dest.ends_with('/') {
            given
        } else {
            parent(given)
        };
        let above = self.real(above, true)?;
        self.mkdirs(&above)?;
        let mut dest = self.real(given, true)?;
        let name = action.source.src.rsplit('/').next().unwrap_or("");
        let there = self.kind(&dest).is_some();
        if is_dir && there && !action.dir_copy_contents || !is_dir && self.is_dir(&dest) {
            dest = [&*dest, name]
                .iter()
                .filter(|part| !part.is_empty())
                .copied()
                .collect::<Vec<_>>()
                .join("/");
        }
        if is_dir && action.dir_copy_contents && !there {
            self.mkdirs(&dest)?;
        } else {
            self.mkdirs(parent(&dest))?;
        }
        self.copy_to(source, action, &from, &dest, true)
    }

    fn copy_to(
        &mut self,
        source: &Model,
        action: &CopyAction,
        from: &str,
        to: &str,
        top: bool,
    ) -> Result<(), Refused> {
        let is_dir = source.is_dir(from);
        if action.always_replace && self.kind(to).is_some() && !(is_dir && self.is_dir(to)) {
            self.remove(to);
        }
        if !is_dir {
            if self.is_dir(to) {
                return Err(Refused);
            }
            self.0.insert(to.to_owned(), source.0[from].clone());
            return Ok(());
        }
        match self.kind(to) {
            Some("dir") if top => {}
            None | Some("dir") => {
                let root = ("dir".to_owned(), 0o755, 0);
                self.0
                    .insert(to.to_owned(), source.0.get(from).unwrap_or(&root).clone());
            }
            Some(_) => return Err(Refused),
        }
        let names: Vec<String> = source
            .0
            .keys()
            .filter(|path| parent(path) == from)
            .map(|path| path.rsplit('/').next().unwrap_or("").to_owned())
            .collect();
        for name in names {
            let under = |dir: &str| {
                if dir.is_empty() {
                    name.clone()
                } else {
                    format!("{dir}/{name}")
                }
            };
            self.copy_to(source, action, &under(from), &under(to), false)?;
        }
        Ok(())
    }
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

/// A step without its source tree.
#[derive(Debug)]
enum Step {
    Copy(CopyAction),
    Mkdir(MkdirAction),
    Mkfile(MkfileAction),
    Rm(RmAction),
    Symlink(SymlinkAction),
}

impl Step {
    fn from(self, source: &Tree) -> FileStep<'_> {
        match self {
            Self::Copy(action) => FileStep::Copy(source, action),
            Self::Mkdir(action) => FileStep::Mkdir(action),
            Self::Mkfile(action) => FileStep::Mkfile(action),
            Self::Rm(action) => FileStep::Rm(action),
            Self::Symlink(action) => FileStep::Symlink(action),
        }
    }
}

fn any_step() -> impl Strategy<Value = Step> {
    let src = prop_oneof![4 => any_path(), 1 => Just(String::new())];
    let dest =
        (any_path(), prop_oneof!["", "/"]).prop_map(|(path, slash)| format!("/{path}{slash}"));
    let copy =
        (src, dest, any::<[bool; 3]>()).prop_map(|(src, dest, [contents, replace, follow])| {
            Step::Copy(CopyAction {
                source: CopySource {
                    src,
                    follow_symlink: follow,
                    ..CopySource::default()
                },
                dest,
                dir_copy_contents: contents,
                create_dest_path: true,
                always_replace: replace,
                ..CopyAction::default()
            })
        });
    let mkdir = any_path().prop_map(|path| {
        Step::Mkdir(MkdirAction {
            path,
            mode: 0o755,
            make_parents: true,
            ..MkdirAction::default()
        })
    });
    let mkfile = any_path().prop_map(|path| {
        let content = Content {
            size: 4,
            digest: Digest::of("made"),
            extents: vec![],
            flats: vec![],
        };
        Step::Mkfile(MkfileAction {
            path,
            mode: 0o640,
            content,
            small: None,
            owner: None,
            timestamp: None,
        })
    });
    let rm = any_path().prop_map(|path| {
        Step::Rm(RmAction {
            path,
            allow_not_found: true,
            ..RmAction::default()
        })
    });
    let symlink = (any_path(), any_path()).prop_map(|(oldpath, newpath)| {
        Step::Symlink(SymlinkAction {
            oldpath,
            newpath,
            ..SymlinkAction::default()
        })
    });
    prop_oneof![4 => copy, 2 => mkdir, 1 => mkfile, 4 => rm, 1 => symlink]
}

/// What every TOC promises.
fn check_sound(toc: &buildyard_layer::Toc) {
    assert_eq!(toc.check(), Ok(()));
    assert!(
        toc.entries
            .is_sorted_by(|a, b| path_cmp(&a.path, &b.path).is_lt())
    );
    let mut last = 0;
    let mut counts = BTreeMap::new();
    for entry in &toc.entries {
        let Kind::File { ino, extents, .. } = &entry.kind else {
            continue;
        };
        assert!(
            *ino <= last + 1,
            "numbers count up in the order of the first path"
        );
        last = last.max(*ino);
        *counts.entry(*ino).or_insert(0) += 1;
        assert!(
            extents
                .iter()
                .all(|extent| (extent.flat as usize) < toc.flats.len())
        );
    }
    assert!(counts.iter().all(|(ino, count)| *ino == 0 || *count > 1));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn steps_do_to_a_tree_what_they_do_to_a_map(
        base in any_base(),
        source in any_base(),
        steps in proptest::collection::vec(any_step(), 1..8),
    ) {
        let steps: Vec<FileStep<'_>> = steps
            .into_iter()
            .map(|step| step.from(&source))
            .collect();
        let mut model = Model::of(&base);
        let from = Model::of(&source);
        let refused = steps.iter().position(|step| model.step(&from, step).is_err());
        let made = apply(&base, &steps, Time::default(), &mut |_| Ok(vec![]));
        match made {
            Ok(toc) => {
                prop_assert_eq!(refused, None);
                check_sound(&toc);
                let names = |paths: &Model| paths.0.clone();
                prop_assert_eq!(names(&Model::of(&base.with(Arc::new(toc)))), names(&model));
            }
            Err((step, error)) => prop_assert_eq!(refused, Some(step), "{}", error),
        }
    }

    #[test]
    fn a_difference_makes_the_lower_look_like_the_upper(lower in any_base(), upper in any_base()) {
        let toc = diff(&lower, &upper);
        check_sound(&toc);
        prop_assert_eq!(show(&lower.with(Arc::new(toc))), show(&upper));
        prop_assert!(diff(&upper, &upper).entries.is_empty());
    }

    /// Only what differs is listed, and the directories above it.
    #[test]
    fn a_difference_of_two_steps_is_small(base in any_base(), top in any_layer()) {
        let upper = base.with(top);
        let toc = diff(&base, &upper);
        for entry in &toc.entries {
            let same = match (base.get(&entry.path), upper.get(&entry.path)) {
                (Some(before), Some(after)) => line(&before) == line(&after),
                _ => false,
            };
            let beneath = |other: &buildyard_layer::Entry| {
                other.path != entry.path && buildyard_layer::path::is_within(&other.path, &entry.path)
            };
            prop_assert!(!same || toc.entries.iter().any(beneath), "{:?}", entry);
        }
    }
}
