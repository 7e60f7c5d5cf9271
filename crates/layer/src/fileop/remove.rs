//! Removing paths.

use super::FileOpError;
use crate::draft::Draft;
use crate::path;
use crate::resolve::Follow;
use crate::source::CopySource;

/// BuildKit's `FileActionRm`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RmAction {
    /// The path; links on the way are followed, a link itself is removed.
    pub path: String,
    /// Whether it may be missing.
    pub allow_not_found: bool,
    /// Whether the path may have wildcards. One that matches nothing is no error.
    pub allow_wildcard: bool,
}

impl Draft<'_> {
    /// Removes a path with all beneath it.
    ///
    /// # Errors
    ///
    /// It is missing, or it is the root.
    pub fn rm(&mut self, action: &RmAction) -> Result<(), FileOpError> {
        if !action.allow_wildcard {
            return self.rm_path(&path::clean(action.path.as_bytes()), action.allow_not_found);
        }
        let source = CopySource {
            src: action.path.clone(),
            allow_wildcard: true,
            allow_empty_wildcard: true,
            ..CopySource::default()
        };
        let clean = path::clean(action.path.as_bytes());
        if !crate::has_wildcards(&clean) {
            return self.rm_path(&clean, action.allow_not_found);
        }
        for found in source.matches(&self.snapshot())? {
            self.rm_path(&found.path, action.allow_not_found)?;
        }
        Ok(())
    }

    fn rm_path(&mut self, clean: &[u8], allow_not_found: bool) -> Result<(), FileOpError> {
        if clean.is_empty() {
            return Err(FileOpError::RemoveRoot);
        }
        let path = self.resolve(clean, Follow::Parents)?;
        if self.get(&path).is_none() && !allow_not_found {
            return Err(FileOpError::NotFound {
                operation: "stat",
                path: path::display(&path),
            });
        }
        self.remove(&path);
        Ok(())
    }
}
