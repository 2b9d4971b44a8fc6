//! Searching what was said ([spec]).
//!
//! The index gives candidates: messages with all the words, in the rooms that the viewer has to do with. Then
//! each is read and looked at as on a page of the timeline: whether the viewer may see it, and the edit that
//! says it; whether it still says it; whether the filter lets it through.
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#server-side-search

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use futures_util::future::try_join_all;
use rooms::{Look, ReadEvent, Room, Viewer, event_filter};
use ruma::{
    OwnedRoomId, OwnedUserId,
    api::client::filter::{RoomEventFilter, UrlFilter},
};
use storage::{
    NameHash, ShortRoomId, Snapshot,
    schema::{self, Membership},
};
use tantivy::{
    Term,
    query::{BooleanQuery, ConstScoreQuery, Occur, Query, TermQuery, TermSetQuery},
    schema::{Field, IndexRecordOption},
};

use crate::{
    Group, NextBatch, Search, WORDS_MAX,
    fields::{Fields, Kind, number_of},
    hits::{First, FixedStatistics, Hit, Hits},
    messages::text_of,
    words::Wanted,
};

/// Candidates that are looked at together, at least and at most.
const AT_ONCE: usize = 50;
const AT_ONCE_MAX: usize = 200;
/// Candidates that are looked at for one page: most of them may not be for the viewer.
const LOOKED_AT_MAX: usize = 2_000;
/// How many rooms before a room are searched with it.
const PREDECESSORS_MAX: usize = 20;
/// How many spellings are highlighted.
const HIGHLIGHTS_MAX: usize = 100;

/// What is searched.
#[derive(Clone, Debug)]
pub struct MessageQuery<'a> {
    /// Words.
    pub term: &'a str,
    /// Where they may be.
    pub kinds: Vec<Kind>,
    /// Which events are wanted. Its limit is not looked at.
    pub filter: &'a RoomEventFilter,
    /// The best first, otherwise the latest.
    pub by_rank: bool,
    /// How many results, at most.
    pub limit: usize,
    /// Where to go on.
    pub from: Option<NextBatch>,
}

/// What was found.
#[derive(Debug)]
pub struct Found {
    /// The view from which it was read.
    pub snapshot: Snapshot,
    /// The rooms of the results.
    pub rooms: HashMap<ShortRoomId, FoundRoom>,
    /// The results, in order.
    pub events: Vec<FoundEvent>,
    /// How many results there are in all, about: those of which it would have to be found out one by one
    /// whether the viewer may see them count when they are told.
    pub count: u64,
    /// The words that were found, as they are spelled in the results.
    pub highlights: Vec<String>,
    /// Where the next page begins, if this one is full.
    pub next: Option<NextBatch>,
}

/// A room in which something was found.
#[derive(Clone, Debug)]
pub struct FoundRoom {
    /// The room.
    pub room: Arc<Room>,
    /// How the viewer stands to it.
    pub look: Look,
}

/// A result.
#[derive(Clone, Debug)]
pub struct FoundEvent {
    /// Its room.
    pub room: ShortRoomId,
    /// The event.
    pub event: ReadEvent,
    /// How well it fits; greater is better.
    pub rank: f64,
    hit: Hit,
}

impl Found {
    /// Where the next page begins of the group whose last result on this page is `last`.
    pub fn next_of_group(&self, group: Group, last: &FoundEvent) -> Option<NextBatch> {
        self.next.map(|next| NextBatch {
            after: last.hit.order,
            group: Some(group),
            ..next
        })
    }
}

impl Search {
    /// Searches what was said, as the viewer may see it.
    ///
    /// # Errors
    ///
    /// 400 `M_INVALID_PARAM` for too many words, or a token of a search in another order.
    pub async fn messages(
        &self,
        viewer: &Viewer,
        query: &MessageQuery<'_>,
    ) -> error::Result<Found> {
        let wanted = Wanted::of(query.term);
        if wanted.words.len() > WORDS_MAX {
            return Err(error::invalid_param(format!(
                "`search_term` has more than {WORDS_MAX} words"
            )));
        }
        if query.from.is_some_and(|from| from.by_rank != query.by_rank) {
            return Err(error::invalid_param(
                "`next_batch` belongs to a search in another order",
            ));
        }
        self.wait().await?;
        let snapshot = self.rooms().snapshot().await?;
        let scope = self.scope(&snapshot, viewer, query).await?;
        let mut found = Found {
            snapshot,
            rooms: HashMap::new(),
            events: Vec::new(),
            count: 0,
            highlights: Vec::new(),
            next: None,
        };
        if !wanted.words.is_empty() && !scope.is_empty() {
            let searching = Searching {
                search: self,
                viewer,
                query,
                wanted: Arc::new(wanted),
                scope: Arc::new(scope),
            };
            searching.search(&mut found).await?;
        }
        Ok(found)
    }

    /// Where, and from whom, something may be found.
    async fn scope(
        &self,
        snapshot: &Snapshot,
        viewer: &Viewer,
        query: &MessageQuery<'_>,
    ) -> error::Result<Scope> {
        let own = self.rooms().rooms_of(snapshot, viewer.short).await?;
        let mut rooms: HashSet<_> = own.iter().map(|(room, _)| *room).collect();
        let joined = own
            .iter()
            .filter(|(_, row)| row.value.membership == Membership::Join);
        let joined = joined.map(|(room, _)| *room).collect();
        let filter = query.filter;
        if let Some(named) = &filter.rooms {
            let named = self.with_predecessors(snapshot, named, &rooms).await?;
            rooms.retain(|room| named.contains(room));
        }
        let not = self.shorts(snapshot, &filter.not_rooms).await?;
        rooms.retain(|room| !not.contains(room));
        let users = &self.0.parts.users;
        let ignored = users
            .find_account_data(viewer.short, None, "m.ignored_user_list")
            .await?;
        let mut ignored = ignored.map_or_else(HashSet::new, |data| {
            users::ignored_users(data.content.get())
        });
        ignored.remove(viewer.user_id.as_str());
        let hash = |user: &OwnedUserId| self.storage().user_hash(user);
        let mut not_senders: HashSet<_> = filter.not_senders.iter().map(hash).collect();
        not_senders.extend(ignored.iter().map(|user| self.storage().user_hash(user)));
        Ok(Scope {
            rooms,
            joined: Arc::new(joined),
            senders: filter
                .senders
                .as_ref()
                .map(|senders| senders.iter().map(hash).collect()),
            not_senders,
            kinds: query
                .kinds
                .iter()
                .copied()
                .filter(|kind| wants_type(filter, kind.event_type()))
                .collect(),
            url: filter
                .url_filter
                .map(|wanted| matches!(wanted, UrlFilter::EventsWithUrl)),
            group: query.from.and_then(|from| from.group),
        })
    }

    /// Rooms by their ids, with those that they took the place of, and so on; of these only the viewer's.
    async fn with_predecessors(
        &self,
        snapshot: &Snapshot,
        named: &[OwnedRoomId],
        own: &HashSet<ShortRoomId>,
    ) -> error::Result<HashSet<ShortRoomId>> {
        let mut all = HashSet::new();
        let mut next = self.shorts(snapshot, named).await?;
        for _ in 0..PREDECESSORS_MAX {
            next.retain(|room| own.contains(room) && !all.contains(room));
            if next.is_empty() {
                break;
            }
            all.extend(&next);
            let shorts: Vec<_> = next.into_iter().collect();
            let rooms = self.rooms().by_short(snapshot, &shorts).await?;
            let before = self.rooms().predecessors(snapshot, &rooms).await?;
            next = self.shorts(snapshot, &before).await?;
        }
        Ok(all)
    }

    /// The rooms of these ids, as far as there are any. One round trip.
    async fn shorts(
        &self,
        snapshot: &Snapshot,
        rooms: &[OwnedRoomId],
    ) -> error::Result<HashSet<ShortRoomId>> {
        let storage = self.storage();
        let names: Vec<_> = rooms.iter().map(|room| storage.room_hash(room)).collect();
        let rows = snapshot.multi_get(&schema::ROOM_BY_NAME, &names).await?;
        Ok(rows.into_iter().flatten().map(|row| row.value).collect())
    }
}

/// Whether a filter lets events of a type through.
fn wants_type(filter: &RoomEventFilter, event_type: &str) -> bool {
    let is = |pattern: &String| event_filter::matches(pattern, event_type);
    !filter.not_types.iter().any(is)
        && filter
            .types
            .as_ref()
            .is_none_or(|types| types.iter().any(is))
}

/// Where, and from whom, something may be found.
#[derive(Debug)]
struct Scope {
    rooms: HashSet<ShortRoomId>,
    /// All that the viewer is in.
    joined: Arc<HashSet<ShortRoomId>>,
    senders: Option<HashSet<NameHash>>,
    not_senders: HashSet<NameHash>,
    kinds: Vec<Kind>,
    url: Option<bool>,
    group: Option<Group>,
}

impl Scope {
    /// Whether nothing can be found.
    fn is_empty(&self) -> bool {
        let no_senders = self.senders.as_ref().is_some_and(HashSet::is_empty);
        self.rooms.is_empty() || self.kinds.is_empty() || no_senders
    }

    /// The question to the index.
    fn query(&self, fields: &Fields, wanted: &Wanted) -> BooleanQuery {
        let mut clauses: Vec<(Occur, Box<dyn Query>)> = Vec::new();
        for (whole, parts) in &wanted.words {
            clauses.push((Occur::Must, word(fields.text, whole, parts)));
        }
        let mut filter = |occur, terms: Vec<Term>| {
            let set = Box::new(TermSetQuery::new(terms));
            clauses.push((occur, Box::new(ConstScoreQuery::new(set, 0.0))));
        };
        let room = |room: &ShortRoomId| Term::from_field_u64(fields.room, number_of(*room));
        let sender = |sender: &NameHash| Term::from_field_bytes(fields.sender, &sender.0);
        filter(Occur::Must, self.rooms.iter().map(room).collect());
        match &self.group {
            Some(Group::Room(only)) => filter(Occur::Must, vec![room(only)]),
            Some(Group::Sender(only)) => filter(Occur::Must, vec![sender(only)]),
            None => {}
        }
        if let Some(senders) = &self.senders {
            filter(Occur::Must, senders.iter().map(sender).collect());
        }
        if !self.not_senders.is_empty() {
            let terms = self.not_senders.iter().map(sender).collect();
            filter(Occur::MustNot, terms);
        }
        if self.kinds.len() < Kind::ALL.len() {
            let kind = |kind: &Kind| Term::from_field_u64(fields.kind, *kind as u64);
            filter(Occur::Must, self.kinds.iter().map(kind).collect());
        }
        if let Some(url) = self.url {
            let term = Term::from_field_u64(fields.url, url.into());
            filter(Occur::Must, vec![term]);
        }
        BooleanQuery::new(clauses)
    }
}

/// A word: whole, or all of its parts.
fn word(field: Field, whole: &str, parts: &[String]) -> Box<dyn Query> {
    let term = |word: &str| -> Box<dyn Query> {
        let term = Term::from_field_text(field, word);
        Box::new(TermQuery::new(term, IndexRecordOption::WithFreqs))
    };
    if parts.is_empty() {
        return term(whole);
    }
    let parts = parts.iter().map(|part| term(part)).collect();
    let parts: Box<dyn Query> = Box::new(BooleanQuery::intersection(parts));
    Box::new(BooleanQuery::union(vec![term(whole), parts]))
}

/// A search that goes on.
struct Searching<'a> {
    search: &'a Search,
    viewer: &'a Viewer,
    query: &'a MessageQuery<'a>,
    wanted: Arc<Wanted>,
    scope: Arc<Scope>,
}

impl Searching<'_> {
    async fn search(&self, found: &mut Found) -> error::Result<()> {
        let mut after = self.query.from.map(|from| from.after);
        let next_batch = |after| NextBatch {
            after,
            by_rank: self.query.by_rank,
            group: self.scope.group,
        };
        let (mut looked_at, mut unsure, mut hidden) = (0, 0, 0);
        loop {
            let limit = (self.query.limit - found.events.len()).clamp(AT_ONCE, AT_ONCE_MAX);
            let Hits { hits, sure } = self.candidates(limit, after).await?;
            let all = hits.len() < limit;
            looked_at += hits.len();
            let sure_of = |hit: &Hit| hit.shared && self.scope.joined.contains(&hit.room);
            let seen = self.seen(found, &hits).await?;
            let sure_hits = hits.iter().filter(|hit| sure_of(hit)).count();
            let sure_seen = seen.iter().filter(|(hit, ..)| sure_of(hit)).count();
            hidden += (sure_hits - sure_seen) as u64;
            for (hit, event, text) in seen {
                if found.events.len() == self.query.limit {
                    break;
                }
                unsure += u64::from(!sure_of(&hit));
                self.highlight(&mut found.highlights, &text);
                found.events.push(FoundEvent {
                    room: hit.room,
                    event,
                    rank: hit.rank(),
                    hit,
                });
            }
            found.count = sure.saturating_sub(hidden) + unsure;
            let last = hits.last().map(|hit| hit.order);
            if found.events.len() == self.query.limit {
                let last = found.events.last().map(|event| event.hit.order);
                found.next = last.map(next_batch);
                return Ok(());
            }
            if all {
                return Ok(());
            }
            if looked_at >= LOOKED_AT_MAX {
                found.next = last.map(next_batch);
                return Ok(());
            }
            after = last;
        }
    }

    /// The next messages that the index has.
    async fn candidates(
        &self,
        limit: usize,
        after: Option<crate::hits::Order>,
    ) -> error::Result<Hits> {
        let first = First {
            limit,
            after,
            by_rank: self.query.by_rank,
            joined: Arc::clone(&self.scope.joined),
        };
        let (scope, wanted) = (Arc::clone(&self.scope), Arc::clone(&self.wanted));
        let ask = self.search.ask(move |index| {
            let query = scope.query(&index.fields, &wanted);
            let searcher = index.searcher();
            searcher.search_with_statistics_provider(&query, &first, &FixedStatistics)
        });
        ask.await
    }

    /// Those of some candidates that the viewer gets, with what they say, in their order.
    async fn seen(
        &self,
        found: &mut Found,
        hits: &[Hit],
    ) -> error::Result<Vec<(Hit, ReadEvent, String)>> {
        let mut by_room: BTreeMap<ShortRoomId, Vec<Hit>> = BTreeMap::new();
        for hit in hits {
            by_room.entry(hit.room).or_default().push(*hit);
        }
        let shorts: Vec<_> = by_room.keys().copied().collect();
        let rooms = self
            .search
            .rooms()
            .find_by_short(&found.snapshot, &shorts)
            .await?;
        let known = &found.rooms;
        let seen = found.snapshot.gathered(async |snapshot| {
            // The index may not know yet that a room is gone.
            let all = rooms.into_iter().zip(by_room.values());
            let all = all.filter_map(|(room, hits)| Some((room?, hits)));
            let all = all.map(|(room, hits)| {
                let snapshot = &snapshot;
                async move {
                    let look = match known.get(&room.short) {
                        Some(known) => known.look.clone(),
                        None => room.look(snapshot, self.viewer).await?,
                    };
                    let seen = self.seen_in(snapshot, &room, &look, hits).await?;
                    Ok::<_, error::Error>((FoundRoom { room, look }, seen))
                }
            });
            try_join_all(all).await
        });
        let mut all = HashMap::new();
        for (room, seen) in seen.await? {
            found.rooms.insert(room.room.short, room);
            all.extend(seen.into_iter().map(|(hit, event, text)| {
                let key = (hit.room, hit.number);
                (key, (event, text))
            }));
        }
        let in_order = hits.iter().filter_map(|hit| {
            let (event, text) = all.remove(&(hit.room, hit.number))?;
            Some((*hit, event, text))
        });
        Ok(in_order.collect())
    }

    async fn seen_in(
        &self,
        snapshot: &Snapshot,
        room: &Room,
        look: &Look,
        hits: &[Hit],
    ) -> error::Result<Vec<(Hit, ReadEvent, String)>> {
        // As on a page of the timeline: nothing of rooms in which they never were, and of those that they
        // left nothing of what came after, unless all may read it now.
        let Ok(end) = look.end() else {
            return Ok(Vec::new());
        };
        let numbers: Vec<_> = hits.iter().flat_map(|hit| [hit.number, hit.said]).collect();
        let events = room.read_events(snapshot, &numbers).await?;
        let pairs: Vec<_> = hits
            .iter()
            .zip(events.chunks(2))
            .filter_map(|(hit, pair)| match pair {
                [Some(event), Some(said)] => Some((*hit, event.clone(), said.clone())),
                _ => None,
            })
            .collect();
        let both: Vec<_> = pairs
            .iter()
            .flat_map(|(_, event, said)| [event.clone(), said.clone()])
            .collect();
        let visible = room.visible(snapshot, self.viewer, look, &both).await?;
        let rooms = self.search.rooms();
        let erased = room
            .erased_for(rooms, snapshot, (self.viewer, look), &both)
            .await?;
        let all = pairs.into_iter().zip(visible.chunks(2));
        let by_end = |event: &ReadEvent| event.row.header.place.is_some_and(|place| place <= end);
        Ok(all
            .filter(|(_, visible)| visible.iter().all(|visible| *visible))
            .filter(|((_, event, said), _)| by_end(event) && by_end(said))
            .filter(|((hit, ..), _)| !erased.contains(&hit.number) && !erased.contains(&hit.said))
            .filter(|((_, event, _), _)| event_filter::passes(self.query.filter, event))
            .filter_map(|((hit, event, said), _)| {
                let edit = (said.number != event.number).then_some(&said);
                let text = text_of(&event, edit)?;
                self.wanted.is_in(&text).then_some((hit, event, text))
            })
            .collect())
    }

    fn highlight(&self, highlights: &mut Vec<String>, text: &str) {
        for spelled in self.wanted.spelled_in(text) {
            if highlights.len() < HIGHLIGHTS_MAX && !highlights.iter().any(|it| it == spelled) {
                highlights.push(spelled.to_owned());
            }
        }
    }
}
