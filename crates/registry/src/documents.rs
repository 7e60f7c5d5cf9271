//! Manifests and configurations that were read before.
//!
//! A document is known by its digest, so one that was read once need not be read again. It is found only under the
//! repository that it was read from, and only by who follows a document that this build's client has just been served from
//! there: knowing a digest gives nobody what a registry would refuse.

use std::sync::{Mutex, MutexGuard, PoisonError};

use buildyard_model::Digest;
use bytes::Bytes;
use lru::LruCache;

use crate::{Fetched, Reference};

/// How many bytes of documents are kept.
const MOST_BYTES: usize = 16 << 20;

/// Documents of all builds. Bounded: what was asked for longest ago goes.
#[derive(Debug)]
pub struct Documents(Mutex<Kept>);

#[derive(Debug)]
struct Kept {
    documents: LruCache<(String, Digest), Fetched>,
    bytes: usize,
}

impl Default for Documents {
    fn default() -> Self {
        Self(Mutex::new(Kept {
            documents: LruCache::unbounded(),
            bytes: 0,
        }))
    }
}

impl Documents {
    pub(crate) fn manifest(&self, repository: &Reference, digest: Digest) -> Option<Fetched> {
        self.lock()
            .documents
            .get(&(repository.name(), digest))
            .cloned()
    }

    pub(crate) fn config(&self, repository: &Reference, digest: Digest) -> Option<Bytes> {
        self.manifest(repository, digest).map(|found| found.bytes)
    }

    pub(crate) fn keep_manifest(&self, repository: &Reference, document: &Fetched) {
        let mut kept = self.lock();
        let key = (repository.name(), document.digest);
        let before = kept.documents.put(key, document.clone());
        kept.bytes += document.bytes.len();
        kept.bytes -= before.map_or(0, |before| before.bytes.len());
        while kept.bytes > MOST_BYTES
            && let Some((_, oldest)) = kept.documents.pop_lru()
        {
            kept.bytes -= oldest.bytes.len();
        }
    }

    pub(crate) fn keep_config(&self, repository: &Reference, digest: Digest, bytes: &Bytes) {
        let document = Fetched {
            media_type: String::new(),
            bytes: bytes.clone(),
            digest,
        };
        self.keep_manifest(repository, &document);
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_belong_to_their_repository_and_the_oldest_go() {
        let documents = Documents::default();
        let here: Reference = "registry.example/here".parse().unwrap();
        let there: Reference = "registry.example/there".parse().unwrap();
        let large = Bytes::from(vec![0; MOST_BYTES / 4]);
        let digest = |number: u8| Digest::of([number]);
        for number in 0..6 {
            documents.keep_config(&here, digest(number), &large);
        }
        assert_eq!(documents.config(&here, digest(5)), Some(large.clone()));
        assert_eq!(documents.config(&there, digest(5)), None);
        let held = (0..6).filter(|number| documents.config(&here, digest(*number)).is_some());
        assert_eq!(held.collect::<Vec<_>>(), [2, 3, 4, 5]);
        // Once more the same changes nothing.
        documents.keep_config(&here, digest(5), &large);
        assert!(documents.config(&here, digest(2)).is_some());
    }
}
