//! A certificate authority of a test, and a certificate for the server, one for a client, and one from a stranger.

use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};

use crate::Scratch;

/// PEM files: `ca.pem`, `server.pem`, `server.key`, `client.pem`, `client.key`, `stranger.pem`, `stranger.key`.
#[derive(Debug)]
pub struct Certificates {
    dir: Scratch,
}

impl Certificates {
    /// Makes them; the server's is for `host`, an address or a name.
    pub fn new(host: &str) -> Self {
        let made = Self {
            dir: Scratch::new(),
        };
        let ca = authority("authority of a test");
        made.write("ca.pem", &ca.0);
        made.issue(&ca.1, "server", host, ExtendedKeyUsagePurpose::ServerAuth);
        made.issue(
            &ca.1,
            "client",
            "client",
            ExtendedKeyUsagePurpose::ClientAuth,
        );
        let other = authority("another authority");
        made.issue(
            &other.1,
            "stranger",
            "stranger",
            ExtendedKeyUsagePurpose::ClientAuth,
        );
        made
    }

    /// Where a file is.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The options of buildx's remote driver for the certificate `who`.
    pub fn driver_options(&self, who: &str) -> String {
        let file = |name: &str| self.file(name).display().to_string();
        let (cert, key) = (format!("{who}.pem"), format!("{who}.key"));
        format!(
            "cacert={},cert={},key={}",
            file("ca.pem"),
            file(&cert),
            file(&key)
        )
    }

    /// The flags of our own commands for the certificate of the client.
    pub fn flags(&self) -> [String; 6] {
        let file = |name: &str| self.file(name).display().to_string();
        [
            "--ca".into(),
            file("ca.pem"),
            "--cert".into(),
            file("client.pem"),
            "--key".into(),
            file("client.key"),
        ]
    }

    fn issue(
        &self,
        ca: &Issuer<'static, KeyPair>,
        who: &str,
        name: &str,
        usage: ExtendedKeyUsagePurpose,
    ) {
        let key = KeyPair::generate().expect("making a key");
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        params.extended_key_usages = vec![usage];
        let certificate = params.signed_by(&key, ca).expect("signing a certificate");
        self.write(&format!("{who}.pem"), &certificate.pem());
        self.write(&format!("{who}.key"), &key.serialize_pem());
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.file(name), text).expect("writing a certificate");
    }
}

/// A certificate in PEM, and what it signs with.
fn authority(name: &str) -> (String, Issuer<'static, KeyPair>) {
    let key = KeyPair::generate().expect("making a key");
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, name);
    let certificate = params.self_signed(&key).expect("signing itself");
    (certificate.pem(), Issuer::new(params, key))
}
