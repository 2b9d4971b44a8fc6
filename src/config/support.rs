//! Section `support`.

use ruma::OwnedUserId;

section! {
    /// Whom people turn to, at `/.well-known/matrix/support`.
    pub struct Support {
        /// The address of mail of who runs this server.
        email: String = String::new(),

        /// Their user ID.
        matrix_id: Option<OwnedUserId> = None,

        /// The address of a page with help.
        page: String = String::new(),
    }
}
