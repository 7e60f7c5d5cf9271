//! What every [`BlobStore`](crate::BlobStore) must do. An implementation calls [`run`] from a test of its own.
