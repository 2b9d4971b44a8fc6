//! The rules of `m.room.member`.

use std::borrow::Borrow;

use ruma::{
    UserId,
    events::{StateEventType, room::member::MembershipState},
    room::JoinRuleKind,
};

use super::{AuthError, State, refuse};
use crate::{
    canonical::members::{elements, find, members, string},
    event::Pdu,
    power::{NamedLevel, is_first_creator},
    signing_key::VerifyKey,
};

pub(super) fn check<P, F>(pdu: &Pdu, state: &State<'_, F, P>) -> Result<(), AuthError>
where
    F: Fn(&StateEventType, &str) -> Option<P>,
    P: Borrow<Pdu>,
{
    let Some(target) = pdu.state_key() else {
        return refuse("a member event must have a state key");
    };
    let Ok(target) = <&UserId>::try_from(target) else {
        return refuse("the state key of a member event must be a user ID");
    };
    let Some(membership) = pdu.membership() else {
        return refuse("a member event must have a membership");
    };
    let change = Change { pdu, target, state };
    if membership == MembershipState::Join && change.is_creators_first_join() {
        return Ok(());
    }
    // NOTSPEC: the spec has this rule for senders only. As in Synapse it holds for whom an event is
    // about, too: nobody else could ever answer such an invite.
    state.check_federate(target)?;
    match membership {
        MembershipState::Join => change.check_join(),
        MembershipState::Invite => change.check_invite(),
        MembershipState::Leave => change.check_leave(),
        MembershipState::Ban => change.check_ban(),
        MembershipState::Knock if state.rules.authorization.knocking => change.check_knock(),
        other => refuse(format!("the membership `{other}` is not known")),
    }
}

struct Change<'a, 's, F, P> {
    pdu: &'a Pdu,
    target: &'a UserId,
    state: &'a State<'s, F, P>,
}

impl<F, P> Change<'_, '_, F, P>
where
    F: Fn(&StateEventType, &str) -> Option<P>,
    P: Borrow<Pdu>,
{
    fn by_target(&self) -> bool {
        self.pdu.sender() == self.target
    }

    /// If the only previous event is `m.room.create` and the state key is the creator: allow.
    fn is_creators_first_join(&self) -> bool {
        let State { create, rules, .. } = self.state;
        matches!(self.pdu.prev_events(), [only] if only == create.event_id())
            && is_first_creator(create, self.target.as_str(), rules)
    }

    fn require_sender_joined(&self) -> Result<(), AuthError> {
        let sender = self.pdu.sender();
        match self.state.membership(sender) {
            MembershipState::Join => Ok(()),
            _ => refuse(format!("{sender} is not in the room")),
        }
    }

    fn check_join(&self) -> Result<(), AuthError> {
        use JoinRuleKind::{Invite, Knock, KnockRestricted, Public, Restricted};
        if !self.by_target() {
            return refuse("nobody can join for another");
        }
        let membership = self.state.membership(self.target);
        if membership == MembershipState::Ban {
            return refuse(format!("{} is banned from the room", self.target));
        }
        let rules = &self.state.rules.authorization;
        let member_or_invited =
            matches!(membership, MembershipState::Join | MembershipState::Invite);
        let allowed = match self.state.join_rule() {
            Public => true,
            Invite => member_or_invited,
            Knock => rules.knocking && member_or_invited,
            Restricted if rules.restricted_join_rule => {
                member_or_invited || self.check_authorising_user().map(|()| true)?
            }
            KnockRestricted if rules.knock_restricted_join_rule => {
                member_or_invited || self.check_authorising_user().map(|()| true)?
            }
            _ => false,
        };
        if !allowed {
            return refuse(format!("{} is not invited to the room", self.target));
        }
        Ok(())
    }

    /// A restricted join needs somebody in the room with the power to invite; that their server agreed
    /// is proven by its signature.
    fn check_authorising_user(&self) -> Result<(), AuthError> {
        let user = self.pdu.content_string("join_authorised_via_users_server");
        let user = user
            .as_deref()
            .and_then(|user| <&UserId>::try_from(user).ok());
        let Some(user) = user else {
            return refuse("joining the room needs an invite, or a member's server to allow it");
        };
        if self.state.membership(user) != MembershipState::Join {
            return refuse(format!("{user}, who allows the join, is not in the room"));
        }
        if self.state.user_level(user)? < self.state.level(NamedLevel::Invite)? {
            return refuse(format!("{user}, who allows the join, may not invite"));
        }
        Ok(())
    }

    fn check_invite(&self) -> Result<(), AuthError> {
        if let Some(third_party_invite) = self.pdu.content_member("third_party_invite") {
            return self.check_third_party_invite(third_party_invite);
        }
        self.require_sender_joined()?;
        match self.state.membership(self.target) {
            MembershipState::Join => {
                return refuse(format!("{} is in the room already", self.target));
            }
            MembershipState::Ban => {
                return refuse(format!("{} is banned from the room", self.target));
            }
            _ => {}
        }
        let sender = self.pdu.sender();
        if self.state.user_level(sender)? < self.state.level(NamedLevel::Invite)? {
            return refuse(format!("{sender} may not invite others to the room"));
        }
        Ok(())
    }

    fn check_third_party_invite(&self, third_party_invite: &[u8]) -> Result<(), AuthError> {
        if self.state.membership(self.target) == MembershipState::Ban {
            return refuse(format!("{} is banned from the room", self.target));
        }
        let Some(signed) = find(third_party_invite, "signed") else {
            return refuse("`third_party_invite` has no `signed`");
        };
        let (Some(mxid), Some(token)) = (
            find(signed, "mxid").and_then(string),
            find(signed, "token").and_then(string),
        ) else {
            return refuse("`third_party_invite.signed` must have `mxid` and `token`");
        };
        if self.target != mxid.as_ref() {
            return refuse("`third_party_invite.signed.mxid` is not the invited user");
        }
        let invite = (self.state.fetch)(&StateEventType::RoomThirdPartyInvite, &token);
        let Some(invite) = invite.as_ref().map(Borrow::borrow) else {
            return refuse("the room has no m.room.third_party_invite event with that token");
        };
        if invite.sender() != self.pdu.sender() {
            return refuse("the sender did not send the m.room.third_party_invite event");
        }
        if !is_signed_by_any(signed, &third_party_keys(invite)) {
            return refuse("`third_party_invite` is not signed with a key of the invite");
        }
        Ok(())
    }

    fn check_leave(&self) -> Result<(), AuthError> {
        let sender = self.pdu.sender();
        let sender_membership = self.state.membership(sender);
        if self.by_target() {
            let knocking = self.state.rules.authorization.knocking;
            return match sender_membership {
                MembershipState::Join | MembershipState::Invite => Ok(()),
                MembershipState::Knock if knocking => Ok(()),
                _ => refuse(format!("{sender} is not in the room")),
            };
        }
        self.require_sender_joined()?;
        let level = self.state.user_level(sender)?;
        let banned = self.state.membership(self.target) == MembershipState::Ban;
        if banned && level < self.state.level(NamedLevel::Ban)? {
            return refuse(format!("{sender} may not lift bans"));
        }
        if level < self.state.level(NamedLevel::Kick)?
            || self.state.user_level(self.target)? >= level
        {
            return refuse(format!(
                "{sender} may not remove {} from the room",
                self.target
            ));
        }
        Ok(())
    }

    fn check_ban(&self) -> Result<(), AuthError> {
        self.require_sender_joined()?;
        let sender = self.pdu.sender();
        let level = self.state.user_level(sender)?;
        if level < self.state.level(NamedLevel::Ban)?
            || self.state.user_level(self.target)? >= level
        {
            return refuse(format!(
                "{sender} may not ban {} from the room",
                self.target
            ));
        }
        Ok(())
    }

    fn check_knock(&self) -> Result<(), AuthError> {
        let allowed = match self.state.join_rule() {
            JoinRuleKind::Knock => true,
            JoinRuleKind::KnockRestricted => {
                self.state.rules.authorization.knock_restricted_join_rule
            }
            _ => false,
        };
        if !allowed {
            return refuse("the room's join rule does not allow to knock");
        }
        if !self.by_target() {
            return refuse("nobody can knock for another");
        }
        match self.state.membership(self.target) {
            MembershipState::Ban => refuse(format!("{} is banned from the room", self.target)),
            MembershipState::Invite => refuse(format!("{} is invited already", self.target)),
            MembershipState::Join => refuse(format!("{} is in the room already", self.target)),
            _ => Ok(()),
        }
    }
}

/// The keys that may sign what an `m.room.third_party_invite` event promises.
fn third_party_keys(invite: &Pdu) -> Vec<VerifyKey> {
    let single = invite.content_member("public_key");
    let several = elements(invite.content_member("public_keys").unwrap_or_default())
        .filter_map(|key| find(key, "public_key"));
    single
        .into_iter()
        .chain(several)
        .filter_map(string)
        .filter_map(|key| VerifyKey::from_base64(&key).ok())
        .collect()
}

/// Whether any signature of an object in canonical form, of whatever server, is of one of the keys.
fn is_signed_by_any(signed: &[u8], keys: &[VerifyKey]) -> bool {
    let mut message = vec![b'{'];
    for member in members(signed) {
        if matches!(member.key, b"signatures" | b"unsigned") {
            continue;
        }
        if message.len() > 1 {
            message.push(b',');
        }
        message.extend_from_slice(signed.get(member.whole).unwrap_or_default());
    }
    message.push(b'}');
    let signatures = find(signed, "signatures").unwrap_or_default();
    members(signatures)
        .flat_map(|server| members(server.value))
        .filter(|signature| signature.key.starts_with(b"ed25519:"))
        .filter_map(|signature| string(signature.value))
        .any(|signature| {
            keys.iter()
                .any(|key| key.verify_base64(&message, &signature))
        })
}
