//! What an operator asks of a server on the machine itself.
//!
//! The command line speaks to the running server through a Unix socket in the data folder
//! ([`Socket`], [`ask`]). With none running it opens the folder and does the same work with the same
//! code. Who can reach the socket may do everything: its mode lets in nobody but the server's own
//! user (and root).

mod perform;
mod socket;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

pub use rooms::{Explained, Named};
use serde::{Deserialize, Serialize};

pub use self::{
    perform::perform,
    socket::{Refused, Socket, ask},
};

/// What can be asked. One JSON object on a line.
#[derive(Clone, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case")]
pub enum Command {
    /// Makes an account.
    CreateUser {
        /// What stands before the colon of the user ID.
        localpart: String,
        /// Its password.
        password: String,
        /// Whether it may administer the server.
        admin: bool,
    },
    /// Gives an account another password, and ends its sessions.
    ResetPassword {
        /// Whose: a user ID, or what stands before its colon.
        user: String,
        /// The new password.
        password: String,
    },
    /// Lets an account administer the server.
    MakeAdmin {
        /// Who: a user ID, or what stands before its colon.
        user: String,
    },
    /// Closes an account for ever.
    Deactivate {
        /// Whose: a user ID, or what stands before its colon.
        user: String,
    },
    /// Says how often a user may do things.
    LimitUser {
        /// Who: a user ID, or what stands before its colon.
        user: String,
        /// `default`, `none`, or how often they may send messages, as in the settings.
        limits: String,
    },
    /// Locks an account, or opens it again.
    SetLocked {
        /// Which: a user ID, or what stands before its colon.
        user: String,
        /// Whether it is to be locked.
        locked: bool,
    },
    /// Suspends an account, or ends that.
    SetSuspended {
        /// Which: a user ID, or what stands before its colon.
        user: String,
        /// Whether it is to be suspended.
        suspended: bool,
    },
    /// Some of the accounts, in no particular order.
    ListUsers {
        /// Where the last answer ended.
        from: Option<String>,
    },
    /// Makes a new key that signs from now on; the one before is published as an old one.
    RotateSigningKey,
    /// Says anew which servers this one has to do with.
    SetFederationPolicy {
        /// Whether with any.
        enabled: bool,
        /// With whom, as in the settings.
        allow: Vec<String>,
        /// With whom not, as in the settings.
        deny: Vec<String>,
    },
    /// Explains the state of its room at an event.
    ExplainState {
        /// The id of the event.
        event_id: String,
        /// Only state of this type; without it everything but members.
        event_type: Option<String>,
    },
    /// Makes a backup of everything, while the server runs.
    Backup {
        /// Into this folder, which is not there yet. Absolute: the server may have been started
        /// elsewhere.
        folder: PathBuf,
    },
}

/// What is answered. One JSON object on a line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// It is done, to this account.
    User(String),
    /// Accounts.
    Users {
        /// Some of them.
        users: Vec<Account>,
        /// Where to go on, if these are not the last.
        next: Option<String>,
    },
    /// It is done, and this is the id of the key that signs now.
    SigningKey(String),
    /// A room's state at an event, and where it comes from.
    State(Box<Explained>),
    /// It is done.
    Done {},
    /// It was not done.
    Refused(String),
}

/// An account, as the list shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// The whole user ID.
    pub user_id: String,
    /// When it was made, in milliseconds since 1970 began.
    pub created_ts: u64,
    /// Whether it may administer the server.
    pub admin: bool,
    /// Whether it was closed.
    pub deactivated: bool,
    /// Whether nobody can use it for now.
    pub locked: bool,
    /// Whether it may read and leave only.
    pub suspended: bool,
}
