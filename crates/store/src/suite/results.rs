//! Results: what is recorded is found, what is lost is a miss.

use std::sync::Arc;

use buildyard_model::{Digest, Scope, WorkerId};

use super::layers::{made, pulled};
use super::{at, claim_of, key, layer, lookup, only_for, record, result, scope};
use crate::{ClaimKey, Item, Store};

pub(crate) async fn what_is_recorded_is_found(store: &dyn Store) {
    let outcome = result("one", &["x", "y"]);
    record(store, &claim_of("a"), &outcome, at(0)).await;
    let found = store
        .lookup(&[key("b"), key("a"), key("c"), key("a")], &scope(), at(1))
        .await
        .expect("found");
    let outcome = Some(Arc::new(outcome));
    assert_eq!(found, [None, outcome.clone(), None, outcome]);
    assert!(
        store
            .lookup(&[], &scope(), at(1))
            .await
            .expect("found")
            .is_empty()
    );
    let mut bare = result("one", &[]);
    (bare.platform, bare.log, bare.outputs, bare.emulated) = (None, None, Vec::new(), false);
    record(store, &claim_of("bare"), &bare, at(0)).await;
    assert_eq!(lookup(store, "bare", at(1)).await, Some(bare));
    assert!(store.forget(key("a"), &scope()).await.expect("forgotten"));
    assert!(!store.forget(key("a"), &scope()).await.expect("forgotten"));
    assert_eq!(lookup(store, "a", at(1)).await, None);
}

pub(crate) async fn scopes_do_not_see_each_other(store: &dyn Store) {
    let elsewhere = ClaimKey::shared(key("a"), Scope::new("other"));
    record(store, &elsewhere, &result("one", &["x"]), at(0)).await;
    assert_eq!(lookup(store, "a", at(1)).await, None);
    record(store, &claim_of("a"), &result("two", &["y"]), at(1)).await;
    assert_eq!(lookup(store, "a", at(1)).await, Some(result("two", &["y"])));
    assert!(
        !store
            .forget(key("a"), &Scope::new("third"))
            .await
            .expect("asked")
    );
}

pub(crate) async fn a_lost_layer_is_a_miss(store: &dyn Store) {
    record(store, &claim_of("a"), &result("one", &["x", "y"]), at(0)).await;
    record(store, &only_for("b", "B"), &result("one", &["y"]), at(0)).await;
    record(store, &claim_of("c"), &result("one", &["x", "x"]), at(0)).await;
    // Three: the result of b is there for everybody and for its build.
    assert_eq!(store.forget_layer(layer("y")).await.expect("forgotten"), 3);
    assert_eq!(lookup(store, "a", at(1)).await, None);
    assert_eq!(lookup(store, "b", at(1)).await, None);
    assert!(lookup(store, "c", at(1)).await.is_some());
    assert_eq!(store.forget_layer(layer("y")).await.expect("forgotten"), 0);
    record(store, &only_for("b", "B"), &result("two", &["z"]), at(2)).await;
}

pub(crate) async fn a_lost_worker_takes_what_it_had_not_published(store: &dyn Store) {
    let mut published = made("published", "one", at(0));
    published.published = true;
    let records = [
        made("lost", "one", at(0)),
        published,
        made("other", "two", at(0)),
        pulled("pulled", at(0)),
    ];
    store.put_layers(&records).await.expect("recorded");
    record(
        store,
        &claim_of("a"),
        &result("one", &["pulled", "lost"]),
        at(0),
    )
    .await;
    record(
        store,
        &claim_of("b"),
        &result("two", &["pulled", "lost", "other"]),
        at(0),
    )
    .await;
    record(
        store,
        &claim_of("c"),
        &result("one", &["pulled", "published"]),
        at(0),
    )
    .await;
    record(store, &claim_of("d"), &result("two", &["other"]), at(0)).await;
    let names = store
        .forget_unpublished_of(&WorkerId::new("one"))
        .await
        .expect("forgotten");
    let mut expected = [
        result("one", &["pulled", "lost"]).name,
        result("two", &["pulled", "lost", "other"]).name,
    ];
    expected.sort();
    assert_eq!(names, expected);
    assert_eq!(lookup(store, "a", at(1)).await, None);
    assert_eq!(lookup(store, "b", at(1)).await, None);
    assert!(lookup(store, "c", at(1)).await.is_some());
    assert!(lookup(store, "d", at(1)).await.is_some());
}

pub(crate) async fn uses_reach_the_layers(store: &dyn Store) {
    let record_of = made("x", "one", at(0));
    let toc = record_of.toc.expect("it has one");
    let flats: Vec<Item> = record_of
        .flats
        .iter()
        .map(|(flat, _)| Item::flat(*flat))
        .collect();
    store.put_layers(&[record_of]).await.expect("recorded");
    record(store, &claim_of("a"), &result("one", &["x"]), at(0)).await;
    let idle = Item::blob(Digest::of("idle"));
    let mut items: Vec<(Item, u64)> = flats.iter().map(|flat| (flat.clone(), 10)).collect();
    items.extend([(Item::blob(toc), 5), (idle.clone(), 1)]);
    store.record_usage(&items, at(0)).await.expect("recorded");
    store.flush_uses().await.expect("flushed");
    lookup(store, "a", at(100)).await;
    lookup(store, "a", at(90)).await;
    assert_eq!(store.flush_uses().await.expect("flushed"), 1);
    assert_eq!(
        store.flush_uses().await.expect("flushed"),
        0,
        "each use is written once"
    );
    let oldest = store.oldest(10).await.expect("listed");
    assert_eq!(oldest.len(), items.len());
    for candidate in oldest {
        let expected = if candidate.item == idle {
            at(0)
        } else {
            at(100)
        };
        assert_eq!(candidate.used, expected, "{:?}", candidate.item);
    }
}

pub(crate) async fn unused_results_go_first(store: &dyn Store) {
    for (number, name) in ["a", "b", "c"].into_iter().enumerate() {
        let now = at(i64::try_from(number).expect("small"));
        record(store, &claim_of(name), &result("one", &["x"]), now).await;
    }
    lookup(store, "a", at(50)).await;
    store.flush_uses().await.expect("flushed");
    assert_eq!(store.forget_unused(at(10), 1).await.expect("forgotten"), 1);
    assert_eq!(lookup(store, "b", at(11)).await, None);
    assert_eq!(store.forget_unused(at(10), 10).await.expect("forgotten"), 1);
    assert_eq!(lookup(store, "c", at(11)).await, None);
    assert!(lookup(store, "a", at(60)).await.is_some());
}
