//! How often something may be done.
//!
//! A route says in the table what doing it counts as (`limited`); all others that the specification wants
//! limited count as [`Action::Other`]. Whoever asks for it takes a token out of the bucket of that action and
//! their account or, where nobody is known, their address. What is counted by room or by person besides is
//! asked where it is known.

use std::{hash::Hash, net::IpAddr};

use config::Rate;
use error::Result;
use users::{Limiter, OwnLimits, Requester, network_of};

use crate::Server;

/// Something that may be done so often and no more. Each has a setting of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Sending an event, or changing a profile.
    Message,
    /// Making an account.
    Registration,
    /// Asking whether a registration token is good.
    RegistrationTokenValidity,
    /// Logging in.
    Login,
    /// Joining a room, or asking to be let in.
    Join,
    /// The same, counted by the room.
    JoinsOfRoom,
    /// Inviting.
    Invite,
    /// The same, counted by the room.
    InvitesToRoom,
    /// The same, counted by the invitee.
    InvitesOfUser,
    /// Making or upgrading a room.
    RoomCreation,
    /// Uploading or announcing a file.
    Media,
    /// Reporting a room, an event or a person.
    Report,
    /// Asking this server as a policy server to sign an event.
    PolicySignature,
    /// All else that is limited.
    Other,
}

impl Action {
    /// How often `settings` allow it.
    fn rate(self, settings: &config::RateLimits) -> Option<Rate> {
        let rate = match self {
            Self::Message => settings.message,
            Self::Registration => settings.registration,
            Self::RegistrationTokenValidity => settings.registration_token_validity,
            Self::Login => settings.login,
            Self::Join => settings.join,
            Self::JoinsOfRoom => settings.joins_of_room,
            Self::Invite => settings.invite,
            Self::InvitesToRoom => settings.invites_to_room,
            Self::InvitesOfUser => settings.invites_of_user,
            Self::RoomCreation => settings.room_creation,
            Self::Media => settings.media,
            Self::Report => settings.report,
            Self::PolicySignature => settings.policy_signatures,
            Self::Other => settings.other,
        };
        settings.in_force(rate)
    }
}

/// Who does it.
#[derive(Clone, Copy, Debug, Hash)]
enum Subject<'a> {
    User(storage::ShortUserId),
    Network(IpAddr),
    /// A room or a person that it is done to.
    Named(&'a str),
}

/// The buckets of all actions.
#[derive(Debug, Default)]
pub(crate) struct RateLimits(Limiter);

impl Server {
    /// Counts that somebody, known or not, does something so many times. Whoever comes through a Unix socket without a
    /// word about their address is not counted.
    ///
    /// # Errors
    ///
    /// 429 `M_LIMIT_EXCEEDED` with how long to wait.
    pub(crate) fn count(
        &self,
        action: Action,
        requester: Option<&Requester>,
        address: Option<IpAddr>,
        times: u32,
    ) -> Result<()> {
        let rate = match (action, requester.map(|requester| requester.limits)) {
            (_, Some(OwnLimits::None)) => return Ok(()),
            (Action::Message, Some(OwnLimits::Messages(rate))) => {
                self.config.rate_limits.in_force(Some(rate))
            }
            _ => action.rate(&self.config.rate_limits),
        };
        let subject = match (requester, address) {
            (Some(requester), _) => Subject::User(requester.user),
            (None, Some(address)) => Subject::Network(network_of(address)),
            (None, None) => return Ok(()),
        };
        self.take(action, subject, rate, times)
    }

    /// Counts that `requester` does something to the room or person of this name, so many times.
    ///
    /// # Errors
    ///
    /// 429 `M_LIMIT_EXCEEDED` with how long to wait.
    pub(crate) fn count_of(
        &self,
        action: Action,
        requester: &Requester,
        name: &str,
        times: u32,
    ) -> Result<()> {
        if requester.limits == OwnLimits::None {
            return Ok(());
        }
        let rate = action.rate(&self.config.rate_limits);
        self.take(action, Subject::Named(name), rate, times)
    }

    /// Counts that somebody of another server does something to the room or person of this name.
    ///
    /// # Errors
    ///
    /// 429 `M_LIMIT_EXCEEDED` with how long to wait.
    pub(crate) fn count_from_afar(&self, action: Action, name: &str) -> Result<()> {
        let rate = action.rate(&self.config.rate_limits);
        self.take(action, Subject::Named(name), rate, 1)
    }

    fn take(
        &self,
        action: Action,
        subject: impl Hash,
        rate: Option<Rate>,
        times: u32,
    ) -> Result<()> {
        let Some(rate) = rate else {
            return Ok(());
        };
        let now = self.clock.now().get().into();
        let taken = self.rate_limits.0.take((action, subject), rate, times, now);
        taken.map_err(|wait| {
            error::limit_exceeded(Some(wait), "Too many requests of this kind; wait a moment")
        })
    }
}
