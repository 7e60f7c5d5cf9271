//! The suite over all implementations, and what only some of them promise.

use std::sync::Arc;

use buildyard_model::Digest;
use bytes::Bytes;
use proptest::prelude::*;
use tokio::io::AsyncReadExt;

use crate::{
    BlobStore, CasError, DiskBlobs, Durability, MemoryBlobs, Verified, WHOLE, is_damaged,
    open_disk, put, put_relaxed, read_all, suite,
};

async fn disk(durability: Durability) -> (tempfile::TempDir, Verified<DiskBlobs>) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let blobs = open_disk(dir.path(), durability).await.expect("opened");
    (dir, blobs)
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_runs_the_suite() {
    suite::run(Arc::new(MemoryBlobs::new())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn verified_memory_runs_the_suite() {
    suite::run(Arc::new(Verified::new(MemoryBlobs::new()))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_runs_the_suite() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let blobs = DiskBlobs::open(dir.path(), Durability::Lazy)
        .await
        .expect("opened");
    suite::run(Arc::new(blobs)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verified_synced_disk_runs_the_suite() {
    let (_dir, blobs) = disk(Durability::Synced).await;
    suite::run(Arc::new(blobs)).await;
}

fn block_on(future: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime")
        .block_on(future);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_range_is_that_part(
        content in proptest::collection::vec(any::<u8>(), 0..3000),
        start in 0u64..3500,
        length in 0u64..3500,
    ) {
        block_on(async {
            let (_dir, blobs) = disk(Durability::Lazy).await;
            let memory = Verified::new(MemoryBlobs::new());
            for blobs in [&blobs as &dyn BlobStore, &memory] {
                suite::ranges_are_parts(blobs, &content, start..start + length).await;
                suite::ranges_are_parts(blobs, &content, start..u64::MAX).await;
            }
        });
    }

    #[test]
    fn any_chunks_make_the_same_blob(
        sizes in proptest::collection::vec(prop_oneof![0usize..10, 0usize..400_000], 0..8),
    ) {
        let chunks: Vec<Vec<u8>> = sizes.iter().zip(0u8..).map(|(size, byte)| vec![byte; *size]).collect();
        block_on(async {
            let (_dir, blobs) = disk(Durability::Lazy).await;
            suite::chunks_do_not_matter(&blobs, &chunks).await;
            suite::chunks_do_not_matter(&MemoryBlobs::new(), &chunks).await;
        });
    }
}

/// What happens to a file on a bad disk: bits turn, the end is missing, it is empty.
fn damages() -> [fn(&mut Vec<u8>); 3] {
    [
        |bytes| bytes[500_000] ^= 1,
        |bytes| bytes.truncate(400_000),
        Vec::clear,
    ]
}

#[tokio::test]
async fn a_damaged_blob_is_a_miss_and_heals() {
    let content = Bytes::from(vec![3; 1_000_000]);
    for damage in damages() {
        let (_dir, blobs) = disk(Durability::Lazy).await;
        let digest = put(&blobs, content.clone()).await.expect("stored").digest;
        let path = blobs.inner().path_of(digest);
        let mut bytes = std::fs::read(&path).expect("there");
        damage(&mut bytes);
        std::fs::write(&path, &bytes).expect("damaged");

        let mut reader = blobs
            .open(digest, WHOLE)
            .await
            .expect("opened")
            .expect("still there");
        let error = reader
            .read_to_end(&mut Vec::new())
            .await
            .expect_err("it is damaged");
        assert!(is_damaged(&error), "{error}");
        assert_eq!(
            blobs.stat(digest).await.expect("asked"),
            None,
            "the next to ask finds a miss"
        );

        std::fs::write(&path, &bytes).expect("damaged again");
        assert_eq!(
            read_all(&blobs, digest, 1 << 20).await.expect("asked"),
            None
        );
        std::fs::write(&path, &bytes).expect("damaged again");
        put(&blobs, content.clone()).await.expect("stored again");
        assert_eq!(
            read_all(&blobs, digest, 1 << 20).await.expect("asked"),
            Some(content.clone())
        );
    }
}

#[tokio::test]
async fn the_decorator_finds_damage_in_any_store() {
    let memory = MemoryBlobs::new();
    let digest = Digest::of("right");
    memory.damage(digest, "wrong");
    let blobs = Verified::new(memory.clone());
    assert_eq!(read_all(&blobs, digest, 100).await.expect("asked"), None);
    assert_eq!(memory.stat(digest).await.expect("asked"), None);
}

#[tokio::test]
async fn a_new_process_clears_what_the_last_one_left() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let blobs = DiskBlobs::open(dir.path(), Durability::Synced)
        .await
        .expect("opened");
    let kept = put(&blobs, "kept").await.expect("stored");
    let mut writer = blobs.writer().await.expect("begun");
    writer
        .write(vec![1; 1 << 20].into())
        .await
        .expect("written");
    std::mem::forget(writer);
    let shard = dir.path().join("blobs/sha256/ab");
    std::fs::create_dir_all(&shard).expect("made");
    std::fs::write(shard.join("README"), "not ours").expect("written");
    let left = || {
        std::fs::read_dir(dir.path().join("tmp"))
            .expect("there")
            .count()
    };
    assert_eq!(left(), 1);
    let blobs = DiskBlobs::open(dir.path(), Durability::Synced)
        .await
        .expect("opened");
    assert_eq!(left(), 0);
    assert_eq!(blobs.stat(kept.digest).await.expect("asked"), Some(4));
    let listed: Vec<_> = futures::TryStreamExt::try_collect(blobs.list())
        .await
        .expect("listed");
    assert_eq!(listed, [kept]);
}

#[tokio::test]
async fn no_room_is_told_apart_in_memory() {
    let blobs = MemoryBlobs::with_capacity(10);
    put(&blobs, "12345678").await.expect("fits");
    put(&blobs, "12345678").await.expect("is there already");
    let error = put(&blobs, "123").await.expect_err("does not fit");
    assert!(matches!(error, CasError::Full { .. }), "{error}");
}

/// A file system of 1 MiB, for as long as this lives.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let flags = rustix::mount::MountFlags::empty();
        rustix::mount::mount("tmpfs", dir.path(), "tmpfs", flags, Some(c"size=1m"))
            .expect("tests run as root");
        Self(dir)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(self.0.path(), rustix::mount::UnmountFlags::DETACH);
    }
}

#[tokio::test]
async fn no_room_is_told_apart_on_a_full_disk() {
    let small = SmallDisk::mount();
    let dir = small.0.path();
    assert!(crate::free_space(dir).expect("asked") <= 1 << 20);
    let blobs = open_disk(dir, Durability::Synced).await.expect("opened");
    let kept = put(&blobs, "kept").await.expect("stored");
    let mut writer = blobs.writer().await.expect("begun");
    let error = writer
        .write(vec![1; 3 << 20].into())
        .await
        .expect_err("it does not fit");
    assert!(matches!(error, CasError::Full { .. }), "{error}");
    assert!(
        error.to_string().contains("no space is left in "),
        "{error}"
    );
    let error = writer
        .write("more".into())
        .await
        .expect_err("there is a hole before it");
    assert!(matches!(error, CasError::Abandoned), "{error}");
    assert!(matches!(
        writer.commit(None).await,
        Err(CasError::Abandoned)
    ));
    // Nothing is left of it, and what was there is sound.
    assert_eq!(
        read_all(&blobs, kept.digest, 10)
            .await
            .expect("asked")
            .as_deref(),
        Some(&b"kept"[..])
    );
    put(&blobs, vec![2; 500 << 10])
        .await
        .expect("there is room again");
}

#[tokio::test]
async fn what_is_relaxed_does_not_wait_for_the_disk() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let blobs = DiskBlobs::open(dir.path(), Durability::Synced)
        .await
        .expect("opened");
    let relaxed = put_relaxed(&blobs, "a step's table of contents").await;
    let relaxed = relaxed.expect("stored").digest;
    assert_eq!(blobs.syncs(), 0);
    let found = blobs.stat(relaxed).await.expect("looked");
    assert!(found.is_some());
    put(&blobs, "an image's manifest").await.expect("stored");
    assert_eq!(blobs.syncs(), 2, "the file, and its name");
}
