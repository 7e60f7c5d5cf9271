//! How large things may be before they are refused.

/// Bytes of a Dockerfile or an ignore file.
pub const FILE_BYTES: usize = 4 << 20;
/// Instructions of a Dockerfile.
pub const INSTRUCTIONS: usize = 10_000;
/// Stages, the images that `--from` names included.
pub const STAGES: usize = 1_000;
/// Platforms of one build.
pub const PLATFORMS: usize = 64;
/// Bytes of one expanded word.
pub const WORD_BYTES: usize = 1 << 20;
/// How deeply `${a:-${b:-…}}` may be nested.
pub const NESTING: usize = 64;
/// Bytes of all operations, names and history entries that one conversion makes. Text grows when variables are expanded,
/// and each RUN carries the whole environment: this is what keeps a small file from becoming a huge graph.
pub const CONVERSION_BYTES: usize = 64 << 20;
/// Bytes of the definitions of all platforms together.
pub const DEFINITION_BYTES: usize = 4 * CONVERSION_BYTES;
