//! Section `policy_server`.

use ruma::ServerName;

use crate::{
    declare::Kind,
    kinds::{ByteCount, quoted},
    node::Value,
    problem::Problem,
    server_rule::matches,
};

section! {
    /// This server as the policy server of rooms: what is said in a room that names it in its `m.room.policy`
    /// is shown to it first, and people see what it signs. It must be in the room. What is encrypted it
    /// cannot read; who leaves a room by themselves is never kept from it.
    pub struct PolicyServer {
        /// Whether this server signs events for rooms. The key that rooms have to name is made then, and told at
        /// `/.well-known/matrix/policy_server`.
        enabled: bool = false,

        /// The rooms for which it does, by their IDs: "!abc:example.org", "*:example.org". Empty: all in which
        /// somebody of this server is.
        rooms: Vec<Pattern> = Vec::new(),

        /// Servers whose people are not let through, without a port: "evil.example", "*.evil.example".
        refused_servers: Vec<Pattern> = Vec::new(),

        /// People who are not let through: "@spam*:example.org".
        refused_users: Vec<Pattern> = Vec::new(),

        /// Types of events that are not let through: "m.room.encrypted", "m.poll.*".
        refused_types: Vec<Pattern> = Vec::new(),

        /// Words, or several words in a row, that are not let through in any text of an event: names, topics and
        /// reasons are such too. Capital letters, accents and other spellings of a letter do not matter.
        refused_words: Vec<String> = Vec::new(),

        /// Whether pictures, films, sounds, files and stickers are let through.
        media: bool = true,

        /// The longest content of an event that is let through. 0: any.
        max_content: ByteCount = ByteCount::new(0),
    }
}

/// What an ID or a name looks like: `*` stands for any letters, `?` for one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(String);

impl Pattern {
    /// Whether a text looks like this.
    pub fn is(&self, text: &str) -> bool {
        matches(self.0.as_bytes(), text.as_bytes())
    }

    /// Whether a server's name looks like this, without its port; case does not matter.
    pub fn is_server(&self, server: &ServerName) -> bool {
        let (pattern, host) = (
            self.0.to_ascii_lowercase(),
            server.host().to_ascii_lowercase(),
        );
        matches(pattern.as_bytes(), host.as_bytes())
    }
}

impl Kind for Pattern {
    const KIND: &'static str = "an ID or a name, with `*` and `?` for letters";

    fn read(value: &Value) -> Result<Self, String> {
        let text = value.text()?;
        if text.is_empty() || text.chars().any(char::is_whitespace) {
            return Err(format!("found {text:?}"));
        }
        Ok(Self(text.to_owned()))
    }

    fn write(&self) -> String {
        quoted(&self.0)
    }
}

/// Words that can be found.
pub(crate) fn check(policy: &PolicyServer, problems: &mut Vec<Problem>) {
    let found = |word: &String| word.chars().any(char::is_alphanumeric);
    for word in policy.refused_words.iter().filter(|word| !found(word)) {
        problems.push(Problem::new(format!(
            "policy_server.refused_words must be words of letters or digits, found {word:?}"
        )));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use crate::Config;

    #[test]
    fn patterns_are_of_whole_names_in_their_case() {
        let config = Config::from_toml(
            r#"
            [policy_server]
            enabled = true
            rooms = ["!a?c:example.org", "*:here.example"]
            refused_words = ["casino", "free money"]
            max_content = "4 KiB"
            "#,
        );
        let policy = config.unwrap().policy_server;
        let [one, many] = &policy.rooms[..] else {
            panic!("{policy:?}")
        };
        assert!(one.is("!abc:example.org"));
        assert!(!one.is("!aBBc:example.org") && !one.is("!ABC:example.org"));
        assert!(many.is("!x:here.example"));
        assert!(!many.is("!x:here.example.org"));
        let server = |name: &str| many.is_server(name.try_into().unwrap());
        assert!(!server("here.example"));
        let evil = crate::policy_server::Pattern("*.Evil.example".to_owned());
        assert!(evil.is_server("a.eVil.example:8448".try_into().unwrap()));
        assert!(!evil.is_server("evil.example".try_into().unwrap()));
        assert_eq!(policy.max_content.get(), 4096);
        assert!(policy.media);
    }

    #[test]
    fn what_finds_nothing_is_refused() {
        for setting in [
            r#"rooms = [""]"#,
            r#"refused_users = ["@a b:c"]"#,
            r#"refused_words = ["!!"]"#,
            r#"refused_words = ["ok", ""]"#,
        ] {
            let config = Config::from_toml(&format!("[policy_server]\n{setting}"));
            assert!(config.is_err(), "{setting}");
        }
    }
}
