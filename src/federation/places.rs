//! From what stands in a `Host` header to where a connection may go
//! ([spec](https://spec.matrix.org/v1.19/server-server-api/#resolving-server-names)).
//!
//! Finding a server has two steps: which host answers for it (`well_known.rs`), and where that host is, which
//! is here. The host is what the certificate must be for, and what stands in the `Host` header.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
};

use crate::{addresses::is_public, names::Names};

/// The port of servers that say no other.
const MATRIX_PORT: u16 = 8448;

/// The port of web servers.
const WEB_PORT: u16 = 443;

/// The names of the service: as it is registered, and as it was called before.
const SERVICES: [&str; 2] = ["_matrix-fed._tcp", "_matrix._tcp"];

/// What is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A Matrix server.
    Matrix,
    /// A web server.
    Web,
    /// What the operator named, wherever that is.
    Named,
}

/// Where hosts are.
#[derive(Debug)]
pub(crate) struct Places {
    pub(crate) names: Names,
    /// Hosts that are not to be looked for, by what stands in the `Host` header.
    pub(crate) known: HashMap<String, SocketAddr>,
    /// Whether any address may be connected to.
    pub(crate) allow_private: bool,
}

/// Why there is nowhere to connect to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoPlace {
    #[error("the name {0} leads nowhere: {1}")]
    Unknown(String, String),
    #[error("{0} is at an address that is not public, which the settings forbid to ask")]
    Private(String),
}

/// A name or an address, and a port: what a proxy is asked to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl Places {
    /// The names that a host is to be reached by, those first that are to be tried first.
    pub(crate) async fn fetch_targets(
        &self,
        host: &str,
        port: Option<u16>,
        kind: Kind,
    ) -> Vec<Target> {
        let at = |port| Target {
            host: host.to_owned(),
            port,
        };
        if let Some(port) = port {
            return vec![at(port)];
        }
        if kind != Kind::Matrix {
            return vec![at(WEB_PORT)];
        }
        if literal(host).is_none() {
            // At the same time: where nobody answers for such names, that takes its time.
            let [new, old] = SERVICES.map(|service| format!("{service}.{host}"));
            let names = &self.names;
            let (new, old) =
                futures_util::join!(names.fetch_services(&new), names.fetch_services(&old));
            let services = if new.is_empty() { old } else { new };
            if !services.is_empty() {
                let targets = services.into_iter().map(|service| Target {
                    host: service.host,
                    port: service.port,
                });
                return targets.collect();
            }
        }
        vec![at(MATRIX_PORT)]
    }

    /// The addresses that a connection to a host may go to, those first that are to be tried first.
    ///
    /// # Errors
    ///
    /// There are none, or only such as are not to be connected to.
    pub(crate) async fn fetch(
        &self,
        host: &str,
        port: Option<u16>,
        kind: Kind,
    ) -> Result<Vec<SocketAddr>, NoPlace> {
        if let Some(address) = self.find_known(host, port) {
            return Ok(vec![address]);
        }
        let mut addresses = Vec::new();
        let mut why = String::from("there is no such name");
        for target in self.fetch_targets(host, port, kind).await {
            match self.addresses_of(&target.host).await {
                Ok(found) => {
                    addresses.extend(found.into_iter().map(|ip| SocketAddr::new(ip, target.port)));
                }
                Err(fault) => why = fault,
            }
        }
        if addresses.is_empty() {
            return Err(NoPlace::Unknown(host.to_owned(), why));
        }
        if !self.allow_private && kind != Kind::Named {
            // After names were resolved, whoever answers for them.
            addresses.retain(|address| is_public(address.ip()));
            if addresses.is_empty() {
                return Err(NoPlace::Private(host.to_owned()));
            }
        }
        Ok(addresses)
    }

    /// Where a host is that is not to be looked for.
    pub(crate) fn find_known(&self, host: &str, port: Option<u16>) -> Option<SocketAddr> {
        let mut name = host.to_ascii_lowercase();
        if let Some(port) = port {
            name = format!("{name}:{port}");
        }
        self.known.get(&name).copied()
    }

    async fn addresses_of(&self, host: &str) -> Result<Vec<IpAddr>, String> {
        match literal(host) {
            Some(address) => Ok(vec![address]),
            None => self.names.fetch_addresses(host).await,
        }
    }

    /// Whether a proxy may be asked to connect to a host. Of names it alone knows the address.
    pub(crate) fn may_be_asked_of_a_proxy(&self, host: &str) -> bool {
        self.allow_private || literal(host).is_none_or(is_public)
    }
}

/// The address that a host is, if it is one. IPv6 addresses stand in brackets.
pub(crate) fn literal(host: &str) -> Option<IpAddr> {
    match host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
    {
        Some(inside) => inside.parse().ok().map(IpAddr::V6),
        None => host.parse().ok().map(IpAddr::V4),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::names::{Answer, Service};

    fn places(allow_private: bool) -> Places {
        let address = |text: &str| Answer::Address(text.parse().unwrap());
        let service = |host: &str, port| {
            Answer::Service(Service {
                host: host.to_owned(),
                port,
            })
        };
        let said = [
            ("plain.example", vec![address("9.9.9.1")]),
            (
                "_matrix-fed._tcp.new.example",
                vec![service("machine.example", 1)],
            ),
            (
                "_matrix._tcp.new.example",
                vec![service("other.example", 2)],
            ),
            (
                "_matrix._tcp.old.example",
                vec![service("machine.example", 3), service("second.example", 4)],
            ),
            ("new.example", vec![address("9.9.9.9")]),
            (
                "machine.example",
                vec![address("9.9.9.2"), address("2606::1")],
            ),
            ("second.example", vec![address("9.9.9.3")]),
            ("inside.example", vec![address("10.0.0.1")]),
            (
                "both.example",
                vec![address("127.0.0.1"), address("9.9.9.4")],
            ),
        ];
        Places {
            names: Names::Said(said.map(|(name, said)| (name.to_owned(), said)).into()),
            known: [("known.example".to_owned(), "10.0.0.9:1".parse().unwrap())].into(),
            allow_private,
        }
    }

    async fn found(host: &str, port: Option<u16>, kind: Kind) -> Vec<String> {
        let found = places(false).fetch(host, port, kind).await;
        found.map_or_else(
            |why| vec![why.to_string()],
            |found| found.iter().map(ToString::to_string).collect(),
        )
    }

    #[tokio::test]
    async fn hosts_are_found_by_the_rules_of_the_specification() {
        for (host, port, addresses) in [
            // Addresses, with a port and without.
            ("9.9.9.9", None, vec!["9.9.9.9:8448"]),
            ("9.9.9.9", Some(1), vec!["9.9.9.9:1"]),
            ("[2606::1]", None, vec!["[2606::1]:8448"]),
            // With a port nothing but the name itself counts.
            ("new.example", Some(443), vec!["9.9.9.9:443"]),
            // The registered name of the service goes before the old one.
            ("new.example", None, vec!["9.9.9.2:1", "[2606::1]:1"]),
            (
                "old.example",
                None,
                vec!["9.9.9.2:3", "[2606::1]:3", "9.9.9.3:4"],
            ),
            ("plain.example", None, vec!["9.9.9.1:8448"]),
            // What the operator says is not looked for, and may be anywhere.
            ("known.example", None, vec!["10.0.0.9:1"]),
            ("KNOWN.example", None, vec!["10.0.0.9:1"]),
            ("both.example", Some(5), vec!["9.9.9.4:5"]),
        ] {
            assert_eq!(found(host, port, Kind::Matrix).await, addresses, "{host}");
        }
        assert_eq!(
            found("new.example", None, Kind::Web).await,
            ["9.9.9.9:443"],
            "a web server offers no such service"
        );
    }

    #[tokio::test]
    async fn addresses_that_are_not_public_are_left_out_wherever_they_come_from() {
        for host in ["inside.example", "127.0.0.1", "[::1]", "[::ffff:10.0.0.1]"] {
            let refused = places(false).fetch(host, None, Kind::Matrix).await;
            assert_eq!(refused, Err(NoPlace::Private(host.to_owned())));
            assert!(places(true).fetch(host, None, Kind::Matrix).await.is_ok());
        }
        let public = places(false);
        let gone = public.fetch("gone.example", None, Kind::Matrix);
        assert!(matches!(gone.await, Err(NoPlace::Unknown(..))));
        assert!(!places(false).may_be_asked_of_a_proxy("127.0.0.1"));
        assert!(places(false).may_be_asked_of_a_proxy("inside.example"));
    }
}
