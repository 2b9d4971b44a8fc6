//! By what push rules judge the events of a room: the room as it is now.

use pdu::EventNumber;
use ruma::{
    OwnedUserId, UInt,
    events::{
        StateEventType,
        room::power_levels::{RoomPowerLevels, RoomPowerLevelsEventContent},
    },
    push::PushConditionRoomCtx,
};
use storage::{
    Answers, Found, Reads, ShortRoomId, Slot,
    schema::{self, EventRow, MemberRow, Membership},
};

use super::Asked;
use crate::{Rooms, Viewer, read::content_of, writer::flat_key};

/// Where it will be found who somebody is in a room, and which events say who may do what.
pub(super) struct AskedContext {
    member: Slot<Option<Found<MemberRow>>>,
    state: Slot<Vec<Option<Found<EventNumber>>>>,
}

/// What was found of that, and where these events will be.
pub(super) struct FoundContext {
    displayname: Option<String>,
    has_levels: bool,
    state: Slot<Vec<Option<Found<EventRow>>>>,
}

impl AskedContext {
    pub(super) fn ask(rooms: &Rooms, reads: &mut Reads, viewer: &Viewer, asked: &Asked) -> Self {
        let (storage, short) = (rooms.storage(), asked.room.short);
        let generation = asked.head.generation;
        let user = storage.user_hash(&viewer.user_id);
        let member = (short, generation, Membership::Join as u8, user);
        let state = [StateEventType::RoomCreate, StateEventType::RoomPowerLevels];
        let state = state
            .map(|event_type| flat_key(storage, short, generation, &event_type.to_string(), ""));
        Self {
            member: reads.get(&schema::MEMBER_BY_ROOM, &member),
            state: reads.get_all(&schema::STATE_BY_ROOM, &state),
        }
    }

    /// Takes the answers, and asks for the events that they name.
    pub(super) fn answered(
        &self,
        reads: &mut Reads,
        answers: &Answers,
        room: ShortRoomId,
    ) -> error::Result<FoundContext> {
        let member = answers.one(&self.member)?;
        let numbers = answers.all(&self.state)?;
        let has_levels = numbers.last().is_some_and(Option::is_some);
        let state = numbers.into_iter().flatten();
        let state: Vec<_> = state.map(|row| (room, row.value)).collect();
        Ok(FoundContext {
            displayname: member.and_then(|row| row.value.displayname),
            has_levels,
            state: reads.get_all(&schema::EVENT_BY_NUMBER, &state),
        })
    }
}

impl FoundContext {
    pub(super) fn context(
        &self,
        viewer: &Viewer,
        asked: &Asked,
        answers: &Answers,
    ) -> error::Result<PushConditionRoomCtx> {
        let rows: Vec<_> = answers.all(&self.state)?.into_iter().flatten().collect();
        let name = self.displayname.as_deref();
        let name = name
            .unwrap_or_else(|| viewer.user_id.localpart())
            .to_owned();
        let joined = UInt::new_saturating(asked.head.joined);
        let context = PushConditionRoomCtx::new(
            asked.room.room_id.clone(),
            joined,
            viewer.user_id.clone(),
            name,
        );
        let version = asked.room.rules.version_id();
        let (Some(create), Some(rules)) = (rows.first(), version.rules()) else {
            return Ok(context);
        };
        let levels = rows.last().filter(|_| self.has_levels);
        let levels: Option<RoomPowerLevelsEventContent> =
            levels.and_then(|row| serde_json::from_slice(content_of(&row.value)).ok());
        let creators = creators(&create.value);
        let levels = RoomPowerLevels::new(levels.into(), &rules.authorization, creators);
        Ok(context.with_power_levels(levels.into()))
    }
}

/// The creators of a room, who since version 12 stand above all power levels.
fn creators(create: &EventRow) -> Vec<OwnedUserId> {
    #[derive(serde::Deserialize)]
    struct Content {
        #[serde(default)]
        additional_creators: Vec<OwnedUserId>,
    }
    let content: Option<Content> = serde_json::from_slice(content_of(create)).ok();
    let more = content.map(|content| content.additional_creators);
    let sender = OwnedUserId::try_from(create.header.sender.as_str()).ok();
    sender
        .into_iter()
        .chain(more.into_iter().flatten())
        .collect()
}
