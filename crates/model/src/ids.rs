//! Names of things. Each kind is a type of its own, so that one is never taken for another.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Digest;

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// Takes the text as it is.
            pub fn new(text: impl Into<String>) -> Self {
                Self(text.into())
            }

            /// The id's text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

macro_rules! digest_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Digest);

        impl $name {
            /// The digest behind the id.
            pub fn digest(&self) -> Digest {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl FromStr for $name {
            type Err = crate::ParseDigestError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }
    };
}

text_id! {
    /// One client request for a build; BuildKit's `Ref` of a solve, chosen by the client.
    BuildId
}
text_id! {
    /// The part of a build that one worker evaluates.
    JobId
}
text_id! {
    /// A worker, by the name it registers under.
    WorkerId
}
text_id! {
    /// Who may read and write a cache entry.
    Scope
}

digest_id! {
    /// A step of a graph: the digest of its LLB operation's bytes, as BuildKit's vertex digest.
    StepDigest
}
digest_id! {
    /// What a step's result is stored under: operation, platform if it executes, content of its inputs.
    StepKey
}
digest_id! {
    /// A layer: its diff id where it was pulled, the hash of its TOC without times where the farm made it.
    LayerId
}

/// A flat file: the bytes that TOCs point into. Pulled layers use their diff id, all others a random value:
/// a flat file is written once and never changes, but nothing promises that its name is the hash of its bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FlatId([u8; 32]);

/// A text that is not 64 hex digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the name of a flat file (want 64 hex digits)")]
pub struct ParseFlatIdError(String);

impl FlatId {
    /// Takes 32 bytes: random ones, or those of a diff id.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The id's bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl From<Digest> for FlatId {
    fn from(diff_id: Digest) -> Self {
        Self(*diff_id.as_bytes())
    }
}

impl fmt::Display for FlatId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for FlatId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for FlatId {
    type Err = ParseFlatIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes)
            .map_err(|_| ParseFlatIdError(text.chars().take(100).collect()))?;
        Ok(Self(bytes))
    }
}
