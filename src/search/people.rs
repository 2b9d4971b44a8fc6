//! Who of a room is in the index: its members, if people of ours are in it, each with the names under which
//! the room's people find them; everybody may find those of public rooms.
//!
//! People of this server are found by their profile, so that what they call themselves in one room stays
//! there; others by what they call themselves in a room, by those who see it there.

use std::{collections::BTreeSet, sync::Arc};

use pdu::{EventNumber, canonical};
use rooms::{Room, Rooms};
use ruma::{UserId, events::StateEventType};
use storage::{
    NameHash, Position, Range, Reads, Snapshot,
    schema::{
        self, Generation, MemberRow, Membership, RoomChange, StateChange, StreamRecord, Visibility,
    },
};
use tantivy::Term;

use crate::{
    fields::{Fields, Member, member_key},
    index::Change,
};

/// Members that are read together.
const AT_ONCE: usize = 500;

/// What some events change of who is in the index for a room.
#[derive(Debug, Default)]
pub(crate) struct Moved {
    /// Members whose member event is another one.
    pub(crate) members: BTreeSet<String>,
    /// The room may have become public, or no longer be.
    pub(crate) rules: bool,
    /// Too many changed to be told one by one.
    pub(crate) all: bool,
}

impl Moved {
    /// Whether nothing changed.
    pub(crate) fn is_empty(&self) -> bool {
        self.members.is_empty() && !self.rules && !self.all
    }

    fn see(&mut self, change: RoomChange) {
        // MSC3902: members became known who were there before.
        let learnt = change.number.is_none();
        let Some(state) = change.state.filter(|_| !learnt) else {
            self.all = true;
            return;
        };
        for StateChange {
            event_type,
            state_key,
            ..
        } in state
        {
            match (event_type.as_str(), state_key.as_str()) {
                ("m.room.member", _) => {
                    self.members.insert(state_key);
                }
                ("m.room.join_rules" | "m.room.history_visibility", "") => self.rules = true,
                _ => {}
            }
        }
    }
}

/// Finds out what some records of the stream change. One round trip.
pub(crate) async fn moved(
    snapshot: &Snapshot,
    room: &Room,
    records: &[(Position, StreamRecord)],
) -> error::Result<Moved> {
    let keys: Vec<_> = records
        .iter()
        .map(|(position, _)| (room.short, *position))
        .collect();
    let rows = snapshot
        .multi_get(&schema::CHANGE_BY_ROOM_POSITION, &keys)
        .await?;
    let mut moved = Moved::default();
    for row in rows.into_iter().flatten() {
        moved.see(row.value);
    }
    Ok(moved)
}

/// How a room stands to the index.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Standing {
    generation: Generation,
    /// People of ours are in it: otherwise we do not learn who else is.
    pub(crate) resident: bool,
    /// Everybody may find its members.
    pub(crate) public: bool,
}

/// How a room stands to the index now. Three round trips.
pub(crate) async fn standing(
    rooms: &Rooms,
    snapshot: &Snapshot,
    room: &Room,
) -> error::Result<Option<Standing>> {
    let head = snapshot
        .multi_get(&schema::HEAD_BY_ROOM, &[room.short])
        .await?;
    let Some(head) = head.into_iter().flatten().next().map(|row| row.value) else {
        return Ok(None);
    };
    let own = rooms.storage().server_hash(rooms.server_name());
    let own = snapshot
        .multi_get(
            &schema::SERVER_BY_ROOM,
            &[(room.short, head.generation, own)],
        )
        .await?;
    let resident = own.into_iter().flatten().any(|row| row.value.joined > 0);
    let key = [(StateEventType::RoomJoinRules, String::new())];
    let rules = room
        .numbers_now(rooms, snapshot, head.generation, &key)
        .await?;
    let rules: Vec<EventNumber> = rules.into_iter().flatten().collect();
    let rules = room.read_state(snapshot, &rules).await?;
    let open = rules.iter().flatten().any(|rules| {
        let rule = canonical::member(rules.content(), "join_rule").and_then(canonical::string);
        rule.as_deref() == Some("public")
    });
    Ok(Some(Standing {
        generation: head.generation,
        resident,
        public: open || head.visibility == Visibility::WorldReadable,
    }))
}

/// Who writes members into the index.
pub(crate) struct Listing<'a> {
    pub(crate) rooms: &'a Rooms,
    pub(crate) fields: &'a Fields,
    pub(crate) snapshot: &'a Snapshot,
    pub(crate) room: &'a Arc<Room>,
    pub(crate) standing: Standing,
}

impl Listing<'_> {
    /// Writes some members anew, as they are now. Three round trips.
    pub(crate) async fn members(&self, users: &BTreeSet<String>) -> error::Result<Vec<Change>> {
        let hashes: Vec<_> = users
            .iter()
            .map(|user| self.rooms.storage().user_hash(user))
            .collect();
        let keys: Vec<_> = hashes.iter().map(|hash| self.key(*hash)).collect();
        let rows = self
            .snapshot
            .multi_get(&schema::MEMBER_BY_ROOM, &keys)
            .await?;
        let mut changes: Vec<_> = hashes
            .iter()
            .map(|hash| {
                let key = member_key(self.room.short, *hash);
                Change::Remove(Term::from_field_bytes(self.fields.key, &key))
            })
            .collect();
        let all = hashes.into_iter().zip(rows);
        let joined: Vec<_> = all
            .filter_map(|(hash, row)| Some((hash, row?.value)))
            .collect();
        changes.extend(self.write(&joined).await?);
        Ok(changes)
    }

    /// The changes for the next members, in the order of their hashes, and the last of them; none if there
    /// are no more. Three round trips.
    pub(crate) async fn next(
        &self,
        after: Option<NameHash>,
    ) -> error::Result<Option<(Vec<Change>, NameHash)>> {
        let (room, generation) = (self.room.short, self.standing.generation);
        let mut range = Range::prefix(&(room, generation, Membership::Join as u8)).limit(AT_ONCE);
        if let Some(after) = after {
            range = range.after(&self.key(after));
        }
        let rows = self
            .snapshot
            .multi_range(&schema::MEMBER_BY_ROOM, &[range])
            .await?;
        let members: Vec<_> = rows
            .into_iter()
            .flatten()
            .map(|((.., hash), row)| (hash, row.value))
            .collect();
        let Some((last, _)) = members.last() else {
            return Ok(None);
        };
        let last = *last;
        Ok(Some((self.write(&members).await?, last)))
    }

    fn key(&self, person: NameHash) -> (storage::ShortRoomId, Generation, u8, NameHash) {
        let (room, generation) = (self.room.short, self.standing.generation);
        (room, generation, Membership::Join as u8, person)
    }

    /// The documents of joined members.
    async fn write(&self, members: &[(NameHash, MemberRow)]) -> error::Result<Vec<Change>> {
        let own: Vec<_> = members
            .iter()
            .filter(|(_, row)| is_ours(self.rooms, &row.user_id))
            .map(|(hash, _)| *hash)
            .collect();
        let profiles = display_names(self.rooms, self.snapshot, &own).await?;
        let mut profiles = own.into_iter().zip(profiles).peekable();
        let mut changes = Vec::new();
        for (person, row) in members {
            // They are in the same order.
            let name = match profiles.next_if(|(own, _)| own == person) {
                Some((_, profile)) => profile,
                None => row.displayname.clone(),
            };
            let Ok(user_id) = <&UserId>::try_from(row.user_id.as_str()) else {
                continue;
            };
            let names = [name.as_deref(), Some(user_id.localpart())];
            let member = Member {
                room: self.room.short,
                person: *person,
                public: self.standing.public,
                names: names.into_iter().flatten().collect(),
                server: user_id.server_name().as_str(),
            };
            changes.push(Change::Add(self.fields.member(&member)));
        }
        Ok(changes)
    }
}

/// Whether somebody is a user of this server.
pub(crate) fn is_ours(rooms: &Rooms, user_id: &str) -> bool {
    let server = user_id.split_once(':').map(|(_, server)| server);
    server == Some(rooms.server_name().as_str())
}

/// The display names in the profiles of some users of this server, by the hashes of their ids. Two round
/// trips.
async fn display_names(
    rooms: &Rooms,
    snapshot: &Snapshot,
    users: &[NameHash],
) -> error::Result<Vec<Option<String>>> {
    let shorts = snapshot.multi_get(&schema::USER_BY_NAME, users).await?;
    let field = rooms.storage().field_hash("displayname");
    let mut reads = Reads::new();
    let asked: Vec<_> = shorts
        .into_iter()
        .map(|short| {
            let key = (short?.value, field);
            Some(reads.get(&schema::PROFILE_FIELD_BY_USER, &key))
        })
        .collect();
    let answers = snapshot.read(&reads).await?;
    asked
        .iter()
        .map(|asked| {
            let Some(asked) = asked else { return Ok(None) };
            let row = answers.one(asked)?;
            Ok(row.and_then(|row| serde_json::from_str(&row.value.json).ok()))
        })
        .collect()
}
