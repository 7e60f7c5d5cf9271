//! What is taken from outside at most.

/// Bounds for reading a layer or an archive. Exceeding one is an error, never a truncation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// The longest uncompressed tar, in bytes; also the most that its files' sizes may add up to, so that a sparse
    /// file of a petabyte is refused too.
    pub bytes: u64,
    /// The most members of the tar.
    pub entries: u64,
    /// The longest path or link target, in bytes. The kernel takes no path of more than 4095.
    pub path: usize,
    /// The longest extended header (long names, PAX records with extended attributes) of one member, in bytes.
    pub header: u64,
    /// The most that all paths, link targets and extended attributes together may take, in bytes.
    pub metadata: u64,
}

impl Default for Limits {
    /// 256 GiB, 4 million entries, the kernel's path length, 4 MiB of headers and 1 GiB of metadata.
    fn default() -> Self {
        Self {
            bytes: 256 << 30,
            entries: 4_000_000,
            path: 4095,
            header: 4 << 20,
            metadata: 1 << 30,
        }
    }
}
