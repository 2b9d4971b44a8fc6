//! Section `support`.

use ruma::OwnedUserId;

use crate::{Config, problem::Problem};

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

impl Support {
    /// A URI for those who reached a limit.
    pub fn uri(&self) -> Option<String> {
        let matrix = self.matrix_id.as_ref();
        let matrix = matrix.map(|user| user.matrix_uri(false).to_string());
        match (self.page.as_str(), self.email.as_str()) {
            ("", "") => matrix,
            ("", email) => Some(format!("mailto:{email}")),
            (page, _) => Some(page.to_owned()),
        }
    }
}

/// Who may be refused must have somebody to turn to.
pub(crate) fn check(config: &Config, problems: &mut Vec<Problem>) {
    let limits = [
        ("registration.max_users", config.registration.max_users),
        ("limits.max_rooms_of_user", config.limits.max_rooms_of_user),
    ];
    for (setting, limit) in limits {
        if limit > 0 && config.support.uri().is_none() {
            problems.push(Problem::new(format!(
                "{setting} needs a support.page, support.email or support.matrix_id to which those turn who \
                 are refused"
            )));
        }
    }
}
