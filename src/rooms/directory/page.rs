//! Pages of the directory.

use std::{fmt, str::FromStr, sync::Arc};

use futures_util::future::try_join_all;
use ruma::events::StateEventType;
use storage::{
    Range, Reads, ShortRoomId, Snapshot,
    schema::{self, DirectoryRow},
};

use super::federates;
use crate::{Room, Rooms, fold::fold};

/// Rooms that are read together.
const AT_ONCE: usize = 200;
/// Rooms that are looked at for one page: with a search, most of them may not fit.
const LOOKED_AT_MAX: usize = 5_000;
/// Text on one page, in bytes: the names and topics of rooms may be long.
const TEXT_MAX: usize = 1 << 20;

/// Which rooms are asked for.
#[derive(Clone, Debug, Default)]
pub struct DirectoryQuery {
    /// Words that stand in the name, the topic or the alias.
    pub search: Option<String>,
    /// Types one of which the room has, none for a room without a type; empty: any.
    pub room_types: Vec<Option<String>>,
    /// Where to begin; at the greatest room if nothing is said.
    pub since: Option<DirectoryToken>,
    /// How many, at most.
    pub limit: usize,
}

/// A page of the directory.
#[derive(Debug, Default)]
pub struct DirectoryPage {
    /// The rooms, those with the most members first.
    pub rooms: Vec<(Arc<Room>, DirectoryRow)>,
    /// Where the next page begins, if there is more.
    pub next: Option<DirectoryToken>,
    /// Where the page before this one begins, unless this is the first.
    pub prev: Option<DirectoryToken>,
    /// How many rooms there are in all.
    pub total: u64,
}

/// A boundary between two rooms, and the direction to go on in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirectoryToken {
    key: (u64, ShortRoomId),
    backward: bool,
}

impl fmt::Display for DirectoryToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let direction = if self.backward { 'p' } else { 'n' };
        let (place, room) = self.key;
        write!(f, "{direction}{place:016x}{room:?}")
    }
}

/// Not a token of the directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoDirectoryToken;

impl FromStr for DirectoryToken {
    type Err = NoDirectoryToken;

    fn from_str(text: &str) -> Result<Self, NoDirectoryToken> {
        let backward = match text.chars().next() {
            Some('n') => false,
            Some('p') => true,
            _ => return Err(NoDirectoryToken),
        };
        let number = |text: Option<&str>| {
            let text = text.filter(|text| text.bytes().all(|byte| byte.is_ascii_hexdigit()));
            u64::from_str_radix(text.ok_or(NoDirectoryToken)?, 16).map_err(|_| NoDirectoryToken)
        };
        if text.len() != 33 {
            return Err(NoDirectoryToken);
        }
        let room = number(text.get(17..))?;
        Ok(Self {
            key: (number(text.get(1..17))?, ShortRoomId(room.to_be_bytes())),
            backward,
        })
    }
}

/// One room of the list.
type Listed = ((u64, ShortRoomId), DirectoryRow);

/// What was found on the way along the list.
#[derive(Default)]
struct Walk {
    rooms: Vec<Listed>,
    text: usize,
    looked_at: usize,
    /// Where it went last.
    at: Option<(u64, ShortRoomId)>,
    /// Whether there may be more beyond.
    more: bool,
}

impl Rooms {
    /// A page of the directory: three round trips for each [`AT_ONCE`] rooms that are looked at.
    pub async fn public_rooms(&self, query: &DirectoryQuery) -> error::Result<DirectoryPage> {
        let snapshot = self.snapshot().await?;
        let backward = query.since.is_some_and(|since| since.backward);
        let walk = walk(&snapshot, query, backward).await?;
        let token = |key: Option<(u64, ShortRoomId)>, backward| {
            key.map(|key| DirectoryToken { key, backward })
        };
        let first = walk.rooms.first().map(|(key, _)| *key);
        let end = walk.at.filter(|_| walk.more);
        let (next, prev) = if backward {
            (token(first, false), token(end, true))
        } else {
            let came_from = query.since.and_then(|since| first.or(Some(since.key)));
            (token(end, false), token(came_from, true))
        };
        let mut listed = walk.rooms;
        if backward {
            listed.reverse();
        }
        let shorts: Vec<_> = listed.iter().map(|((_, room), _)| *room).collect();
        let rooms = self.by_short(&snapshot, &shorts).await?;
        let total = snapshot
            .multi_get(&schema::ROOM_COUNT_OF_DIRECTORY, &[0])
            .await?;
        let total = total.into_iter().flatten().next();
        let rows = listed.into_iter().map(|(_, row)| row);
        Ok(DirectoryPage {
            rooms: rooms.into_iter().zip(rows).collect(),
            next,
            prev,
            total: total.map_or(0, |count| u64::try_from(count.value.0).unwrap_or(0)),
        })
    }
}

impl Rooms {
    /// A page of the directory for other servers: as [`Rooms::public_rooms`], without the rooms that are for our
    /// people alone. The page may be shorter for that, and the total counts them. One round trip more.
    ///
    /// # Errors
    ///
    /// Storage fails.
    pub async fn public_rooms_for_servers(
        &self,
        query: &DirectoryQuery,
    ) -> error::Result<DirectoryPage> {
        let mut page = self.public_rooms(query).await?;
        let snapshot = self.snapshot().await?;
        let create = [(StateEventType::RoomCreate, String::new())];
        let rooms: Vec<_> = page.rooms.iter().map(|(room, _)| room).collect();
        let states = snapshot.gathered(async |snapshot| {
            let states = rooms
                .iter()
                .map(|room| room.current_state(self, &snapshot, &create));
            try_join_all(states).await
        });
        let mut open = states.await?.into_iter().map(|(_, state)| {
            let mut create = state.values();
            create.all(|create| federates(create.pdu.content_bytes()))
        });
        page.rooms.retain(|_| open.next().unwrap_or(false));
        Ok(page)
    }
}

/// Goes along the list until the page is full, and one room farther.
async fn walk(snapshot: &Snapshot, query: &DirectoryQuery, backward: bool) -> error::Result<Walk> {
    let wanted = Wanted::of(query);
    let mut walk = Walk::default();
    let mut from = query.since.map(|since| since.key);
    loop {
        let listed = read(snapshot, from, backward).await?;
        let end = listed.len() < AT_ONCE;
        from = listed.last().map(|(key, _)| *key);
        for (key, row) in listed {
            if walk.take(query, &wanted, key, row) {
                return Ok(walk);
            }
        }
        if end {
            walk.more = false;
            return Ok(walk);
        }
    }
}

impl Walk {
    /// Looks at one room. Whether the walk ends here.
    fn take(
        &mut self,
        query: &DirectoryQuery,
        wanted: &Wanted,
        key: (u64, ShortRoomId),
        row: DirectoryRow,
    ) -> bool {
        self.looked_at += 1;
        if wanted.fits(&row) {
            let full = self.rooms.len() >= query.limit || self.text >= TEXT_MAX;
            if full {
                self.more = true;
                self.at = self.rooms.last().map(|(key, _)| *key);
                return true;
            }
            self.text += text_of(&row).map(str::len).sum::<usize>();
            self.rooms.push((key, row));
        }
        self.at = Some(key);
        self.more = self.looked_at >= LOOKED_AT_MAX;
        self.more
    }
}

/// The next rooms of the list from a boundary on, without it.
async fn read(
    snapshot: &Snapshot,
    from: Option<(u64, ShortRoomId)>,
    backward: bool,
) -> error::Result<Vec<Listed>> {
    let mut range = Range::prefix(&()).limit(AT_ONCE);
    if backward {
        range = range.reverse();
    }
    range = match from {
        Some(from) if backward => range.before(&from),
        Some(from) => range.after(&from),
        None => range,
    };
    let mut reads = Reads::new();
    let rows = reads.range(&schema::ROOM_BY_SIZE, &range);
    let rows = snapshot.read(&reads).await?.rows(&rows)?;
    let keys: Vec<_> = rows.into_iter().map(|(key, _)| key).collect();
    let rooms: Vec<_> = keys.iter().map(|(_, room)| *room).collect();
    let rows = snapshot
        .multi_get(&schema::DIRECTORY_BY_ROOM, &rooms)
        .await?;
    let all = keys.into_iter().zip(rows);
    Ok(all
        .filter_map(|(key, row)| Some((key, row?.value)))
        .collect())
}

/// What a room has to be to be shown.
struct Wanted<'a> {
    words: Option<String>,
    types: &'a [Option<String>],
}

impl<'a> Wanted<'a> {
    fn of(query: &'a DirectoryQuery) -> Self {
        let words = query.search.as_deref().map(|search| fold(search.trim()));
        Self {
            words: words.filter(|words| !words.is_empty()),
            types: &query.room_types,
        }
    }

    fn fits(&self, row: &DirectoryRow) -> bool {
        let right_type = self.types.is_empty() || self.types.contains(&row.room_type);
        right_type
            && self
                .words
                .as_ref()
                .is_none_or(|words| text_of(row).any(|text| fold(text).contains(words.as_str())))
    }
}

/// The texts in which is searched.
fn text_of(row: &DirectoryRow) -> impl Iterator<Item = &str> {
    let texts = [&row.name, &row.topic, &row.canonical_alias];
    texts.into_iter().filter_map(|text| text.as_deref())
}
