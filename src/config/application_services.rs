//! Section `application_services`, and the files that register them.

use std::{fmt, fs, path::PathBuf};

use http::{Uri, uri::Scheme};
use regex::{Regex, RegexBuilder};
use serde::{Deserialize, Deserializer};

use crate::{Secret, declare::Kind, kinds::quoted, node::Value, problem::Problem};

section! {
    /// Application services: bridges and bots, which act for many people.
    pub struct ApplicationServices {
        /// The files (YAML) that register them, as their makers describe. They are read at the start. What is
        /// there so far is what services ask of this server; it sends them nothing but answers to their pings:
        /// no events, no questions about users, rooms and third-party networks.
        registrations: Vec<RegistrationFile> = Vec::new(),
    }
}

/// The most bytes of a registration file.
const MAX_FILE: usize = 1 << 20;

/// The most bytes that a compiled regular expression may take.
const MAX_PATTERN: usize = 1 << 20;

/// A registration file that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistrationFile {
    /// Where it is.
    pub path: PathBuf,
    /// What it says.
    pub service: ApplicationService,
}

/// What the operator grants to an application service ([registration]).
///
/// [registration]: https://spec.matrix.org/v1.19/application-service-api/#registration
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApplicationService {
    /// Its name among the services of this server.
    pub id: String,
    /// Where it answers, without a slash at the end; nowhere if none.
    pub url: Option<Uri>,
    /// By which it proves itself to this server.
    pub as_token: Secret,
    /// By which this server proves itself to it.
    pub hs_token: Secret,
    /// The part before the colon of the user that it is where it names no other.
    pub sender_localpart: String,
    /// Whom it may act as.
    pub users: Vec<Namespace>,
    /// Which aliases are its own.
    pub aliases: Vec<Namespace>,
    /// Which rooms it is interested in.
    pub rooms: Vec<Namespace>,
    /// Whether the users that it acts as are limited like others.
    pub rate_limited: bool,
    /// The third-party networks that it leads to.
    pub protocols: Vec<String>,
    /// Whether it wants to hear of what passes: typing, receipts, presence.
    pub receive_ephemeral: bool,
}

/// Names of one kind that an application service cares about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// Whether nobody else may have such a name.
    pub exclusive: bool,
    /// What the names look like.
    pub pattern: IdPattern,
}

/// A regular expression that whole ids are held against, from their first letter on.
///
/// NOTSPEC: the specification says POSIX, and not whether an id may be longer than what matches. Files are
/// written for Synapse, which has Python's expressions begin at the first letter and end anywhere.
#[derive(Clone)]
pub struct IdPattern {
    text: String,
    compiled: Regex,
}

impl IdPattern {
    /// Compiles an expression.
    ///
    /// # Errors
    ///
    /// It is none, or too large, as a part of a sentence.
    pub fn new(text: &str) -> Result<Self, String> {
        // By itself first: brackets must not be closed by those around it.
        let compile = |text: &str| RegexBuilder::new(text).size_limit(MAX_PATTERN).build();
        let compiled = compile(text).and_then(|_| compile(&format!("^(?:{text})")));
        let compiled = compiled.map_err(|fault| {
            let fault = fault.to_string();
            let last = fault.lines().last().unwrap_or_default().trim();
            last.trim_start_matches("error: ").to_owned()
        })?;
        Ok(Self {
            text: text.to_owned(),
            compiled,
        })
    }

    /// Whether an id is of this form.
    pub fn is_match(&self, id: &str) -> bool {
        self.compiled.is_match(id)
    }
}

impl fmt::Debug for IdPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text.fmt(f)
    }
}

impl PartialEq for IdPattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for IdPattern {}

/// A file as it is written. All may be missing, so that all that is can be told at once; what is not known here
/// is left to others.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Written {
    id: Option<String>,
    #[serde(deserialize_with = "even_null")]
    url: Option<Option<String>>,
    as_token: Option<String>,
    hs_token: Option<String>,
    sender_localpart: Option<String>,
    namespaces: Option<WrittenNamespaces>,
    rate_limited: Option<bool>,
    protocols: Option<Vec<String>>,
    receive_ephemeral: Option<bool>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct WrittenNamespaces {
    users: Option<Vec<WrittenNamespace>>,
    aliases: Option<Vec<WrittenNamespace>>,
    rooms: Option<Vec<WrittenNamespace>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct WrittenNamespace {
    exclusive: Option<bool>,
    regex: Option<String>,
}

/// Tells `null` from nothing.
fn even_null<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(from).map(Some)
}

impl RegistrationFile {
    /// Reads the file at a path.
    ///
    /// # Errors
    ///
    /// It cannot be read, or all that is wrong with it, as a part of a sentence. It never holds what stands in
    /// the file, which may be a secret.
    pub fn read(path: PathBuf) -> Result<Self, String> {
        let text = fs::read_to_string(&path)
            .map_err(|fault| format!("{} cannot be read: {fault}", path.display()))?;
        Self::from_yaml(path, &text)
    }

    /// Reads the text of a file.
    ///
    /// # Errors
    ///
    /// As [`RegistrationFile::read`].
    pub fn from_yaml(path: PathBuf, text: &str) -> Result<Self, String> {
        if text.len() > MAX_FILE {
            return Err(format!("{} has more than {MAX_FILE} bytes", path.display()));
        }
        // Without a picture of the place: it may show a token.
        let options = serde_saphyr::options! { with_snippet: false };
        let written: Written = serde_saphyr::from_str_with_options(text, options)
            .map_err(|fault| unreadable(&path, fault.location()))?;
        let mut faults = Vec::new();
        let service = written.checked(&mut faults);
        match service {
            Some(service) if faults.is_empty() => Ok(Self { path, service }),
            _ => Err(format!("{}: {}", path.display(), faults.join("; "))),
        }
    }
}

fn unreadable(path: &std::path::Path, at: Option<serde_saphyr::Location>) -> String {
    let place = at.map_or_else(String::new, |at| {
        format!(" (line {}, column {})", at.line(), at.column())
    });
    format!(
        "{} is no registration of an application service: it is no YAML, or a value is of another kind than it \
         should be{place}",
        path.display()
    )
}

impl Written {
    /// What the file says; what is wrong with it goes to `faults`. `None` if something is missing.
    fn checked(self, faults: &mut Vec<String>) -> Option<ApplicationService> {
        let mut required = |name: &str, value: Option<String>| {
            let found = value.filter(|value| !value.is_empty());
            if found.is_none() {
                faults.push(format!("`{name}` is missing or empty"));
            }
            found
        };
        let id = required("id", self.id);
        let as_token = required("as_token", self.as_token);
        let hs_token = required("hs_token", self.hs_token);
        let sender_localpart = required("sender_localpart", self.sender_localpart);
        for (name, token) in [("as_token", &as_token), ("hs_token", &hs_token)] {
            let token = token.as_deref().unwrap_or_default();
            if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
                faults.push(format!(
                    "`{name}` has letters that no HTTP header can hold: use those of ASCII, and no spaces"
                ));
            }
        }
        let allowed = |byte: u8| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._=-/+".contains(&byte)
        };
        if !sender_localpart
            .as_deref()
            .unwrap_or_default()
            .bytes()
            .all(allowed)
        {
            faults.push("`sender_localpart` is made of a-z, 0-9 and . _ = - / + only".to_owned());
        }
        let url = self.url.unwrap_or_else(|| {
            faults.push(
                "`url` is missing; `url: null` is for services that are not asked".to_owned(),
            );
            None
        });
        let url = url
            .filter(|url| !url.is_empty())
            .and_then(|url| url_of(&url, faults));
        let namespaces = self.namespaces.unwrap_or_else(|| {
            faults.push("`namespaces` is missing".to_owned());
            WrittenNamespaces::default()
        });
        Some(ApplicationService {
            users: namespaces_of("users", namespaces.users, faults),
            aliases: namespaces_of("aliases", namespaces.aliases, faults),
            rooms: namespaces_of("rooms", namespaces.rooms, faults),
            id: id?,
            url,
            as_token: Secret::new(as_token?),
            hs_token: Secret::new(hs_token?),
            sender_localpart: sender_localpart?,
            rate_limited: self.rate_limited.unwrap_or(true),
            protocols: self.protocols.unwrap_or_default(),
            receive_ephemeral: self.receive_ephemeral.unwrap_or_default(),
        })
    }
}

/// A URL that a path can be put behind.
fn url_of(text: &str, faults: &mut Vec<String>) -> Option<Uri> {
    let url = text
        .trim_end_matches('/')
        .parse::<Uri>()
        .ok()
        .filter(|url| {
            let scheme = url.scheme();
            let web = scheme == Some(&Scheme::HTTP) || scheme == Some(&Scheme::HTTPS);
            web && url.host().is_some_and(|host| !host.is_empty()) && url.query().is_none()
        });
    if url.is_none() {
        faults.push(
            "`url` must be like http://127.0.0.1:9000 or https://bridge.example/path".to_owned(),
        );
    }
    url
}

fn namespaces_of(
    kind: &str,
    written: Option<Vec<WrittenNamespace>>,
    faults: &mut Vec<String>,
) -> Vec<Namespace> {
    let mut namespaces = Vec::new();
    for (at, written) in written.unwrap_or_default().into_iter().enumerate() {
        let name = format!("namespaces.{kind}[{at}]");
        let Some(exclusive) = written.exclusive else {
            faults.push(format!("`{name}.exclusive` is missing"));
            continue;
        };
        let Some(regex) = written.regex else {
            faults.push(format!("`{name}.regex` is missing"));
            continue;
        };
        match IdPattern::new(&regex) {
            Ok(pattern) => namespaces.push(Namespace { exclusive, pattern }),
            Err(why) => faults.push(format!(
                "`{name}.regex` {} is no regular expression: {why}",
                quoted(&regex)
            )),
        }
    }
    namespaces
}

impl Kind for RegistrationFile {
    const KIND: &'static str = "the path of a file that registers an application service";

    fn read(value: &Value) -> Result<Self, String> {
        Self::read(PathBuf::read(value)?)
    }

    fn write(&self) -> String {
        self.path.write()
    }
}

/// Services are told apart by their ids and tokens.
pub(crate) fn check(settings: &ApplicationServices, problems: &mut Vec<Problem>) {
    let files = settings.registrations.as_slice();
    for (at, file) in files.iter().enumerate() {
        for other in files.iter().take(at) {
            let (a, b) = (&other.service, &file.service);
            for (name, same) in [("id", a.id == b.id), ("as_token", a.as_token == b.as_token)] {
                if same {
                    problems.push(Problem::new(format!(
                        "application_services.registrations: {} and {} have the same `{name}`",
                        other.path.display(),
                        file.path.display()
                    )));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use super::*;

    const EXAMPLE: &str = r##"
id: "IRC Bridge"
url: "http://127.0.0.1:1234"
as_token: "30c05ae90a248a4188e620216fa72e349803310ec83e2a77b34fe90be6081f46"
hs_token: "312df522183efd404ec1cd22d2ffa4bbc76a8c1ccf541dd692eef281356bb74e"
sender_localpart: "_irc_bot" # Will result in @_irc_bot:example.org
namespaces:
  users:
    - exclusive: true
      regex: "@_irc_bridge_.*"
  aliases:
    - exclusive: false
      regex: "#_irc_bridge_.*"
  rooms: []
"##;

    fn read(text: &str) -> Result<ApplicationService, String> {
        RegistrationFile::from_yaml("a.yaml".into(), text).map(|file| file.service)
    }

    #[test]
    fn the_example_of_the_specification_is_read() {
        let service = read(EXAMPLE).unwrap();
        assert_eq!(service.id, "IRC Bridge");
        assert_eq!(service.url.unwrap().to_string(), "http://127.0.0.1:1234/");
        assert!(service.as_token.reveal().starts_with("30c05ae9"));
        assert!(service.hs_token.reveal().starts_with("312df522"));
        assert_eq!(service.sender_localpart, "_irc_bot");
        assert!(service.users[0].exclusive && !service.aliases[0].exclusive);
        assert!(service.rooms.is_empty() && service.protocols.is_empty());
        assert!(service.rate_limited && !service.receive_ephemeral);
        assert!(
            service.users[0]
                .pattern
                .is_match("@_irc_bridge_anna:example.org")
        );
        assert!(!service.users[0].pattern.is_match("@x:@_irc_bridge_anna"));
    }

    #[test]
    fn what_others_write_beside_it_does_no_harm() {
        let text = EXAMPLE.replace("\"http://127.0.0.1:1234\"", "null");
        let more = "rate_limited: false\nreceive_ephemeral: true\nprotocols: [irc]\n\
                    de.sorunome.msc2409.push_ephemeral: true\norg.matrix.msc3202: { a: [1] }\n";
        let service = read(&format!("{text}{more}")).unwrap();
        assert_eq!(service.url, None);
        assert!(!service.rate_limited && service.receive_ephemeral);
        assert_eq!(service.protocols, ["irc"]);
        // As it is written by hand: without quotes, and with what looks like a number.
        let bare = "id: 7\nurl: ''\nas_token: 12345\nhs_token: 1e5\nsender_localpart: bot\n\
                    namespaces: {users: [{exclusive: false, regex: .*, group_id: '+x:y'}], rooms: null}\n";
        let service = read(bare).unwrap();
        assert_eq!((service.id.as_str(), service.url), ("7", None));
        assert_eq!(service.as_token.reveal(), "12345");
        assert_eq!(service.hs_token.reveal(), "1e5");
        assert!(service.users[0].pattern.is_match("@anybody:example.org"));
    }

    #[test]
    fn all_that_is_wrong_is_told_at_once() {
        let why = read("rate_limited: true").unwrap_err();
        for name in [
            "id",
            "url",
            "as_token",
            "hs_token",
            "sender_localpart",
            "namespaces",
        ] {
            assert!(
                why.contains(&format!("`{name}` is missing")),
                "{name}: {why}"
            );
        }
        for (from, to, told) in [
            ("_irc_bot", "Irc Bot", "`sender_localpart` is made of"),
            ("30c05ae9", "3 0", "`as_token` has letters"),
            ("312df522", "ä", "`hs_token` has letters"),
            (
                "http://127.0.0.1:1234",
                "ftp://a.example",
                "`url` must be like",
            ),
            (
                "http://127.0.0.1:1234",
                "localhost:1234",
                "`url` must be like",
            ),
            (
                "@_irc_bridge_.*",
                "@_irc_(.*",
                "`namespaces.users[0].regex` \"@_irc_(.*\" is no regular",
            ),
            ("@_irc_bridge_.*", "a)|(b", "is no regular expression"),
            ("#_irc_bridge_.*", "(?!x)", "`namespaces.aliases[0].regex`"),
            (
                "#_irc_bridge_.*",
                "(a{1000}){1000}",
                "`namespaces.aliases[0].regex`",
            ),
            (
                "exclusive: true\n",
                "\n",
                "`namespaces.users[0].exclusive` is missing",
            ),
        ] {
            let text = EXAMPLE.replace(from, to);
            assert_ne!(text, EXAMPLE);
            let why = read(&text).unwrap_err();
            assert!(why.contains(told), "{to}: {why}");
        }
    }

    #[test]
    fn what_is_no_registration_is_told_without_what_it_holds() {
        for text in [
            "",
            "secret-secret",
            "- secret-secret",
            "id: [secret-secret]",
            "as_token: &a [secret-secret, *a]",
            "as_token: {secret-secret: secret-secret}",
            "rate_limited: secret-secret",
            "namespaces: secret-secret",
            "as_token: secret-secret\nas_token: secret-secret",
            "as_token: \"secret-secret",
            "a: *secret-secret",
        ] {
            let why = read(text).unwrap_err();
            assert!(!why.contains("secret-secret"), "{text}: {why}");
            assert!(why.starts_with("a.yaml"), "{text}: {why}");
        }
        let service = read(EXAMPLE).unwrap();
        let shown = format!("{service:?}");
        assert!(
            !shown.contains("30c05ae9") && !shown.contains("312df522"),
            "{shown}"
        );
    }
}
