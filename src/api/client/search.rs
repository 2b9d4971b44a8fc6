//! Searching what was said in rooms.

use std::collections::BTreeMap;

use error::Result;
use futures_util::future::try_join_all;
use pdu::canonical;
use rooms::ReadEvent;
use ruma::{
    api::client::search::search_events::{
        self,
        v3::{Criteria, EventContext, GroupingKey, OrderBy, SearchKeys},
    },
    serde::Raw,
};
use search::{Found, FoundEvent, FoundRoom, Group, Kind, MessageQuery};
use serde::Serialize;
use storage::{ShortRoomId, Snapshot};

use super::{
    message::TimelineFilter,
    reading::{Reading, viewer},
};
use crate::{Call, Server, endpoint::Written};

/// How many results there are on a page if nobody says, and at most.
const PAGE: usize = 10;
const MOST: usize = 50;
/// The most events before a result, and after it.
const CONTEXT: usize = 10;

/// The answer. Ruma's type leaves out an empty list of results, for which clients look.
#[derive(Serialize)]
struct Answer {
    search_categories: Categories,
}

#[derive(Default, Serialize)]
struct Categories {
    #[serde(skip_serializing_if = "Option::is_none")]
    room_events: Option<RoomEvents>,
}

#[derive(Serialize)]
struct RoomEvents {
    count: u64,
    results: Vec<Entry>,
    highlights: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_batch: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    groups: BTreeMap<&'static str, BTreeMap<String, Grouped>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<BTreeMap<String, Vec<Event>>>,
}

type Event = Raw<serde_json::Value>;

#[derive(Serialize)]
struct Entry {
    rank: f64,
    result: Event,
    #[serde(skip_serializing_if = "Option::is_none")]
    context: Option<Context>,
}

#[derive(Serialize)]
struct Context {
    start: String,
    end: String,
    events_before: Vec<Event>,
    events_after: Vec<Event>,
    #[serde(skip_serializing_if = "Option::is_none")]
    profile_info: Option<BTreeMap<String, Profile>>,
}

#[derive(Serialize)]
struct Profile {
    #[serde(skip_serializing_if = "Option::is_none")]
    displayname: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    avatar_url: Option<String>,
}

#[derive(Serialize)]
struct Grouped {
    order: usize,
    results: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_batch: Option<String>,
}

/// [`POST /search`](https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3search).
pub(super) async fn search_events(
    server: Server,
    call: Call<search_events::v3::Request>,
) -> Result<Written> {
    let mut categories = Categories::default();
    if let Some(criteria) = &call.search_categories.room_events {
        let viewer = viewer(&server, &call.caller);
        let query = query(criteria, call.next_batch.as_deref())?;
        let found = server.search.messages(&viewer, &query).await?;
        let telling = Telling {
            server: &server,
            call: &call,
            criteria,
            found: &found,
        };
        categories.room_events = Some(telling.room_events().await?);
    }
    let answer = Answer {
        search_categories: categories,
    };
    let json = serde_json::to_vec(&answer).map_err(error::internal)?;
    Ok(Written(json.into()))
}

/// What is searched.
///
/// # Errors
///
/// 400 `M_INVALID_PARAM`.
fn query<'a>(criteria: &'a Criteria, next_batch: Option<&str>) -> Result<MessageQuery<'a>> {
    let kind = |key: &SearchKeys| match key {
        SearchKeys::ContentBody => Some(Kind::Body),
        SearchKeys::ContentName => Some(Kind::Name),
        SearchKeys::ContentTopic => Some(Kind::Topic),
        // What is no text of ours to search has nothing in it to be found.
        _ => None,
    };
    let by_rank = match &criteria.order_by {
        None | Some(OrderBy::Rank) => true,
        Some(OrderBy::Recent) => false,
        Some(_) => {
            return Err(error::invalid_param(
                "`order_by` has to be `rank` or `recent`",
            ));
        }
    };
    let limit = criteria.filter.limit.map_or(PAGE, |limit| {
        usize::try_from(u64::from(limit)).unwrap_or(MOST)
    });
    let from = next_batch.map(str::parse).transpose().map_err(|_| {
        error::invalid_param("`next_batch` is no token that this server has given out for a search")
    })?;
    Ok(MessageQuery {
        term: &criteria.search_term,
        kinds: match &criteria.keys {
            Some(keys) => keys.iter().filter_map(kind).collect(),
            None => Kind::ALL.to_vec(),
        },
        filter: &criteria.filter,
        by_rank,
        limit: limit.clamp(1, MOST),
        from,
    })
}

/// Telling a client what was found.
struct Telling<'a> {
    server: &'a Server,
    call: &'a Call<search_events::v3::Request>,
    criteria: &'a Criteria,
    found: &'a Found,
}

impl Telling<'_> {
    async fn room_events(&self) -> Result<RoomEvents> {
        let found = self.found;
        let results = found.snapshot.gathered(async |snapshot| {
            let entries = found
                .events
                .iter()
                .map(|event| self.entry(&snapshot, event));
            try_join_all(entries).await
        });
        let state = match self.criteria.include_state {
            Some(true) => Some(self.state().await?),
            _ => None,
        };
        Ok(RoomEvents {
            count: found.count,
            results: results.await?,
            highlights: found.highlights.clone(),
            next_batch: found.next.map(|next| next.to_string()),
            groups: self.groups(),
            state,
        })
    }

    /// The room of a result, as it is read.
    fn reading(&self, snapshot: &Snapshot, found: &FoundRoom) -> Reading {
        Reading {
            server: self.server.clone(),
            room: std::sync::Arc::clone(&found.room),
            snapshot: snapshot.clone(),
            viewer: viewer(self.server, &self.call.caller),
            look: found.look.clone(),
        }
    }

    fn room(&self, short: ShortRoomId) -> Result<&FoundRoom> {
        let room = self.found.rooms.get(&short);
        room.ok_or_else(|| error::internal("a result of a room that was not read"))
    }

    async fn entry(&self, snapshot: &Snapshot, found: &FoundEvent) -> Result<Entry> {
        let reading = self.reading(snapshot, self.room(found.room)?);
        let alone = std::slice::from_ref(&found.event);
        let result = reading.events(alone).await?.pop();
        Ok(Entry {
            rank: found.rank,
            result: result.ok_or_else(|| error::internal("a result cannot be written"))?,
            context: context(&reading, &found.event, &self.criteria.event_context).await?,
        })
    }

    /// The groups that are asked for, in the order of their first results.
    fn groups(&self) -> BTreeMap<&'static str, BTreeMap<String, Grouped>> {
        let mut groups = BTreeMap::new();
        let asked = self.criteria.groupings.group_by.iter();
        for key in asked.filter_map(|grouping| grouping.key.as_ref()) {
            let name = match key {
                GroupingKey::RoomId => "room_id",
                GroupingKey::Sender => "sender",
                _ => continue,
            };
            let mut grouped: BTreeMap<String, Grouped> = BTreeMap::new();
            for event in &self.found.events {
                let Some((value, group)) = self.group(key, event) else {
                    continue;
                };
                let order = grouped.len();
                let group_of = grouped.entry(value).or_insert_with(|| Grouped {
                    order,
                    results: Vec::new(),
                    next_batch: None,
                });
                let event_id = event.event.row.header.event_id.clone();
                group_of.results.push(event_id);
                let next = self.found.next_of_group(group, event);
                group_of.next_batch = next.map(|next| next.to_string());
            }
            groups.insert(name, grouped);
        }
        groups
    }

    /// The group of a result, and what it is called.
    fn group(&self, key: &GroupingKey, found: &FoundEvent) -> Option<(String, Group)> {
        if *key == GroupingKey::RoomId {
            let room = self.found.rooms.get(&found.room)?;
            return Some((room.room.room_id.to_string(), Group::Room(found.room)));
        }
        let sender = &found.event.row.header.sender;
        let hash = self.server.storage.user_hash(sender);
        Some((sender.clone(), Group::Sender(hash)))
    }

    /// The current state of the rooms of the results, as far as the viewer may see it.
    async fn state(&self) -> Result<BTreeMap<String, Vec<Event>>> {
        let mut states = BTreeMap::new();
        let lazy = !self.criteria.filter.lazy_load_options.is_disabled();
        for (short, found) in &self.found.rooms {
            let events = self.found.events.iter();
            let results: Vec<_> = events.filter(|event| event.room == *short).collect();
            let reading = self.reading(&self.found.snapshot, found);
            let Ok(root) = reading.look.root() else {
                continue;
            };
            if results.is_empty() {
                continue;
            }
            let (rooms, snapshot, look) = (&self.server.rooms, &reading.snapshot, &reading.look);
            let state = if lazy {
                let senders = results.iter().map(|it| it.event.row.header.sender.clone());
                let room = &reading.room;
                room.state_with_members(rooms, snapshot, look, root, &senders.collect())
                    .await?
            } else {
                let room = &reading.room;
                room.state_at(rooms, snapshot, look, root).await?
            };
            let room_id = reading.room.room_id.to_string();
            states.insert(room_id, reading.state(&state).await?);
        }
        Ok(states)
    }
}

/// The events around a result; none where the viewer may see the result, and nothing else of the room.
async fn context(
    reading: &Reading,
    event: &ReadEvent,
    wanted: &EventContext,
) -> Result<Option<Context>> {
    let Some(place) = event.row.header.place else {
        return Ok(None);
    };
    if reading.look.root().is_err() {
        return Ok(None);
    }
    let limit = |limit| {
        usize::try_from(u64::from(limit))
            .unwrap_or(CONTEXT)
            .min(CONTEXT)
    };
    let limits = [wanted.before_limit, wanted.after_limit].map(limit);
    let around = reading
        .around(place, limits, &TimelineFilter::default())
        .await?;
    let (before, after) = (&around.before.events, &around.after.events);
    let profile_info = if wanted.include_profile {
        let all: Vec<_> = before.iter().chain([event]).chain(after).cloned().collect();
        let last = after.last().unwrap_or(event);
        let members = reading.senders(last.roots.after, &all).await?;
        let profiles = members.iter().filter_map(|member| {
            let user = member.row.header.state_key.clone()?;
            let text = |key| {
                let value = canonical::member(member.content(), key)?;
                canonical::string(value).map(Into::into)
            };
            let profile = Profile {
                displayname: text("displayname"),
                avatar_url: text("avatar_url"),
            };
            Some((user, profile))
        });
        Some(profiles.collect())
    } else {
        None
    };
    Ok(Some(Context {
        start: around.start.to_string(),
        end: around.end.to_string(),
        events_before: reading.events(before).await?,
        events_after: reading.events(after).await?,
        profile_info,
    }))
}
