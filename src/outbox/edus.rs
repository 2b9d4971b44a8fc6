//! What people of this server do at this moment, on its way to other servers: typing, receipts, presence. In
//! memory only; the latest of each counts.

use std::collections::{BTreeMap, BTreeSet};

use federation::{Class, Direction};
use rooms::{Doing, PresenceNow};
use ruma::{OwnedEventId, OwnedRoomId, OwnedServerName, OwnedUserId};
use serde_json::{Map, Value, json, value::RawValue};
use storage::{ShortRoomId, ShortUserId, Snapshot};

use crate::Outbox;

/// So many of each kind wait for one server; more are not told.
const WAITING_MAX: usize = 1_000;
/// So many receipts, and people with their presence, are in one EDU.
const RECEIPTS_MAX: usize = 200;
const PEOPLE_MAX: usize = 100;

/// What waits for one server.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ephemeral {
    typing: BTreeMap<(OwnedRoomId, OwnedUserId), bool>,
    receipts: BTreeMap<ReceiptKey, Receipt>,
    presence: BTreeMap<OwnedUserId, Value>,
}

/// The room, who reads, and in which thread.
type ReceiptKey = (OwnedRoomId, OwnedUserId, Option<String>);

/// Up to where somebody has read.
#[derive(Clone, Debug)]
struct Receipt {
    event_id: OwnedEventId,
    ts: u64,
    /// It has waited until events were told: that of which it speaks is there.
    waited: bool,
}

impl Ephemeral {
    pub(crate) fn is_empty(&self) -> bool {
        self.typing.is_empty() && self.receipts.is_empty() && self.presence.is_empty()
    }

    /// Takes out what fits into so many EDUs. New receipts wait if events are told in the same transaction: servers
    /// may take EDUs in before events, and Synapse does not show somebody who syncs just then a receipt for an
    /// event that it has not.
    pub(crate) fn take(&mut self, most: usize, with_events: bool) -> (Self, Vec<Box<RawValue>>) {
        let (mut taken, mut edus) = (Self::default(), Vec::new());
        while edus.len() < most
            && let Some(((room, user), typing)) = self.typing.pop_first()
        {
            let content = json!({ "room_id": room, "user_id": user, "typing": typing });
            edus.extend(edu("m.typing", &content));
            taken.typing.insert((room, user), typing);
        }
        let mut wait = BTreeMap::new();
        if with_events {
            (wait, self.receipts) = std::mem::take(&mut self.receipts)
                .into_iter()
                .partition(|(_, receipt)| !receipt.waited);
        }
        while edus.len() < most && !self.receipts.is_empty() {
            edus.extend(self.take_receipts(&mut taken));
        }
        for receipt in wait.values_mut() {
            receipt.waited = true;
        }
        self.receipts.append(&mut wait);
        while edus.len() < most && !self.presence.is_empty() {
            let mut push = Vec::new();
            while push.len() < PEOPLE_MAX
                && let Some((user, content)) = self.presence.pop_first()
            {
                push.push(content.clone());
                taken.presence.insert(user, content);
            }
            edus.extend(edu("m.presence", &json!({ "push": push })));
        }
        (taken, edus)
    }

    /// One EDU of receipts: by room and user, so that of each user's threads there is one in it.
    fn take_receipts(&mut self, taken: &mut Self) -> Option<Box<RawValue>> {
        let mut content: BTreeMap<OwnedRoomId, BTreeMap<OwnedUserId, Value>> = BTreeMap::new();
        let mut left = BTreeMap::new();
        let mut count = 0;
        while let Some((key, receipt)) = self.receipts.pop_first() {
            let (room, user, thread) = &key;
            let there = content.get(room).is_some_and(|it| it.contains_key(user));
            if there || count >= RECEIPTS_MAX {
                left.insert(key, receipt);
                continue;
            }
            let mut data = json!({ "ts": receipt.ts });
            if let (Some(thread), Some(data)) = (thread, data.as_object_mut()) {
                data.insert("thread_id".to_owned(), json!(thread));
            }
            let value = json!({ "event_ids": [receipt.event_id], "data": data });
            let of_room = content.entry(room.clone()).or_default();
            of_room.insert(user.clone(), value);
            taken.receipts.insert(key, receipt);
            count += 1;
        }
        self.receipts = left;
        let rooms = content.into_iter();
        let content: Map<String, Value> = rooms
            .map(|(room, users)| (room.to_string(), json!({ "m.read": users })))
            .collect();
        edu("m.receipt", &Value::Object(content))
    }

    /// Takes back what was not sent, but for what was true at that moment only; what came since is newer.
    pub(crate) fn put_back(&mut self, taken: Self) {
        for (key, receipt) in taken.receipts {
            self.receipts.entry(key).or_insert(receipt);
        }
        for (user, presence) in taken.presence {
            self.presence.entry(user).or_insert(presence);
        }
        // Of whoever typed then nobody says that they fell silent: others find out.
        self.typing.clear();
    }

    fn add(&mut self, news: &News) {
        match news {
            News::Typing(key, typing) => insert(&mut self.typing, key, *typing),
            News::Receipt(key, receipt) => {
                // Who reads all the time would otherwise not be told of while events are told all the time.
                let waited = self.receipts.get(key).is_some_and(|old| old.waited);
                let receipt = Receipt {
                    waited,
                    ..receipt.clone()
                };
                insert(&mut self.receipts, key, receipt);
            }
            News::Presence(user, content) => insert(&mut self.presence, user, content.clone()),
        }
    }
}

fn insert<K: Ord + Clone, V>(map: &mut BTreeMap<K, V>, key: &K, value: V) {
    if map.len() < WAITING_MAX || map.contains_key(key) {
        map.insert(key.clone(), value);
    }
}

fn edu(edu_type: &str, content: &Value) -> Option<Box<RawValue>> {
    let edu = json!({ "edu_type": edu_type, "content": content });
    serde_json::value::to_raw_value(&edu).ok()
}

/// One thing that servers are told.
enum News {
    Typing((OwnedRoomId, OwnedUserId), bool),
    Receipt(ReceiptKey, Receipt),
    Presence(OwnedUserId, Value),
}

impl News {
    /// What it is about, for the operator who says what servers are told.
    fn class(&self) -> Class {
        match self {
            Self::Typing(..) | Self::Receipt(..) => Class::Rooms,
            Self::Presence(..) => Class::Presence,
        }
    }
}

impl Outbox {
    /// Puts what people do into the lanes of the servers that are to be told.
    pub(crate) async fn take_doings(&self, doings: Vec<Doing>) -> error::Result<()> {
        let snapshot = self.rooms().snapshot().await?;
        let mut there = BTreeSet::new();
        let mut new_servers = BTreeSet::new();
        let mut in_rooms: BTreeMap<ShortRoomId, Vec<Doing>> = BTreeMap::new();
        for doing in doings {
            match &doing {
                Doing::Types { room, .. }
                | Doing::Reads { room, .. }
                | Doing::Joins { room, .. } => {
                    in_rooms.entry(*room).or_default().push(doing);
                }
                Doing::IsThere(user) => drop(there.insert(*user)),
                Doing::ServerJoins { room, server } => {
                    new_servers.insert((*room, server.clone()));
                }
            }
        }
        let shorts: Vec<_> = in_rooms.keys().copied().collect();
        let servers = self.rooms().servers_in(&snapshot, &shorts).await?;
        let rooms = self.rooms().find_by_short(&snapshot, &shorts).await?;
        for ((room, servers), doings) in rooms.iter().zip(servers).zip(in_rooms.into_values()) {
            let Some(room) = room else { continue };
            for doing in doings {
                let room = room.room_id.clone();
                let news = match doing {
                    Doing::Types { user, typing, .. } => News::Typing((room, user), typing),
                    Doing::Reads {
                        user,
                        event_id,
                        thread,
                        ts,
                        ..
                    } => {
                        let receipt = Receipt {
                            event_id,
                            ts,
                            waited: false,
                        };
                        News::Receipt((room, user, thread), receipt)
                    }
                    Doing::Joins { user, .. } => match self.rooms().presence_to_tell(user).await? {
                        Some((user, now)) => {
                            let content = presence(&user, &now);
                            News::Presence(user, content)
                        }
                        None => continue,
                    },
                    Doing::IsThere(_) | Doing::ServerJoins { .. } => continue,
                };
                self.tell(&servers, &news);
            }
        }
        for user in there {
            self.tell_presence(&snapshot, user).await?;
        }
        for (room, server) in new_servers {
            let server = BTreeSet::from([server]);
            for (user, now) in self.rooms().present_of_ours(room) {
                let content = presence(&user, &now);
                self.tell(&server, &News::Presence(user, content));
            }
        }
        self.0.ready.notify_one();
        Ok(())
    }

    /// Tells the servers of somebody's rooms how they are.
    async fn tell_presence(&self, snapshot: &Snapshot, user: ShortUserId) -> error::Result<()> {
        let Some((user_id, now)) = self.rooms().presence_to_tell(user).await? else {
            return Ok(());
        };
        let rooms: Vec<_> = self
            .rooms()
            .rooms_of(snapshot, user)
            .await?
            .into_iter()
            .filter(|(_, row)| row.value.membership == storage::schema::Membership::Join)
            .map(|(room, _)| room)
            .collect();
        let mut servers = BTreeSet::new();
        for of_room in self.rooms().servers_in(snapshot, &rooms).await? {
            servers.extend(of_room.iter().cloned());
        }
        let content = presence(&user_id, &now);
        self.tell(&servers, &News::Presence(user_id, content));
        Ok(())
    }

    /// Puts it into the lanes of servers that answer, and that may hear it.
    fn tell(&self, servers: &BTreeSet<OwnedServerName>, news: &News) {
        let federation = &self.0.parts.federation;
        let class = news.class();
        let mut lanes = self.0.lanes.lock();
        for server in servers {
            let wanted = federation.allows(server, Direction::Out, class);
            if !wanted || federation.backing_off(server).is_some() {
                continue;
            }
            let hash = self.storage().server_hash(server);
            if let Some(lane) = lanes.lane(server, hash, || false) {
                lane.ephemeral.add(news);
                lanes.schedule(server);
            }
        }
    }
}

fn presence(user: &OwnedUserId, now: &PresenceNow) -> Value {
    let mut content = json!({
        "user_id": user,
        "presence": now.presence,
        "last_active_ago": now.last_active_ago.unwrap_or_default(),
        "currently_active": now.currently_active,
    });
    if let (Some(status), Some(content)) = (&now.status_msg, content.as_object_mut()) {
        content.insert("status_msg".to_owned(), json!(status));
    }
    content
}
