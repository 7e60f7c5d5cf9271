use futures::FutureExt;

use super::*;

fn caches() -> (tempfile::TempDir, Caches) {
    let dir = tempfile::tempdir().unwrap();
    let caches = Caches::open(dir.path().join("caches")).unwrap();
    (dir, caches)
}

fn wanted<const N: usize>(names: [(&str, CacheSharingOpt); N]) -> Wanted {
    Wanted(
        names
            .map(|(name, sharing)| (name.to_owned(), sharing))
            .into(),
    )
}

async fn take(caches: &Caches, name: &str, sharing: CacheSharingOpt) -> Taken {
    caches.take(wanted([(name, sharing)])).await.unwrap()
}

fn only(taken: &Taken) -> &CacheUse {
    taken.0.values().next().unwrap()
}

fn mount(dest: &str, id: &str, sharing: CacheSharingOpt, input: i64) -> pb::Mount {
    pb::Mount {
        dest: dest.to_owned(),
        input,
        mount_type: pb::MountType::Cache.into(),
        cache_opt: Some(pb::CacheOpt {
            id: id.to_owned(),
            sharing: sharing.into(),
        }),
        ..pb::Mount::default()
    }
}

#[tokio::test]
async fn a_cache_is_filled_once_and_kept() {
    let (_dir, caches) = caches();
    let fill: Fill = Arc::new(|dir| Ok(std::fs::write(dir.join("a"), "first")?));
    let first = take(&caches, "a", CacheSharingOpt::Shared).await;
    only(&first).make(Some(fill.clone())).await.unwrap();
    std::fs::write(only(&first).dir.join("a"), "changed").unwrap();
    let second = take(&caches, "a", CacheSharingOpt::Shared).await;
    only(&second).make(Some(fill)).await.unwrap();
    let read = std::fs::read_to_string(only(&second).dir.join("a"));
    assert_eq!(read.unwrap(), "changed");
}

#[tokio::test]
async fn private_ones_are_apart_and_locked_ones_wait() {
    let (_dir, caches) = caches();
    let first = take(&caches, "a", CacheSharingOpt::Private).await;
    let second = take(&caches, "a", CacheSharingOpt::Private).await;
    assert_ne!(only(&first).dir, only(&second).dir);
    let waiting = take(&caches, "a", CacheSharingOpt::Locked);
    tokio::pin!(waiting);
    assert!(waiting.as_mut().now_or_never().is_none());
    let shared = take(&caches, "b", CacheSharingOpt::Shared).await;
    let _with_it = take(&caches, "b", CacheSharingOpt::Shared).now_or_never();
    assert!(_with_it.is_some(), "sharing is not waiting");
    drop((first, shared));
    waiting.await;
}

#[tokio::test]
async fn a_failed_filling_leaves_nothing() {
    let (_dir, caches) = caches();
    let fails: Fill = Arc::new(|_| anyhow::bail!("no"));
    let cache = take(&caches, "a", CacheSharingOpt::Locked).await;
    assert!(only(&cache).make(Some(fails)).await.is_err());
    let fill: Fill = Arc::new(|dir| Ok(std::fs::write(dir.join("a"), "x")?));
    only(&cache).make(Some(fill)).await.unwrap();
    assert!(only(&cache).dir.join("a").exists());
}

#[tokio::test]
async fn steps_that_lock_two_caches_never_wait_in_a_circle() {
    use CacheSharingOpt::Locked;
    let (_dir, caches) = caches();
    let (platform, caches) = ("linux/amd64".parse().unwrap(), Arc::new(caches));
    let exec = |order: [&str; 2]| pb::ExecOp {
        mounts: vec![
            mount("/first", order[0], Locked, -1),
            mount("/second", order[1], Locked, -1),
        ],
        ..pb::ExecOp::default()
    };
    let forth = Wanted::of(&exec(["a", "b"]), &[], &platform);
    let back = Wanted::of(&exec(["b", "a"]), &[], &platform);
    assert_eq!(
        forth, back,
        "the place of a mount says nothing about the order"
    );
    let holder = caches.take(forth).await.unwrap();
    let waiting = caches.take(back);
    tokio::pin!(waiting);
    assert!(waiting.as_mut().now_or_never().is_none());
    drop(holder);
    waiting.await.unwrap();
}

#[tokio::test]
async fn a_cache_that_a_step_mounts_twice_is_taken_once() {
    let (_dir, caches) = caches();
    let platform = "linux/amd64".parse().unwrap();
    let exec = pb::ExecOp {
        mounts: vec![
            mount("/a", "x", CacheSharingOpt::Shared, -1),
            mount("/b", "x", CacheSharingOpt::Locked, -1),
        ],
        ..pb::ExecOp::default()
    };
    let wanted = Wanted::of(&exec, &[], &platform);
    let taken = caches
        .take(wanted)
        .now_or_never()
        .expect("it does not wait for itself")
        .unwrap();
    let names: Vec<String> = exec
        .mounts
        .iter()
        .map(|mount| name(mount, &[], &platform))
        .collect();
    assert!(names.iter().all(|name| taken.get(name).is_some()));
    assert!(
        take(&caches, &names[0], CacheSharingOpt::Shared)
            .now_or_never()
            .is_none()
    );
}

#[test]
fn id_contents_and_platform_make_the_cache() {
    use CacheSharingOpt::Shared;
    let (amd, arm) = (
        "linux/amd64".parse().unwrap(),
        "linux/arm64".parse().unwrap(),
    );
    let inputs = [Chain::new(vec![buildyard_model::LayerId(
        buildyard_model::Digest::of("a"),
    )])];
    let of = |id: &str, dest: &str, input, platform: &Platform| {
        name(&mount(dest, id, Shared, input), &inputs, platform)
    };
    let first = of("x", "/a", -1, &amd);
    assert_eq!(of("x", "/b", -1, &amd), first);
    assert_eq!(of("", "x", -1, &amd), first, "without an id, the target");
    for other in [
        of("y", "/a", -1, &amd),
        of("x", "/a", -1, &arm),
        of("x", "/a", 0, &amd),
    ] {
        assert_ne!(other, first);
    }
}
