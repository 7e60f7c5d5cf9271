//! Free ports on loopback.

use std::net::TcpListener;

/// A port that nothing listens on now. Another process may take it before it is used; the kernel hands out ports in turn,
/// so that hardly happens.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("binding a free port on loopback");
    listener.local_addr().expect("it is bound").port()
}
