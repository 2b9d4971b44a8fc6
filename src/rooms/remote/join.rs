//! Coming into a room in which we are not, or whose restriction nobody of ours can lift ([spec]).
//!
//! [spec]: https://spec.matrix.org/v1.19/server-server-api/#joining-rooms

use std::{sync::Arc, time::Duration};

use pdu::Pdu;
use ruma::{
    OwnedServerName, RoomId, ServerName, UserId, api::federation::membership::prepare_join_event,
    events::TimelineEventType,
};
use serde_json::{Map, Value};
use storage::{ShortUserId, schema::Membership};

use super::{
    answer::Proven,
    asking::Asking,
    made::{Made, Template, Wanted, known_versions},
    refusals::Refusals,
};
use crate::{Incoming, Received, Room, Rooms, Said, Standing, partial::PartialJoin, writer::Way};

/// How long to wait before a server is asked again that has not heard of a leave yet, doubled each time.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_millis(800);

/// Somebody of ours who comes into a room.
#[derive(Debug)]
pub(crate) struct Arriving<'a> {
    pub(crate) room_id: &'a RoomId,
    pub(crate) user: &'a UserId,
    pub(crate) short: ShortUserId,
    /// Servers that are said to be in the room.
    pub(crate) via: &'a [OwnedServerName],
}

impl Rooms {
    /// Comes into a room by one of the servers that are in it, which are asked in turn. The room.
    ///
    /// # Errors
    ///
    /// 403 `M_FORBIDDEN` if the room's rules do not let them in; 404 `M_NOT_FOUND` if no server is known that
    /// could help; 400 `M_INCOMPATIBLE_ROOM_VERSION`, `M_UNABLE_TO_GRANT_JOIN`,
    /// `M_UNABLE_TO_AUTHORISE_JOIN`; 502 `M_UNKNOWN` if no server could be asked.
    pub(crate) async fn join_from_outside(
        &self,
        arriving: &Arriving<'_>,
        said: Said,
    ) -> error::Result<Arc<Room>> {
        let _alone = self.arrivals().begin(arriving.room_id).await;
        if let Some(room) = self.find_room_of_ours(arriving.room_id).await? {
            // Somebody else of ours came first.
            self.join(&room, arriving.user, arriving.via, said).await?;
            return Ok(room);
        }
        let servers = self.candidates(arriving.room_id, arriving.short, arriving.via);
        let servers = servers.await?;
        self.join_by(arriving, &servers, said).await
    }

    /// Joins a restricted room in which we are, by a server whose people may vouch for the join.
    ///
    /// # Errors
    ///
    /// As [`Rooms::join_from_outside`].
    pub(crate) async fn join_by_voucher(
        &self,
        arriving: &Arriving<'_>,
        said: Said,
    ) -> error::Result<()> {
        let servers = self.candidates(arriving.room_id, arriving.short, arriving.via);
        let servers = servers.await?;
        self.join_by(arriving, &servers, said).await.map(|_| ())
    }

    async fn join_by(
        &self,
        arriving: &Arriving<'_>,
        servers: &[OwnedServerName],
        said: Said,
    ) -> error::Result<Arc<Room>> {
        let content = self.own_content("join", arriving.user, said).await?;
        let mut refusals = Refusals::default();
        for server in servers {
            if let Some(room) = self
                .join_by_one(arriving, server, &content, &mut refusals)
                .await?
            {
                return Ok(room);
            }
        }
        Err(refusals.into_error())
    }

    /// The room, if one server helps into it.
    async fn join_by_one(
        &self,
        arriving: &Arriving<'_>,
        server: &ServerName,
        content: &Map<String, Value>,
        refusals: &mut Refusals,
    ) -> error::Result<Option<Arc<Room>>> {
        let (room_id, user) = (arriving.room_id, arriving.user);
        let wanted = Wanted {
            room_id,
            user,
            membership: Membership::Join,
            content,
        };
        let Some(made) = self.fetch_join(server, &wanted, refusals).await? else {
            return Ok(None);
        };
        let told = match self.send_join(server, &made).await? {
            Ok(told) => told,
            Err(failure) => {
                refusals.add(server, &failure);
                return Ok(None);
            }
        };
        let proven = match self.prove_answer(made, room_id, told).await? {
            Ok(proven) => proven,
            Err(why) => {
                refusals.add_bad(server, &why);
                return Ok(None);
            }
        };
        let room = self.known_or_new_room(room_id, proven.rules()).await?;
        let received = match self.come_in(&room, server, proven).await? {
            Ok(received) => received,
            Err(why) => {
                refusals.add_bad(server, &why);
                return Ok(None);
            }
        };
        match received {
            Received::Accepted | Received::Known => Ok(Some(room)),
            Received::SoftFailed(why) | Received::Rejected(why) => {
                refusals.add_forbidden(server, &why);
                Ok(None)
            }
            Received::Missing { .. } | Received::ToSign(_) => {
                refusals.add_bad(
                    server,
                    "the answer lacks what allows the join, or what it follows",
                );
                Ok(None)
            }
        }
    }

    /// A join, made of a server's template. Of somebody who left a moment ago the server may not have heard: such a
    /// join would stand beside the leave and may lose against it, so the server is asked again a few times.
    async fn fetch_join(
        &self,
        server: &ServerName,
        wanted: &Wanted<'_>,
        refusals: &mut Refusals,
    ) -> error::Result<Option<Made>> {
        let read = |answer: prepare_join_event::v1::Response| Template {
            room_version: answer.room_version,
            event: answer.event,
        };
        let mut pause = FIRST_PAUSE;
        loop {
            let (room_id, user) = (wanted.room_id.to_owned(), wanted.user.to_owned());
            let mut question = prepare_join_event::v1::Request::new(room_id, user);
            question.ver = known_versions();
            let made = self.fetch_made(server, question, read, wanted, refusals);
            let Some(made) = made.await else {
                return Ok(None);
            };
            if pause > LONGEST_PAUSE || !self.overlooks_leave(&made.pdu).await? {
                return Ok(Some(made));
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
    }

    /// Whether a join rests on a membership that the user has ended since.
    async fn overlooks_leave(&self, join: &Pdu) -> error::Result<bool> {
        let Some(room) = self.find_room(join.room_id()).await? else {
            return Ok(false);
        };
        let snapshot = self.snapshot().await?;
        match room.member(self, &snapshot, join.sender()).await? {
            Some((Membership::Leave, leave)) if !join.auth_events().contains(&leave) => {}
            _ => return Ok(false),
        }
        for id in join.auth_events() {
            let event = self.find_stored(&room, id).await?;
            let member = TimelineEventType::RoomMember;
            if event.is_some_and(|event| event.pdu.is_state(&member, join.sender().as_str())) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Takes a join in that a server let into the room. The inner error says why its answer is of no use.
    async fn come_in(
        &self,
        room: &Arc<Room>,
        server: &ServerName,
        proven: Proven,
    ) -> error::Result<Result<Received, String>> {
        let incoming = Incoming {
            pdu: Arc::clone(&proven.join),
            standing: Standing::Live { state_before: None },
        };
        if self.find_room_of_ours(&room.room_id).await?.is_some() {
            let received = self.receive_one_signed(room, incoming.clone()).await?;
            let Received::Missing { auth, prev } = &received else {
                return Ok(Ok(received));
            };
            // The other server is further on than we are.
            let asking = Asking::about(self, room, &[server]).await?;
            asking.fetch_lacking(&incoming.pdu, auth, prev).await?;
            return self.receive_one_signed(room, incoming).await.map(Ok);
        }
        // All of ours left before the whole state was there, and somebody comes back: it goes on.
        if let Some(job) = self.find_partial_join(room).await? {
            match self.receive_one_signed(room, incoming).await? {
                Received::Missing { .. } => {}
                received => {
                    self.go_on_filling(room, &job).await?;
                    return Ok(Ok(received));
                }
            }
        }
        let root = match self.lay_down_state(room, &proven.state, server).await? {
            Ok(root) => root,
            Err(why) => return Ok(Err(why)),
        };
        let join = Arc::clone(&proven.join);
        let partial = proven.omitted.map(|told| {
            let join = join.event_id();
            Arc::new(PartialJoin::new(room, join, server, &told))
        });
        self.enter(room, join, root, partial).await.map(Ok)
    }

    /// Writes the event by which this server comes into a room, where the state before it has a root.
    pub(super) async fn enter(
        &self,
        room: &Arc<Room>,
        pdu: Arc<Pdu>,
        root: [u8; 16],
        partial: Option<Arc<PartialJoin>>,
    ) -> error::Result<Received> {
        let incoming = Incoming {
            pdu,
            standing: Standing::Live { state_before: None },
        };
        let way = Way::Entering { root, partial };
        self.receive_one(room, incoming, way).await
    }
}
