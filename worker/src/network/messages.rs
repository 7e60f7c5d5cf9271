//! The route netlink messages that a private network is made of.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_route::AddressFamily;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{
    InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoPortKind, InfoVeth, LinkAttribute,
    LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};

/// The loopback device's index in every network namespace.
pub(super) const LOOPBACK: u32 = 1;
/// The index of a step's device: the second one of its namespace.
pub(super) const STEP_DEVICE: u32 = 2;

/// A bridge that is up.
pub(super) fn bridge(name: &str) -> RouteNetlinkMessage {
    let mut link = up(LinkMessage::default());
    link.attributes = vec![
        LinkAttribute::IfName(name.to_owned()),
        LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]),
    ];
    RouteNetlinkMessage::NewLink(link)
}

/// A pair of devices: `name`, which is up, on the bridge of index `bridge`, and `eth0` in `namespace`, which the kernel
/// does not let be up yet.
pub(super) fn pair(name: &str, bridge: u32, namespace: BorrowedFd<'_>) -> RouteNetlinkMessage {
    let mut peer = LinkMessage::default();
    peer.header.index = STEP_DEVICE;
    peer.attributes = vec![
        LinkAttribute::IfName("eth0".to_owned()),
        LinkAttribute::NetNsFd(namespace.as_raw_fd()),
    ];
    let mut link = up(LinkMessage::default());
    link.attributes = vec![
        LinkAttribute::IfName(name.to_owned()),
        LinkAttribute::Controller(bridge),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]),
    ];
    RouteNetlinkMessage::NewLink(link)
}

/// Lets the device `name` of a bridge talk to the bridge's own address only, not to its other isolated devices.
pub(super) fn isolated(name: &str) -> RouteNetlinkMessage {
    let mut link = LinkMessage::default();
    link.attributes = vec![
        LinkAttribute::IfName(name.to_owned()),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::PortKind(InfoPortKind::Bridge),
            LinkInfo::PortData(InfoPortData::BridgePort(vec![InfoBridgePort::Isolated(
                true,
            )])),
        ]),
    ];
    RouteNetlinkMessage::NewLink(link)
}

/// Switches the device of this index on.
pub(super) fn switched_on(index: u32) -> RouteNetlinkMessage {
    let mut link = up(LinkMessage::default());
    link.header.index = index;
    RouteNetlinkMessage::NewLink(link)
}

/// The device `name` goes.
pub(super) fn removal(name: &str) -> RouteNetlinkMessage {
    let mut link = LinkMessage::default();
    link.attributes = vec![LinkAttribute::IfName(name.to_owned())];
    RouteNetlinkMessage::DelLink(link)
}

/// `address/24` on the device of this index.
pub(super) fn address(index: u32, address: Ipv4Addr) -> RouteNetlinkMessage {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.prefix_len = 24;
    message.header.index = index;
    message.attributes = vec![
        AddressAttribute::Local(IpAddr::V4(address)),
        AddressAttribute::Address(IpAddr::V4(address)),
    ];
    RouteNetlinkMessage::NewAddress(message)
}

/// The default route, over `gateway`.
pub(super) fn default_route(gateway: Ipv4Addr) -> RouteNetlinkMessage {
    let mut message = RouteMessage::default();
    message.header = RouteHeader {
        address_family: AddressFamily::Inet,
        table: RouteHeader::RT_TABLE_MAIN,
        protocol: RouteProtocol::Static,
        scope: RouteScope::Universe,
        kind: RouteType::Unicast,
        ..RouteHeader::default()
    };
    message.attributes = vec![RouteAttribute::Gateway(RouteAddress::Inet(gateway))];
    RouteNetlinkMessage::NewRoute(message)
}

/// Asks for all devices.
pub(super) fn links() -> RouteNetlinkMessage {
    RouteNetlinkMessage::GetLink(LinkMessage::default())
}

/// Asks for all IPv4 addresses.
pub(super) fn addresses() -> RouteNetlinkMessage {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet;
    RouteNetlinkMessage::GetAddress(message)
}

/// Asks for all IPv4 routes.
pub(super) fn routes() -> RouteNetlinkMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    RouteNetlinkMessage::GetRoute(message)
}

/// A device's name and index.
pub(super) fn name_and_index(message: &RouteNetlinkMessage) -> Option<(&str, u32)> {
    let RouteNetlinkMessage::NewLink(link) = message else {
        return None;
    };
    link.attributes
        .iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::IfName(name) => Some((name.as_str(), link.header.index)),
            _ => None,
        })
}

/// The IPv4 network of an address or a route: its address and the length of its prefix. The default route is none.
pub(super) fn network(message: &RouteNetlinkMessage) -> Option<(Ipv4Addr, u32)> {
    match message {
        RouteNetlinkMessage::NewAddress(message) => {
            message
                .attributes
                .iter()
                .find_map(|attribute| match attribute {
                    AddressAttribute::Local(IpAddr::V4(address)) => {
                        Some((*address, u32::from(message.header.prefix_len)))
                    }
                    _ => None,
                })
        }
        RouteNetlinkMessage::NewRoute(message) => {
            message
                .attributes
                .iter()
                .find_map(|attribute| match attribute {
                    RouteAttribute::Destination(RouteAddress::Inet(address)) => Some((
                        *address,
                        u32::from(message.header.destination_prefix_length),
                    )),
                    _ => None,
                })
        }
        _ => None,
    }
}

fn up(mut link: LinkMessage) -> LinkMessage {
    link.header.flags = LinkFlags::Up;
    link.header.change_mask = LinkFlags::Up;
    link
}
