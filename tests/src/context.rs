//! A build's context: files in a temporary folder.

use std::path::Path;

use crate::Scratch;

/// A folder with a Dockerfile and what it copies.
#[derive(Debug)]
pub struct Context {
    dir: Scratch,
}

impl Context {
    /// Writes the files, given as (path, content).
    pub fn new(files: &[(&str, &str)]) -> Self {
        let context = Self {
            dir: Scratch::new(),
        };
        for (path, content) in files {
            context.write(path, content);
        }
        context
    }

    /// Writes one file, and the folders above it.
    pub fn write(&self, path: &str, content: &str) {
        let path = self.path().join(path);
        let folder = path.parent().expect("a file lies in a folder");
        std::fs::create_dir_all(folder).expect("making a folder of the context");
        std::fs::write(path, content).expect("writing a file of the context");
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The path as an argument.
    pub fn arg(&self) -> String {
        self.path().display().to_string()
    }
}
