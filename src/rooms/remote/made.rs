//! Member events that we make of another server's template.

use federation::{Failure, Patience, Question};
use pdu::{Draft, Pdu, RoomRules};
use ruma::{
    MilliSecondsSinceUnixEpoch, RoomId, RoomVersionId, ServerName, UInt, UserId,
    events::TimelineEventType,
};
use serde_json::{Map, Value, value::RawValue};
use storage::schema::Membership;

use super::refusals::Refusals;
use crate::{Rooms, membership::json_content};

/// What a server says about a member event for a room that it is in.
#[derive(Debug)]
pub(super) struct Template {
    /// The version of the room; of those that do not say, 1.
    pub(super) room_version: Option<RoomVersionId>,
    pub(super) event: Box<RawValue>,
}

/// The member event that is to be made.
#[derive(Debug)]
pub(super) struct Wanted<'a> {
    pub(super) room_id: &'a RoomId,
    pub(super) user: &'a UserId,
    pub(super) membership: Membership,
    /// All of its content, but for who vouches for it.
    pub(super) content: &'a Map<String, Value>,
}

/// A signed event, and the rules of its room.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) pdu: Pdu,
    pub(super) rules: &'static RoomRules,
    /// The server said which version the room has. If not, it is 1 or 2, whose events are alike.
    pub(super) version_said: bool,
}

/// All room versions that we know.
pub(super) fn known_versions() -> Vec<RoomVersionId> {
    RoomRules::all().map(RoomRules::version_id).collect()
}

impl Rooms {
    /// Asks a server for a template, and makes the event of it. `None` if that is not to be had there, which
    /// is remembered.
    pub(super) async fn fetch_made<Q: Question>(
        &self,
        server: &ServerName,
        question: Q,
        read: impl FnOnce(Q::IncomingResponse) -> Template,
        wanted: &Wanted<'_>,
        refusals: &mut Refusals,
    ) -> Option<Made> {
        let answer = self
            .federation()
            .ask(server, question, Patience::SHORT)
            .await;
        let template = match answer {
            Ok(answer) => read(answer),
            Err(failure) => {
                refusals.add(server, &failure);
                return None;
            }
        };
        let version_said = template.room_version.is_some();
        let version = template.room_version.unwrap_or(RoomVersionId::V1);
        let Some(rules) = RoomRules::of(&version) else {
            refusals.add_version(&version);
            return None;
        };
        match self.make(rules, template.event.get(), wanted) {
            Ok(pdu) => Some(Made {
                pdu,
                rules,
                version_said,
            }),
            Err(why) => {
                refusals.add(server, &Failure::BadAnswer(why));
                None
            }
        }
    }

    /// Makes an event of a template, if that is one for the event which is wanted.
    fn make(&self, rules: &RoomRules, template: &str, wanted: &Wanted<'_>) -> Result<Pdu, String> {
        let now = MilliSecondsSinceUnixEpoch(UInt::new_saturating(self.now()));
        let draft = Draft::of_template(template.as_bytes(), rules, now);
        let mut draft = draft.map_err(|fault| fault.to_string())?;
        let their: Map<String, Value> =
            serde_json::from_str(draft.content.get()).map_err(|fault| fault.to_string())?;
        let membership = their.get("membership").and_then(Value::as_str);
        let right = draft.room_id.as_deref() == Some(wanted.room_id)
            && draft.event_type == TimelineEventType::RoomMember
            && draft.sender == wanted.user
            && draft.state_key.as_deref() == Some(wanted.user.as_str())
            && membership == Some(wanted.membership.as_str());
        if !right {
            return Err("the template is for another event than was asked for".to_owned());
        }
        let mut content = wanted.content.clone();
        // Of what the server proposes only this is for it to say.
        let voucher = "join_authorised_via_users_server";
        if let Some(user) = their.get(voucher).filter(|user| user.is_string()) {
            content.insert(voucher.to_owned(), user.clone());
        }
        draft.content = json_content(content).map_err(|fault| fault.to_string())?;
        let key = self.federation().signing_keys().current();
        let signed = draft.sign(rules, &key, self.server_name());
        signed.map_err(|fault| fault.to_string())
    }
}
