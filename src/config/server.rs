//! Section `server`.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use ruma::{OwnedServerName, RoomVersionId};

use crate::{problem::Problem, proxies::Proxy};

section! {
    /// Who this server is.
    pub struct Server {
        /// The name that stands behind the colon of every user ID. It is stored at the first start
        /// and cannot be changed afterwards. Empty: the stored one; at a first start "localhost".
        name: Option<OwnedServerName> = None,

        /// The address at which clients reach this server, such as "https://matrix.example.org". They
        /// ask for it at `/.well-known/matrix/client`; empty: nothing is there.
        public_url: String = String::new(),

        /// Where other servers reach this one, such as "matrix.example.org:443". They ask for it at
        /// `/.well-known/matrix/server`; empty: nothing is there.
        federation_address: Option<OwnedServerName> = None,

        /// Which proxies say truly whom they speak for, in `X-Forwarded-For`: the address of whoever asks is
        /// the last one in it that is none of these. What others say in it is not believed.
        trusted_proxies: Vec<Proxy> = vec![
            Proxy::Unix,
            Proxy::Network(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), 8),
            Proxy::Network(IpAddr::V6(Ipv6Addr::LOCALHOST), 128),
        ],

        /// The version that rooms get where a client asks for none.
        default_room_version: RoomVersionId = RoomVersionId::V12,

        /// How long requests may take to finish once the server was told to stop.
        shutdown_grace: Duration = Duration::from_secs(10),
    }
}

/// The address is one.
pub(crate) fn check(server: &Server, problems: &mut Vec<Problem>) {
    let url = server.public_url.as_str();
    if !(url.is_empty() || url.starts_with("https://") || url.starts_with("http://")) {
        problems.push(Problem::new(format!(
            "server.public_url must begin with https:// or http://, found {url:?}"
        )));
    }
}
