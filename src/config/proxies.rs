//! Whose word about whom they speak for is taken.

use std::{fmt, net::IpAddr};

use crate::{declare::Kind, kinds::quoted, node::Value};

/// Where proxies connect from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proxy {
    /// Addresses with the same first bits.
    Network(IpAddr, u8),
    /// Unix sockets.
    Unix,
}

impl Proxy {
    /// Whether who connects from an address (none: through a Unix socket) is one of these.
    pub fn is(self, peer: Option<IpAddr>) -> bool {
        match (self, peer.map(|peer| peer.to_canonical())) {
            (Self::Unix, None) => true,
            (Self::Network(IpAddr::V4(network), bits), Some(IpAddr::V4(peer))) => same_beginning(
                network.to_bits().into(),
                peer.to_bits().into(),
                32 - bits.min(32),
            ),
            (Self::Network(IpAddr::V6(network), bits), Some(IpAddr::V6(peer))) => {
                same_beginning(network.to_bits(), peer.to_bits(), 128 - bits.min(128))
            }
            _ => false,
        }
    }
}

/// Whether two numbers are the same but for their last bits.
fn same_beginning(one: u128, other: u128, last: u8) -> bool {
    (one ^ other).checked_shr(last.into()).unwrap_or(0) == 0
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix => f.write_str("unix"),
            Self::Network(network, bits) => write!(f, "{network}/{bits}"),
        }
    }
}

impl Kind for Proxy {
    const KIND: &'static str =
        "an address, a network like \"10.0.0.0/8\", or \"unix\" for Unix sockets";

    fn read(value: &Value) -> Result<Self, String> {
        let text = value.text()?;
        if text == "unix" {
            return Ok(Self::Unix);
        }
        let read = || {
            let (address, bits) = match text.split_once('/') {
                Some((address, bits)) => (address, Some(bits)),
                None => (text, None),
            };
            let address: IpAddr = address.parse().ok()?;
            let all = if address.is_ipv4() { 32 } else { 128 };
            let bits = bits.map_or(Some(all), |bits| bits.parse().ok())?;
            (bits <= all).then_some(Self::Network(address, bits))
        };
        read().ok_or_else(|| format!("found {text:?}"))
    }

    fn write(&self) -> String {
        quoted(&self.to_string())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn read(text: &str) -> Result<Proxy, String> {
        Proxy::read(&Value::Text(text.to_owned()))
    }

    #[test]
    fn a_network_holds_the_addresses_that_begin_as_it_does() {
        for (proxy, peer, is) in [
            ("10.0.0.0/8", "10.255.1.2", true),
            ("10.0.0.0/8", "::ffff:10.1.1.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("192.0.2.7", "192.0.2.7", true),
            ("192.0.2.7", "192.0.2.6", false),
            ("0.0.0.0/0", "203.0.113.9", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("2001:db8::/32", "2001:db8:ffff::1", true),
            ("2001:db8::/32", "2001:db9::1", false),
            ("::/0", "2001:db8::1", true),
            ("unix", "127.0.0.1", false),
        ] {
            let peer = Some(peer.parse().unwrap());
            assert_eq!(read(proxy).unwrap().is(peer), is, "{proxy} {peer:?}");
        }
        assert!(read("unix").unwrap().is(None));
        assert!(!read("::/0").unwrap().is(None));
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for text in [
            "",
            "10.0.0.0/33",
            "10.0.0/8",
            "::1/129",
            "::1/",
            "example.org",
            "10.0.0.0/-1",
        ] {
            assert!(read(text).is_err(), "{text}");
        }
        assert_eq!(read("10.0.0.0/8").unwrap().write(), "\"10.0.0.0/8\"");
    }
}
