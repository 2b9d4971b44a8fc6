//! Section `registration`.

use crate::kinds::Secret;

section! {
    /// Who may make an account.
    pub struct Registration {
        /// Whether people may make accounts for themselves. While it is closed, accounts come from
        /// `chapar user create`, and the first one from the token that the first start prints.
        enabled: bool = false,

        /// Whether making an account takes a registration token. Without, anybody may make as many
        /// as they like: wise on a closed network only.
        require_token: bool = true,

        /// Whether people may look around as guests, with an account that has no password.
        guests: bool = false,

        /// How many accounts there may be that are not closed; those that the operator makes count, and are
        /// not refused. Whoever is refused is told to turn to `support`. 0: any number.
        max_users: u32 = 0,

        /// Whoever knows this may make accounts, of administrators too, as with Synapse's
        /// `register_new_matrix_user`. Empty: nobody.
        shared_secret: Option<Secret> = None,
    }
}

impl Registration {
    /// What somebody is told who may not make an account: also how the operator opens it.
    pub const CLOSED: &'static str = "Registration is closed on this server. Its operator can make \
        an account with `chapar user create`, or open registration with `enabled = true` in \
        section `registration` of the configuration.";
}
