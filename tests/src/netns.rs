//! Another network: a name space with one link to this machine.

use std::process::Command;

/// A network name space. Removed when dropped, with its link.
#[derive(Debug)]
pub struct OtherNetwork {
    name: String,
    subnet: u8,
}

impl OtherNetwork {
    /// Makes one. Its own loopback is all that it has besides the link.
    ///
    /// # Panics
    /// It cannot be made.
    pub fn new() -> Self {
        let pid = std::process::id();
        let network = Self {
            name: format!("by-{pid}"),
            subnet: u8::try_from(pid % 200).expect("less than 200") + 20,
        };
        let (ours, theirs) = (format!("by{pid}a"), format!("by{pid}b"));
        let name = &network.name;
        ip(&["netns", "add", name]);
        ip(&[
            "link", "add", &ours, "type", "veth", "peer", "name", &theirs, "netns", name,
        ]);
        ip(&[
            "addr",
            "add",
            &format!("{}/24", network.host()),
            "dev",
            &ours,
        ]);
        ip(&["link", "set", &ours, "up"]);
        let address = format!("10.219.{}.2/24", network.subnet);
        ip(&["-n", name, "addr", "add", &address, "dev", &theirs]);
        ip(&["-n", name, "link", "set", &theirs, "up"]);
        ip(&["-n", name, "link", "set", "lo", "up"]);
        network
    }

    /// This machine's address, as the other network sees it.
    pub fn host(&self) -> String {
        format!("10.219.{}.1", self.subnet)
    }

    /// Words that start a program in it. Not `ip netns exec`: that mounts another /sys, without the control groups.
    pub fn enter(&self) -> [String; 2] {
        [
            "nsenter".to_owned(),
            format!("--net=/run/netns/{}", self.name),
        ]
    }
}

impl Default for OtherNetwork {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for OtherNetwork {
    fn drop(&mut self) {
        // The link goes with the name space that one end of it is in.
        let removed = Command::new("ip")
            .args(["netns", "del", &self.name])
            .status();
        if !removed.is_ok_and(|status| status.success()) {
            eprintln!("the network name space {} stays behind", self.name);
        }
    }
}

fn ip(args: &[&str]) {
    let output = Command::new("ip").args(args).output().expect("running ip");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {args:?}: {errors}");
}
