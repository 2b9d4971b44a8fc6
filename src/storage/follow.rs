//! Followers of the stream: each reads what happened in rooms at its own pace, and saves how far it has come
//! in the commit that holds what it made of it.

use crate::{
    Batch, Found, NameHash, Position, Range, ReadError, Reads, Snapshot, Storage, Subscription,
    Topic,
    schema::{POSITION_BY_FOLLOWER, PositionRow, STREAM_BY_POSITION, StreamRecord},
};

/// One who follows the stream.
#[derive(Clone, Debug)]
pub struct Follower {
    storage: Storage,
    name: NameHash,
}

/// What a follower has not worked on yet.
#[derive(Debug)]
pub struct Ahead {
    /// A view that holds all of it.
    pub snapshot: Snapshot,
    /// What happened, in order.
    pub records: Vec<(Position, StreamRecord)>,
    /// Where the follower stood.
    from: Option<Found<PositionRow>>,
}

impl Snapshot {
    /// What the stream holds after a position, at most `limit` records: for followers that keep their place
    /// elsewhere, with an output that is not in here.
    ///
    /// # Errors
    ///
    /// Storage fails.
    pub async fn stream_after(
        &self,
        place: Position,
        limit: usize,
    ) -> Result<Vec<(Position, StreamRecord)>, ReadError> {
        let range = Range::prefix(&()).after(&place).limit(limit);
        let rows = self.multi_range(&STREAM_BY_POSITION, &[range]).await?;
        let rows = rows.into_iter().flatten();
        Ok(rows.map(|(position, row)| (position, row.value)).collect())
    }
}

impl Follower {
    /// The follower of that name.
    pub fn new(storage: &Storage, name: &str) -> Self {
        Self {
            storage: storage.clone(),
            name: storage.follower_hash(name),
        }
    }

    /// Begins to wait for the stream to get longer. Wait first, then look [ahead](Self::ahead): nothing is
    /// missed.
    pub fn subscribe(&self) -> Subscription {
        self.storage.subscribe(&[Topic::Stream])
    }

    /// The next records, at most `limit`.
    ///
    /// # Errors
    ///
    /// Storage fails.
    pub async fn ahead(&self, limit: usize) -> Result<Ahead, ReadError> {
        let snapshot = self.storage.snapshot(Position::START).await?;
        let mut reads = Reads::new();
        let from = reads.get(&POSITION_BY_FOLLOWER, &self.name);
        let from = snapshot.read(&reads).await?.one(&from)?;
        let place = from.as_ref().map_or(Position::START, |from| from.value.0);
        Ok(Ahead {
            records: snapshot.stream_after(place, limit).await?,
            snapshot,
            from,
        })
    }

    /// Puts into a batch that the follower has worked on all of this, on the condition that it still stands
    /// where it stood: its output is written once, whoever else works in its name.
    pub fn advance(&self, batch: &mut Batch, done: &Ahead) {
        let Some((last, _)) = done.records.last() else {
            return;
        };
        let raw = done.from.as_ref().map(|from| &from.raw);
        batch.expect_unchanged(&POSITION_BY_FOLLOWER, &self.name, raw);
        batch.put(&POSITION_BY_FOLLOWER, &self.name, &PositionRow(*last));
    }
}
