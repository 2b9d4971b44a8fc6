//! Spaces ([spec]): the tree of rooms below one, in pages.
//!
//! What a page holds is worked out in memory from what is known of the rooms on its way ([`walk`]), which
//! says of which rooms more has to be known; those are read together, level by level ([`summary`]). Where a
//! page ends is kept here, in memory, under the token that the client gets: after a restart, or when many
//! others have paged meanwhile, it begins anew.
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#spaces

mod elsewhere;
mod served;
mod summary;
mod walk;

use std::sync::Arc;

use quick_cache::{Weighter, sync::Cache};
use ruma::{OwnedRoomId, RoomId};
use storage::{ShortUserId, Snapshot};

use self::{
    elsewhere::Told,
    summary::Who,
    walk::{Known, Walk, Wanted},
};
pub use self::{
    served::ServedSpace,
    summary::{Child, RoomSummary},
};
use crate::{Rooms, Viewer};

/// Rooms that are looked at for one page: many of them may not be there for who asks.
const LOOKED_AT_MAX: usize = 1_000;
/// Pages that can be gone on from, about, and what they take in memory, in bytes.
const WALKS: usize = 10_000;
const WALKS_BYTES: u64 = 16 << 20;
/// Letters of a token.
const TOKEN_LETTERS: usize = 24;

/// What is asked of the tree below a space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HierarchyQuery {
    /// Only rooms that their spaces suggest.
    pub suggested_only: bool,
    /// How far down, at most; 0 is the space alone.
    pub max_depth: u64,
    /// How many rooms on the page, at most.
    pub limit: usize,
}

/// A page of the tree below a space.
#[derive(Debug)]
pub struct HierarchyPage {
    /// Its rooms, depth first.
    pub rooms: Vec<RoomSummary>,
    /// Where the next page begins, if there may be more.
    pub next: Option<String>,
}

/// Where pages ended, by the tokens that were given out.
pub(crate) struct Walks(Cache<String, Arc<Ended>, Bytes>);

/// Where a page ended, and whose it was.
#[derive(Debug)]
struct Ended {
    user: ShortUserId,
    space: OwnedRoomId,
    suggested_only: bool,
    max_depth: u64,
    walk: Walk,
}

#[derive(Clone, Debug)]
struct Bytes;

impl Weighter<String, Arc<Ended>> for Bytes {
    fn weight(&self, _: &String, ended: &Arc<Ended>) -> u64 {
        (size_of::<Ended>() + ended.walk.bytes()) as u64
    }
}

impl Default for Walks {
    fn default() -> Self {
        Self(Cache::with_weighter(WALKS, WALKS_BYTES, Bytes))
    }
}

impl Rooms {
    /// A page of the tree below a space, the space first: four round trips for each level of it, and more
    /// where rooms are in it that are not there for who asks. Rooms that this server is not in are asked of others.
    ///
    /// # Errors
    ///
    /// 403 `M_FORBIDDEN` if the space is not there for who asks; 400 `M_INVALID_PARAM` for a token that is not
    /// known, or not of this tree, and if something else is asked than of the page before.
    pub async fn hierarchy(
        &self,
        viewer: &Viewer,
        space: &RoomId,
        query: HierarchyQuery,
        from: Option<&str>,
    ) -> error::Result<HierarchyPage> {
        let walk = match from {
            Some(token) => self.ended(viewer, space, query, token)?.walk.clone(),
            None => Walk::from(space),
        };
        let wanted = Wanted {
            suggested_only: query.suggested_only,
            max_depth: query.max_depth,
            limit: query.limit,
        };
        let mut snapshot = self.snapshot().await?;
        let mut known = Known::new();
        let mut told = Told::default();
        let mut unknown = vec![space.to_owned()];
        let mut steps;
        loop {
            let read = self.summaries(&snapshot, Who::Person(viewer), &unknown, true);
            let read = read.await?;
            for space in read.iter().flatten() {
                told.note(space);
            }
            let closed = unknown.iter().zip(&read);
            let closed = closed.filter(|(_, summary)| summary.is_none());
            let closed: Vec<_> = closed.map(|(id, _)| id.clone()).collect();
            known.extend(unknown.into_iter().zip(read));
            if !closed.is_empty() {
                snapshot = self
                    .look_elsewhere(snapshot, viewer, query, &closed, (&mut told, &mut known))
                    .await?;
            }
            if known.get(space).is_none_or(Option::is_none) {
                return Err(error::forbidden(
                    "You may not look into this room, or it does not exist",
                ));
            }
            steps = walk.page(&known, wanted);
            if steps.unknown.is_empty() {
                break;
            }
            if known.len() >= LOOKED_AT_MAX {
                steps = walk.known_page(&known, wanted);
                break;
            }
            unknown = steps.unknown;
        }
        let shown = steps.shown.iter().filter_map(|id| known.remove(id));
        let mut rooms: Vec<_> = shown.flatten().collect();
        if query.suggested_only {
            for room in &mut rooms {
                room.children.retain(|child| child.suggested);
            }
        }
        let next = (!steps.walk.is_done()).then(|| {
            let ended = Ended {
                user: viewer.short,
                space: space.to_owned(),
                suggested_only: query.suggested_only,
                max_depth: query.max_depth,
                walk: steps.walk,
            };
            let token = self.parts().random.letters(TOKEN_LETTERS);
            self.walks().0.insert(token.clone(), Arc::new(ended));
            token
        });
        Ok(HierarchyPage { rooms, next })
    }

    /// Makes known what other servers tell of those rooms that this server is not in, and gives a view that is
    /// fresh after that.
    async fn look_elsewhere(
        &self,
        snapshot: Snapshot,
        viewer: &Viewer,
        query: HierarchyQuery,
        closed: &[OwnedRoomId],
        (told, known): (&mut Told, &mut Known),
    ) -> error::Result<Snapshot> {
        let here = self.are_here(&snapshot, closed).await?;
        let away = closed.iter().zip(here).filter(|(_, here)| !here);
        let away: Vec<_> = away.map(|(id, _)| id.clone()).collect();
        if away.is_empty() {
            return Ok(snapshot);
        }
        self.fetch_told(told, &away, query.suggested_only).await;
        let snapshot = self.snapshot().await?;
        for id in away {
            let user = Some(&*viewer.user_id);
            let summary = self.told_to(&snapshot, told, user, &id).await?;
            known.insert(id, summary);
        }
        Ok(snapshot)
    }

    /// Where the page ended whose token this is.
    fn ended(
        &self,
        viewer: &Viewer,
        space: &RoomId,
        query: HierarchyQuery,
        token: &str,
    ) -> error::Result<Arc<Ended>> {
        let ended = self.walks().0.get(token);
        let ended = ended.filter(|ended| ended.user == viewer.short && ended.space == space);
        let ended = ended.ok_or_else(|| {
            error::invalid_param(
                "`from` is no token of this space that this server knows; begin anew",
            )
        })?;
        if (ended.suggested_only, ended.max_depth) != (query.suggested_only, query.max_depth) {
            return Err(error::invalid_param(
                "`suggested_only` and `max_depth` cannot change from page to page",
            ));
        }
        Ok(ended)
    }
}
