//! The receiving side of fsutil's protocol as a state machine over packets, writing below one directory.
//!
//! What is there already stays, unless a received path takes its place. Owners are not set: the files belong to whoever
//! runs the program. Extended attributes are not written. No symlink is followed, so nothing lands outside. Blocking.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use bollard_buildkit_proto::fsutil::types::packet::PacketType;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT};
use rustix::io::Errno;

use super::super::filesync::{FileKind, Root, from_go_mode, lossy, split};
use super::super::wire::{Packet, Stat, packet as message};

/// Why a tree cannot be received.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// A path leads out of the directory or is not clean.
    #[error("the farm sent the path {0:?}, which does not stay inside the directory")]
    Path(String),
    /// The file system fails.
    #[error("{path:?}: {source}")]
    Write {
        /// The path, relative to the directory.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A packet that does not fit the protocol's state.
    #[error("the farm broke the file protocol: {0}")]
    Protocol(String),
}

/// Receives one tree.
#[derive(Debug)]
pub struct TreeReceiver {
    root: Root,
    next_id: u32,
    open: HashMap<u32, Open>,
    /// Directories get their times last, the deepest first: writing into them changes them.
    dirs: Vec<Stat>,
    listed: bool,
    finished: bool,
}

#[derive(Debug)]
struct Open {
    stat: Stat,
    /// None until the first bytes come: thousands of files may wait.
    file: Option<File>,
}

impl TreeReceiver {
    /// Receives into `path`, which is made if it does not exist.
    ///
    /// # Errors
    /// The directory cannot be made or opened.
    pub fn new(path: &Path) -> std::io::Result<Self> {
        std::fs::create_dir_all(path)?;
        let root = Root::open(path)?;
        Ok(Self {
            root,
            next_id: 0,
            open: HashMap::new(),
            dirs: Vec::new(),
            listed: false,
            finished: false,
        })
    }

    /// Takes one packet of the sender and returns what to answer.
    ///
    /// # Errors
    /// A path that leads out, a failing file system, a packet out of place. Nothing more may be received then.
    pub fn packet(&mut self, packet: Packet) -> Result<Vec<Packet>, ReceiveError> {
        let mut answers = Vec::new();
        match (packet.r#type(), packet.stat) {
            (PacketType::PacketStat, Some(stat)) if !self.listed => {
                let id = self.next_id;
                self.next_id += 1;
                if self.place(stat, id)? {
                    answers.push(message(PacketType::PacketReq, id));
                }
            }
            (PacketType::PacketStat, None) if !self.listed => self.listed = true,
            (PacketType::PacketData, _) => self.data(packet.id, &packet.data)?,
            (kind, _) => {
                return Err(ReceiveError::Protocol(format!(
                    "{} out of place",
                    kind.as_str_name()
                )));
            }
        }
        if self.listed && self.open.is_empty() && !self.finished {
            self.finished = true;
            self.finish_dirs()?;
            answers.push(message(PacketType::PacketFin, 0));
        }
        Ok(answers)
    }

    /// Makes what needs no content; returns whether content is to be asked for.
    fn place(&mut self, stat: Stat, id: u32) -> Result<bool, ReceiveError> {
        let path = stat.path.clone();
        let (parent, name) = checked(&path)?;
        let kind = FileKind::of(stat.mode);
        let write = |source| ReceiveError::Write {
            path: lossy(&path),
            source,
        };
        let dir = self.root.dir(parent).map_err(write)?;
        match kind {
            FileKind::Directory => self.make_dir(&dir, name, stat)?,
            FileKind::Regular if stat.linkname.is_empty() => {
                // Made at once, empty: hard links to it may come before its content.
                remove(&dir, name).map_err(write)?;
                open_file(&self.root, &path, OFlags::CREATE | OFlags::EXCL).map_err(write)?;
                self.open.insert(id, Open { stat, file: None });
                return Ok(true);
            }
            _ => self.make_other(&dir, name, kind, &stat).map_err(write)?,
        }
        Ok(false)
    }

    fn make_dir(&mut self, dir: &OwnedFd, name: &[u8], stat: Stat) -> Result<(), ReceiveError> {
        let write = |source| ReceiveError::Write {
            path: lossy(&stat.path),
            source,
        };
        let is_dir = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|found| FileType::from_raw_mode(found.st_mode) == FileType::Directory);
        if is_dir {
            // Its last mode may keep us out; it gets the new one in the end.
            let found = self.root.dir(&stat.path).map_err(write)?;
            rustix::fs::fchmod(found, Mode::RWXU).map_err(|error| write(error.into()))?;
        } else {
            remove(dir, name).map_err(write)?;
            rustix::fs::mkdirat(dir, name, Mode::RWXU).map_err(|error| write(error.into()))?;
        }
        self.dirs.push(stat);
        Ok(())
    }

    fn make_other(
        &self,
        dir: &OwnedFd,
        name: &[u8],
        kind: FileKind,
        stat: &Stat,
    ) -> std::io::Result<()> {
        remove(dir, name)?;
        let mode = Mode::from_raw_mode(from_go_mode(stat.mode).1);
        match kind {
            FileKind::Symlink => rustix::fs::symlinkat(stat.linkname.as_slice(), dir, name)?,
            FileKind::Regular => {
                let (parent, target) = checked(&stat.linkname).map_err(std::io::Error::other)?;
                let parent = self.root.dir(parent)?;
                return Ok(rustix::fs::linkat(
                    parent,
                    target,
                    dir,
                    name,
                    AtFlags::empty(),
                )?);
            }
            FileKind::Fifo => rustix::fs::mknodat(dir, name, FileType::Fifo, mode, 0)?,
            FileKind::CharDevice | FileKind::BlockDevice => {
                let number = |part: i64| u32::try_from(part).map_err(std::io::Error::other);
                let device = rustix::fs::makedev(number(stat.devmajor)?, number(stat.devminor)?);
                let kind = if kind == FileKind::CharDevice {
                    FileType::CharacterDevice
                } else {
                    FileType::BlockDevice
                };
                rustix::fs::mknodat(dir, name, kind, mode, device)?;
            }
            FileKind::Directory | FileKind::Other => {
                return Err(std::io::Error::other(format!(
                    "unknown type in the mode {:o}",
                    stat.mode
                )));
            }
        }
        rustix::fs::utimensat(dir, name, &times(stat.mod_time), AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(())
    }

    fn data(&mut self, id: u32, data: &[u8]) -> Result<(), ReceiveError> {
        let open = self.open.get_mut(&id).ok_or_else(|| {
            ReceiveError::Protocol(format!("data for {id}, which was not asked for"))
        })?;
        let write = |source: std::io::Error| ReceiveError::Write {
            path: lossy(&open.stat.path),
            source,
        };
        if open.file.is_none() {
            open.file =
                Some(open_file(&self.root, &open.stat.path, OFlags::empty()).map_err(write)?);
        }
        let Some(file) = open.file.as_mut() else {
            return Ok(());
        };
        if !data.is_empty() {
            return file.write_all(data).map_err(write);
        }
        let mode = Mode::from_raw_mode(from_go_mode(open.stat.mode).1);
        rustix::fs::fchmod(file.as_fd(), mode).map_err(|error| write(error.into()))?;
        rustix::fs::futimens(file.as_fd(), &times(open.stat.mod_time))
            .map_err(|error| write(error.into()))?;
        self.open.remove(&id);
        Ok(())
    }

    fn finish_dirs(&mut self) -> Result<(), ReceiveError> {
        for stat in std::mem::take(&mut self.dirs).into_iter().rev() {
            let finish = || -> std::io::Result<()> {
                let dir = self.root.dir(&stat.path)?;
                rustix::fs::fchmod(&dir, Mode::from_raw_mode(from_go_mode(stat.mode).1))?;
                Ok(rustix::fs::futimens(&dir, &times(stat.mod_time))?)
            };
            finish().map_err(|source| ReceiveError::Write {
                path: lossy(&stat.path),
                source,
            })?;
        }
        Ok(())
    }
}

fn open_file(root: &Root, path: &[u8], how: OFlags) -> std::io::Result<File> {
    let (parent, name) = checked(path).map_err(std::io::Error::other)?;
    let flags = how | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(root.dir(parent)?, name, flags, Mode::RUSR | Mode::WUSR)?.into())
}

/// Removes what is there, a directory with all that is in it.
fn remove(dir: &OwnedFd, name: &[u8]) -> std::io::Result<()> {
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    let child = rustix::fs::openat(
        dir,
        name,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    for entry in rustix::fs::Dir::read_from(&child)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if !matches!(name, b"." | b"..") {
            remove(&child, name)?;
        }
    }
    Ok(rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR)?)
}

/// Parent and name of a path that is relative, clean and stays inside.
fn checked(path: &[u8]) -> Result<(&[u8], &[u8]), ReceiveError> {
    let mut parts = path.split(|byte| *byte == b'/');
    if parts.any(|part| matches!(part, b"" | b"." | b"..")) || path.contains(&0) {
        return Err(ReceiveError::Path(lossy(path).chars().take(300).collect()));
    }
    Ok(split(path))
}

fn times(nanoseconds: i64) -> Timestamps {
    let time = Timespec {
        tv_sec: nanoseconds.div_euclid(1_000_000_000),
        tv_nsec: nanoseconds.rem_euclid(1_000_000_000),
    };
    Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        last_modification: time,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;
    use crate::buildkit::filesync::{GO_DIR, GO_SYMLINK};

    fn stat(path: &str, mode: u32, linkname: &str) -> Packet {
        let stat = Stat {
            path: path.into(),
            mode,
            linkname: linkname.into(),
            mod_time: 1_600_000_000_000_000_000,
            ..Stat::default()
        };
        Packet {
            stat: Some(stat),
            ..message(PacketType::PacketStat, 0)
        }
    }

    fn data(id: u32, bytes: &[u8]) -> Packet {
        Packet {
            data: bytes.to_vec(),
            ..message(PacketType::PacketData, id)
        }
    }

    fn receive(dir: &Path, packets: Vec<Packet>) -> Result<Vec<(PacketType, u32)>, ReceiveError> {
        let mut receiver = TreeReceiver::new(dir).unwrap();
        let mut answers = Vec::new();
        for packet in packets {
            answers.extend(
                receiver
                    .packet(packet)?
                    .into_iter()
                    .map(|answer| (answer.r#type(), answer.id)),
            );
        }
        Ok(answers)
    }

    #[test]
    fn a_tree_is_written_over_what_was_there() {
        let dir = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        std::fs::write(at("kept"), "kept").unwrap();
        symlink(outside.path(), at("d")).unwrap();
        std::fs::create_dir_all(at("f/was/a/dir")).unwrap();
        let answers = receive(
            dir.path(),
            vec![
                stat("d", GO_DIR | 0o555, ""),
                stat("d/link", GO_SYMLINK | 0o777, "../f"),
                stat("d/x", 0o755 | 1 << 23, ""),
                stat("d/y", 0o644, "d/x"),
                stat("f", 0o600, ""),
                message(PacketType::PacketStat, 0),
                data(2, b"he"),
                data(4, b""),
                data(2, b"llo"),
                data(2, b""),
            ],
        )
        .unwrap();
        assert_eq!(
            answers,
            [
                (PacketType::PacketReq, 2),
                (PacketType::PacketReq, 4),
                (PacketType::PacketFin, 0)
            ]
        );
        assert_eq!(std::fs::read(at("kept")).unwrap(), b"kept");
        assert_eq!(std::fs::read(at("d/y")).unwrap(), b"hello");
        assert!(std::fs::symlink_metadata(at("d")).unwrap().is_dir());
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
        assert_eq!(std::fs::read_link(at("d/link")).unwrap(), Path::new("../f"));
        let meta = std::fs::metadata(at("d/x")).unwrap();
        assert_eq!(
            (meta.permissions().mode() & 0o7777, meta.mtime()),
            (0o4755, 1_600_000_000)
        );
        let meta = std::fs::metadata(at("d")).unwrap();
        assert_eq!(
            (meta.permissions().mode() & 0o7777, meta.mtime()),
            (0o555, 1_600_000_000)
        );
        assert!(std::fs::metadata(at("f")).unwrap().is_file());
    }

    #[test]
    fn paths_that_lead_out_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        for path in ["../x", "/x", "a/../../x", "", ".", "a//b", "./a"] {
            let error = receive(dir.path(), vec![stat(path, 0o644, "")]).unwrap_err();
            assert!(matches!(error, ReceiveError::Path(_)), "{path}: {error}");
        }
        symlink("/etc", dir.path().join("etc")).unwrap();
        assert!(receive(dir.path(), vec![stat("etc/x", 0o644, "")]).is_err());
        assert!(receive(dir.path(), vec![stat("x", 0o644, "../outside")]).is_err());
        assert!(receive(dir.path(), vec![stat("x", 0o644, "etc/passwd")]).is_err());
    }

    #[test]
    fn packets_out_of_place_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let end = || message(PacketType::PacketStat, 0);
        for packets in [
            vec![data(0, b"x")],
            vec![end(), stat("a", 0o644, "")],
            vec![end(), end()],
            vec![message(PacketType::PacketReq, 0)],
        ] {
            assert!(matches!(
                receive(dir.path(), packets),
                Err(ReceiveError::Protocol(_))
            ));
        }
    }
}
