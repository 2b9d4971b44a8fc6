//! The tables of what is known of other servers.

use serde::{Deserialize, Serialize};

use super::SigningKeyRow;
use crate::{NameHash, Raw, table::tables, value::records};

tables! { FEDERATION_TABLES:
    /// The keys with which another server signs or signed (server, key id). Federation writes them.
    170 REMOTE_KEY_BY_SERVER Range: (NameHash, NameHash) => RemoteKeyRow;
    /// What another server last said of its keys, as JSON, for who asks us about them. Federation writes it.
    171 KEYS_ANSWER_BY_SERVER Point: NameHash => Raw;
    /// Servers that did not answer and are left alone for a while. Federation writes them.
    172 BACK_OFF_BY_SERVER Range: NameHash => BackOffRow;
    /// The keys with which this server signs as a policy server, the last one now. Federation writes them.
    220 POLICY_KEY_BY_NUMBER Range: u32 => SigningKeyRow;
}

/// A key of another server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteKeyRow {
    /// `ed25519:…`
    pub key_id: String,
    /// The 32 bytes of the public key.
    pub key: [u8; 32],
    /// Until when it may be used, in milliseconds since 1970.
    pub valid_until_ts: u64,
    /// Whether the server signs with it no more: what is not an event cannot be signed with it.
    pub expired: bool,
    /// Whether the server itself said so, and not another one of it.
    pub direct: bool,
    /// Until when the server wanted what it said to be believed, in milliseconds since 1970: the later, the
    /// newer.
    pub said_ts: u64,
}

/// A server that did not answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackOffRow {
    /// Its name.
    pub server: String,
    /// How often in a row it did not answer.
    pub failures: u32,
    /// When it last did not, in milliseconds since 1970.
    pub failed_ts: u64,
    /// Until when it is left alone, in milliseconds since 1970.
    pub until_ts: u64,
}

records!(RemoteKeyRow, BackOffRow);
