//! Which servers something is said of, and of what between them and us.

use std::{fmt, str::FromStr};

use ruma::ServerName;

use crate::{declare::Kind, kinds::quoted, node::Value};

choice! {
    /// Who begins.
    pub enum Direction {
        /// The other server asks this one.
        In = "in",
        /// This server asks the other one.
        Out = "out",
    }
}

choice! {
    /// What it is about.
    pub enum Class {
        /// Rooms: their events, joining them, the keys of devices, messages to devices.
        Rooms = "rooms",
        /// Invites to rooms.
        Invites = "invites",
        /// What people say about themselves.
        Profiles = "profiles",
        /// Who is online. It travels with what is told of rooms.
        Presence = "presence",
        /// Aliases and lists of published rooms.
        Directory = "directory",
        /// Files.
        Media = "media",
        /// The servers themselves: their keys, their versions. What comes before everything else.
        Servers = "servers",
    }
}

/// Names servers by a pattern, and what is between them and us by direction and classes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerRule {
    /// What the names look like, in small letters: `*` stands for any letters, `?` for one.
    pattern: String,
    /// Who begins; whoever it is if none.
    direction: Option<Direction>,
    /// What it is about; everything if empty.
    classes: Vec<Class>,
}

impl ServerRule {
    /// Whether something that a server asks us, or we it, is meant. The port in the server's name does not
    /// count, as in access control lists of rooms.
    pub fn is(&self, server: &ServerName, direction: Direction, class: Class) -> bool {
        self.direction.is_none_or(|meant| meant == direction)
            && (self.classes.is_empty() || self.classes.contains(&class))
            && self.names(server)
    }

    /// Whether something is said of a server at all.
    pub fn names(&self, server: &ServerName) -> bool {
        let host = server.host().to_ascii_lowercase();
        matches(self.pattern.as_bytes(), host.as_bytes())
    }

    /// Whether it is said of everything between a server and us.
    pub fn is_whole(&self, server: &ServerName) -> bool {
        self.direction.is_none() && self.classes.is_empty() && self.names(server)
    }
}

/// Whether a text looks like a pattern. Goes back to the last `*` only, so that it takes no more steps than
/// the product of both lengths.
pub(crate) fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut read) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while let Some(letter) = text.get(read) {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, read));
                at += 1;
            }
            Some(wanted) if *wanted == b'?' || wanted == letter => {
                at += 1;
                read += 1;
            }
            _ => {
                let Some((star_at, from)) = star else {
                    return false;
                };
                star = Some((star_at, from + 1));
                at = star_at + 1;
                read = from + 1;
            }
        }
    }
    pattern.iter().skip(at).all(|left| *left == b'*')
}

/// Text that says nothing about servers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NoServerRule(String);

impl FromStr for ServerRule {
    type Err = NoServerRule;

    fn from_str(text: &str) -> Result<Self, NoServerRule> {
        Self::read(&Value::Text(text.to_owned())).map_err(NoServerRule)
    }
}

impl fmt::Display for ServerRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.pattern)?;
        if let Some(direction) = self.direction {
            write!(f, " {}", direction.as_str())?;
        }
        for class in &self.classes {
            write!(f, " {}", class.as_str())?;
        }
        Ok(())
    }
}

impl Kind for ServerRule {
    const KIND: &'static str = "a server's name, with `*` and `?` for letters, and after it if need be \"in\" \
                                or \"out\" and what is meant (rooms, invites, profiles, presence, directory, \
                                media)";

    fn read(value: &Value) -> Result<Self, String> {
        let text = value.text()?;
        let mut words = text.split_ascii_whitespace();
        let pattern = words.next().ok_or("found none")?.to_ascii_lowercase();
        let letter = |c: char| c.is_ascii_alphanumeric() || "*?.-:[]".contains(c);
        if !pattern.chars().all(letter) {
            return Err(format!("found {text:?}"));
        }
        let mut rule = Self {
            pattern,
            direction: None,
            classes: Vec::new(),
        };
        for word in words {
            let direction = Direction::ALL.iter().find(|known| known.as_str() == word);
            let class = Class::ALL.iter().find(|known| known.as_str() == word);
            match (direction, class) {
                (Some(direction), _) if rule.direction.is_none() => {
                    rule.direction = Some(*direction);
                }
                // Nothing goes between servers that do not know each other's keys.
                (None, Some(class)) if *class != Class::Servers => rule.classes.push(*class),
                _ => return Err(format!("found {word:?} in {text:?}")),
            }
        }
        Ok(rule)
    }

    fn write(&self) -> String {
        quoted(&self.to_string())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn read(text: &str) -> Result<ServerRule, String> {
        ServerRule::read(&Value::Text(text.to_owned()))
    }

    #[test]
    fn patterns_match_names_without_their_ports() {
        for (pattern, name, is) in [
            ("example.org", "example.org", true),
            ("Example.org", "eXample.ORG:8448", true),
            ("example.org", "www.example.org", false),
            ("*.example.org", "www.example.org", true),
            ("*.example.org", "example.org", false),
            ("*", "192.0.2.7:1", true),
            ("192.0.2.?", "192.0.2.7", true),
            ("192.0.2.?", "192.0.2.17", false),
            ("[2001:db8::*]", "[2001:db8::1]:1", true),
            ("*a*b*c", "xxaxxbxxbxxc", true),
            ("*a*b*c", "xxaxxbxxbxx", false),
            ("**a", "a", true),
        ] {
            let server = ServerName::parse(name).unwrap();
            let rule = read(pattern).unwrap();
            let found = rule.is(&server, Direction::In, Class::Rooms);
            assert_eq!(found, is, "{pattern} {name}");
            assert_eq!(rule.is_whole(&server), is);
        }
    }

    #[test]
    fn a_rule_may_be_about_a_part_of_what_is_between_servers() {
        let rule = read("*.example out media profiles").unwrap();
        let server = ServerName::parse("a.example").unwrap();
        assert!(rule.is(&server, Direction::Out, Class::Media));
        assert!(rule.is(&server, Direction::Out, Class::Profiles));
        assert!(!rule.is(&server, Direction::Out, Class::Rooms));
        assert!(!rule.is(&server, Direction::In, Class::Media));
        assert!(!rule.is_whole(&server));
        assert_eq!(rule.to_string(), "*.example out media profiles");
    }

    #[test]
    fn what_is_no_rule_is_refused() {
        for text in [
            "",
            "exa_mple",
            "example.org both",
            "example.org in out",
            "example.org servers",
            "example.org, other.org",
        ] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
