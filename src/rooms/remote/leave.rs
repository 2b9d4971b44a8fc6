//! Declining invites into rooms in which we are not, and taking knocks back ([spec]).
//!
//! [spec]: https://spec.matrix.org/v1.19/server-server-api/#leaving-rooms-rejecting-invites

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use federation::Patience;
use ruma::{
    EventId, OwnedEventId, UserId,
    api::federation::membership::{create_leave_event, prepare_leave_event},
};
use serde_json::{Map, Value, value::RawValue};
use storage::{
    ShortUserId,
    schema::{Membership, UserRoomRow},
};

use super::{
    made::{Template, Wanted},
    refusals::Refusals,
};
use crate::{Room, Rooms, Said, format::ending, membership::content_of, outside::Outside};

impl Rooms {
    /// Declines an invite into a room in which we are not, or takes a knock back. Servers in the room are told
    /// if they can be reached; here it is so in any case, as they may be gone for good.
    ///
    /// # Errors
    ///
    /// 403 `M_FORBIDDEN` if the user is banned from the room, or never had to do with it.
    pub(crate) async fn leave_from_outside(
        &self,
        room: &Arc<Room>,
        user: &UserId,
        short: ShortUserId,
        row: &UserRoomRow,
        said: Said,
    ) -> error::Result<()> {
        match row.membership {
            Membership::Leave => return Ok(()),
            Membership::Ban => return Err(error::forbidden("You are banned from this room")),
            Membership::Join | Membership::Invite | Membership::Knock => {}
        }
        let content = content_of("leave", said);
        let told = self.tell_that_left(room, user, short, &content).await;
        let event_id = match told {
            Ok(event_id) => event_id,
            Err(error) => {
                tracing::info!(%error, room = %room.room_id, "no server heard that an invite was declined");
                self.unheard_event_id()?
            }
        };
        let event = ending(&event_id, user, user, self.now(), &content);
        let ended = |row: Option<&UserRoomRow>| {
            row.filter(|row| row.membership != Membership::Leave)
                .map(|_| Outside {
                    membership: Membership::Leave,
                    sender: user.to_string(),
                    stripped_state: vec![event.clone()],
                })
        };
        self.set_outside(room, short, ended).await?;
        Ok(())
    }

    /// The name of an event of which no server has heard.
    fn unheard_event_id(&self) -> error::Result<OwnedEventId> {
        let mut hash = [0; 32];
        self.parts().random.fill(&mut hash);
        EventId::parse(format!("${}", URL_SAFE_NO_PAD.encode(hash))).map_err(error::internal)
    }

    /// Lets the servers in the room know, by one of them: the id of the event.
    async fn tell_that_left(
        &self,
        room: &Room,
        user: &UserId,
        short: ShortUserId,
        content: &Map<String, Value>,
    ) -> error::Result<OwnedEventId> {
        let wanted = Wanted {
            room_id: &room.room_id,
            user,
            membership: Membership::Leave,
            content,
        };
        let mut refusals = Refusals::default();
        for server in self.candidates(&room.room_id, short, &[]).await? {
            let question =
                prepare_leave_event::v1::Request::new(room.room_id.clone(), user.to_owned());
            let read = |answer: prepare_leave_event::v1::Response| Template {
                room_version: answer.room_version,
                event: answer.event,
            };
            let made = self.fetch_made(&server, question, read, &wanted, &mut refusals);
            let Some(made) = made.await else { continue };
            let event = String::from_utf8_lossy(made.pdu.json()).into_owned();
            let event = RawValue::from_string(event).map_err(error::internal)?;
            let event_id = made.pdu.event_id().to_owned();
            let room_id = room.room_id.clone();
            let question = create_leave_event::v2::Request::new(room_id, event_id.clone(), event);
            match self
                .federation()
                .ask(&server, question, Patience::SHORT)
                .await
            {
                Ok(_) => return Ok(event_id),
                Err(failure) => refusals.add(&server, &failure),
            }
        }
        Err(refusals.into_error())
    }
}
