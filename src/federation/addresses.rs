//! Which addresses anybody on the internet may make us connect to, by naming a server.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether an address is one of the public internet: not of this machine, of a private network, of a link, of
/// many, reserved, or a way around these.
pub(crate) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

/// The blocks that the [registry] says are not reachable globally.
///
/// [registry]: https://www.iana.org/assignments/iana-ipv4-special-registry/
fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let special = address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_documentation()
        // "This network".
        || a == 0
        // Shared between a provider and its customers.
        || a == 100 && (b & 0xc0) == 64
        // Of protocols.
        || (a, b, c) == (192, 0, 0)
        // Once a way from IPv6.
        || (a, b, c) == (192, 88, 99)
        // Measurements between networks.
        || a == 198 && (b & 0xfe) == 18
        // For the future, and everybody on a link.
        || a >= 240;
    !special
}

/// Of IPv6 only 2000::/3 is given out; of that some blocks are special, and some hold IPv4 addresses.
fn is_public_v6(address: Ipv6Addr) -> bool {
    if let Some(within) = address.to_ipv4_mapped() {
        return is_public_v4(within);
    }
    let [a, b, c, d, e, f, g, h] = address.segments();
    let within = |high: u16, low: u16| {
        let [a, b] = high.to_be_bytes();
        let [c, d] = low.to_be_bytes();
        Ipv4Addr::new(a, b, c, d)
    };
    // Translation of IPv4 (64:ff9b::/96), and 6to4 (2002::/16).
    if (a, b, c, d, e, f) == (0x64, 0xff9b, 0, 0, 0, 0) {
        return is_public_v4(within(g, h));
    }
    if a == 0x2002 {
        return is_public_v4(within(b, c));
    }
    (a & 0xe000) == 0x2000
        // Of protocols, with Teredo and benchmarks.
        && !(a == 0x2001 && b < 0x200)
        // For documentation.
        && (a, b) != (0x2001, 0xdb8)
        && !(a == 0x3fff && b < 0x1000)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn what_is_not_public_is_told_from_what_is() {
        for (address, public) in [
            ("8.8.8.8", true),
            ("203.0.112.1", true),
            ("0.0.0.0", false),
            ("10.1.2.3", false),
            ("100.64.0.1", false),
            ("100.127.255.255", false),
            ("100.128.0.1", true),
            ("127.0.0.1", false),
            ("127.255.0.1", false),
            ("169.254.169.254", false),
            ("172.16.0.1", false),
            ("172.32.0.1", true),
            ("192.0.0.8", false),
            ("192.0.2.1", false),
            ("192.88.99.1", false),
            ("192.168.0.1", false),
            ("198.18.0.1", false),
            ("198.20.0.1", true),
            ("224.0.0.1", false),
            ("240.0.0.1", false),
            ("255.255.255.255", false),
            ("2606:4700::1", true),
            ("2a00::1", true),
            ("::", false),
            ("::1", false),
            ("::ffff:127.0.0.1", false),
            ("::ffff:8.8.8.8", true),
            ("64:ff9b::7f00:1", false),
            ("64:ff9b::808:808", true),
            ("100::1", false),
            ("2001::1", false),
            ("2001:db8::1", false),
            ("2001:4860::1", true),
            ("2002:7f00:1::1", false),
            ("2002:808:808::1", true),
            ("3fff::1", false),
            ("fc00::1", false),
            ("fd12::1", false),
            ("fe80::1", false),
            ("ff02::1", false),
        ] {
            assert_eq!(is_public(address.parse().unwrap()), public, "{address}");
        }
    }
}
