//! Looking up users and groups in the bytes of `etc/passwd` and `etc/group`.
//!
//! The rules are those of runc's `libcontainer/user`, which BuildKit uses for USER, and of BuildKit's file operation for
//! `--chown`. Lines that are not well-formed are passed over. Which tree's files are looked at, is the caller's choice
//! ([`Tree::names`](crate::Tree::names)).

use std::io;

use crate::fileop::{Owner, ReadSmall};
use crate::{Follow, Kind, NameFiles, Tree};

/// Files that names are looked up in are kept in TOCs, and read, up to this size.
pub(crate) const MAX_NAME_FILE: u64 = 1 << 20;

/// `etc/passwd` and `etc/group` of a tree, symbolic links followed inside it. Bytes that no TOC carries are read with `read`;
/// files over 1 MiB and what is no file count as missing, as a path that cannot be followed does.
///
/// # Errors
///
/// A read that fails.
pub fn name_files(tree: &Tree, read: &mut ReadSmall<'_>) -> io::Result<NameFiles> {
    let NameFiles { passwd, group } = tree.names();
    Ok(NameFiles {
        passwd: known_or_read(tree, passwd, b"etc/passwd", read)?,
        group: known_or_read(tree, group, b"etc/group", read)?,
    })
}

fn known_or_read(
    tree: &Tree,
    known: Option<Vec<u8>>,
    path: &[u8],
    read: &mut ReadSmall<'_>,
) -> io::Result<Option<Vec<u8>>> {
    if known.is_some() {
        return Ok(known);
    }
    let node = tree
        .resolve(path, Follow::All)
        .ok()
        .and_then(|path| tree.get(&path));
    match node.map(|node| (node, &node.entry.kind)) {
        Some((node, Kind::File { size, .. })) if *size <= MAX_NAME_FILE => read(&node).map(Some),
        _ => Ok(None),
    }
}

/// The identity that a command runs with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExecUser {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Supplementary groups, in the order of `etc/group`.
    pub groups: Vec<u32>,
    /// Home directory, `/` where none is known.
    pub home: String,
}

/// A name or number that no file knows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// No such user.
    #[error("unable to find user {name}: no matching entries in passwd file")]
    UnknownUser {
        /// What was looked for.
        name: String,
    },
    /// No such group.
    #[error("unable to find group {name}: no matching entries in group file")]
    UnknownGroup {
        /// What was looked for.
        name: String,
    },
    /// A number beyond those that Linux takes.
    #[error("uids and gids must be in range 0-2147483647, not {number}")]
    OutOfRange {
        /// The number.
        number: String,
    },
}

/// A user or group as an owner names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NameOrId {
    /// To be looked up.
    Name(String),
    /// As it is.
    Id(u32),
}

/// The identity of `user[:group]`, each a name or a number; root for the empty text.
///
/// A number needs no entry. With a group given there are no supplementary groups; without one they are those that list the
/// user's name.
///
/// # Errors
///
/// A name without an entry, a number out of range.
pub fn lookup_user(names: &NameFiles, spec: &str) -> Result<ExecUser, NameError> {
    let (user, group) = spec.split_once(':').unwrap_or((spec, ""));
    let mut found = if spec.is_empty() {
        let root = users(names).find(|entry| entry.uid == 0);
        ExecUser {
            home: root.map_or_else(home, |entry| entry.home.to_owned()),
            ..ExecUser::default()
        }
    } else {
        find_user(names, user)?.0
    };
    if !group.is_empty() {
        found.gid = find_group(names, group)?;
    } else if let Some(name) = find_user(names, if user.is_empty() { "0" } else { user })?.1 {
        found.groups = member_of(names, &name);
    }
    Ok(found)
}

/// The owner that BuildKit's `ChownOpt` means: a user alone brings its primary group (a number itself as the group), a name
/// that no file knows counts as root, as in BuildKit. [`lookup_owner`] refuses unknown names instead.
pub fn chown_owner(names: &NameFiles, user: Option<&NameOrId>, group: Option<&NameOrId>) -> Owner {
    let strict = |user, group| lookup_owner(names, user, group);
    let owner = strict(user, None).unwrap_or_default();
    match group {
        None => owner,
        Some(group) => Owner {
            gid: strict(None, Some(group)).map_or(owner.gid, |found| found.gid),
            ..owner
        },
    }
}

/// The owner that a user and a group name.
///
/// # Errors
///
/// A name without an entry.
pub fn lookup_owner(
    names: &NameFiles,
    user: Option<&NameOrId>,
    group: Option<&NameOrId>,
) -> Result<Owner, NameError> {
    let mut owner = match user {
        None => Owner::default(),
        Some(NameOrId::Id(id)) => Owner { uid: *id, gid: *id },
        Some(NameOrId::Name(name)) => users(names)
            .find(|entry| entry.name == name)
            .map(|entry| Owner {
                uid: entry.uid,
                gid: entry.gid,
            })
            .ok_or_else(|| NameError::UnknownUser { name: name.clone() })?,
    };
    match group {
        None => {}
        Some(NameOrId::Id(id)) => owner.gid = *id,
        Some(NameOrId::Name(name)) => {
            let found = groups(names).find(|entry| entry.name == name);
            owner.gid = found
                .ok_or_else(|| NameError::UnknownGroup { name: name.clone() })?
                .gid;
        }
    }
    Ok(owner)
}

struct UserLine<'n> {
    name: &'n str,
    uid: u32,
    gid: u32,
    home: &'n str,
}

struct GroupLine<'n> {
    name: &'n str,
    gid: u32,
    members: &'n str,
}

fn home() -> String {
    "/".to_owned()
}

/// The user and, where it has an entry, its name there.
fn find_user(names: &NameFiles, user: &str) -> Result<(ExecUser, Option<String>), NameError> {
    let wanted = if user.is_empty() { "0" } else { user };
    let known = users(names).find(|entry| entry.name == wanted || entry.uid.to_string() == wanted);
    if let Some(UserLine {
        name,
        uid,
        gid,
        home,
    }) = known
    {
        let groups = Vec::new();
        return Ok((
            ExecUser {
                uid,
                gid,
                groups,
                home: home.to_owned(),
            },
            Some(name.to_owned()),
        ));
    }
    let unknown = || NameError::UnknownUser {
        name: user.to_owned(),
    };
    let uid = number(wanted)?.ok_or_else(unknown)?;
    Ok((
        ExecUser {
            uid,
            home: home(),
            ..ExecUser::default()
        },
        None,
    ))
}

fn find_group(names: &NameFiles, group: &str) -> Result<u32, NameError> {
    let known = groups(names).find(|entry| entry.name == group || entry.gid.to_string() == group);
    match known {
        Some(entry) => Ok(entry.gid),
        None => number(group)?.ok_or_else(|| NameError::UnknownGroup {
            name: group.to_owned(),
        }),
    }
}

fn member_of(names: &NameFiles, user: &str) -> Vec<u32> {
    groups(names)
        .filter(|group| group.members.split(',').any(|member| member.trim() == user))
        .map(|group| group.gid)
        .collect()
}

/// The number that a text is, `None` if it is a name.
fn number(text: &str) -> Result<Option<u32>, NameError> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(None);
    }
    match text.parse::<u32>() {
        Ok(number) if number <= i32::MAX as u32 => Ok(Some(number)),
        _ => Err(NameError::OutOfRange {
            number: text.chars().take(40).collect(),
        }),
    }
}

/// The fields of each line; lines that are no UTF-8, empty or comments are passed over.
fn lines(bytes: Option<&Vec<u8>>) -> impl Iterator<Item = Vec<&str>> {
    bytes
        .into_iter()
        .flat_map(|bytes| bytes.split(|byte| *byte == b'\n'))
        .filter_map(|line| std::str::from_utf8(line).ok())
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| line.split(':').map(str::trim).collect())
}

fn users(names: &NameFiles) -> impl Iterator<Item = UserLine<'_>> {
    lines(names.passwd.as_ref()).filter_map(|fields| {
        let number = |index: usize| fields.get(index)?.parse().ok();
        let home = fields
            .get(5)
            .copied()
            .filter(|home| !home.is_empty())
            .unwrap_or("/");
        Some(UserLine {
            name: fields.first()?,
            uid: number(2)?,
            gid: number(3)?,
            home,
        })
    })
}

fn groups(names: &NameFiles) -> impl Iterator<Item = GroupLine<'_>> {
    lines(names.group.as_ref()).filter_map(|fields| {
        let members = fields.get(3).copied().unwrap_or_default();
        Some(GroupLine {
            name: fields.first()?,
            gid: fields.get(2)?.parse().ok()?,
            members,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> NameFiles {
        NameFiles {
            passwd: Some(
                b"root:x:0:0:root:/root:/bin/sh\n# comment\nbroken\nweb:x:33:34:Web:/var/www:/bin/false\nme:x:1000:1000::/home/me:\n".to_vec(),
            ),
            group: Some(b"root:x:0:\nweb:x:34:\nstaff:x:50:web,me\naudio:x:29:me\n\xff\n".to_vec()),
        }
    }

    #[test]
    fn users_are_found_by_name_and_number() {
        let check = |spec: &str, uid: u32, gid: u32, groups: &[u32], home: &str| {
            let expected = ExecUser {
                uid,
                gid,
                groups: groups.to_vec(),
                home: home.to_owned(),
            };
            assert_eq!(lookup_user(&names(), spec), Ok(expected), "{spec}");
        };
        check("", 0, 0, &[], "/root");
        check("root", 0, 0, &[], "/root");
        check("web", 33, 34, &[50], "/var/www");
        check("33", 33, 34, &[50], "/var/www");
        check("me", 1000, 1000, &[50, 29], "/home/me");
        check("me:staff", 1000, 50, &[], "/home/me");
        check("me:7", 1000, 7, &[], "/home/me");
        check("4242", 4242, 0, &[], "/");
        check("4242:web", 4242, 34, &[], "/");
        check("1:2", 1, 2, &[], "/");
    }

    #[test]
    fn unknown_names_are_named() {
        let check = |spec: &str, expected: &str| {
            assert_eq!(
                lookup_user(&names(), spec).expect_err(spec).to_string(),
                expected
            );
        };
        check(
            "nobody",
            "unable to find user nobody: no matching entries in passwd file",
        );
        check(
            "me:none",
            "unable to find group none: no matching entries in group file",
        );
        check(
            "4294967296",
            "uids and gids must be in range 0-2147483647, not 4294967296",
        );
    }

    #[test]
    fn without_files_only_numbers_and_the_default_work() {
        let none = NameFiles::default();
        assert_eq!(
            lookup_user(&none, "").map(|user| (user.uid, user.home)),
            Ok((0, "/".to_owned()))
        );
        assert_eq!(
            lookup_user(&none, "5:6").map(|user| (user.uid, user.gid)),
            Ok((5, 6))
        );
        assert!(lookup_user(&none, "root").is_err());
    }

    #[test]
    fn owners_of_copies() {
        let name = |text: &str| NameOrId::Name(text.to_owned());
        let check = |user: Option<NameOrId>, group: Option<NameOrId>, uid: u32, gid: u32| {
            let owner = Owner { uid, gid };
            assert_eq!(
                lookup_owner(&names(), user.as_ref(), group.as_ref()),
                Ok(owner)
            );
            assert_eq!(chown_owner(&names(), user.as_ref(), group.as_ref()), owner);
        };
        check(Some(name("web")), None, 33, 34);
        check(Some(name("web")), Some(name("staff")), 33, 50);
        check(Some(NameOrId::Id(5)), None, 5, 5);
        check(Some(NameOrId::Id(5)), Some(NameOrId::Id(6)), 5, 6);
        check(None, Some(name("audio")), 0, 29);
        assert!(lookup_owner(&names(), Some(&name("none")), None).is_err());
        assert_eq!(
            chown_owner(&names(), Some(&name("none")), Some(&name("none"))),
            Owner::default()
        );
        assert_eq!(
            chown_owner(&names(), Some(&name("web")), Some(&name("none"))),
            Owner { uid: 33, gid: 34 }
        );
    }
}
