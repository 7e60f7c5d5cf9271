//! The way out of a private network: forwarding, masquerading, and exceptions where the machine forwards nothing.

use std::fs;

use super::subnet::Subnet;
use super::{NetworkError, tools};

const FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";
const WHAT: &str = "making the rules for the steps' way out";

/// Lets what comes from `bridge` out under the machine's addresses, by rules in a table of this name.
pub(super) fn open(table: &str, bridge: &str, subnet: Subnet) -> Result<(), NetworkError> {
    let forwards = fs::read_to_string(FORWARD).is_ok_and(|text| text.trim() == "1");
    if !forwards {
        tracing::info!("switching on net.ipv4.ip_forward for the private network of steps");
        fs::write(FORWARD, "1").map_err(NetworkError::io("switching on net.ipv4.ip_forward"))?;
    }
    let subnet = subnet.text();
    let rules = format!(
        "table ip {table} {{\n chain postrouting {{\n  type nat hook postrouting priority 100; policy accept;\n  \
         ip saddr {subnet} oifname != \"{bridge}\" masquerade\n }}\n}}\n"
    );
    tools::nft(WHAT, &rules)?;
    // An accepting rule in a table of one's own does not help against a chain that drops: Docker's default.
    if tools::iptables(&["-S", "FORWARD"]).is_some_and(|rules| rules.starts_with("-P FORWARD DROP"))
    {
        for rule in forward_rules(bridge) {
            if !edit("-I", &rule) {
                let message = "iptables refused a rule that lets their packets through".to_owned();
                return Err(NetworkError::Refused {
                    what: WHAT,
                    message,
                });
            }
        }
    }
    Ok(())
}

/// Removes the rules. What is not there is no error.
pub(super) fn close(table: &str, bridge: &str) {
    for rule in forward_rules(bridge) {
        while edit("-D", &rule) {}
    }
    let _ = tools::nft("removing rules", &format!("delete table ip {table}\n"));
}

/// Whether `iptables` did with the rule of the chain FORWARD what it was asked for.
fn edit(what: &str, rule: &str) -> bool {
    let arguments: Vec<&str> = [what, "FORWARD"]
        .into_iter()
        .chain(rule.split(' '))
        .collect();
    tools::iptables(&arguments).is_some()
}

/// What lets packets to and from the bridge through.
fn forward_rules(bridge: &str) -> [String; 2] {
    [
        format!("-i {bridge} -j ACCEPT"),
        format!("-o {bridge} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"),
    ]
}
