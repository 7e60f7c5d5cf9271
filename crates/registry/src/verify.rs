//! Bytes on their way, checked against the size and the SHA-256 that were promised.

use std::io;

use buildyard_model::Digest;
use futures::StreamExt;
use sha2::{Digest as _, Sha256};

use crate::{BlobStream, RegistryError};

/// Counts and hashes what passes. The last bytes are let through only when all of them were right.
pub(crate) struct Verifier {
    what: String,
    digest: Digest,
    size: u64,
    seen: u64,
    hasher: Sha256,
}

impl Verifier {
    pub(crate) fn new(what: impl Into<String>, digest: Digest, size: u64) -> Self {
        Self {
            what: what.into(),
            digest,
            size,
            seen: 0,
            hasher: Sha256::new(),
        }
    }

    /// How many bytes have passed.
    pub(crate) fn seen(&self) -> u64 {
        self.seen
    }

    /// Whether all bytes have passed, which then were right.
    pub(crate) fn is_complete(&self) -> bool {
        self.seen == self.size
    }

    /// Takes the next bytes.
    pub(crate) fn pass(&mut self, bytes: &[u8]) -> Result<(), RegistryError> {
        self.seen += bytes.len() as u64;
        if self.seen > self.size {
            return Err(self.damaged(format!("it is longer than its {} bytes", self.size)));
        }
        self.hasher.update(bytes);
        if self.seen == self.size {
            return self.check_digest();
        }
        Ok(())
    }

    /// Told that nothing more comes.
    pub(crate) fn finish(&self) -> Result<(), RegistryError> {
        match self.seen == self.size {
            true if self.size == 0 => self.check_digest(),
            true => Ok(()),
            false => Err(self.damaged(format!(
                "it ends after {} of {} bytes",
                self.seen, self.size
            ))),
        }
    }

    fn check_digest(&self) -> Result<(), RegistryError> {
        let actual = Digest::from_bytes(self.hasher.clone().finalize().into());
        if actual != self.digest {
            return Err(self.damaged(format!("its bytes have the digest {actual}")));
        }
        Ok(())
    }

    fn damaged(&self, cause: String) -> RegistryError {
        RegistryError::Damaged {
            what: self.what.clone(),
            cause,
        }
    }
}

/// The same bytes; an error in place of the last ones where size or digest differ. `what` names them in the error.
pub fn verified(stream: BlobStream, what: &str, digest: Digest, size: u64) -> BlobStream {
    let start = Some((stream, Verifier::new(what, digest, size)));
    futures::stream::unfold(start, |state| async move {
        let (mut stream, mut verifier) = state?;
        let item = match stream.next().await {
            Some(Ok(bytes)) => verifier
                .pass(&bytes)
                .map(|()| bytes)
                .map_err(io::Error::other),
            Some(Err(error)) => Err(error),
            None => match verifier.finish() {
                Ok(()) => return None,
                Err(error) => Err(io::Error::other(error)),
            },
        };
        let next = item.is_ok().then_some((stream, verifier));
        Some((item, next))
    })
    .boxed()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use futures::TryStreamExt;

    async fn check(
        parts: &[&'static str],
        promised: &str,
        size: u64,
        expected: Result<&str, &str>,
    ) {
        let parts: Vec<io::Result<Bytes>> = parts
            .iter()
            .map(|part| Ok(Bytes::from_static(part.as_bytes())))
            .collect();
        let stream = verified(
            futures::stream::iter(parts).boxed(),
            "blob",
            Digest::of(promised),
            size,
        );
        let passed = stream
            .try_collect::<Vec<Bytes>>()
            .await
            .map(|parts| parts.concat());
        let passed = passed.map_err(|error| error.to_string());
        match expected {
            Ok(text) => assert_eq!(passed.as_deref(), Ok(text.as_bytes())),
            Err(part) => assert!(
                passed.as_ref().is_err_and(|text| text.contains(part)),
                "{passed:?}"
            ),
        }
    }

    #[tokio::test]
    async fn only_what_was_promised_passes() {
        check(&["ab", "c"], "abc", 3, Ok("abc")).await;
        check(&[], "", 0, Ok("")).await;
        check(&[], "x", 0, Err("have the digest")).await;
        check(&["ab"], "abc", 3, Err("ends after 2 of 3")).await;
        check(&["ab", "cd"], "abc", 3, Err("longer than its 3")).await;
        check(&["abd"], "abc", 3, Err("have the digest")).await;
    }
}
