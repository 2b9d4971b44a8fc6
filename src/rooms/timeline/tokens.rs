//! From positions and boundaries to places and states.

use storage::{
    Position, Range, Snapshot,
    schema::{self, Place, RoomChange},
};

use crate::{PlaceToken, Room};

/// How many rows of the room log are read at once for the place of a position.
const LOG_ROWS: usize = 100;

impl Room {
    /// The boundary in the timeline that was its end at a position.
    pub async fn place_at(
        &self,
        snapshot: &Snapshot,
        position: Position,
    ) -> error::Result<PlaceToken> {
        let mut range = Range::prefix(&(self.short,)).up_to(&(self.short, position));
        loop {
            let rows = self
                .log(snapshot, range.clone().reverse(), LOG_ROWS)
                .await?;
            let place = rows
                .iter()
                .filter(|(_, change)| !change.historic)
                .find_map(|(_, change)| change.place);
            match (place, rows.last()) {
                (Some(place), _) => return Ok(PlaceToken(place)),
                (None, Some((last, _))) if rows.len() == LOG_ROWS => {
                    range = range.before(&(self.short, *last));
                }
                _ => return Ok(PlaceToken(Place::START)),
            }
        }
    }

    /// The root of the room's state at a position: after the last change up to it. `None` if the room was
    /// not there.
    pub async fn root_at(
        &self,
        snapshot: &Snapshot,
        position: Position,
    ) -> error::Result<Option<[u8; 16]>> {
        let range = Range::prefix(&(self.short,))
            .up_to(&(self.short, position))
            .reverse();
        let rows = self.log(snapshot, range, 1).await?;
        Ok(rows.into_iter().next().map(|(_, change)| change.root))
    }

    /// The root of the room's state at a boundary in its timeline: after the event before it. Two round
    /// trips. `None` if nothing is before it.
    pub async fn root_at_place(
        &self,
        snapshot: &Snapshot,
        boundary: PlaceToken,
    ) -> error::Result<Option<[u8; 16]>> {
        let range = Range::prefix(&(self.short,))
            .up_to(&(self.short, boundary.0))
            .reverse()
            .limit(1);
        let mut rows = snapshot
            .multi_range(&schema::EVENT_BY_PLACE, &[range])
            .await?;
        let Some((_, placed)) = rows.pop().and_then(|mut rows| rows.pop()) else {
            return Ok(None);
        };
        if let Some(root) = placed.value.root {
            return Ok(Some(root));
        }
        let key = (self.short, placed.value.number);
        let mut roots = snapshot.multi_get(&schema::ROOTS_BY_EVENT, &[key]).await?;
        let roots = roots.pop().flatten();
        Ok(roots.map(|roots| roots.value.after))
    }

    /// The root of the state with which the room's timeline opens, for a boundary that nothing is before:
    /// what was before its first event, and where that was nothing, the state in which its creator has come.
    /// Two round trips.
    pub async fn opening_root(&self, snapshot: &Snapshot) -> error::Result<Option<[u8; 16]>> {
        let range = Range::prefix(&(self.short,)).limit(2);
        let rows = snapshot
            .multi_range(&schema::EVENT_BY_PLACE, &[range])
            .await?;
        let keys: Vec<_> = rows
            .into_iter()
            .flatten()
            .map(|(_, placed)| (self.short, placed.value.number))
            .collect();
        let roots = snapshot.multi_get(&schema::ROOTS_BY_EVENT, &keys).await?;
        let roots: Vec<_> = roots.into_iter().flatten().map(|row| row.value).collect();
        let before = roots.first().map(|first| first.before);
        Ok(before
            .filter(|root| *root != pdu::tree::EMPTY_ROOT.0)
            .or(roots.last().map(|last| last.after)))
    }

    async fn log(
        &self,
        snapshot: &Snapshot,
        range: Range<(storage::ShortRoomId, Position)>,
        limit: usize,
    ) -> error::Result<Vec<(Position, RoomChange)>> {
        let rows = snapshot
            .multi_range(&schema::CHANGE_BY_ROOM_POSITION, &[range.limit(limit)])
            .await?;
        let rows = rows.into_iter().flatten();
        Ok(rows
            .map(|((_, position), row)| (position, row.value))
            .collect())
    }
}
