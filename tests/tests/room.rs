//! Room and damage: a full disk ends the build with the reason, the cap holds, damaged bytes are made again.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use buildyard_tests::{
    Buildx, Context, Farm, Registry, Scratch, Serve, Server, push_base_image, wait_for,
};

const DOCKERFILE: &str =
    "ARG BASE\nFROM $BASE\nCOPY data /data\nRUN cat /data > /made && echo more >> /made\n";

fn args(base: &str) -> Vec<String> {
    vec!["--build-arg".to_owned(), format!("BASE={base}")]
}

fn words(args: &[String]) -> Vec<&str> {
    args.iter().map(String::as_str).collect()
}

/// Every flat file of a server.
fn flats(server: &Server) -> Vec<PathBuf> {
    let list = |dir: &Path| -> Vec<PathBuf> {
        let entries = std::fs::read_dir(dir).expect("a folder");
        entries
            .map(|entry| entry.expect("an entry").path())
            .collect()
    };
    let shards = list(&server.data().join("flats"));
    let shards = shards
        .into_iter()
        .filter(|shard| shard.file_name().is_some_and(|name| name.len() == 2));
    shards.flat_map(|shard| list(&shard)).collect()
}

/// A build, all flat files damaged while the server is away, and a build on what the first one made.
fn damaged_flat_files_are_made_again(
    serve: &Serve,
    damage: fn(&File, u64),
    unpacked: Option<&str>,
) {
    let registry = Registry::start();
    let base = push_base_image(&registry);
    let mut server = serve.start();
    let buildx = Buildx::new(&server.endpoint());
    let context = Context::new(&[("Dockerfile", DOCKERFILE), ("data", "some data\n")]);
    let args = args(&base);
    buildx.build(&context, &words(&args)).succeeds();
    assert!(server.stop().success());
    for flat in flats(&server) {
        let file = File::options().write(true).open(&flat);
        let file = file.expect("a flat file");
        damage(&file, file.metadata().expect("its length").len());
    }
    if let Some(unpacked) = unpacked {
        std::fs::remove_dir_all(server.data().join(unpacked)).expect("unpacked layers removed");
    }
    let _server = serve.start();
    context.write(
        "Dockerfile",
        &format!("{DOCKERFILE}RUN grep more /made && cat /data\n"),
    );
    buildx
        .build(&context, &words(&args))
        .succeeds()
        .says("some data");
}

fn overwrite(file: &File, length: u64) {
    let length = usize::try_from(length).expect("small");
    file.write_all_at(&vec![0x55; length], 0).expect("damaged");
}

fn cut_off(file: &File, length: u64) {
    file.set_len(length / 2).expect("cut off");
}

#[test]
fn damaged_flat_files_below_images_are_made_again() {
    damaged_flat_files_are_made_again(&Serve::up(), overwrite, None);
    damaged_flat_files_are_made_again(&Serve::up(), cut_off, None);
}

#[test]
fn damaged_flat_files_below_unpacked_layers_are_made_again() {
    let serve = || Serve::up().args(&["--snapshotter", "directories"]);
    let unpacked = Some("worker/snapshots");
    damaged_flat_files_are_made_again(&serve(), overwrite, unpacked);
    damaged_flat_files_are_made_again(&serve(), cut_off, unpacked);
}

/// A small file system of its own, unmounted with the folder it is in.
fn small_disk(dir: &Path, size: &str) {
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
        .arg(dir)
        .status()
        .expect("running mount");
    assert!(mounted.success());
}

#[test]
fn a_full_disk_ends_the_build_with_the_reason_and_the_server_goes_on() {
    let folder = Scratch::new();
    let data = folder.path().join("disk");
    std::fs::create_dir(&data).expect("a folder");
    small_disk(&data, "24m");
    let blobs = format!("file:{}", data.display());
    let server = Serve::coordinator()
        .args(&["--blobs", &blobs, "--store-limit", "10G"])
        .start();
    let buildx = Buildx::new(&server.endpoint());
    let dockerfile = "FROM scratch\nCOPY . /\n";
    let context = Context::new(&[("Dockerfile", dockerfile)]);
    context.write("big", &"0123456789abcdef".repeat(4 << 20));
    buildx
        .build(&context, &[])
        .fails()
        .says("no space is left on the disk of");
    std::fs::remove_file(context.path().join("big")).expect("removed");
    context.write("small", "it fits\n");
    buildx.build(&context, &[]).succeeds();
}

#[test]
fn a_full_disk_of_a_worker_fails_the_step_with_the_reason_and_the_worker_goes_on() {
    let farm = Farm::serving(&Serve::coordinator());
    let serve = Serve::worker(&farm.server.url(), "small");
    std::fs::create_dir(serve.data()).expect("a folder");
    small_disk(&serve.data(), "48m");
    let _worker = serve.start();
    farm.wait_connected("small");
    // The step itself, and what makes a layer of what it wrote.
    farm.build(
        "FROM BASE\nRUN dd if=/dev/zero of=/big bs=1M count=64\n",
        &[],
    )
    .fails()
    .says("No space left on device");
    farm.build("FROM BASE\nRUN head -c 28m /dev/urandom > /big\n", &[])
        .fails()
        .says("no space is left on the disk of");
    farm.build("FROM BASE\nRUN echo small > /small\n", &[])
        .succeeds();
}

#[test]
fn a_full_disk_under_the_records_ends_builds_with_the_reason_and_the_coordinator_goes_on() {
    let serve = Serve::up();
    std::fs::create_dir(serve.data()).expect("a folder");
    small_disk(&serve.data(), "64m");
    let farm = Farm::serving(&serve);
    let dockerfile = "FROM scratch\nCOPY file /\n";
    farm.build(dockerfile, &[]).succeeds();
    let filler = serve.data().join("filler");
    let fill = Command::new("dd")
        .args(["if=/dev/zero", "bs=4k", &format!("of={}", filler.display())])
        .output();
    assert!(!fill.expect("running dd").status.success(), "it fits");
    farm.build("FROM scratch\nCOPY file /other\n", &[])
        .fails()
        .says("no space is left where the database lies");
    std::fs::remove_file(filler).expect("removed");
    farm.build("FROM scratch\nCOPY file /other\n", &[])
        .succeeds();
}

#[test]
fn the_store_stays_under_its_limit_and_can_be_listed_and_pruned() {
    let server = Serve::up().args(&["--store-limit", "12M"]).start();
    let buildx = Buildx::new(&server.endpoint());
    let context = Context::new(&[("Dockerfile", "FROM scratch\nCOPY file /\n")]);
    for round in 0..4 {
        context.write("file", &format!("{round}abcdef9876543210").repeat(2 << 17));
        buildx.build(&context, &[]).succeeds();
        let taken: u64 = flats(&server)
            .iter()
            .map(|flat| flat.metadata().map_or(0, |file| file.len()))
            .sum();
        assert!(taken <= 12 << 20, "{taken} bytes in round {round}");
    }
    let listed = buildx.run(&["du"]).succeeds().stdout;
    assert!(listed.contains("Reclaimable"), "{listed}");
    // A build has let go of what it held when its client has its answer.
    buildx.run(&["prune", "--force", "--all"]).succeeds();
    assert_eq!(flats(&server), Vec::<PathBuf>::new());
    context.write("file", "again");
    buildx.build(&context, &[]).succeeds();
}

/// What a process keeps of removed files: images that one of its threads has mounted, and files that are open.
fn kept_of_removed_files(server: &Server) -> Vec<String> {
    let process = PathBuf::from(format!("/proc/{}", server.pid()));
    let list = |name: &str| {
        let entries = std::fs::read_dir(process.join(name)).expect("the process");
        entries.flatten().map(|entry| entry.path())
    };
    // A thread, or an open file, may be gone meanwhile.
    let mounted = list("task")
        .flat_map(|thread| std::fs::read_to_string(thread.join("mountinfo")))
        .flat_map(|table| table.lines().map(str::to_owned).collect::<Vec<_>>())
        .filter(|mount| mount.contains(" - erofs "));
    let open = list("fd")
        .flat_map(std::fs::read_link)
        .map(|target| target.display().to_string())
        .filter(|target| target.contains("/flats/") && target.ends_with(" (deleted)"));
    mounted.chain(open).collect()
}

#[test]
fn what_was_pruned_takes_no_room_any_more() {
    let farm = Farm::serving(&Serve::up());
    farm.build(
        "FROM BASE\nCOPY file /\nRUN cat /file > /made\nRUN cat /made\n",
        &[],
    )
    .succeeds();
    let images = farm.server.data().join("worker/erofs/images");
    assert!(
        std::fs::read_dir(&images).expect("images").count() > 0,
        "no EROFS images here: that is what this is about"
    );
    farm.buildx.run(&["prune", "--force", "--all"]).succeeds();
    assert_eq!(flats(&farm.server), Vec::<PathBuf>::new());
    wait_for("nothing to be kept", Duration::from_secs(60), || {
        kept_of_removed_files(&farm.server).is_empty().then_some(())
    });
    let left = std::fs::read_dir(&images).expect("images").count();
    assert_eq!(left, 0, "images of layers that are gone");
    farm.build(
        "FROM BASE\nCOPY file /\nRUN cat /file > /made\nRUN cat /made\n",
        &[],
    )
    .succeeds();
}
