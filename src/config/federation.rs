//! Section `federation`.

use std::{fmt, net::SocketAddr, path::PathBuf, time::Duration};

use ruma::{OwnedServerName, ServerName};

use crate::{declare::Kind, kinds::quoted, node::Value, problem::Problem, server_rule::ServerRule};

section! {
    /// Other servers.
    pub struct Federation {
        /// Whether this server talks to others. If not, it asks none and answers none.
        enabled: bool = true,

        /// Whom this server talks to: "*.example.org", "example.com in rooms invites". Empty: everybody whom
        /// `deny` does not name.
        allow: Vec<ServerRule> = Vec::new(),

        /// Whom this server does not talk to, though `allow` may name them: "evil.example",
        /// "example.net in profiles", "*.example.net out media".
        deny: Vec<ServerRule> = Vec::new(),

        /// A file of certificates (PEM) of authorities that other servers' certificates may be signed by,
        /// besides those that browsers know.
        extra_ca_file: Option<PathBuf> = None,

        /// Where servers are, for those that are not to be looked for: "example.org=192.0.2.7:8448". Such an
        /// address may be any, and the certificate must be for the server's name.
        addresses: Vec<ServerAddress> = Vec::new(),

        /// Whether servers may be at addresses that are not public: of private networks, of this machine.
        /// Whoever can name a server could otherwise have this one ask machines that only it can reach.
        allow_private_addresses: bool = false,

        /// A proxy through which other servers are reached, such as "proxy.example:3128": it is asked to
        /// `CONNECT`. It looks up their names, so it is to keep private addresses out. Empty: none.
        proxy: Option<HostPort> = None,

        /// How long a connection may take to open.
        connect_timeout: Duration = Duration::from_secs(10),

        /// How long an answer may take to come in, where nothing else is said for what is asked.
        request_timeout: Duration = Duration::from_secs(60),

        /// The longest time for which a server that could not be reached is left alone.
        max_back_off: Duration = Duration::from_secs(6 * 60 * 60),

        /// Servers that are asked for the keys of those that do not answer themselves.
        notaries: Vec<OwnedServerName> = Vec::new(),
    }
}

/// A machine and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// A name or an address.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// Empty text is none.
impl Kind for Option<HostPort> {
    const KIND: &'static str = "a name or address with a port, or empty for none";

    fn read(value: &Value) -> Result<Self, String> {
        let text = value.text()?;
        if text.is_empty() {
            return Ok(None);
        }
        let read = || {
            let (host, port) = text.rsplit_once(':')?;
            let letter = |c: char| c.is_ascii_alphanumeric() || "-.[]:".contains(c);
            (!host.is_empty() && host.chars().all(letter)).then_some(HostPort {
                host: host.to_owned(),
                port: port.parse().ok()?,
            })
        };
        read().map(Some).ok_or_else(|| format!("found {text:?}"))
    }

    fn write(&self) -> String {
        let text = self.as_ref().map(|at| format!("{}:{}", at.host, at.port));
        quoted(&text.unwrap_or_default())
    }
}

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerAddress {
    /// The server.
    pub server: OwnedServerName,
    /// Where it is.
    pub address: SocketAddr,
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.server, self.address)
    }
}

impl Kind for ServerAddress {
    const KIND: &'static str = "a server's name, `=`, its address and port";

    fn read(value: &Value) -> Result<Self, String> {
        let text = value.text()?;
        let read = || {
            let (server, address) = text.split_once('=')?;
            Some(Self {
                server: server.trim().try_into().ok()?,
                address: address.trim().parse().ok()?,
            })
        };
        read().ok_or_else(|| format!("found {text:?}"))
    }

    fn write(&self) -> String {
        quoted(&self.to_string())
    }
}

impl Kind for OwnedServerName {
    const KIND: &'static str = "a server name like \"example.org\"";

    fn read(value: &Value) -> Result<Self, String> {
        let text = value.text()?;
        ServerName::parse(text).map_err(|error| format!("found {text:?}: {error}"))
    }

    fn write(&self) -> String {
        quoted(self.as_str())
    }
}

/// Times in which something can happen.
pub(crate) fn check(federation: &Federation, problems: &mut Vec<Problem>) {
    for (name, time) in [
        ("connect_timeout", federation.connect_timeout),
        ("request_timeout", federation.request_timeout),
        ("max_back_off", federation.max_back_off),
    ] {
        if time < Duration::from_secs(1) {
            problems.push(Problem::new(format!(
                "federation.{name} must be at least 1 s"
            )));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn an_address_is_a_name_and_where_it_is() {
        let read = |text: &str| ServerAddress::read(&Value::Text(text.to_owned()));
        for text in ["example.org=192.0.2.7:8448", "a:1=[2001:db8::1]:443"] {
            assert_eq!(read(text).unwrap().to_string(), text);
        }
        for text in [
            "example.org",
            "=192.0.2.7:1",
            "example.org=192.0.2.7",
            "example.org=other.example:8448",
            "ex ample=192.0.2.7:1",
        ] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
