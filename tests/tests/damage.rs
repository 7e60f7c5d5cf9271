//! Promise: what is damaged on the coordinator's disk is made again; no build fails for it.

use std::fs;

use buildyard_tests::{
    Farm, Image, Registry, Scratch, Serve, Server, is_gzip, native_architecture,
};

const DOCKERFILE: &str = "FROM BASE AS made\nRUN echo made > /made && head -c 300000 /dev/zero > /zeros\n\
     FROM BASE\nCOPY --from=made /made /zeros /\nCOPY file /file\nRUN cat /made /file > /both\n";

/// What may have happened to a file.
const DAMAGES: [fn(&mut Vec<u8>); 3] = [
    |bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0xff;
    },
    |bytes| bytes.truncate(bytes.len() / 2),
    Vec::clear,
];

/// Damages all encodings of layers, or everything else: tables of contents.
fn damage(server: &Server, encodings: bool, how: fn(&mut Vec<u8>)) {
    let mut damaged = 0;
    for path in server.blobs() {
        let mut bytes = fs::read(&path).expect("a blob");
        if is_gzip(&bytes) == encodings {
            how(&mut bytes);
            fs::write(&path, &bytes).expect("damaging a blob");
            damaged += 1;
        }
    }
    assert!(damaged > 0, "nothing to damage");
}

fn survives(encodings: bool) {
    let serve = Serve::up();
    let mut farm = Farm::serving(&serve);
    let other = Registry::start();
    let push = |farm: &Farm, name: &str| {
        let output = format!("type=image,name={name},push=true");
        farm.build(DOCKERFILE, &["--output", &output]).succeeds();
    };
    let check = |image: &str| {
        let image = Image::read(image, native_architecture());
        assert_eq!(image.text("both"), "made\nx");
        assert_eq!(image.text("zeros").len(), 300_000);
    };
    let folder = Scratch::new();
    push(&farm, &farm.name("out:0"));
    for (number, how) in DAMAGES.into_iter().enumerate() {
        assert!(farm.server.stop().success());
        damage(&farm.server, encodings, how);
        farm.server = serve.start();
        // The registry has nothing of it, so every byte is needed.
        let name = format!("{}/out{number}:1", other.host());
        push(&farm, &name);
        check(&format!("docker://{name}"));
        assert!(farm.server.stop().success());
        damage(&farm.server, encodings, how);
        farm.server = serve.start();
        let file = folder.path().join(format!("{number}.tar"));
        let archive = format!("type=oci,dest={}", file.display());
        farm.build(DOCKERFILE, &["--output", &archive]).succeeds();
        check(&format!("oci-archive:{}", file.display()));
        // A new step on what there is.
        let step =
            format!("{DOCKERFILE}RUN test \"$(wc -c < /zeros)\" = 300000 && echo {number}\n");
        farm.build(&step, &[]).succeeds();
    }
}

#[test]
fn damaged_tables_of_contents_are_misses() {
    survives(false);
}

#[test]
fn damaged_encodings_are_made_again() {
    survives(true);
}
