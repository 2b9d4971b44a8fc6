//! Whose invites somebody wants ([spec], and MSC4155, which lists people and servers).
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#invite-permission

use serde_json::Value;
use storage::{
    Found, NameHash, ShortRoomId, ShortUserId, Stamped, Storage, schema::AccountDataRow,
};

use crate::account_data::account_data_key;

/// The account data that says so.
const TYPES: [&str; 2] = [
    "m.invite_permission_config",
    "org.matrix.msc4155.invite_permission_config",
];

/// The lists of MSC4155, in the order in which they are asked, with whom they list and what becomes of
/// their invites.
const LISTS: [(&str, Listed, Invites); 6] = [
    ("allowed_users", Listed::Users, Invites::Welcome),
    ("ignored_users", Listed::Users, Invites::Ignored),
    ("blocked_users", Listed::Users, Invites::Blocked),
    ("allowed_servers", Listed::Servers, Invites::Welcome),
    ("ignored_servers", Listed::Servers, Invites::Ignored),
    ("blocked_servers", Listed::Servers, Invites::Blocked),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Listed {
    Users,
    Servers,
}

/// What becomes of somebody's invites.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invites {
    /// They are shown.
    Welcome,
    /// They are not shown, and whoever invites does not learn that.
    Ignored,
    /// They are refused.
    Blocked,
}

/// Whose invites somebody wants.
#[derive(Clone, Debug, Default)]
pub struct InvitePermissions {
    blocks_all: bool,
    lists: Vec<(Listed, Invites, Vec<String>)>,
}

impl InvitePermissions {
    /// The rows of account data that say what a user wants, for [`InvitePermissions::of_rows`].
    pub fn keys(
        storage: &Storage,
        user: ShortUserId,
    ) -> [(ShortUserId, ShortRoomId, NameHash); TYPES.len()] {
        TYPES.map(|event_type| account_data_key(storage, user, None, event_type))
    }

    /// What these rows say. What is not as it should be counts as not said.
    pub fn of_rows(rows: &[Option<Found<Stamped<AccountDataRow>>>]) -> Self {
        let json = |at: usize| {
            let row = rows.get(at)?.as_ref();
            row.map(|row| row.value.value.json.as_str())
        };
        Self::new([json(0), json(1)])
    }

    fn new([all, lists]: [Option<&str>; TYPES.len()]) -> Self {
        let read = |json: Option<&str>| -> Value {
            let value = json.map(serde_json::from_str::<Value>);
            value.and_then(Result::ok).unwrap_or_default()
        };
        let (all, lists) = (read(all), read(lists));
        let in_force = lists
            .get("enabled")
            .and_then(Value::as_bool)
            .unwrap_or(true);
        let of = |(name, listed, invites): (&str, Listed, Invites)| {
            let patterns = lists.get(name).and_then(Value::as_array)?.iter();
            let patterns = patterns.filter_map(Value::as_str).map(str::to_owned);
            Some((listed, invites, patterns.collect()))
        };
        Self {
            blocks_all: all.get("default_action").and_then(Value::as_str) == Some("block"),
            lists: match in_force {
                true => LISTS.into_iter().filter_map(of).collect(),
                false => Vec::new(),
            },
        }
    }

    /// What becomes of the invites of a user.
    pub fn of(&self, sender: &str) -> Invites {
        if self.blocks_all {
            return Invites::Blocked;
        }
        let server = sender.split_once(':').map_or("", |(_, server)| server);
        let found = self.lists.iter().find(|(listed, _, patterns)| {
            let name = match listed {
                Listed::Users => sender,
                Listed::Servers => server,
            };
            patterns.iter().any(|pattern| fits(pattern, name))
        });
        found.map_or(Invites::Welcome, |(_, invites, _)| *invites)
    }
}

/// Whether a text fits a pattern, in which `*` stands for anything and `?` for one character.
fn fits(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut at, mut read) = (0, 0);
    // Where to go on when what followed the last `*` does not fit: it stood for one byte more.
    let mut retry: Option<(usize, usize)> = None;
    while let Some(byte) = text.get(read) {
        match pattern.get(at) {
            Some(b'*') => {
                retry = Some((at + 1, read));
                at += 1;
            }
            Some(wanted) if *wanted == b'?' || wanted == byte => {
                at += 1;
                read += 1;
            }
            _ => match retry {
                Some((after, from)) => {
                    retry = Some((after, from + 1));
                    (at, read) = (after, from + 1);
                }
                None => return false,
            },
        }
    }
    pattern
        .get(at..)
        .unwrap_or_default()
        .iter()
        .all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_what_they_say() {
        for (pattern, text, is) in [
            ("", "", true),
            ("*", "", true),
            ("hs*", "hs2", true),
            ("hs*", "other", false),
            ("@user-?*", "@user-1:hs1", true),
            ("@user-?*", "@user-", false),
            ("*.example.org", "a.b.example.org", true),
            ("*.example.org", "example.org", false),
            ("*a*b*", "xxaxxbxx", true),
            ("*a*b", "aabab", true),
            ("*a*b", "aaba", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("abc", "abcd", false),
        ] {
            assert_eq!(fits(pattern, text), is, "{pattern} {text}");
        }
        let (pattern, text) = ("*a".repeat(100) + "b", "a".repeat(250));
        assert!(!fits(&pattern, &text));
    }

    fn of(lists: &str, sender: &str) -> Invites {
        InvitePermissions::new([None, Some(lists)]).of(sender)
    }

    #[test]
    fn people_are_asked_before_servers_and_what_is_allowed_before_the_rest() {
        let lists = r#"{
            "allowed_users": ["@both:hs2", "@friend:hs2"], "ignored_users": ["@both:hs2", "@bore:*"],
            "blocked_users": ["@both:hs2", "@evil:hs1"], "blocked_servers": ["hs2"],
            "allowed_servers": ["hs1"], "ignored_servers": ["hs3", "hs2"]
        }"#;
        for (sender, invites) in [
            ("@both:hs2", Invites::Welcome),
            ("@friend:hs2", Invites::Welcome),
            ("@bore:hs1", Invites::Ignored),
            ("@evil:hs1", Invites::Blocked),
            ("@other:hs1", Invites::Welcome),
            ("@other:hs2", Invites::Ignored),
            ("@other:hs3", Invites::Ignored),
            ("@other:hs4", Invites::Welcome),
        ] {
            assert_eq!(of(lists, sender), invites, "{sender}");
        }
    }

    #[test]
    fn what_is_not_as_it_should_be_blocks_nobody() {
        for lists in [
            "{}",
            "[]",
            "no json",
            r#"{"blocked_users": null, "blocked_servers": "hs1"}"#,
            r#"{"blocked_users": {"@a:hs1": {}}}"#,
            r#"{"blocked_users": [7, null]}"#,
            r#"{"enabled": false, "blocked_users": ["*"]}"#,
        ] {
            assert_eq!(of(lists, "@a:hs1"), Invites::Welcome, "{lists}");
        }
        for (all, invites) in [
            (r#"{"default_action": "block"}"#, Invites::Blocked),
            (r#"{"default_action": "allow"}"#, Invites::Welcome),
            (r#"{"default_action": true}"#, Invites::Welcome),
        ] {
            let allowed = Some(r#"{"allowed_users": ["@a:hs1"]}"#);
            let permissions = InvitePermissions::new([Some(all), allowed]);
            assert_eq!(permissions.of("@a:hs1"), invites, "{all}");
        }
    }
}
