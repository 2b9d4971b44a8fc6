//! Which events a filter wants by how they relate, or are related to ([spec], MSC3874).
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#filtering

use pdu::canonical;
use ruma::{OwnedUserId, api::client::filter::FilterDefinition};
use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::value::RawValue;
use storage::{
    Range, Reads, Snapshot,
    schema::{self, RelationRow},
};

use crate::{ReadEvent, Room, Rooms};

/// The latest relations of one event that are looked at; whether it begins a thread is known besides.
const RELATIONS_MAX: usize = 100;

/// What a filter of room events says of relations; Ruma's leaves it out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct RelationFilter {
    /// Only events to which another one relates in one of these ways.
    pub related_by_rel_types: Option<Vec<String>>,
    /// Only events to which one of these people related another one, in one of the ways if they are named.
    pub related_by_senders: Option<Vec<OwnedUserId>>,
    /// MSC3874: only events that relate to another one in one of these ways.
    #[serde(rename = "org.matrix.msc3874.rel_types", alias = "rel_types")]
    pub rel_types: Option<Vec<String>>,
    /// MSC3874: no events that relate to another one in one of these ways.
    #[serde(
        rename = "org.matrix.msc3874.not_rel_types",
        alias = "not_rel_types",
        default
    )]
    pub not_rel_types: Vec<String>,
}

/// A whole filter, with what it says of the relations of a timeline's events.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// What Ruma's type has of it.
    pub plain: FilterDefinition,
    /// What `room.timeline` says of relations.
    pub relations: RelationFilter,
}

impl<'de> Deserialize<'de> for Filter {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Outer {
            room: Inner,
        }
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Inner {
            timeline: RelationFilter,
        }
        let json = Box::<RawValue>::deserialize(deserializer)?;
        let outer: Outer = serde_json::from_str(json.get()).map_err(D::Error::custom)?;
        Ok(Self {
            plain: serde_json::from_str(json.get()).map_err(D::Error::custom)?,
            relations: outer.room.timeline,
        })
    }
}

impl RelationFilter {
    /// Whether an event relates as it should.
    pub fn passes(&self, event: &ReadEvent) -> bool {
        if self.rel_types.is_none() && self.not_rel_types.is_empty() {
            return true;
        }
        let relates = canonical::member(event.content(), "m.relates_to");
        let rel_type = relates.and_then(|relates| canonical::member(relates, "rel_type"));
        let rel_type = rel_type.and_then(canonical::string);
        let is_one = |list: &Vec<String>| match &rel_type {
            Some(rel_type) => list.iter().any(|one| one.as_str() == rel_type),
            None => false,
        };
        !is_one(&self.not_rel_types) && self.rel_types.as_ref().is_none_or(is_one)
    }

    /// Whether it asks for what relates to events.
    fn asks_for_relations(&self) -> bool {
        self.related_by_rel_types.is_some() || self.related_by_senders.is_some()
    }

    fn wants(&self, relation: &RelationRow) -> bool {
        let is_type = |wanted: &String| *wanted == relation.rel_type;
        let is_sender = |wanted: &OwnedUserId| wanted.as_str() == relation.sender;
        let types = self.related_by_rel_types.as_ref();
        let senders = self.related_by_senders.as_ref();
        types.is_none_or(|types| types.iter().any(is_type))
            && senders.is_none_or(|senders| senders.iter().any(is_sender))
    }
}

impl Room {
    /// To which of some events others relate as a filter wants, in their order. One round trip, if it wants
    /// anything.
    ///
    /// # Errors
    ///
    /// Storage fails.
    pub async fn related_as_wanted(
        &self,
        rooms: &Rooms,
        snapshot: &Snapshot,
        events: &[ReadEvent],
        filter: &RelationFilter,
    ) -> error::Result<Vec<bool>> {
        if events.is_empty() || !filter.asks_for_relations() {
            return Ok(vec![true; events.len()]);
        }
        // By whom a thread was gone on with is looked for among the relations.
        let types = filter.related_by_rel_types.iter().flatten();
        let threads = filter.related_by_senders.is_none()
            && types.into_iter().any(|wanted| wanted == "m.thread");
        let mut reads = Reads::new();
        let asked: Vec<_> = events
            .iter()
            .map(|event| {
                let parent = rooms.storage().event_hash(&event.row.header.event_id);
                let latest = Range::prefix(&(self.short, parent)).reverse();
                let latest = latest.limit(RELATIONS_MAX);
                let thread = (self.short, event.number);
                (
                    reads.range(&schema::RELATION_BY_PARENT, &latest),
                    threads.then(|| reads.get(&schema::THREAD_BY_ROOT, &thread)),
                )
            })
            .collect();
        let answers = snapshot.read(&reads).await?;
        let mut wanted = Vec::new();
        for (relations, thread) in asked {
            let thread = thread.map(|thread| answers.one(&thread)).transpose()?;
            let thread = thread
                .flatten()
                .is_some_and(|thread| thread.value.count > 0);
            let relations = answers.rows(&relations)?;
            wanted.push(thread || relations.iter().any(|(_, row)| filter.wants(&row.value)));
        }
        Ok(wanted)
    }
}
