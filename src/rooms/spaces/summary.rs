//! A room as it is shown to those who may come to it, before they do.

use std::{borrow::Cow, sync::Arc};

use futures_util::future::{try_join, try_join_all};
use pdu::canonical;
use ruma::{OwnedRoomId, OwnedServerName, RoomId, ServerName, UInt, events::StateEventType};
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use storage::{
    Range, ShortRoomId, Snapshot,
    schema::{self, DirectoryRow, Generation, Head, Membership, Visibility},
};

use crate::{
    ReadEvent, Room, Rooms, Viewer,
    directory::{SHOWN, federates, show},
    membership_of,
    restricted::{self, JoinRules},
    writer::flat_key,
};

/// People of one server in a room that are looked at.
const PEOPLE_MAX: usize = 1_000;
/// Children of one space that are looked at.
const CHILDREN_MAX: usize = 2_000;
/// Servers of one child that are looked at.
const VIA_MAX: usize = 10;
/// The longest `order` of a child that counts, in letters ([spec]).
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#ordering-of-children-within-a-space
const ORDER_MAX: usize = 50;

/// A room as it is shown to those who may come to it.
#[derive(Clone, Debug)]
pub struct RoomSummary {
    /// The room.
    pub room_id: OwnedRoomId,
    /// Its version.
    pub room_version: String,
    /// What the directory would show of it.
    pub shown: DirectoryRow,
    /// How its messages are encrypted, if they are.
    pub encryption: Option<String>,
    /// The rooms whose members may join it, if it is restricted.
    pub allowed_rooms: Vec<OwnedRoomId>,
    /// The membership of who looks.
    pub membership: Option<Membership>,
    /// The rooms of a space, in their order.
    pub children: Vec<Child>,
}

/// A room of a space, as the space names it.
#[derive(Clone, Debug)]
pub struct Child {
    /// The room.
    pub room_id: OwnedRoomId,
    /// Whether the space suggests it.
    pub suggested: bool,
    /// Servers that are said to be in it.
    pub via: Vec<OwnedServerName>,
    /// The `m.space.child` event, stripped, with its time.
    pub event: Box<RawValue>,
}

/// Who looks.
#[derive(Clone, Copy, Debug)]
pub(super) enum Who<'a> {
    /// Nobody in particular.
    Anybody,
    /// Somebody of this server.
    Person(&'a Viewer),
    /// Another server.
    Server(&'a ServerName),
}

impl RoomSummary {
    /// Whether the room is a space.
    pub fn is_space(&self) -> bool {
        self.shown.room_type.as_deref() == Some("m.space")
    }
}

impl Rooms {
    /// A room as somebody may see it before they come to it; with no viewer, as everybody may. `None` if
    /// they may not, or nobody knows it: where this server is not in it, those of `via` are asked.
    pub async fn summary(
        &self,
        viewer: Option<&Viewer>,
        room_id: &RoomId,
        via: &[OwnedServerName],
    ) -> error::Result<Option<RoomSummary>> {
        let snapshot = self.snapshot().await?;
        let ids = [room_id.to_owned()];
        let who = viewer.map_or(Who::Anybody, Who::Person);
        let mut found = self.summaries(&snapshot, who, &ids, false).await?;
        let found = found.pop().flatten();
        if found.is_some() || self.are_here(&snapshot, &ids).await?.contains(&true) {
            return Ok(found);
        }
        let mut told = Self::told_by(room_id, via);
        self.fetch_told(&mut told, &ids, false).await;
        let snapshot = self.snapshot().await?;
        let user = viewer.map(|viewer| &*viewer.user_id);
        self.told_to(&snapshot, &told, user, room_id).await
    }

    /// Whether this server is in rooms, in their order: two round trips, and two more for rooms that were not
    /// used lately.
    pub(super) async fn are_here(
        &self,
        snapshot: &Snapshot,
        ids: &[OwnedRoomId],
    ) -> error::Result<Vec<bool>> {
        let rooms = self.find_rooms(snapshot, ids).await?;
        let known: Vec<_> = rooms.iter().flatten().map(|room| room.short).collect();
        let joined = self.joined_of(snapshot, self.server_name(), &known).await?;
        let mut joined = joined.into_iter();
        let here = rooms.iter().map(|room| match room {
            Some(_) => joined.next().unwrap_or(false),
            None => false,
        });
        Ok(here.collect())
    }

    /// Whether people of a server are joined to rooms, in their order. Two round trips.
    async fn joined_of(
        &self,
        snapshot: &Snapshot,
        server: &ServerName,
        rooms: &[ShortRoomId],
    ) -> error::Result<Vec<bool>> {
        let heads = snapshot.multi_get(&schema::HEAD_BY_ROOM, rooms).await?;
        let hash = self.storage().server_hash(server);
        let keys: Vec<_> = rooms
            .iter()
            .zip(&heads)
            .filter_map(|(room, head)| Some((*room, head.as_ref()?.value.generation, hash)))
            .collect();
        let rows = snapshot.multi_get(&schema::SERVER_BY_ROOM, &keys).await?;
        let mut rows = rows.into_iter();
        let joined = heads.iter().map(|head| {
            let row = head.as_ref().and_then(|_| rows.next()).flatten();
            row.is_some_and(|row| row.value.joined > 0)
        });
        Ok(joined.collect())
    }

    /// The same of many rooms, in their order, with their children if these are asked for: four round trips
    /// for all of them together, three more if some of them are restricted, two more if some of them were
    /// not used lately.
    ///
    /// A room that this server is not in is not known here: it would have to be asked of others.
    pub(super) async fn summaries(
        &self,
        snapshot: &Snapshot,
        who: Who<'_>,
        ids: &[OwnedRoomId],
        with_children: bool,
    ) -> error::Result<Vec<Option<RoomSummary>>> {
        let rooms = self.find_rooms(snapshot, ids).await?;
        let read = async |snapshot: Snapshot| {
            let one = async |room: &Option<Arc<Room>>| match room {
                Some(room) => self.summary_of(&snapshot, who, room, with_children).await,
                None => Ok(None),
            };
            try_join_all(rooms.iter().map(one)).await
        };
        snapshot.gathered(read).await
    }

    async fn summary_of(
        &self,
        snapshot: &Snapshot,
        who: Who<'_>,
        room: &Arc<Room>,
        with_children: bool,
    ) -> error::Result<Option<RoomSummary>> {
        let more = [StateEventType::RoomEncryption];
        let keys = SHOWN.into_iter().chain(more);
        let keys: Vec<_> = keys.map(|event_type| (event_type, String::new())).collect();
        let (membership, (head, state)) = try_join(
            room.membership_of(snapshot, who),
            room.current_state(self, snapshot, &keys),
        )
        .await?;
        let create = state.get(&(StateEventType::RoomCreate, String::new()));
        let closed = create.is_some_and(|create| !federates(create.pdu.content_bytes()));
        if closed && matches!(who, Who::Server(_)) {
            return Ok(None);
        }
        let mut summary = RoomSummary {
            room_id: room.room_id.clone(),
            room_version: room.rules.version().to_owned(),
            shown: DirectoryRow {
                joined: head.joined,
                world_readable: head.visibility == Visibility::WorldReadable,
                ..DirectoryRow::default()
            },
            encryption: None,
            allowed_rooms: Vec::new(),
            membership,
            children: Vec::new(),
        };
        for ((event_type, _), event) in &state {
            let content = event.pdu.content_bytes();
            show(&mut summary.shown, event_type, Some(content));
            match event_type {
                StateEventType::RoomEncryption => {
                    let algorithm = canonical::member(content, "algorithm");
                    let algorithm = algorithm.and_then(canonical::string);
                    summary.encryption = algorithm.map(|algorithm| algorithm.into_owned());
                }
                StateEventType::RoomJoinRules => {
                    let rules = JoinRules::of(content).filter(JoinRules::is_restricted);
                    summary.allowed_rooms = rules.map_or(Vec::new(), |rules| rules.allowed_rooms());
                }
                _ => {}
            }
        }
        if !self.is_open_to(snapshot, who, room, &summary).await? {
            return Ok(None);
        }
        if with_children && summary.is_space() {
            summary.children = room.children(self, snapshot, &head).await?;
        }
        Ok(Some(summary))
    }

    /// Whether somebody is in a room, or could come to it or look into it ([spec]).
    ///
    /// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1roomsroomidhierarchy
    async fn is_open_to(
        &self,
        snapshot: &Snapshot,
        who: Who<'_>,
        room: &Room,
        summary: &RoomSummary,
    ) -> error::Result<bool> {
        match summary.membership {
            Some(Membership::Join | Membership::Invite) => return Ok(true),
            _ if summary.shown.world_readable => return Ok(true),
            // They have no permission to join, whatever the join rules say.
            Some(Membership::Ban) => return Ok(false),
            _ => {}
        }
        if let Who::Server(server) = who
            && self.has_people_in(snapshot, server, room).await?
        {
            return Ok(true);
        }
        let known = &room.rules.authorization;
        let restricted = match summary.shown.join_rule.as_deref() {
            Some("public") => return Ok(true),
            Some("knock") if known.knocking => return Ok(true),
            Some("knock_restricted") if known.knock_restricted_join_rule => return Ok(true),
            Some("restricted") => known.restricted_join_rule,
            _ => false,
        };
        let allowed = &summary.allowed_rooms;
        match who {
            Who::Person(viewer) if restricted => {
                restricted::is_in_one(self, snapshot, &viewer.user_id, allowed).await
            }
            Who::Server(server) if restricted => {
                let rooms = self.find_rooms(snapshot, allowed).await?;
                let rooms: Vec<_> = rooms.iter().flatten().map(|room| room.short).collect();
                let joined = self.joined_of(snapshot, server, &rooms).await?;
                Ok(joined.contains(&true))
            }
            _ => Ok(false),
        }
    }

    /// Whether people of a server are in a room, or invited to it.
    async fn has_people_in(
        &self,
        snapshot: &Snapshot,
        server: &ServerName,
        room: &Room,
    ) -> error::Result<bool> {
        let rooms = [room.short];
        let heads = snapshot.multi_get(&schema::HEAD_BY_ROOM, &rooms);
        let Some(head) = heads.await?.pop().flatten() else {
            return Ok(false);
        };
        let hash = self.storage().server_hash(server);
        let range = Range::prefix(&(room.short, head.value.generation, hash));
        let ranges = [range.limit(PEOPLE_MAX)];
        let rows = snapshot.multi_range(&schema::MEMBER_BY_SERVER, &ranges);
        let rows = rows.await?.into_iter().flatten();
        let numbers: Vec<_> = rows.map(|(_, row)| row.value).collect();
        let events = room.read_state(snapshot, &numbers).await?;
        let mut memberships = events.iter().flatten().map(membership_of);
        Ok(memberships
            .any(|membership| matches!(membership, Some(Membership::Join | Membership::Invite))))
    }
}

impl Room {
    /// The membership of who looks, if anybody in particular does.
    async fn membership_of(
        &self,
        snapshot: &Snapshot,
        who: Who<'_>,
    ) -> error::Result<Option<Membership>> {
        let keys: Vec<_> = match who {
            Who::Person(viewer) => vec![(viewer.short, self.short)],
            Who::Anybody | Who::Server(_) => Vec::new(),
        };
        let rows = snapshot.multi_get(&schema::ROOM_BY_USER, &keys).await?;
        let row = rows.into_iter().flatten().next();
        let row = row.map(|row| row.value.value).filter(|row| !row.forgotten);
        Ok(row.map(|row| row.membership))
    }

    /// The rooms that a space names, in their order ([spec]). Two round trips.
    ///
    /// [spec]: https://spec.matrix.org/v1.19/client-server-api/#ordering-of-children-within-a-space
    async fn children(
        &self,
        rooms: &Rooms,
        snapshot: &Snapshot,
        head: &Head,
    ) -> error::Result<Vec<Child>> {
        let generation: Generation = head.generation;
        let key = flat_key(rooms.storage(), self.short, generation, "m.space.child", "");
        let ranges = [Range::prefix(&(self.short, generation, key.2)).limit(CHILDREN_MAX)];
        let rows = snapshot.multi_range(&schema::STATE_BY_ROOM, &ranges);
        let rows = rows.await?.into_iter().flatten();
        let numbers: Vec<_> = rows.map(|(_, row)| row.value).collect();
        let events = self.read_state(snapshot, &numbers).await?;
        let events = events.into_iter().flatten();
        let mut children: Vec<_> = events.filter_map(|event| child(&event)).collect();
        children.sort_by(|(one, _), (other, _)| one.cmp(other));
        Ok(children.into_iter().map(|(_, child)| child).collect())
    }
}

/// By what children are ordered: those with an order come first.
pub(super) type Order = (bool, Option<String>, u64, OwnedRoomId);

/// What an `m.space.child` says.
#[derive(Deserialize)]
struct ChildContent {
    via: Vec<String>,
    order: Option<serde_json::Value>,
    suggested: Option<serde_json::Value>,
}

/// An `m.space.child` event, stripped, with its time.
#[derive(Deserialize, Serialize)]
struct StrippedChild<'a> {
    #[serde(borrow)]
    r#type: Cow<'a, str>,
    #[serde(borrow)]
    state_key: Cow<'a, str>,
    #[serde(borrow)]
    sender: Cow<'a, str>,
    origin_server_ts: UInt,
    #[serde(borrow)]
    content: &'a RawValue,
}

/// A room that a space names. One that no server is named for is none: so children are taken out.
fn child(event: &ReadEvent) -> Option<(Order, Child)> {
    let header = &event.row.header;
    child_of(&StrippedChild {
        r#type: header.event_type.as_str().into(),
        state_key: header.state_key.as_deref()?.into(),
        sender: header.sender.as_str().into(),
        origin_server_ts: UInt::new_saturating(header.origin_server_ts),
        content: serde_json::from_slice(event.content()).ok()?,
    })
}

/// The same of an event that another server tells.
pub(super) fn told_child(event: &RawValue) -> Option<(Order, Child)> {
    let stripped: StrippedChild<'_> = serde_json::from_str(event.get()).ok()?;
    if stripped.r#type != "m.space.child" {
        return None;
    }
    child_of(&stripped)
}

fn child_of(stripped: &StrippedChild<'_>) -> Option<(Order, Child)> {
    let room_id = OwnedRoomId::try_from(&*stripped.state_key).ok()?;
    let content: ChildContent = serde_json::from_str(stripped.content.get()).ok()?;
    if content.via.is_empty() {
        return None;
    }
    let via = content.via.iter().take(VIA_MAX);
    let child = Child {
        room_id: room_id.clone(),
        suggested: content.suggested == Some(true.into()),
        via: via
            .filter_map(|server| ServerName::parse(server.as_str()).ok())
            .collect(),
        event: to_raw_value(stripped).ok()?,
    };
    let printable = |letter| (' '..='~').contains(&letter);
    let order = match content.order {
        Some(serde_json::Value::String(order)) => Some(order),
        _ => None,
    };
    let order = order.filter(|order| order.len() <= ORDER_MAX && order.chars().all(printable));
    Some((
        (
            order.is_none(),
            order,
            stripped.origin_server_ts.into(),
            room_id,
        ),
        child,
    ))
}
