//! Section `server`.

use std::time::Duration;

use ruma::{OwnedServerName, RoomVersionId};

section! {
    /// Who this server is.
    pub struct Server {
        /// The name that stands behind the colon of every user ID. It is stored at the first start
        /// and cannot be changed afterwards. Empty: the stored one; at a first start "localhost".
        name: Option<OwnedServerName> = None,

        /// The version that rooms get where a client asks for none.
        default_room_version: RoomVersionId = RoomVersionId::V12,

        /// How long requests may take to finish once the server was told to stop.
        shutdown_grace: Duration = Duration::from_secs(10),
    }
}
