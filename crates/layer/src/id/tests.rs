use crate::testing::{Item, Put, flats, item, layer};
use crate::{Time, Toc};

fn every_kind() -> Vec<Item> {
    let mut attributed = item("etc/file", Put::File(b"content".to_vec()));
    attributed.xattrs.insert(b"user.a".to_vec(), b"1".to_vec());
    vec![
        item("etc", Put::Opaque),
        attributed,
        item("etc/link", Put::Link(b"etc/file".to_vec())),
        item("link-below", Put::Link(b"lower".to_vec())),
        item("dev", Put::Device(1, 3)),
        item("fifo", Put::Fifo),
        item("gone", Put::Whiteout),
        item("sym", Put::Symlink(b"../x".to_vec())),
    ]
}

#[test]
fn the_form_is_frozen() {
    let (_dir, flats) = flats();
    assert_eq!(
        layer(&every_kind(), &flats).layer_id().to_string(),
        "sha256:88bb3e775500b32956ce1d54573b6e1b2bd894cbe1d0ecf21493e46782debfd6"
    );
    assert_eq!(
        Toc::default().layer_id().to_string(),
        "sha256:61380ce90a8b3e97c54e0bdfca45f04c763e8cb3664b317fe52b642bc00a6edd"
    );
}

#[test]
fn times_and_places_do_not_count_and_everything_else_does() {
    let (_dir, flats) = flats();
    let items = every_kind();
    let id = layer(&items, &flats).layer_id();
    let mut later = items.clone();
    later.iter_mut().for_each(|i| {
        i.mtime = Time {
            seconds: 99,
            nanos: 9,
        }
    });
    later.rotate_left(3);
    let unrelated = item("0", Put::File(vec![1]));
    let moved = [vec![unrelated, item("0", Put::Whiteout)], later].concat();
    let mut toc = layer(&moved, &flats);
    toc.entries.remove(0);
    assert_eq!(toc.layer_id(), id);
    for (i, changed) in items.iter().enumerate() {
        let mut other = layer(&items, &flats);
        let entry = other
            .entries
            .iter_mut()
            .find(|e| e.path == changed.path)
            .unwrap();
        entry.uid += 1;
        assert_ne!(other.layer_id(), id, "the owner of item {i}");
        let mut other = layer(&items, &flats);
        other.entries.retain(|e| e.path != changed.path);
        assert_ne!(other.layer_id(), id, "item {i}");
    }
}
