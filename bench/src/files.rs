//! Contents that look like source code to a compressor, the same in each run of the bench.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;

/// The average size of a file of a context: 30,000 of them are 63 MB.
const FILE_SIZE: usize = 2_100;
/// Files in one folder.
const IN_A_FOLDER: usize = 100;
/// Pieces of it are the contents of small files.
const POOL: usize = 1 << 20;

/// Words in an order that looks like chance (a linear congruential generator): gzip makes about a third of it.
#[derive(Debug, Clone)]
pub(crate) struct Text {
    state: u64,
}

impl Text {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            state: seed.wrapping_mul(2).wrapping_add(1),
        }
    }

    /// The next number below `limit`.
    pub(crate) fn number(&mut self, limit: usize) -> usize {
        self.state = self
            .state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.state >> 33) as usize % limit
    }

    /// About `size` bytes of it.
    pub(crate) fn take(&mut self, size: usize) -> Vec<u8> {
        const WORDS: [&str; 8] = ["let", "value", "=", "fn", "self.", "return", "->", "0x"];
        let mut bytes = Vec::with_capacity(size + 32);
        while bytes.len() < size {
            let word = WORDS[self.number(WORDS.len())];
            let number = self.number(1 << 24);
            let end = if number.is_multiple_of(8) { '\n' } else { ' ' };
            // Writing into memory does not fail.
            let _ = write!(bytes, "{word} {number:x}{end}");
        }
        bytes
    }
}

/// A folder with `count` small files, written anew for each round.
#[derive(Debug)]
pub(crate) struct Tree {
    dir: PathBuf,
    /// In every file: no two trees share one.
    name: String,
    count: usize,
    pool: Vec<u8>,
}

impl Tree {
    /// Writes the files of round 0 below `dir`.
    pub(crate) fn new(dir: &Path, count: usize) -> anyhow::Result<Self> {
        let name = dir.file_name().unwrap_or_default();
        let tree = Self {
            dir: dir.to_owned(),
            name: name.to_string_lossy().into_owned(),
            count,
            pool: Text::new(1).take(POOL),
        };
        for number in (0..count).step_by(IN_A_FOLDER) {
            let file = tree.path(number);
            let folder = file.parent().context("a file lies in a folder")?;
            fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        }
        tree.write(0)?;
        Ok(tree)
    }

    /// Gives every file a content that it had in no other round.
    pub(crate) fn write(&self, round: u32) -> anyhow::Result<()> {
        for number in 0..self.count {
            self.write_one(number, round)?;
        }
        Ok(())
    }

    /// Gives one file in the middle a new content.
    pub(crate) fn edit(&self, round: u32) -> anyhow::Result<()> {
        self.write_one(self.count / 2, round)
    }

    /// One file's bytes, as [`Self::write`] writes them.
    fn content(&self, number: usize, round: u32) -> Vec<u8> {
        let tree: u64 = self.name.bytes().map(u64::from).sum();
        let mut random = Text::new((number as u64 * 1_009 + tree) * 1_009 + u64::from(round));
        let size = FILE_SIZE / 2 + random.number(FILE_SIZE);
        let from = random.number(self.pool.len() - 2 * FILE_SIZE);
        let mut bytes = format!("{} {number} of round {round}\n", self.name).into_bytes();
        bytes.extend_from_slice(&self.pool[from..from + size]);
        bytes
    }

    fn write_one(&self, number: usize, round: u32) -> anyhow::Result<()> {
        let path = self.path(number);
        fs::write(&path, self.content(number, round))
            .with_context(|| format!("writing {}", path.display()))
    }

    fn path(&self, number: usize) -> PathBuf {
        self.dir.join(path_of(number))
    }
}

/// Where a tree has its file `number`.
pub(crate) fn path_of(number: usize) -> String {
    format!("d{}/f{}.txt", number / IN_A_FOLDER, number % IN_A_FOLDER)
}

/// A layer in tar form with `count` small files below `folder`.
pub(crate) fn layer(folder: &str, count: usize) -> anyhow::Result<Vec<u8>> {
    let tree = Tree {
        dir: PathBuf::new(),
        name: folder.to_owned(),
        count,
        pool: Text::new(2).take(POOL),
    };
    let mut archive = tar::Builder::new(Vec::new());
    for number in 0..count {
        let bytes = tree.content(number, 0);
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o644);
        header.set_mtime(1_577_836_800);
        header.set_size(bytes.len() as u64);
        let path = format!("{folder}/{}", path_of(number));
        archive
            .append_data(&mut header, path, bytes.as_slice())
            .context("writing a layer into memory")?;
    }
    archive.into_inner().context("writing a layer into memory")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_round_has_other_contents() {
        let dir = tempfile::tempdir().expect("a folder");
        let tree = Tree::new(dir.path(), 250).expect("written");
        let read = || -> Vec<Vec<u8>> {
            let file = |number| fs::read(tree.path(number)).expect("read");
            (0..250).map(file).collect()
        };
        let first = read();
        tree.write(1).expect("written");
        let second = read();
        assert!(first.iter().zip(&second).all(|(a, b)| a != b));
        tree.edit(2).expect("written");
        let edited = second.iter().zip(&read()).filter(|(a, b)| a != b).count();
        assert_eq!(edited, 1);
        let sizes: usize = first.iter().map(Vec::len).sum();
        assert!((250 * 1_900..250 * 2_300).contains(&sizes), "{sizes}");
    }
}
