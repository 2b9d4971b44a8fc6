//! Section `server_notices`.

use crate::problem::Problem;

section! {
    /// What this server has to say to people, in a room with each of them. Administrators send it, as with
    /// Synapse: `POST /_synapse/admin/v1/send_server_notice`.
    pub struct ServerNotices {
        /// Who says it: what stands before the colon of a user ID, which nobody else may have. Empty: nobody.
        user: String = String::new(),

        /// What they are called.
        display_name: String = "Server notices".to_owned(),

        /// What the rooms are called.
        room_name: String = "Server notices".to_owned(),
    }
}

/// The name can be one of a user.
pub(crate) fn check(notices: &ServerNotices, problems: &mut Vec<Problem>) {
    let allowed =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._=-/+".contains(&byte);
    if !notices.user.bytes().all(allowed) {
        problems.push(Problem::new(format!(
            "server_notices.user is made of a-z, 0-9 and . _ = - / + only, found {:?}",
            notices.user
        )));
    }
}
