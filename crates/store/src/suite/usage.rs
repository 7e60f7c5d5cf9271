//! Room and use.

use buildyard_model::{BuildId, Digest};

use super::layers::{made, pulled};
use super::{at, claim_of, layer, record, result};
use crate::{Encoded, EncodingKey, Item, Referrer, Store};

fn blob(name: &str) -> Item {
    Item::blob(Digest::of(name))
}

pub(crate) async fn room_adds_up(store: &dyn Store) {
    assert_eq!(store.total_bytes().await.expect("added up"), 0);
    let items = [(blob("a"), 10), (Item::snapshot("s"), 5), (blob("b"), 1)];
    store.record_usage(&items, at(1)).await.expect("recorded");
    store
        .record_usage(&[(blob("a"), 20)], at(0))
        .await
        .expect("recorded");
    assert_eq!(
        store.total_bytes().await.expect("added up"),
        26,
        "the size is the last one"
    );
    store
        .touch(&[blob("b"), blob("unknown")], at(9))
        .await
        .expect("touched");
    store.touch(&[blob("b")], at(4)).await.expect("touched");
    let oldest = store.oldest(10).await.expect("listed");
    let order: Vec<_> = oldest
        .iter()
        .map(|candidate| (candidate.item.clone(), candidate.bytes, candidate.used))
        .collect();
    let expected = [
        (blob("a"), 20, at(1)),
        (Item::snapshot("s"), 5, at(1)),
        (blob("b"), 1, at(9)),
    ];
    assert_eq!(order, expected, "a use is never taken back");
    store
        .remove_usage(&[blob("a"), blob("unknown")])
        .await
        .expect("removed");
    assert_eq!(store.total_bytes().await.expect("added up"), 6);
    assert_eq!(store.oldest(1).await.expect("listed").len(), 1);
}

pub(crate) async fn the_oldest_come_with_their_referrers(store: &dyn Store) {
    let (x, p) = (made("x", "one", at(0)), pulled("p", at(0)));
    store
        .put_layers(&[x.clone(), p.clone()])
        .await
        .expect("recorded");
    let encoded = Encoded {
        digest: Digest::of("gz"),
        size: 1,
        diff_id: Digest::of("tar"),
    };
    let key = EncodingKey {
        layer: layer("x"),
        encoding: "gzip".into(),
        level: 6,
        version: 1,
    };
    store
        .put_encoding(&key, &encoded, at(0))
        .await
        .expect("recorded");
    record(store, &claim_of("a"), &result("one", &["x"]), at(0)).await;
    let expected = [
        (Item::flat(x.flats[0].0), vec![Referrer::Layer(layer("x"))]),
        (
            Item::blob(x.toc.expect("it has one")),
            vec![Referrer::Layer(layer("x"))],
        ),
        (
            Item::blob(p.pulled.expect("pulled").blob),
            vec![Referrer::Pulled(layer("p"))],
        ),
        (blob("gz"), vec![Referrer::Encoding(layer("x"))]),
        (blob("log"), vec![Referrer::Log(BuildId::new("build"))]),
        (blob("nothing"), vec![]),
        (Item::snapshot("not hex at all"), vec![]),
    ];
    for (second, (item, _)) in (0..).zip(&expected) {
        store
            .record_usage(&[(item.clone(), 1)], at(second))
            .await
            .expect("recorded");
    }
    let found: Vec<_> = store.oldest(10).await.expect("listed");
    let found: Vec<_> = found
        .into_iter()
        .map(|candidate| (candidate.item, candidate.needed_by))
        .collect();
    assert_eq!(found, expected);
}
