//! Which servers may take part in a room: server access control lists ([spec]).
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#server-access-control-lists-acls-for-rooms

use pdu::canonical;
use ruma::{
    ServerName,
    events::{StateEventType, room::server_acl::RoomServerAclEventContent},
};
use serde_json::Value;
use storage::Snapshot;

use crate::{Room, Rooms, StateKey};

/// A room's server access control list.
#[derive(Clone, Debug, Default)]
pub struct ServerAcl(Option<RoomServerAclEventContent>);

impl ServerAcl {
    /// The list that the content of `m.room.server_acl` makes. What is not of the form that the
    /// specification asks for counts as left out.
    pub(crate) fn of(content: &[u8]) -> Self {
        let names = |key: &str| {
            let list = canonical::member(content, key);
            let list = list.and_then(|list| serde_json::from_slice(list).ok());
            let Some(Value::Array(names)) = list else {
                return Vec::new();
            };
            let name = |name| match name {
                Value::String(name) => Some(name),
                _ => None,
            };
            names.into_iter().filter_map(name).collect()
        };
        let literals = canonical::member(content, "allow_ip_literals") != Some(b"false");
        Self(Some(RoomServerAclEventContent::new(
            literals,
            names("allow"),
            names("deny"),
        )))
    }

    /// Whether a server may take part, by its name without a port; case does not matter.
    pub fn allows(&self, server: &ServerName) -> bool {
        self.0.as_ref().is_none_or(|acl| acl.is_allowed(server))
    }

    /// The key under which the list stands in a room's state.
    pub(crate) fn key() -> StateKey {
        (StateEventType::RoomServerAcl, String::new())
    }
}

impl Room {
    /// The room's list as it is now; two round trips.
    pub async fn server_acl(&self, rooms: &Rooms, snapshot: &Snapshot) -> error::Result<ServerAcl> {
        let key = ServerAcl::key();
        let keys = std::slice::from_ref(&key);
        let (_, state) = self.current_state(rooms, snapshot, keys).await?;
        let acl = state.get(&key);
        Ok(acl.map_or_else(ServerAcl::default, |event| {
            ServerAcl::of(event.pdu.content_bytes())
        }))
    }
}

impl Rooms {
    /// Whether a room's list lets a server ask for something.
    ///
    /// # Errors
    ///
    /// 403 `M_FORBIDDEN` if not ([spec]).
    ///
    /// [spec]: https://spec.matrix.org/v1.19/server-server-api/#server-access-control-lists-acls
    pub async fn check_acl(&self, room: &Room, server: &ServerName) -> error::Result<()> {
        let snapshot = self.snapshot().await?;
        if room.server_acl(self, &snapshot).await?.allows(server) {
            Ok(())
        } else {
            Err(denied())
        }
    }
}

/// What a server is told whom a room's list denies.
pub(crate) fn denied() -> error::Error {
    error::forbidden("This room's access control list (m.room.server_acl) denies your server")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn allows(content: &str, server: &str) -> bool {
        let server = <&ServerName>::try_from(server).unwrap();
        ServerAcl::of(content.as_bytes()).allows(server)
    }

    #[test]
    fn lists_match_names_without_their_port_whatever_their_case() {
        let acl =
            r#"{"allow":["*"],"allow_ip_literals":false,"deny":["*.EVIL.example","bad.org"]}"#;
        for denied in [
            "a.evil.example",
            "A.Evil.Example:8448",
            "BAD.org",
            "1.2.3.4",
            "[::1]:80",
        ] {
            assert!(!allows(acl, denied), "{denied}");
        }
        for allowed in ["evil.example", "good.org", "bad.org.example"] {
            assert!(allows(acl, allowed), "{allowed}");
        }
        assert!(allows(r#"{"allow":["?ood.org"]}"#, "GOOD.org:1"));
    }

    #[test]
    fn what_is_malformed_counts_as_left_out() {
        for nobody in ["{}", r#"{"allow":"*"}"#, r#"{"allow":[1,{}]}"#] {
            assert!(!allows(nobody, "good.org"), "{nobody}");
        }
        let literals = r#"{"allow":["*",7],"allow_ip_literals":"no","deny":"*"}"#;
        assert!(allows(literals, "1.2.3.4"));
        assert!(ServerAcl::default().allows(<&ServerName>::try_from("any.org").unwrap()));
    }
}
