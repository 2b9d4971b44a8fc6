//! What an operator can set.
//!
//! Each setting is declared once, in the file of its section: documentation, name, type, default
//! (`section!` in `declare.rs`). From that one place come the field that the other crates read, the
//! reader that knows every key and names the nearest one to an unknown key, and the commented
//! example that `chapar config` prints, so none of them can be out of date.
//!
//! Settings come in layers, the later one wins: defaults, a TOML file, environment variables
//! (`CHAPAR_<SECTION>__<NAME>`), the command line. See [`Sources`].

#[macro_use]
mod declare;
mod application_services;
mod delayed_events;
mod directory;
mod example;
mod federation;
mod kinds;
mod limits;
mod listeners;
mod log;
mod logins;
mod media;
mod nearest;
mod node;
mod passwords;
mod policy_server;
mod presence;
mod problem;
mod proxies;
mod rate;
mod rate_limits;
mod registration;
mod server;
mod server_notices;
mod server_rule;
mod sources;
mod storage;
mod support;
#[cfg(test)]
mod tests;

pub use self::{
    application_services::{
        ApplicationService, ApplicationServices, IdPattern, Namespace, RegistrationFile,
    },
    delayed_events::DelayedEvents,
    directory::Directory,
    federation::{Federation, HostPort, ServerAddress},
    kinds::{ByteCount, Secret},
    limits::Limits,
    listeners::{Address, Api, Listener},
    log::{Log, LogFormat},
    logins::{JwtAlgorithm, Logins},
    media::Media,
    passwords::Passwords,
    policy_server::{Pattern, PolicyServer},
    presence::Presence,
    problem::{Problem, Problems},
    proxies::Proxy,
    rate::{NoRate, Rate},
    rate_limits::RateLimits,
    registration::Registration,
    server::Server,
    server_notices::ServerNotices,
    server_rule::{Class, Direction, NoServerRule, ServerRule},
    sources::Sources,
    storage::Storage,
    support::Support,
};
use self::{
    node::{Node, Value},
    problem::Reader,
};

/// Names the sections, in the order of the example: field and key, type, and `list` where the
/// section may stand several times.
macro_rules! sections {
    ($($(#[doc = $doc:literal])* $field:ident: $type:ty $(, $list:ident)?;)*) => {
        /// Every setting of a server. All fields have been checked, by themselves and against each
        /// other.
        #[derive(Clone, Debug, PartialEq)]
        pub struct Config {
            $($(#[doc = $doc])* pub $field: sections!(@type $type $(, $list)?),)*
        }

        impl Config {
            /// Key, whether it is a list, and declarations of each section.
            fn sections() -> Vec<declare::Declaration> {
                vec![$(declare::Declaration::of::<$type>(
                    stringify!($field),
                    sections!(@list $($list)?),
                ),)*]
            }

            /// Reads all sections of `root`; what is wrong goes to the reader's problems.
            fn read(root: &Node, reader: &mut Reader) -> Self {
                let empty = Default::default();
                let root = match &root.value {
                    Value::Table(entries) => entries,
                    _ => &empty,
                };
                Self {
                    $($field: sections!(@read reader, root, stringify!($field), $type $(, $list)?),)*
                }
            }
        }

        impl Default for Config {
            fn default() -> Self {
                Self { $($field: sections!(@default $type $(, $list)?),)* }
            }
        }
    };
    (@type $type:ty) => { $type };
    (@type $type:ty, list) => { Vec<$type> };
    (@list) => { false };
    (@list list) => { true };
    (@read $reader:ident, $root:ident, $key:expr, $type:ty) => { $reader.section::<$type>($root, $key) };
    (@read $reader:ident, $root:ident, $key:expr, $type:ty, list) => { $reader.list::<$type>($root, $key) };
    (@default $type:ty) => { <$type>::default() };
    (@default $type:ty, list) => { vec![<$type>::default()] };
}

sections! {
    /// Who this server is.
    server: Server;
    /// Whom people turn to.
    support: Support;
    /// Where it listens.
    listeners: Listener, list;
    /// Where and how it stores.
    storage: Storage;
    /// Who may make an account.
    registration: Registration;
    /// How passwords are kept.
    passwords: Passwords;
    /// How people log in, besides by password.
    logins: Logins;
    /// How much of something is too much.
    limits: Limits;
    /// How often something may be done.
    rate_limits: RateLimits;
    /// Files that people upload.
    media: Media;
    /// The directory of published rooms.
    directory: Directory;
    /// Events that are to be sent later.
    delayed_events: DelayedEvents;
    /// Who is online.
    presence: Presence;
    /// What this server has to say to people.
    server_notices: ServerNotices;
    /// Bridges and bots, which act for many people.
    application_services: ApplicationServices;
    /// Other servers.
    federation: Federation;
    /// This server as one that rooms ask what to let through.
    policy_server: PolicyServer;
    /// What is written to the log.
    log: Log;
}

impl Config {
    /// Reads all layers of `sources` and checks the result.
    ///
    /// # Errors
    ///
    /// Everything that is wrong, at once: an unreadable file, unknown keys, wrong values, settings
    /// that contradict each other.
    pub fn load(sources: &Sources) -> Result<Self, Problems> {
        let mut reader = Reader::default();
        let root = sources.layers(&mut reader);
        let config = Self::read(&root, &mut reader);
        reader.unknown_keys(&root, &Self::sections());
        reader.finish()?;
        config.check()?;
        Ok(config)
    }

    /// Reads the text of a file, without environment and command line.
    ///
    /// # Errors
    ///
    /// As [`Config::load`].
    pub fn from_toml(text: &str) -> Result<Self, Problems> {
        Self::load(&Sources::default().text("<text>", text))
    }

    /// The commented example: every setting with its documentation and its default, commented out.
    pub fn example() -> String {
        example::write(&Self::sections())
    }

    /// What one setting alone cannot know.
    fn check(&self) -> Result<(), Problems> {
        let mut problems = Vec::new();
        server::check(&self.server, &mut problems);
        listeners::check(&self.listeners, &mut problems);
        storage::check(&self.storage, &mut problems);
        limits::check(&self.limits, &mut problems);
        passwords::check(&self.passwords, &mut problems);
        logins::check(&self.logins, &mut problems);
        media::check(&self.media, &mut problems);
        support::check(self, &mut problems);
        server_notices::check(&self.server_notices, &mut problems);
        application_services::check(&self.application_services, &mut problems);
        federation::check(&self.federation, &mut problems);
        policy_server::check(&self.policy_server, &mut problems);
        Problems::unless_empty(problems)
    }
}
