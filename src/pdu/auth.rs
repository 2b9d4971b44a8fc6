//! The authorisation rules of all room versions.
//!
//! Our own, not Ruma's: these read single fields from canonical JSON in place instead of parsing whole
//! contents at each rule, and hold for versions 1–5 too. A test runs both against each other.

mod member;
mod power_levels;
#[cfg(test)]
mod synapse_tests;
#[cfg(test)]
mod tests;

use std::{borrow::Borrow, borrow::Cow, cell::OnceCell};

use ruma::{
    EventId, UserId,
    events::{StateEventType, TimelineEventType, room::member::MembershipState},
    room::JoinRuleKind,
};

use crate::{
    canonical::members::{elements, string},
    content::{join_rule_of, membership_of},
    error::MAX_FIELD_BYTES,
    event::Pdu,
    power::{NamedLevel, PowerLevel, PowerLevels},
    version::RoomRules,
};

pub use self::power_levels::check_own_power_levels;

/// Why the authorisation rules refuse an event, in a sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct AuthError {
    reason: Cow<'static, str>,
    malformed: bool,
}

impl AuthError {
    pub(crate) fn new(reason: impl Into<Cow<'static, str>>) -> Self {
        Self {
            reason: reason.into(),
            malformed: false,
        }
    }

    /// For an event that no power would let through: what it says is not well-formed.
    pub(crate) fn malformed(reason: impl Into<Cow<'static, str>>) -> Self {
        Self {
            reason: reason.into(),
            malformed: true,
        }
    }

    /// Whether it is the form of the event that is refused, whoever sends it.
    pub fn is_malformed(&self) -> bool {
        self.malformed
    }

    /// The reason.
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

fn refuse<T>(reason: impl Into<Cow<'static, str>>) -> Result<T, AuthError> {
    Err(AuthError::new(reason))
}

/// The state that an event is checked against, as far as the rules ask for it.
struct State<'a, F, P> {
    rules: &'a RoomRules,
    create: &'a Pdu,
    fetch: F,
    power_levels: OnceCell<Option<P>>,
}

impl<F, P> State<'_, F, P>
where
    F: Fn(&StateEventType, &str) -> Option<P>,
    P: Borrow<Pdu>,
{
    fn power(&self) -> PowerLevels<'_> {
        let event = self.power_levels_event();
        PowerLevels::new(self.rules, self.create, event)
    }

    fn power_levels_event(&self) -> Option<&Pdu> {
        let fetched = self
            .power_levels
            .get_or_init(|| (self.fetch)(&StateEventType::RoomPowerLevels, ""));
        fetched.as_ref().map(Borrow::borrow)
    }

    fn user_level(&self, user: &UserId) -> Result<PowerLevel, AuthError> {
        self.power().user(user)
    }

    fn level(&self, name: NamedLevel) -> Result<PowerLevel, AuthError> {
        Ok(self.power().named(name)?.into())
    }

    fn membership(&self, user: &UserId) -> MembershipState {
        let event = (self.fetch)(&StateEventType::RoomMember, user.as_str());
        membership_of(event.as_ref().map(Borrow::borrow))
    }

    fn join_rule(&self) -> JoinRuleKind {
        let event = (self.fetch)(&StateEventType::RoomJoinRules, "");
        join_rule_of(event.as_ref().map(Borrow::borrow))
    }

    /// The rule of `m.federate` for a user that an event is sent by or about.
    fn check_federate(&self, user: &UserId) -> Result<(), AuthError> {
        let federates =
            !matches!(self.create.content_member("m.federate"), Some(v) if v != b"true");
        if !federates && user.server_name() != self.create.sender().server_name() {
            return refuse(format!("this room is not open to {}", user.server_name()));
        }
        Ok(())
    }
}

/// Checks the authorisation rules that ask for the room's state, for one state: that of the event's own
/// `auth_events`, that before the event, or the current one.
///
/// `create` is the room's `m.room.create` event, `state` gives the event of a type and state key in that
/// state; what it is asked for is among [`Pdu::auth_types`], the create event is not asked for. The
/// signatures must have been verified: some rules lean on them.
///
/// # Errors
///
/// Says which rule refuses the event.
pub fn check_auth<P: Borrow<Pdu>>(
    pdu: &Pdu,
    rules: &RoomRules,
    create: &Pdu,
    state: impl Fn(&StateEventType, &str) -> Option<P>,
) -> Result<(), AuthError> {
    if *pdu.event_type() == TimelineEventType::RoomCreate {
        return Ok(());
    }
    let state = State {
        rules,
        create,
        fetch: state,
        power_levels: OnceCell::new(),
    };
    let sender = pdu.sender();
    state.check_federate(sender)?;

    let event_type = pdu.event_type().to_string();
    if event_type == "m.room.aliases" && rules.authorization.special_case_room_aliases {
        return match pdu.state_key() {
            Some(server) if sender.server_name() == server => Ok(()),
            _ => refuse("the state key of m.room.aliases must be the sender's server"),
        };
    }
    if *pdu.event_type() == TimelineEventType::RoomMember {
        return member::check(pdu, &state);
    }
    if state.membership(sender) != MembershipState::Join {
        return refuse(format!("{sender} is not in the room"));
    }
    let level = state.user_level(sender)?;
    if *pdu.event_type() == TimelineEventType::RoomThirdPartyInvite {
        return if level >= state.level(NamedLevel::Invite)? {
            Ok(())
        } else {
            refuse(format!("{sender} may not invite others to the room"))
        };
    }
    let required = state
        .power()
        .to_send(&event_type, pdu.state_key().is_some())?;
    if level < required.into() {
        return refuse(format!(
            "sending {event_type} needs power level {required}, {sender} has {level}"
        ));
    }
    check_state_key(pdu, &state, level)?;
    if *pdu.event_type() == TimelineEventType::RoomPowerLevels {
        return power_levels::check(pdu, &state, level);
    }
    if rules.authorization.special_case_room_redaction
        && *pdu.event_type() == TimelineEventType::RoomRedaction
    {
        return check_redaction(pdu, &state, level);
    }
    Ok(())
}

/// State keys that are user IDs belong to that user.
fn check_state_key<P: Borrow<Pdu>>(
    pdu: &Pdu,
    state: &State<'_, impl Fn(&StateEventType, &str) -> Option<P>, P>,
    level: PowerLevel,
) -> Result<(), AuthError> {
    let Some(state_key) = pdu.state_key().filter(|key| key.starts_with('@')) else {
        return Ok(());
    };
    if pdu.sender() == state_key {
        return Ok(());
    }
    if state.rules.has_owned_state() {
        // MSC3757: the key may go on behind the owner's ID and `_`, and more power is enough.
        let Some(owner) = owner_of(state_key) else {
            let reason = "the state key begins with `@` but not with a user ID";
            return Err(AuthError::malformed(reason));
        };
        if owner == pdu.sender() || level > state.user_level(owner)? {
            return Ok(());
        }
    }
    refuse("the state key is another user's ID")
}

/// MSC3757: the user ID that a state key begins with: up to the first `_` of the server name, which no
/// server name has.
fn owner_of(state_key: &str) -> Option<&UserId> {
    let colon = state_key.find(':')?;
    let end = state_key
        .get(colon..)?
        .find('_')
        .map_or(state_key.len(), |at| colon + at);
    <&UserId>::try_from(state_key.get(..end)?).ok()
}

/// Versions 1 and 2: a redaction needs the redact level, or a target of the same server.
fn check_redaction<P: Borrow<Pdu>>(
    pdu: &Pdu,
    state: &State<'_, impl Fn(&StateEventType, &str) -> Option<P>, P>,
    level: PowerLevel,
) -> Result<(), AuthError> {
    if level >= state.level(NamedLevel::Redact)? {
        return Ok(());
    }
    let target_server = pdu.redacts().and_then(EventId::server_name);
    if target_server.is_some() && target_server == pdu.event_id().server_name() {
        return Ok(());
    }
    refuse(format!(
        "{} may not redact events of other servers",
        pdu.sender()
    ))
}

/// Checks the authorisation rules that do not ask for the room's state: those of `m.room.create` events,
/// and those about what an event lists in `auth_events`. Once for each event is enough.
///
/// `event` gives an event by its ID; it is asked for those of [`Pdu::auth_events`] and, since version 12,
/// for [`RoomRules::implied_create_event`]. Rejected ones must say so
/// ([`Pdu::rejected`]).
///
/// # Errors
///
/// Says which rule refuses the event; also when `event` does not know one that it is asked for.
pub fn check_auth_without_state<P: Borrow<Pdu>>(
    pdu: &Pdu,
    rules: &RoomRules,
    event: impl Fn(&EventId) -> Option<P>,
) -> Result<(), AuthError> {
    if *pdu.event_type() == TimelineEventType::RoomCreate {
        return check_create(pdu, rules);
    }
    if rules.authorization.room_create_event_id_as_room_id {
        let create = rules
            .implied_create_event(pdu.room_id())
            .and_then(|id| event(&id));
        let create = create.as_ref().map(Borrow::borrow);
        match create {
            Some(create) if *create.event_type() != TimelineEventType::RoomCreate => {
                return refuse("the room ID does not name an m.room.create event");
            }
            Some(create) if create.rejected() => {
                return refuse("the room's m.room.create event was rejected");
            }
            Some(_) => {}
            None => return refuse("the room's m.room.create event is not known"),
        }
    }
    let expected = pdu.auth_types(rules);
    let mut seen: Vec<(StateEventType, String)> = Vec::with_capacity(expected.len());
    for id in pdu.auth_events() {
        let auth_event = event(id);
        let Some(auth_event) = auth_event.as_ref().map(Borrow::borrow) else {
            return refuse(format!("the auth event {id} is not known"));
        };
        if auth_event.room_id() != pdu.room_id() {
            return refuse(format!("the auth event {id} belongs to another room"));
        }
        let Some((event_type, state_key)) = auth_event.state_slot() else {
            return refuse(format!("the auth event {id} is no state event"));
        };
        let slot = (event_type, state_key.to_owned());
        if seen.contains(&slot) {
            return refuse(format!(
                "there is more than one auth event for {} {:?}",
                slot.0, slot.1
            ));
        }
        if !expected.contains(&slot) {
            return refuse(format!(
                "the auth event {id} ({}) does not belong here",
                slot.0
            ));
        }
        if auth_event.rejected() {
            return refuse(format!("the auth event {id} was rejected"));
        }
        seen.push(slot);
    }
    let create = (StateEventType::RoomCreate, String::new());
    if !rules.authorization.room_create_event_id_as_room_id && !seen.contains(&create) {
        return refuse("the m.room.create event is not among the auth events");
    }
    Ok(())
}

fn check_create(pdu: &Pdu, rules: &RoomRules) -> Result<(), AuthError> {
    if !pdu.prev_events().is_empty() {
        return refuse("an m.room.create event must have no previous events");
    }
    // Since version 12 there is no room_id, which the check of the format saw to.
    if !rules.authorization.room_create_event_id_as_room_id
        && pdu.room_id().server_name() != Some(pdu.sender().server_name())
    {
        return refuse("the room ID is not of the server that creates the room");
    }
    let known = match pdu.content_member("room_version") {
        Some(version) => string(version).is_some_and(|v| RoomRules::named(&v).is_some()),
        None => true,
    };
    if !known {
        return refuse("the room version is not known");
    }
    if !rules.authorization.use_room_create_sender && pdu.content_member("creator").is_none() {
        return refuse("an m.room.create event of this version must have a `creator`");
    }
    if rules.authorization.additional_room_creators
        && let Some(creators) = pdu.content_member("additional_creators")
    {
        let valid = |creator: &[u8]| {
            string(creator)
                .is_some_and(|id| id.len() <= MAX_FIELD_BYTES && UserId::parse(id.as_ref()).is_ok())
        };
        if creators.first() != Some(&b'[') || !elements(creators).all(valid) {
            return refuse("`additional_creators` must be an array of user IDs");
        }
    }
    Ok(())
}

/// Whether an accepted redaction may be applied to its target, whose sender may have been another
/// ([handling redactions](https://spec.matrix.org/v1.19/rooms/v3/#handling-redactions)).
///
/// In versions 1 and 2 the auth rules have decided that already. `power` is of the state at the
/// redaction.
///
/// # Errors
///
/// If a power level that decides is malformed.
pub fn redaction_applies(
    redaction: &Pdu,
    target: &Pdu,
    rules: &RoomRules,
    power: &PowerLevels<'_>,
) -> Result<bool, AuthError> {
    if redaction.room_id() != target.room_id() || redaction.redacts() != Some(target.event_id()) {
        return Ok(false);
    }
    Ok(rules.authorization.special_case_room_redaction
        || redaction.sender().server_name() == target.sender().server_name()
        || power.has(redaction.sender(), NamedLevel::Redact)?)
}

/// Whether somebody may redact what others say in a room, and send the events that do so.
///
/// # Errors
///
/// If a power level that decides is malformed.
pub fn may_redact_others(user: &UserId, power: &PowerLevels<'_>) -> Result<bool, AuthError> {
    let to_send = power.to_send("m.room.redaction", false)?;
    Ok(power.user(user)? >= to_send.into() && power.has(user, NamedLevel::Redact)?)
}
