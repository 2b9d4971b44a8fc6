//! Rooms that this server is not in, as other servers tell of them
//! ([spec](https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1hierarchyroomid)).

use std::collections::{HashMap, HashSet};

use federation::Patience;
use futures_util::{StreamExt as _, stream};
use ruma::{OwnedRoomId, OwnedServerName, RoomId, UserId, api::federation::space::get_hierarchy};
use serde::Deserialize;
use serde_json::value::RawValue;
use storage::{Snapshot, schema::DirectoryRow};

use super::{RoomSummary, summary};
use crate::{Rooms, restricted};

/// How many servers are asked about one room until one answers.
const SERVERS_A_ROOM: usize = 3;
/// How many rooms are asked about at the same time.
const AT_ONCE: usize = 10;
/// How many rooms are asked about for one page.
const ROOMS_A_PAGE: usize = 50;
/// Children of one room that are looked at in an answer.
const CHILDREN_MAX: usize = 1_000;

/// What other servers have told, for one page of the tree.
#[derive(Default)]
pub(super) struct Told {
    rooms: HashMap<OwnedRoomId, RoomSummary>,
    /// Rooms that are not open to this server, or of which nobody tells.
    closed: HashSet<OwnedRoomId>,
    /// Servers that are said to be in rooms.
    via: HashMap<OwnedRoomId, Vec<OwnedServerName>>,
    asked: usize,
}

/// A room in an answer.
#[derive(Deserialize)]
struct Room {
    room_id: OwnedRoomId,
    #[serde(default)]
    num_joined_members: u64,
    #[serde(default)]
    world_readable: bool,
    #[serde(default)]
    guest_can_join: bool,
    join_rule: Option<String>,
    canonical_alias: Option<String>,
    name: Option<String>,
    topic: Option<String>,
    avatar_url: Option<String>,
    room_type: Option<String>,
    encryption: Option<String>,
    room_version: Option<String>,
    #[serde(default)]
    allowed_room_ids: Vec<OwnedRoomId>,
    #[serde(default)]
    children_state: Vec<Box<RawValue>>,
}

/// An answer.
#[derive(Deserialize)]
struct Answer {
    room: Room,
    #[serde(default)]
    children: Vec<Room>,
    #[serde(default)]
    inaccessible_children: Vec<OwnedRoomId>,
}

impl From<Room> for RoomSummary {
    fn from(room: Room) -> Self {
        let children = room.children_state.iter().take(CHILDREN_MAX);
        let mut children: Vec<_> = children
            .filter_map(|event| summary::told_child(event))
            .collect();
        children.sort_by(|(one, _), (other, _)| one.cmp(other));
        Self {
            room_id: room.room_id,
            // Rooms of old do not say.
            room_version: room.room_version.unwrap_or_else(|| "1".to_owned()),
            shown: DirectoryRow {
                joined: room.num_joined_members,
                name: room.name,
                topic: room.topic,
                canonical_alias: room.canonical_alias,
                avatar_url: room.avatar_url,
                join_rule: room.join_rule.or_else(|| Some("public".to_owned())),
                room_type: room.room_type,
                world_readable: room.world_readable,
                guest_can_join: room.guest_can_join,
            },
            encryption: room.encryption,
            allowed_rooms: room.allowed_room_ids,
            membership: None,
            children: children.into_iter().map(|(_, child)| child).collect(),
        }
    }
}

impl Told {
    /// Takes note of the servers that a space names for its rooms.
    pub(super) fn note(&mut self, space: &RoomSummary) {
        for child in &space.children {
            let via = self.via.entry(child.room_id.clone()).or_default();
            let room = SERVERS_A_ROOM.saturating_sub(via.len());
            via.extend(child.via.iter().take(room).cloned());
        }
    }

    /// The servers to ask about a room: those that were named for it, or the one that made it.
    fn servers(&self, room_id: &RoomId, ours: &ruma::ServerName) -> Vec<OwnedServerName> {
        let named = self.via.get(room_id).cloned().unwrap_or_default();
        let maker = room_id.server_name().map(ToOwned::to_owned);
        let mut servers = Vec::new();
        for server in named.into_iter().chain(maker) {
            if server != *ours && !servers.contains(&server) {
                servers.push(server);
            }
        }
        servers.truncate(SERVERS_A_ROOM);
        servers
    }

    /// Takes over what an answer to a question about a room tells. Spaces among its children are left out:
    /// their own rooms are not in it.
    fn take(&mut self, asked: OwnedRoomId, answer: Option<Answer>) {
        let Some(answer) = answer.filter(|answer| answer.room.room_id == asked) else {
            self.closed.insert(asked);
            return;
        };
        self.closed
            .extend(answer.inaccessible_children.into_iter().take(CHILDREN_MAX));
        for child in answer.children.into_iter().take(CHILDREN_MAX) {
            let child = RoomSummary::from(child);
            if !child.is_space() {
                self.rooms.entry(child.room_id.clone()).or_insert(child);
            }
        }
        let room = RoomSummary::from(answer.room);
        self.note(&room);
        self.rooms.insert(asked, room);
    }
}

impl Rooms {
    /// Servers that may know a room.
    pub(super) fn told_by(room_id: &RoomId, via: &[OwnedServerName]) -> Told {
        let mut told = Told::default();
        let via = via.iter().take(SERVERS_A_ROOM).cloned().collect();
        told.via.insert(room_id.to_owned(), via);
        told
    }

    /// Asks other servers about rooms of which nothing is known yet.
    pub(super) async fn fetch_told(&self, told: &mut Told, rooms: &[OwnedRoomId], suggested: bool) {
        let ours = self.server_name();
        let unknown = rooms
            .iter()
            .filter(|id| !told.rooms.contains_key(*id) && !told.closed.contains(*id));
        let unknown: Vec<_> = unknown
            .take(ROOMS_A_PAGE.saturating_sub(told.asked))
            .map(|id| (id.clone(), told.servers(id, ours)))
            .collect();
        told.asked += unknown.len();
        let answers = stream::iter(unknown).map(async |(room_id, servers)| {
            let answer = self.fetch_hierarchy(&room_id, servers, suggested).await;
            (room_id, answer)
        });
        let answers: Vec<_> = answers.buffer_unordered(AT_ONCE).collect().await;
        for (room_id, answer) in answers {
            told.take(room_id, answer);
        }
    }

    async fn fetch_hierarchy(
        &self,
        room_id: &RoomId,
        servers: Vec<OwnedServerName>,
        suggested_only: bool,
    ) -> Option<Answer> {
        for server in servers {
            let mut question = get_hierarchy::v1::Request::new(room_id.to_owned());
            question.suggested_only = suggested_only;
            let asked = self
                .federation()
                .ask_raw(&server, question, Patience::SHORT);
            match asked.await {
                Ok(answer) => match serde_json::from_slice(answer.body()) {
                    Ok(answer) => return Some(answer),
                    Err(fault) => {
                        tracing::debug!(%server, %fault, "what a server tells of a room cannot be read");
                    }
                },
                Err(failure) => {
                    tracing::debug!(%server, %failure, "a server does not tell of a room");
                }
            }
        }
        None
    }

    /// What was told of a room, if it is open to somebody (or, with nobody, to everybody): what is open to
    /// this server need not be.
    pub(super) async fn told_to(
        &self,
        snapshot: &Snapshot,
        told: &Told,
        user: Option<&UserId>,
        room_id: &RoomId,
    ) -> error::Result<Option<RoomSummary>> {
        let Some(summary) = told.rooms.get(room_id) else {
            return Ok(None);
        };
        let open = match summary.shown.join_rule.as_deref() {
            _ if summary.shown.world_readable => true,
            Some("public" | "knock" | "knock_restricted") => true,
            Some("restricted") => match user {
                Some(user) => {
                    restricted::is_in_one(self, snapshot, user, &summary.allowed_rooms).await?
                }
                None => false,
            },
            _ => false,
        };
        Ok(open.then(|| summary.clone()))
    }
}
