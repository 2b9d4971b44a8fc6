//! The part of a user id before the colon, of ids made here.
//!
//! Ids that are made now keep to the strict grammar of the specification; ids of old, with any
//! letters or none, are accepted wherever they come in an event ([historical user ids]).
//!
//! [historical user ids]: https://spec.matrix.org/v1.19/appendices/#historical-user-ids

use error::Result;
use ruma::{OwnedUserId, ServerName, UserId};

/// The longest user id, in bytes.
const MAX_USER_ID: usize = 255;

/// The id of a new user who asked for the name `username`. Capitals are folded.
///
/// # Errors
///
/// 400 `M_INVALID_USERNAME` if no id can be made of it.
pub(crate) fn new_user_id(username: &str, server_name: &ServerName) -> Result<OwnedUserId> {
    let localpart = username.to_ascii_lowercase();
    if localpart.is_empty() {
        return Err(error::invalid_username("A user name cannot be empty"));
    }
    let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'=' | b'-' | b'/' | b'+');
    if !localpart.bytes().all(allowed) {
        return Err(error::invalid_username(
            "A user name is made of a-z, 0-9 and . _ = - / + only",
        ));
    }
    let user_id = format!("@{localpart}:{server_name}");
    if user_id.len() > MAX_USER_ID {
        return Err(error::invalid_username(format!(
            "The whole user id would be longer than {MAX_USER_ID} bytes"
        )));
    }
    UserId::parse(&user_id)
        .map_err(|_| error::invalid_username("No user id can be made of this user name"))
}

/// The id that somebody meant who wrote `user` to log in: a localpart or a whole id, in any case.
/// `None` if it cannot be one of ours.
///
/// The name as it stands comes first, the folded one second: ids of old may hold capitals.
pub(crate) fn login_candidates(user: &str, server_name: &ServerName) -> Vec<OwnedUserId> {
    let whole = if user.starts_with('@') {
        user.to_owned()
    } else {
        format!("@{user}:{server_name}")
    };
    if whole.len() > MAX_USER_ID {
        return Vec::new();
    }
    let Ok(user_id) = UserId::parse(&whole) else {
        return Vec::new();
    };
    if user_id.server_name() != server_name {
        return Vec::new();
    }
    let folded = format!("@{}:{server_name}", user_id.localpart().to_lowercase());
    let mut candidates = vec![user_id];
    if let Ok(folded) = UserId::parse(&folded)
        && !candidates.contains(&folded)
    {
        candidates.push(folded);
    }
    candidates
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use ruma::server_name;

    use super::*;

    fn made_of(name: &str) -> Option<String> {
        new_user_id(name, server_name!("a.example"))
            .ok()
            .map(|id| id.to_string())
    }

    #[test]
    fn new_names_are_strict_and_folded() {
        assert_eq!(made_of("Anna").unwrap(), "@anna:a.example");
        assert_eq!(
            made_of("a.b_c=d-e/f+0").unwrap(),
            "@a.b_c=d-e/f+0:a.example"
        );
        for hostile in [
            "",
            " ",
            "a b",
            "a:b",
            "@a",
            "ä",
            "a\0",
            "a\n",
            "\u{202e}a",
            "a#",
            "🙂",
            "ſ",
            "\u{212a}",
        ] {
            assert!(made_of(hostile).is_none(), "{hostile:?}");
        }
        let longest = "x".repeat(255 - "@:a.example".len());
        assert!(made_of(&longest).is_some());
        assert!(made_of(&format!("{longest}x")).is_none());
    }

    #[test]
    fn logins_find_ids_of_old_before_folded_ones() {
        let ids = |user: &str| {
            login_candidates(user, server_name!("a.example"))
                .into_iter()
                .map(|id| id.to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(ids("Anna"), ["@Anna:a.example", "@anna:a.example"]);
        assert_eq!(
            ids("@ANNA:a.example"),
            ["@ANNA:a.example", "@anna:a.example"]
        );
        assert_eq!(ids("anna"), ["@anna:a.example"]);
        assert!(ids("@anna:b.example").is_empty());
        assert!(ids(&"a".repeat(300)).is_empty());
        assert!(ids("a\0b").len() <= 1);
    }
}
