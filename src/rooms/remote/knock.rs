//! Knocking at rooms in which we are not ([spec]).
//!
//! [spec]: https://spec.matrix.org/v1.19/server-server-api/#knocking-rooms

use federation::Patience;
use ruma::api::federation::membership::{
    RawStrippedState, create_knock_event, prepare_knock_event,
};
use serde_json::value::RawValue;
use storage::{
    ShortUserId,
    schema::{Membership, UserRoomRow},
};

use super::{
    Arriving,
    made::{Made, Template, Wanted, known_versions},
    refusals::Refusals,
};
use crate::{Rooms, Said, format::stripped, outside::Outside};

impl Rooms {
    /// Knocks at a room in which we are not, by one of the servers that are.
    ///
    /// # Errors
    ///
    /// 403 `M_FORBIDDEN` if the room takes no knocks or not from them; 404 `M_NOT_FOUND` if no server is known
    /// that could help; 400 `M_INCOMPATIBLE_ROOM_VERSION`; 502 `M_UNKNOWN` if no server could be asked.
    pub(crate) async fn knock_from_outside(
        &self,
        arriving: &Arriving<'_>,
        said: Said,
    ) -> error::Result<()> {
        let Arriving {
            room_id,
            user,
            short,
            via,
        } = *arriving;
        let content = self.own_content("knock", user, said).await?;
        let wanted = Wanted {
            room_id,
            user,
            membership: Membership::Knock,
            content: &content,
        };
        let mut refusals = Refusals::default();
        for server in self.candidates(room_id, short, via).await? {
            let mut question =
                prepare_knock_event::v1::Request::new(room_id.to_owned(), user.to_owned());
            question.ver = known_versions();
            let read = |answer: prepare_knock_event::v1::Response| Template {
                room_version: Some(answer.room_version),
                event: answer.event,
            };
            let made = self.fetch_made(&server, question, read, &wanted, &mut refusals);
            let Some(made) = made.await else { continue };
            let event = String::from_utf8_lossy(made.pdu.json()).into_owned();
            let event = RawValue::from_string(event).map_err(error::internal)?;
            let event_id = made.pdu.event_id().to_owned();
            let question =
                create_knock_event::v1::Request::new(room_id.to_owned(), event_id, event);
            match self
                .federation()
                .ask(&server, question, Patience::SHORT)
                .await
            {
                Ok(answer) => return self.keep_knock(&made, short, answer).await,
                Err(failure) => refusals.add(&server, &failure),
            }
        }
        Err(refusals.into_error())
    }

    async fn keep_knock(
        &self,
        made: &Made,
        user: ShortUserId,
        answer: create_knock_event::v1::Response,
    ) -> error::Result<()> {
        let told: Vec<_> = answer
            .knock_room_state
            .into_iter()
            .filter_map(raw_of)
            .collect();
        let pdu = &made.pdu;
        let mut seen = self.seen_of(made.rules, pdu.room_id(), &told).await?;
        if let Some(fault) = seen.fault {
            tracing::warn!(room = %pdu.room_id(), fault, "a room is described badly to one who knocks");
        }
        seen.stripped.push(stripped(pdu));
        let room = self.known_or_new_room(pdu.room_id(), made.rules).await?;
        let knocks = |_: Option<&UserRoomRow>| {
            Some(Outside {
                membership: Membership::Knock,
                sender: pdu.sender().to_string(),
                stripped_state: seen.stripped.clone(),
            })
        };
        self.set_outside(&room, user, knocks).await?;
        Ok(())
    }
}

/// The JSON of an event that describes a room.
pub(super) fn raw_of(told: RawStrippedState) -> Option<Box<RawValue>> {
    match told {
        RawStrippedState::Pdu(event) => Some(event),
        #[allow(deprecated)]
        RawStrippedState::Stripped(event) => Some(event.into_json()),
        _ => None,
    }
}
