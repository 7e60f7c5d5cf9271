//! Layers and their encodings.

use buildyard_model::{Digest, FlatId, WorkerId};

use super::{at, claim_of, layer, lookup, record, result};
use crate::{Encoded, EncodingKey, LayerRecord, MAX_SOURCES, Pulled, Source, Store, UnixMillis};

fn flat(name: &str) -> FlatId {
    FlatId::from(Digest::of(name))
}

/// A layer that a worker made, with a TOC and flat files of its own.
pub(crate) fn made(name: &str, worker: &str, now: UnixMillis) -> LayerRecord {
    LayerRecord {
        id: layer(name),
        toc: Some(Digest::of(format!("toc {name} {worker}"))),
        toc_size: 100,
        flats: vec![
            (flat(&format!("{name} {worker} z")), 4096),
            (flat(&format!("{name} {worker} a")), 1),
        ],
        pulled: None,
        made_by: Some(WorkerId::new(worker)),
        published: false,
        created: now,
    }
}

fn source(repository: &str) -> Source {
    Source {
        registry: "registry.example:5000".into(),
        repository: repository.into(),
    }
}

/// A pulled layer that nobody has read.
pub(crate) fn pulled(name: &str, now: UnixMillis) -> LayerRecord {
    let pulled = Pulled {
        blob: Digest::of(format!("blob {name}")),
        size: 77,
        media_type: "application/vnd.oci.image.layer.v1.tar+gzip".into(),
        sources: vec![source("library/base")],
    };
    LayerRecord {
        id: layer(name),
        toc: None,
        toc_size: 0,
        flats: Vec::new(),
        pulled: Some(pulled),
        made_by: None,
        published: false,
        created: now,
    }
}

async fn get(store: &dyn Store, name: &str) -> Option<LayerRecord> {
    store
        .layers(&[layer(name)])
        .await
        .expect("looked up")
        .into_iter()
        .next()
        .expect("one answer per id")
}

async fn put(store: &dyn Store, record: &LayerRecord) {
    store
        .put_layers(std::slice::from_ref(record))
        .await
        .expect("recorded");
}

pub(crate) async fn layers_keep_what_they_are_told(store: &dyn Store) {
    let records = [made("m", "one", at(0)), pulled("p", at(1))];
    store.put_layers(&records).await.expect("recorded");
    let found = store
        .layers(&[layer("p"), layer("none"), layer("m")])
        .await
        .expect("looked up");
    assert_eq!(
        found,
        [Some(records[1].clone()), None, Some(records[0].clone())]
    );
    put(store, &records[0]).await;
    assert_eq!(
        get(store, "m").await,
        Some(records[0].clone()),
        "putting it again changes nothing"
    );
}

pub(crate) async fn the_published_one_stays(store: &dyn Store) {
    let first = made("x", "one", at(0));
    put(store, &first).await;
    assert!(
        !store
            .set_published(layer("x"), Digest::of("another toc"))
            .await
            .expect("asked")
    );
    assert!(
        !store
            .set_published(layer("none"), Digest::of("t"))
            .await
            .expect("asked")
    );
    assert!(
        store
            .set_published(layer("x"), first.toc.expect("it has one"))
            .await
            .expect("published")
    );
    put(store, &made("x", "two", at(9))).await;
    assert_eq!(
        get(store, "x").await,
        Some(LayerRecord {
            published: true,
            ..first
        })
    );
}

pub(crate) async fn an_unpublished_one_is_replaced(store: &dyn Store) {
    put(store, &made("x", "one", at(0))).await;
    let second = LayerRecord {
        created: at(0),
        ..made("x", "two", at(9))
    };
    put(store, &second).await;
    assert_eq!(
        get(store, "x").await,
        Some(second),
        "created is when the layer was first recorded"
    );
    // A pulled layer is read, then its source is seen again without being read.
    put(store, &pulled("p", at(0))).await;
    let read = LayerRecord {
        pulled: pulled("p", at(0)).pulled,
        made_by: None,
        ..made("p", "one", at(0))
    };
    put(store, &read).await;
    put(store, &pulled("p", at(5))).await;
    assert_eq!(get(store, "p").await, Some(read));
}

pub(crate) async fn sources_are_the_last_seen(store: &dyn Store) {
    put(store, &pulled("p", at(0))).await;
    for number in 0..MAX_SOURCES {
        assert!(
            store
                .add_source(layer("p"), &source(&format!("r{number}")), at(1))
                .await
                .expect("added")
        );
    }
    assert!(
        store
            .add_source(layer("p"), &source("r3"), at(1))
            .await
            .expect("added")
    );
    let sources = get(store, "p")
        .await
        .expect("there")
        .pulled
        .expect("pulled")
        .sources;
    assert_eq!(sources.len(), MAX_SOURCES);
    assert_eq!(
        sources[..2],
        [source("r3"), source(&format!("r{}", MAX_SOURCES - 1))]
    );
    assert!(
        !sources.contains(&source("library/base")),
        "the oldest went"
    );
    put(store, &made("m", "one", at(0))).await;
    assert!(
        !store
            .add_source(layer("m"), &source("r"), at(1))
            .await
            .expect("asked"),
        "it was not pulled"
    );
    assert!(
        !store
            .add_source(layer("none"), &source("r"), at(1))
            .await
            .expect("asked")
    );
}

pub(crate) async fn an_image_is_believed_until_its_layer_was_read(store: &dyn Store) {
    let blob = |record: Option<LayerRecord>| {
        let pulled = record.and_then(|record| record.pulled);
        pulled.expect("it was pulled").blob
    };
    let mut lie = pulled("p", at(0));
    lie.pulled.as_mut().expect("pulled").blob = Digest::of("a lie");
    let truth = pulled("p", at(1));
    put(store, &lie).await;
    put(store, &truth).await;
    assert_eq!(blob(get(store, "p").await), blob(Some(truth.clone())));
    let read = LayerRecord {
        toc: Some(Digest::of("a table of contents")),
        ..truth.clone()
    };
    put(store, &read).await;
    put(store, &lie).await;
    assert_eq!(blob(get(store, "p").await), blob(Some(truth)));
}

pub(crate) async fn what_was_read_from_another_blob_does_not_count(store: &dyn Store) {
    let read = LayerRecord {
        toc: Some(Digest::of("toc of p")),
        published: true,
        ..pulled("p", at(0))
    };
    let mut other = pulled("p", at(1));
    let named = other.pulled.as_mut().expect("pulled");
    named.blob = Digest::of("another blob");
    named.sources = vec![source("another/place")];
    put(store, &pulled("p", at(0))).await;
    put(store, &other).await;
    put(store, &read).await;
    let found = get(store, "p").await.expect("recorded");
    assert_eq!(found.toc, None, "nobody has read the other blob");
    assert_eq!(found.pulled, other.pulled, "with its own sources alone");
    put(store, &pulled("p", at(2))).await;
    put(store, &read).await;
    let found = get(store, "p").await.expect("recorded");
    assert_eq!((found.toc, found.published), (read.toc, true));
    put(store, &other).await;
    let found = get(store, "p").await.expect("recorded");
    assert_eq!(
        found.pulled, read.pulled,
        "the other place has another blob"
    );
}

pub(crate) async fn removing_a_layer_makes_misses(store: &dyn Store) {
    let records = [made("x", "one", at(0)), pulled("p", at(0))];
    store.put_layers(&records).await.expect("recorded");
    store
        .put_encoding(&gzip("x"), &encoded("x"), at(0))
        .await
        .expect("recorded");
    record(store, &claim_of("a"), &result("one", &["p", "x"]), at(0)).await;
    record(store, &claim_of("b"), &result("one", &["p"]), at(0)).await;
    assert_eq!(
        store
            .remove_layers(&[layer("x"), layer("none")])
            .await
            .expect("removed"),
        1
    );
    assert_eq!(get(store, "x").await, None);
    assert_eq!(
        store.encodings(&[gzip("x")]).await.expect("looked up"),
        [None]
    );
    assert_eq!(lookup(store, "a", at(1)).await, None);
    assert!(lookup(store, "b", at(1)).await.is_some());
    put(store, &records[0]).await;
    assert_eq!(
        get(store, "x").await.as_ref(),
        Some(&records[0]),
        "it may come back"
    );
}

fn gzip(name: &str) -> EncodingKey {
    EncodingKey {
        layer: layer(name),
        encoding: "gzip".into(),
        level: -1,
        version: 1,
    }
}

fn encoded(name: &str) -> Encoded {
    Encoded {
        digest: Digest::of(format!("gz {name}")),
        size: 9,
        diff_id: Digest::of(format!("tar {name}")),
    }
}

pub(crate) async fn encodings_are_found_by_diff_id(store: &dyn Store) {
    store
        .put_layers(&[made("x", "one", at(0)), made("y", "one", at(0))])
        .await
        .expect("recorded");
    assert!(
        !store
            .put_encoding(&gzip("none"), &encoded("none"), at(0))
            .await
            .expect("asked")
    );
    for name in ["x", "y", "x"] {
        assert!(
            store
                .put_encoding(&gzip(name), &encoded(name), at(0))
                .await
                .expect("recorded")
        );
    }
    let newer = EncodingKey {
        version: 2,
        ..gzip("x")
    };
    let found = store
        .encodings(&[gzip("y"), newer.clone(), gzip("x")])
        .await
        .expect("looked up");
    assert_eq!(found, [Some(encoded("y")), None, Some(encoded("x"))]);
    let diff_ids = [
        encoded("x").diff_id,
        Digest::of("foreign"),
        encoded("y").diff_id,
    ];
    let layers = store.layers_by_diff_id(&diff_ids).await.expect("looked up");
    assert_eq!(layers, [Some(layer("x")), None, Some(layer("y"))]);
    store
        .put_encoding(&newer, &encoded("x2"), at(1))
        .await
        .expect("recorded");
    assert_eq!(
        store.encodings(&[newer]).await.expect("looked up"),
        [Some(encoded("x2"))]
    );
}
