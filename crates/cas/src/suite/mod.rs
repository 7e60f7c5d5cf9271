//! What every [`BlobStore`] must do. An implementation calls [`run`] with a fresh, empty store from a test of its own,
//! and [`ranges_are_parts`] and [`chunks_do_not_matter`] with whatever a property test draws.
//!
//! Failures panic, as assertions in tests do.

// It is a test, also where another crate compiles it as a library.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use buildyard_model::Digest;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use tokio::io::AsyncReadExt;

use crate::{BlobInfo, BlobStore, CasError, WHOLE, put, read_all};

const LIMIT: u64 = 64 << 20;

/// Everything that one store in order can show.
pub async fn run(blobs: Arc<dyn BlobStore>) {
    assert!(
        list(&*blobs).await.is_empty(),
        "the suite wants an empty store"
    );
    what_is_written_is_read(&*blobs).await;
    what_is_missing_is_none(&*blobs).await;
    what_is_not_committed_is_not_there(&*blobs).await;
    another_digest_is_refused(&*blobs).await;
    the_list_is_complete(&*blobs).await;
    a_reader_outlives_the_blob(&*blobs).await;
    writers_of_one_blob_agree(&blobs).await;
    large_blobs_stream(&*blobs).await;
    ranges_are_parts(&*blobs, b"0123456789", 3..7).await;
    chunks_do_not_matter(&*blobs, &[b"a".to_vec(), Vec::new(), b"bc".to_vec()]).await;
}

/// `content`, read as `range`, is that part of it.
pub async fn ranges_are_parts(blobs: &dyn BlobStore, content: &[u8], range: Range<u64>) {
    let info = put(blobs, content.to_vec()).await.unwrap();
    let size = content.len();
    let clip = |at: u64| usize::try_from(at).map_or(size, |at| at.min(size));
    let expected = content
        .get(clip(range.start)..clip(range.end))
        .unwrap_or_default();
    let mut reader = blobs
        .open(info.digest, range.clone())
        .await
        .unwrap()
        .expect("it was put");
    assert_eq!(reader.size(), size as u64);
    assert_eq!(
        reader.length(),
        expected.len() as u64,
        "{range:?} of {size}"
    );
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).await.unwrap();
    assert_eq!(bytes, expected, "{range:?} of {size}");
    let stream = blobs
        .open(info.digest, range)
        .await
        .unwrap()
        .expect("it was put")
        .into_stream();
    let chunks: Vec<Bytes> = stream.try_collect().await.unwrap();
    assert_eq!(chunks.concat(), expected);
}

/// The same blob comes of it however its bytes were cut.
pub async fn chunks_do_not_matter(blobs: &dyn BlobStore, chunks: &[Vec<u8>]) {
    let whole = chunks.concat();
    let mut writer = blobs.writer().await.unwrap();
    for chunk in chunks {
        writer.write(chunk.clone().into()).await.unwrap();
    }
    let info = writer.commit(Some(Digest::of(&whole))).await.unwrap();
    assert_eq!(
        info,
        BlobInfo {
            digest: Digest::of(&whole),
            size: whole.len() as u64
        }
    );
    assert_eq!(
        read_all(blobs, info.digest, LIMIT)
            .await
            .unwrap()
            .as_deref(),
        Some(&whole[..])
    );
}

async fn list(blobs: &dyn BlobStore) -> BTreeSet<BlobInfo> {
    blobs.list().try_collect().await.unwrap()
}

async fn what_is_written_is_read(blobs: &dyn BlobStore) {
    for content in ["", "x", "something longer"] {
        let info = put(blobs, content).await.unwrap();
        assert_eq!(
            info,
            BlobInfo {
                digest: Digest::of(content),
                size: content.len() as u64
            }
        );
        assert_eq!(blobs.stat(info.digest).await.unwrap(), Some(info.size));
        let read = read_all(blobs, info.digest, info.size).await.unwrap();
        assert_eq!(read.as_deref(), Some(content.as_bytes()));
    }
    let error = read_all(blobs, Digest::of("something longer"), 3)
        .await
        .expect_err("it is longer than 3");
    assert!(
        matches!(
            error,
            CasError::TooLarge {
                size: 16,
                limit: 3,
                ..
            }
        ),
        "{error}"
    );
}

async fn what_is_missing_is_none(blobs: &dyn BlobStore) {
    let missing = Digest::of("never written");
    assert_eq!(blobs.stat(missing).await.unwrap(), None);
    assert!(blobs.open(missing, WHOLE).await.unwrap().is_none());
    assert!(!blobs.delete(missing).await.unwrap());
    assert_eq!(read_all(blobs, missing, LIMIT).await.unwrap(), None);
    let info = put(blobs, "passing").await.unwrap();
    assert!(blobs.delete(info.digest).await.unwrap());
    assert!(!blobs.delete(info.digest).await.unwrap());
    assert_eq!(blobs.stat(info.digest).await.unwrap(), None);
}

async fn what_is_not_committed_is_not_there(blobs: &dyn BlobStore) {
    let before = list(blobs).await;
    let mut writer = blobs.writer().await.unwrap();
    writer.write("abandoned".into()).await.unwrap();
    assert_eq!(blobs.stat(Digest::of("abandoned")).await.unwrap(), None);
    drop(writer);
    assert_eq!(blobs.stat(Digest::of("abandoned")).await.unwrap(), None);
    assert_eq!(list(blobs).await, before);
}

async fn another_digest_is_refused(blobs: &dyn BlobStore) {
    let (announced, written) = (Digest::of("announced"), Digest::of("written"));
    let mut writer = blobs.writer().await.unwrap();
    writer.write("written".into()).await.unwrap();
    let error = writer
        .commit(Some(announced))
        .await
        .expect_err("it is another");
    assert!(
        matches!(error, CasError::Mismatch { expected, actual } if expected == announced && actual == written),
        "{error}"
    );
    for digest in [announced, written] {
        assert_eq!(blobs.stat(digest).await.unwrap(), None);
    }
}

async fn the_list_is_complete(blobs: &dyn BlobStore) {
    let mut expected = list(blobs).await;
    for number in 0..300 {
        expected.insert(put(blobs, format!("listed {number}")).await.unwrap());
    }
    assert_eq!(list(blobs).await, expected);
}

async fn a_reader_outlives_the_blob(blobs: &dyn BlobStore) {
    let content = vec![7; 1 << 20];
    let info = put(blobs, content.clone()).await.unwrap();
    let mut reader = blobs
        .open(info.digest, WHOLE)
        .await
        .unwrap()
        .expect("it was put");
    let mut bytes = vec![0; 10];
    reader.read_exact(&mut bytes).await.unwrap();
    assert!(blobs.delete(info.digest).await.unwrap());
    reader.read_to_end(&mut bytes).await.unwrap();
    assert!(bytes == content, "the reader goes on to the end");
}

/// Sixteen write one blob while others read and list it: each sees all of it or nothing.
async fn writers_of_one_blob_agree(blobs: &Arc<dyn BlobStore>) {
    let content: Bytes = (0..600_000u32)
        .flat_map(u32::to_le_bytes)
        .collect::<Vec<u8>>()
        .into();
    let info = BlobInfo {
        digest: Digest::of(&content),
        size: content.len() as u64,
    };
    let writers = (0..16).map(|number| {
        let (blobs, content) = (blobs.clone(), content.clone());
        tokio::spawn(async move {
            let mut writer = blobs.writer().await.unwrap();
            for chunk in content.chunks(100_000 + number) {
                writer.write(content.slice_ref(chunk)).await.unwrap();
            }
            assert_eq!(writer.commit(Some(info.digest)).await.unwrap(), info);
        })
    });
    let readers = (0..16).map(|_| {
        let (blobs, content) = (blobs.clone(), content.clone());
        tokio::spawn(async move {
            if let Some(size) = blobs.stat(info.digest).await.unwrap() {
                assert_eq!(size, info.size);
                assert!(
                    read_all(&*blobs, info.digest, LIMIT)
                        .await
                        .unwrap()
                        .unwrap()
                        == content
                );
            }
        })
    });
    let tasks: Vec<_> = writers
        .zip(readers)
        .flat_map(|(writer, reader)| [writer, reader])
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(blobs.stat(info.digest).await.unwrap(), Some(info.size));
}

async fn large_blobs_stream(blobs: &dyn BlobStore) {
    let chunk = Bytes::from(vec![42; 1 << 20]);
    let mut writer = blobs.writer().await.unwrap();
    for _ in 0..20 {
        writer.write(chunk.clone()).await.unwrap();
    }
    let info = writer.commit(None).await.unwrap();
    assert_eq!(info.size, 20 << 20);
    let mut stream = blobs
        .open(info.digest, WHOLE)
        .await
        .unwrap()
        .unwrap()
        .into_stream();
    let mut read = 0;
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.unwrap();
        assert!(chunk.len() <= 1 << 20, "chunks are small: {}", chunk.len());
        read += chunk.len() as u64;
    }
    assert_eq!(read, info.size);
    assert!(blobs.delete(info.digest).await.unwrap());
}
