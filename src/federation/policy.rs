//! Which servers this one has to do with, and in what.

use config::{Class, Direction, ServerRule};
use ruma::ServerName;

/// What an operator wants: from the settings, and replaced when they are read anew.
#[derive(Clone, Debug, Default)]
pub(crate) struct Policy {
    enabled: bool,
    allow: Vec<ServerRule>,
    deny: Vec<ServerRule>,
}

impl Policy {
    /// The policy of these settings.
    pub(crate) fn of(settings: &config::Federation) -> Self {
        Self {
            enabled: settings.enabled,
            allow: settings.allow.clone(),
            deny: settings.deny.clone(),
        }
    }

    /// Whether a server may ask us, or we it, for something of a class.
    ///
    /// Keys and the like are exchanged with every server with which anything is.
    pub(crate) fn allows(&self, server: &ServerName, direction: Direction, class: Class) -> bool {
        if !self.enabled {
            return false;
        }
        if class == Class::Servers {
            return !self.deny.iter().any(|rule| rule.is_whole(server))
                && (self.allow.is_empty() || self.allow.iter().any(|rule| rule.names(server)));
        }
        let said =
            |rules: &[ServerRule]| rules.iter().any(|rule| rule.is(server, direction, class));
        !said(&self.deny) && (self.allow.is_empty() || said(&self.allow))
    }
}

/// What asking for a path of the server-server API is about. Nobody asks for presence, which is among what
/// a transaction tells: who writes and who reads that looks for itself.
pub fn class_of_path(path: &str) -> Class {
    let Some(rest) = path.strip_prefix("/_matrix/federation/") else {
        return if path.starts_with("/_matrix/media/") {
            Class::Media
        } else if path.starts_with("/_matrix/policy/") {
            Class::Rooms
        } else {
            Class::Servers
        };
    };
    // Behind the version.
    let mut parts = rest.split('/').skip(1);
    match (parts.next(), parts.next()) {
        (Some("version" | "openid"), _) => Class::Servers,
        (Some("invite" | "exchange_third_party_invite" | "3pid"), _) => Class::Invites,
        (Some("query"), Some("profile")) => Class::Profiles,
        (Some("query" | "publicRooms"), _) => Class::Directory,
        (Some("media"), _) => Class::Media,
        _ => Class::Rooms,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use config::Config;
    use ruma::server_name;

    use super::*;

    fn policy(text: &str) -> Policy {
        let config = Config::from_toml(&format!("[federation]\n{text}")).unwrap();
        Policy::of(&config.federation)
    }

    fn said(policy: &Policy, name: &ServerName) -> [bool; 4] {
        [
            policy.allows(name, Direction::In, Class::Rooms),
            policy.allows(name, Direction::Out, Class::Rooms),
            policy.allows(name, Direction::In, Class::Media),
            policy.allows(name, Direction::In, Class::Servers),
        ]
    }

    #[test]
    fn deny_goes_before_allow_and_keys_go_with_everything_else() {
        let (a, b) = (server_name!("a.example"), server_name!("b.example"));
        let open = policy("");
        assert_eq!(said(&open, a), [true; 4]);
        let off = policy("enabled = false");
        assert_eq!(said(&off, a), [false; 4]);
        let denied = policy(r#"deny = ["a.example"]"#);
        assert_eq!(said(&denied, a), [false; 4]);
        assert_eq!(said(&denied, b), [true; 4]);
        let partly = policy(r#"deny = ["*.example in media"]"#);
        assert_eq!(said(&partly, a), [true, true, false, true]);
        let chosen = policy(r#"allow = ["a.example in", "b.example rooms"]"#);
        assert_eq!(said(&chosen, a), [true, false, true, true]);
        assert_eq!(said(&chosen, b), [true, true, false, true]);
        let other = server_name!("c.example");
        assert_eq!(said(&chosen, other), [false; 4]);
        let both = policy("allow = [\"*\"]\ndeny = [\"a.example out\"]");
        assert_eq!(said(&both, a), [true, false, true, true]);
    }

    #[test]
    fn every_path_is_about_something() {
        for (path, class) in [
            ("/_matrix/federation/v1/send/1", Class::Rooms),
            ("/_matrix/federation/v2/send_join/!a/$b", Class::Rooms),
            ("/_matrix/federation/v2/invite/!a/$b", Class::Invites),
            ("/_matrix/federation/v1/query/profile", Class::Profiles),
            ("/_matrix/federation/v1/query/directory", Class::Directory),
            ("/_matrix/federation/v1/publicRooms", Class::Directory),
            ("/_matrix/federation/v1/media/download/a", Class::Media),
            ("/_matrix/media/v3/download/a/b", Class::Media),
            ("/_matrix/federation/v1/version", Class::Servers),
            ("/_matrix/key/v2/server", Class::Servers),
            ("/_matrix/policy/v1/sign", Class::Rooms),
        ] {
            assert_eq!(class_of_path(path), class, "{path}");
        }
    }
}
