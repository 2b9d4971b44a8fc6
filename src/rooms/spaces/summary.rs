//! A room as it is shown to those who may come to it, before they do.

use std::sync::Arc;

use futures_util::future::{try_join, try_join_all};
use pdu::canonical;
use ruma::{OwnedRoomId, RoomId, UInt, events::StateEventType};
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use storage::{
    Range, Snapshot,
    schema::{self, DirectoryRow, Generation, Head, Membership, Visibility},
};

use crate::{
    ReadEvent, Room, Rooms, Viewer,
    directory::{SHOWN, show},
    restricted::{self, JoinRules},
    writer::flat_key,
};

/// Children of one space that are looked at.
const CHILDREN_MAX: usize = 2_000;
/// The longest `order` of a child that counts, in letters ([spec]).
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#ordering-of-children-within-a-space
const ORDER_MAX: usize = 50;

/// A room as it is shown to those who may come to it.
#[derive(Clone, Debug)]
pub struct RoomSummary {
    /// The room.
    pub room: Arc<Room>,
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
    /// The `m.space.child` event, stripped, with its time.
    pub event: Box<RawValue>,
}

impl RoomSummary {
    /// Whether the room is a space.
    pub fn is_space(&self) -> bool {
        self.shown.room_type.as_deref() == Some("m.space")
    }
}

impl Rooms {
    /// A room as somebody may see it before they come to it; with no viewer, as everybody may. `None` if
    /// they may not, or this server does not know it.
    pub async fn summary(
        &self,
        viewer: Option<&Viewer>,
        room_id: &RoomId,
    ) -> error::Result<Option<RoomSummary>> {
        let snapshot = self.snapshot().await?;
        let ids = [room_id.to_owned()];
        let mut found = self.summaries(&snapshot, viewer, &ids, false).await?;
        Ok(found.pop().flatten())
    }

    /// The same of many rooms, in their order, with their children if these are asked for: four round trips
    /// for all of them together, three more if some of them are restricted, two more if some of them were
    /// not used lately.
    ///
    /// A room that this server is not in is not known here: it would have to be asked of others.
    pub(super) async fn summaries(
        &self,
        snapshot: &Snapshot,
        viewer: Option<&Viewer>,
        ids: &[OwnedRoomId],
        with_children: bool,
    ) -> error::Result<Vec<Option<RoomSummary>>> {
        let rooms = self.find_rooms(snapshot, ids).await?;
        let read = async |snapshot: Snapshot| {
            let one = async |room: &Option<Arc<Room>>| match room {
                Some(room) => {
                    self.summary_of(&snapshot, viewer, room, with_children)
                        .await
                }
                None => Ok(None),
            };
            try_join_all(rooms.iter().map(one)).await
        };
        snapshot.gathered(read).await
    }

    async fn summary_of(
        &self,
        snapshot: &Snapshot,
        viewer: Option<&Viewer>,
        room: &Arc<Room>,
        with_children: bool,
    ) -> error::Result<Option<RoomSummary>> {
        let more = [StateEventType::RoomEncryption];
        let keys = SHOWN.into_iter().chain(more);
        let keys: Vec<_> = keys.map(|event_type| (event_type, String::new())).collect();
        let (membership, (head, state)) = try_join(
            room.membership_of(snapshot, viewer),
            room.current_state(self, snapshot, &keys),
        )
        .await?;
        let mut summary = RoomSummary {
            room: Arc::clone(room),
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
        if !self.is_open_to(snapshot, viewer, &summary).await? {
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
        viewer: Option<&Viewer>,
        summary: &RoomSummary,
    ) -> error::Result<bool> {
        match summary.membership {
            Some(Membership::Join | Membership::Invite) => return Ok(true),
            _ if summary.shown.world_readable => return Ok(true),
            // They have no permission to join, whatever the join rules say.
            Some(Membership::Ban) => return Ok(false),
            _ => {}
        }
        let known = &summary.room.rules.authorization;
        let restricted = match summary.shown.join_rule.as_deref() {
            Some("public") => return Ok(true),
            Some("knock") if known.knocking => return Ok(true),
            Some("knock_restricted") if known.knock_restricted_join_rule => return Ok(true),
            Some("restricted") => known.restricted_join_rule,
            _ => false,
        };
        match viewer {
            Some(viewer) if restricted => {
                let allowed = &summary.allowed_rooms;
                restricted::is_in_one(self, snapshot, &viewer.user_id, allowed).await
            }
            _ => Ok(false),
        }
    }
}

impl Room {
    /// The membership of who looks, if anybody in particular does.
    async fn membership_of(
        &self,
        snapshot: &Snapshot,
        viewer: Option<&Viewer>,
    ) -> error::Result<Option<Membership>> {
        let keys: Vec<_> = viewer.iter().map(|who| (who.short, self.short)).collect();
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
type Order = (bool, Option<String>, u64, OwnedRoomId);

/// A room that a space names. One that no server is named for is none: so children are taken out.
fn child(event: &ReadEvent) -> Option<(Order, Child)> {
    #[derive(Deserialize)]
    struct Content {
        via: Vec<String>,
        order: Option<serde_json::Value>,
        suggested: Option<serde_json::Value>,
    }
    #[derive(Serialize)]
    struct Stripped<'a> {
        r#type: &'a str,
        state_key: &'a str,
        sender: &'a str,
        origin_server_ts: UInt,
        content: &'a RawValue,
    }
    let header = &event.row.header;
    let state_key = header.state_key.as_deref()?;
    let room_id = OwnedRoomId::try_from(state_key).ok()?;
    let content: Content = serde_json::from_slice(event.content()).ok()?;
    if content.via.is_empty() {
        return None;
    }
    let stripped = Stripped {
        r#type: &header.event_type,
        state_key,
        sender: &header.sender,
        origin_server_ts: UInt::new_saturating(header.origin_server_ts),
        content: serde_json::from_slice(event.content()).ok()?,
    };
    let child = Child {
        room_id: room_id.clone(),
        suggested: content.suggested == Some(true.into()),
        event: to_raw_value(&stripped).ok()?,
    };
    let printable = |letter| (' '..='~').contains(&letter);
    let order = match content.order {
        Some(serde_json::Value::String(order)) => Some(order),
        _ => None,
    };
    let order = order.filter(|order| order.len() <= ORDER_MAX && order.chars().all(printable));
    Some((
        (order.is_none(), order, header.origin_server_ts, room_id),
        child,
    ))
}
