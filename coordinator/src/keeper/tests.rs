use std::collections::HashSet;

use buildyard_cas::MemoryBlobs;
use buildyard_layer::random_flat_id;
use buildyard_model::{Digest, LayerId};
use buildyard_store::{LayerRecord, SqliteStore};

use super::*;

struct Kept {
    keeper: Arc<Keeper>,
    store: Arc<dyn Store>,
    cancel: CancellationToken,
    _dir: tempfile::TempDir,
}

/// A keeper with room for `cap` bytes, its loop running.
async fn kept(cap: u64) -> Kept {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store: Arc<dyn Store> = Arc::new(SqliteStore::in_memory().await.expect("opened"));
    let flats = FlatFiles::new(dir.path().join("flats")).expect("opened");
    let config = KeeperConfig {
        limit: SizeLimit::Bytes(cap),
        ages: Ages::default(),
    };
    let (keeper, keeping) = Keeper::open(
        &config,
        dir.path().to_owned(),
        store.clone(),
        Arc::new(MemoryBlobs::default()),
        flats,
    )
    .await
    .expect("opened");
    let cancel = CancellationToken::new();
    tokio::spawn(keeping.run(cancel.clone()));
    Kept {
        keeper,
        store,
        cancel,
        _dir: dir,
    }
}

impl Kept {
    /// Writes a layer of `bytes` bytes in one flat file, and its record; its use is written down.
    async fn layer(&self, name: &str, bytes: usize) -> io::Result<(LayerId, FlatId)> {
        let written = self.write(name, bytes).await;
        self.keeper.flush().await.expect("flushed");
        written
    }

    async fn write(&self, name: &str, bytes: usize) -> io::Result<(LayerId, FlatId)> {
        let flats = self.keeper.flats();
        let flat = random_flat_id();
        let written = tokio::task::spawn_blocking(move || {
            let writer = flats.writer()?;
            writer.append_file(&mut &vec![1; bytes][..])?;
            writer.commit(flat)
        });
        written.await.expect("does not panic")?;
        let id = LayerId(Digest::of(name));
        let toc = buildyard_cas::put(self.keeper.blobs().as_ref(), name.to_owned())
            .await
            .expect("put");
        let record = LayerRecord {
            id,
            toc: Some(toc.digest),
            toc_size: toc.size,
            flats: vec![(flat, bytes as u64)],
            pulled: None,
            made_by: None,
            published: true,
            created: now(),
        };
        self.store.put_layers(&[record]).await.expect("recorded");
        Ok((id, flat))
    }

    fn has(&self, flat: FlatId) -> bool {
        self.keeper.flats().has(flat).expect("readable")
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

const MIB: usize = 1 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn the_least_recently_used_goes_before_a_write_would_pass_the_cap() {
    let kept = kept(5 * MIB as u64).await;
    let (first, first_flat) = kept.layer("first", 2 * MIB).await.expect("fits");
    tokio::time::sleep(Duration::from_millis(2)).await;
    let (_, second_flat) = kept.layer("second", 2 * MIB).await.expect("fits");
    assert!(kept.has(first_flat) && kept.has(second_flat));
    tokio::time::sleep(Duration::from_millis(2)).await;
    let (_, third_flat) = kept.layer("third", 2 * MIB).await.expect("room is made");
    assert!(!kept.has(first_flat) && kept.has(second_flat) && kept.has(third_flat));
    assert!(kept.keeper.taken() <= kept.keeper.limit());
    let record = kept.store.layers(&[first]).await.expect("read").remove(0);
    assert!(
        record.is_none(),
        "a layer without its bytes is not known any more"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_running_build_holds_stays_and_the_write_is_refused() {
    let kept = kept(5 * MIB as u64).await;
    let hold = kept.keeper.needs().hold();
    let (first, first_flat) = kept.layer("first", 3 * MIB).await.expect("fits");
    assert!(hold.layers([first]));
    let error = kept.layer("second", 3 * MIB).await.expect_err("no room");
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    assert!(error.to_string().contains("--store-limit"), "{error}");
    assert!(kept.has(first_flat));
    assert!(
        kept.keeper.taken() < 4 * MIB as u64,
        "what was claimed is given back"
    );
    drop(hold);
    kept.layer("second", 3 * MIB)
        .await
        .expect("there is room now");
    assert!(!kept.has(first_flat));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_just_now_is_listed_and_what_its_maker_removed_is_not() {
    let kept = kept(50 * MIB as u64).await;
    let flats = kept.keeper.flats();
    let write = || {
        let (flats, id) = (flats.clone(), random_flat_id());
        let written = tokio::task::spawn_blocking(move || {
            let writer = flats.writer()?;
            writer.append_file(&mut &vec![1; MIB][..])?;
            writer.commit(id)
        });
        async move {
            written.await.expect("does not panic").expect("fits");
            id
        }
    };
    let (stays, removed, unlisted) = (write().await, write().await, write().await);
    flats.remove(unlisted).expect("removed");
    let listed = async || {
        let candidates = kept.keeper.candidates().await.expect("read");
        let items = candidates.into_iter().map(|candidate| candidate.item);
        items.collect::<HashSet<Item>>()
    };
    let [stays, gone] = [stays, removed].map(Item::flat);
    assert_eq!(listed().await, HashSet::from([stays.clone(), gone]));
    flats.remove(removed).expect("removed");
    assert_eq!(listed().await, HashSet::from([stays]));
    assert!(kept.keeper.taken() < 2 * MIB as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_strikes_out_what_is_gone_and_removes_what_is_nobodys() {
    let kept = kept(50 * MIB as u64).await;
    let (_, stays) = kept.layer("stays", MIB).await.expect("fits");
    let (_, gone) = kept.layer("gone", MIB).await.expect("fits");
    kept.keeper
        .flats
        .remove(gone)
        .expect("removed behind its back");
    let stray = random_flat_id();
    let writer = kept.keeper.flats.writer().expect("a writer");
    writer.append_file(&mut &b"stray"[..]).expect("written");
    writer.commit(stray).expect("committed");
    kept.keeper.reconcile().await.expect("reconciled");
    let items: HashSet<Item> = kept
        .keeper
        .candidates()
        .await
        .expect("read")
        .into_iter()
        .map(|candidate| candidate.item)
        .collect();
    assert!(items.contains(&Item::flat(stays)) && kept.has(stays));
    assert!(!items.contains(&Item::flat(gone)));
    assert!(!items.contains(&Item::flat(stray)) && !kept.has(stray));
}
