//! Section `listeners`.

use std::{
    collections::HashSet,
    fmt,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    path::PathBuf,
};

use crate::{declare::Kind, kinds::quoted, node::Value, problem::Problem};

section! {
    /// Where the server listens. Several `[[listeners]]` may follow each other.
    pub struct Listener {
        /// An IP address with a port, or the path of a Unix socket.
        address: Address = Address::Tcp(SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 8008))),

        /// A PEM file with the certificate and those that lead to its root. With it and the key the
        /// listener speaks TLS. Read again when the file changes.
        tls_certificate: Option<PathBuf> = None,

        /// A PEM file with the certificate's private key.
        tls_key: Option<PathBuf> = None,

        /// What is served here.
        apis: Vec<Api> = Api::ALL.to_vec(),
    }
}

choice! {
    /// A part of what the server offers over HTTP.
    pub enum Api {
        /// What clients use: `/_matrix/client`, `/.well-known/matrix/client`.
        Client = "client",
        /// What other servers use: `/_matrix/federation`, `/_matrix/key`, `/.well-known/matrix/server`.
        Federation = "federation",
        /// What operators' tools use: `/_synapse/admin`.
        Admin = "admin",
        /// Whether the server is well: `/health`.
        Health = "health",
    }
}

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// An IP address and a port; port 0 is any that is free.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

impl Kind for Address {
    const KIND: &'static str = "an IP address with a port, or a path with a slash";

    fn read(value: &Value) -> Result<Self, String> {
        let text = value.text()?;
        if let Ok(address) = text.parse() {
            return Ok(Self::Tcp(address));
        }
        if text.contains('/') {
            return Ok(Self::Unix(text.into()));
        }
        Err(format!("found {text:?}"))
    }

    fn write(&self) -> String {
        quoted(&self.to_string())
    }
}

/// There is one, no two are the same, TLS has both of its files.
pub(crate) fn check(listeners: &[Listener], problems: &mut Vec<Problem>) {
    if listeners.is_empty() {
        problems.push(Problem::new(
            "listeners must not be empty: nobody could reach the server",
        ));
    }
    let mut seen = HashSet::new();
    for Listener {
        address,
        tls_certificate,
        tls_key,
        apis,
    } in listeners
    {
        let any_port = matches!(address, Address::Tcp(address) if address.port() == 0);
        if !seen.insert(address) && !any_port {
            problems.push(Problem::new(format!(
                "two listeners have the address {address}"
            )));
        }
        if tls_certificate.is_some() != tls_key.is_some() {
            problems.push(Problem::new(format!(
                "listener {address}: TLS needs both tls_certificate and tls_key"
            )));
        }
        if apis.is_empty() {
            problems.push(Problem::new(format!(
                "listener {address}: apis must not be empty"
            )));
        }
    }
}
