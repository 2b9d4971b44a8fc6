//! The tables of users.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{NameHash, Position, ShortRoomId, ShortUserId, Stamped, table::tables, value::records};

tables! { USER_TABLES:
    /// The local user that an id names.
    80 USER_BY_NAME Point: NameHash => ShortUserId;
    /// A local user's account.
    81 ACCOUNT_BY_USER Range: ShortUserId => AccountRow;
    /// A user's devices.
    82 DEVICE_BY_USER Range: (ShortUserId, NameHash) => DeviceRow;
    /// Whose an access token is, by the token's SHA-256.
    83 DEVICE_BY_TOKEN Point: [u8; 32] => TokenRow;
    /// The access and refresh tokens of a device (user, device, SHA-256).
    84 TOKEN_BY_DEVICE Range: (ShortUserId, NameHash, [u8; 32]) => TokenKind;
    /// A user's profile, a row a field.
    85 PROFILE_FIELD_BY_USER Range: (ShortUserId, NameHash) => ProfileFieldRow;
    /// A user's account data (room, type), global under no room.
    86 ACCOUNT_DATA_BY_USER Range: (ShortUserId, ShortRoomId, NameHash) => Stamped<AccountDataRow>;
    /// What changed for a user, in the order in which it did; rows about things since changed again are skipped by readers.
    87 CHANGE_BY_USER_POSITION Log: (ShortUserId, Position) => UserChange;
    /// When something last changed for a user.
    88 TAIL_BY_USER Hot: ShortUserId => Stamped<()>;
    /// A user's filters, by the hash of their content, as JSON.
    89 FILTER_BY_USER Point: (ShortUserId, NameHash) => String;
    /// When and from where a device was last seen.
    90 SEEN_BY_DEVICE Hot: (ShortUserId, NameHash) => SeenRow;
    /// What a refresh token is good for, by the token's SHA-256.
    91 REFRESH_BY_TOKEN Point: [u8; 32] => RefreshRow;
    /// A user's pushers, by the hash of app id and push key.
    92 PUSHER_BY_USER Range: (ShortUserId, NameHash) => PusherRow;
    /// The users whose pushers have an app id and push key (hash).
    93 USER_BY_PUSHER Range: (NameHash, ShortUserId) => ();
    /// People who closed their account and wanted what they said to be erased, by the hash of their id.
    94 ERASED_BY_NAME Point: NameHash => ();
}

/// A local user's account.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountRow {
    /// The whole user id.
    pub user_id: String,
    /// The argon2id hash of the password, in PHC form; none if no password opens the account.
    pub password_hash: Option<String>,
    /// When it was made, in milliseconds since 1970.
    pub created_ts: u64,
    /// May administer the server.
    pub admin: bool,
    /// A guest.
    pub guest: bool,
    /// Closed for ever.
    pub deactivated: bool,
    /// Closed for ever, and what was sent is to be forgotten as far as it can.
    pub erased: bool,
    /// Closed until an administrator opens it again; devices and tokens stay.
    pub locked: bool,
    /// May read and leave, not send or join.
    pub suspended: bool,
}

/// Without the hash of the password.
impl fmt::Debug for AccountRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccountRow")
            .field("user_id", &self.user_id)
            .field("has_password", &self.password_hash.is_some())
            .field("created_ts", &self.created_ts)
            .field("admin", &self.admin)
            .field("guest", &self.guest)
            .field("deactivated", &self.deactivated)
            .field("erased", &self.erased)
            .field("locked", &self.locked)
            .field("suspended", &self.suspended)
            .finish()
    }
}

/// A device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRow {
    /// Its id.
    pub device_id: String,
    /// What its user calls it.
    pub display_name: Option<String>,
    /// When it was made, in milliseconds since 1970.
    pub created_ts: u64,
    /// Raised whenever it gets a token, so that who ends its tokens knows of all of them.
    pub logins: u32,
}

/// When and from where a device was last seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenRow {
    /// When, in milliseconds since 1970.
    pub ts: u64,
    /// From which address.
    pub ip: Option<String>,
    /// With which `User-Agent`.
    pub user_agent: Option<String>,
}

/// An access token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRow {
    /// Whose.
    pub user: ShortUserId,
    /// The device it belongs to.
    pub device_id: String,
    /// When it ends, in milliseconds since 1970.
    pub expires_ts: Option<u64>,
    /// The SHA-256 of the refresh token it was got with, which ends, with its access token, when this
    /// one is used first.
    pub ends_refresh: Option<[u8; 32]>,
}

/// What a token is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TokenKind {
    /// An access token, in [`DEVICE_BY_TOKEN`].
    Access,
    /// A refresh token, in [`REFRESH_BY_TOKEN`].
    Refresh,
}

/// A refresh token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefreshRow {
    /// Whose.
    pub user: ShortUserId,
    /// The device it belongs to.
    pub device_id: String,
    /// When it ends, in milliseconds since 1970.
    pub expires_ts: Option<u64>,
    /// The SHA-256 of the access token that was given out with it.
    pub access: [u8; 32],
    /// The SHA-256 of the refresh token it was got with, which ends when this one is used first.
    pub ends_refresh: Option<[u8; 32]>,
    /// The pair that this one was last turned into and that was not used yet: SHA-256 of access and
    /// refresh token. The next use of this one ends that pair.
    pub next: Option<([u8; 32], [u8; 32])>,
}

/// A pusher.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PusherRow {
    /// The device that set it, with which it ends.
    pub device_id: String,
    /// The pusher, as JSON in the specification's form.
    pub json: String,
    /// When it was set, in milliseconds since 1970.
    pub set_ts: u64,
}

/// A field of a profile.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProfileFieldRow {
    /// The field's name.
    pub field: String,
    /// Its value, as JSON.
    pub json: String,
}

/// Account data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountDataRow {
    /// Its type.
    pub event_type: String,
    /// Its content, as JSON.
    pub json: String,
}

/// Something that changed for a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum UserChange {
    /// Their membership of a room, or that they forgot it.
    Room(ShortRoomId),
    /// Account data (room or none, type).
    AccountData(ShortRoomId, NameHash),
    /// Their private receipts or the read marker in a room, so their unread counts.
    Read(ShortRoomId),
    /// Their devices, or the keys of these.
    DeviceList,
    /// Their signatures of another user's master key (hash of the user's id).
    Signatures(NameHash),
}

records!(
    AccountRow,
    DeviceRow,
    SeenRow,
    TokenRow,
    TokenKind,
    RefreshRow,
    PusherRow,
    ProfileFieldRow,
    AccountDataRow,
    UserChange,
);
