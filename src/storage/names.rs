//! The keyed hashes under which keys hold names: one function a kind, so that no two parts of the
//! server spell a kind differently.

use crate::{NameHash, Storage};

macro_rules! names {
    ($($(#[$doc:meta])* $function:ident: $kind:literal;)*) => {
        impl Storage {
            $($(#[$doc])*
            pub fn $function(&self, name: &(impl AsRef<str> + ?Sized)) -> NameHash {
                self.hash($kind, name.as_ref())
            })*
        }
    };
}

names! {
    /// Of a whole user id, local or remote.
    user_hash: "user";
    /// Of a device id; keys that hold it hold its user too.
    device_hash: "device";
    /// Of an event id.
    event_hash: "event";
    /// Of a room id.
    room_hash: "room";
    /// Of a room alias.
    alias_hash: "alias";
    /// Of a server name.
    server_hash: "server";
    /// Of a state key.
    state_key_hash: "state key";
    /// Of a type: of account data, for instance.
    type_hash: "type";
    /// Of a thread: the root's event id, or `main`.
    thread_hash: "thread";
    /// Of a field of a profile.
    field_hash: "field";
    /// Of a filter's canonical content.
    filter_hash: "filter";
    /// Of a registration token.
    registration_token_hash: "registration token";
    /// Of a pusher: app id, a zero byte, push key.
    pusher_hash: "pusher";
    /// Of the algorithm of a one-time key.
    algorithm_hash: "algorithm";
    /// Of a one-time key: its id, a zero byte, its public part.
    one_time_key_hash: "one-time key";
    /// Of a key that signs: `ed25519:…`.
    key_hash: "key";
    /// Of the id of a session that encrypts a room's messages.
    session_hash: "session";
    /// Of a follower of the stream.
    follower_hash: "follower";
}

impl Storage {
    /// Of a device of a user, whole user id and device id.
    pub fn user_device_hash(&self, user: &str, device: &str) -> NameHash {
        self.hash("user and device", [user, "\0", device].concat())
    }

    /// Of a file, server name and media id.
    pub fn media_hash(&self, server_name: &str, media_id: &str) -> NameHash {
        self.hash("media", [server_name, "/", media_id].concat())
    }
}
