//! Section `rate_limits`.

use crate::rate::Rate;

section! {
    /// How often something may be done. "10, then 12/min" is ten at once, and whenever none is left one
    /// more each five seconds. Whoever asks too often is told how long to wait. Each setting counts people,
    /// where it is known who asks, and else addresses: those of one IPv6 network of 64 bits as one.
    /// `chapar user rate-limit` sets other limits for one person.
    pub struct RateLimits {
        /// Whether there are any.
        enabled: bool = true,

        /// Sending events, changing one's profile (Synapse's `rc_message`).
        message: Option<Rate> = Rate::per_minute(10, 12),

        /// Making an account, which takes two or three requests each (`rc_registration`).
        registration: Option<Rate> = Rate::per_minute(15, 30),

        /// Asking whether a registration token is good (`rc_registration_token_validity`).
        registration_token_validity: Option<Rate> = Rate::per_minute(5, 6),

        /// Logging in (`rc_login.address`, with more patience: many people may share an address).
        login: Option<Rate> = Rate::per_minute(30, 10),

        /// Wrong passwords for one account, wherever they come from (`rc_login.failed_attempts`).
        failed_logins_of_account: Option<Rate> = Rate::per_minute(10, 2),

        /// Wrong passwords from one address, at whatever accounts.
        failed_logins_from_address: Option<Rate> = Rate::per_minute(100, 2),

        /// Joining rooms, or asking to be let in (`rc_joins.local`).
        join: Option<Rate> = Rate::per_minute(10, 6),

        /// Joins of one room, by whomever (`rc_joins_per_room`).
        joins_of_room: Option<Rate> = Rate::per_second(10, 1),

        /// Inviting (`rc_invites.per_issuer`). Inviting several at once, while making a room, is possible as
        /// long as none of these is used up.
        invite: Option<Rate> = Rate::per_minute(10, 18),

        /// Invites to one room, by whomever (`rc_invites.per_room`).
        invites_to_room: Option<Rate> = Rate::per_minute(10, 18),

        /// Invites of one person, by whomever (`rc_invites.per_user`).
        invites_of_user: Option<Rate> = Rate::per_hour(5, 10),

        /// Making and upgrading rooms (`rc_room_creation`).
        room_creation: Option<Rate> = Rate::per_minute(10, 1),

        /// Uploading files, or announcing them (`rc_media_create`).
        media: Option<Rate> = Rate::per_second(50, 10),

        /// Reporting rooms, events and people (`rc_reports`).
        report: Option<Rate> = Rate::per_second(5, 1),

        /// Asking this server as a policy server to sign events. Other servers ask, for all their people.
        policy_signatures: Option<Rate> = Rate::per_second(1000, 100),

        /// All else that the specification wants to be limited, taken together.
        other: Option<Rate> = Rate::per_second(300, 30),
    }
}

impl RateLimits {
    /// A limit, if there are any.
    pub fn in_force(&self, rate: Option<Rate>) -> Option<Rate> {
        rate.filter(|_| self.enabled)
    }
}
