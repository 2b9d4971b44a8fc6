//! Views of the database: what everything is read from.
//!
//! No engine keeps a view for long. Rows that [never change](crate::schema::LASTING) once they are there are read on
//! however long a walk through them takes; who needs more of an old view begins again from a new one.

use std::{sync::Arc, time::Duration};

use crate::{
    Answers, Found, Key, Position, Range, ReadError, Reads, Storage, Table, Value,
    foresight::Foresight, gather::Gather, long, model, rocks,
};

/// How long a view can be read from, on every engine.
pub const SNAPSHOT_LIFE: Duration = Duration::from_secs(4);

/// One consistent view of the database.
#[derive(Clone, Debug)]
pub struct Snapshot {
    view: View,
    position: Position,
    storage: Storage,
    /// When, on the storage's clock.
    taken: Duration,
    gather: Option<Arc<Gather>>,
    foresight: Option<Arc<Foresight>>,
}

#[derive(Clone, Debug)]
pub(crate) enum View {
    Model(model::ModelSnapshot),
    Rocks(rocks::View),
}

impl Snapshot {
    pub(crate) fn new(storage: Storage, view: View, position: Position) -> Self {
        Self {
            taken: storage.clock().elapsed(),
            view,
            position,
            storage,
            gather: None,
            foresight: None,
        }
    }

    /// The same view, what is asked of which is gathered.
    pub(crate) fn gathering(&self, gather: &Arc<Gather>) -> Self {
        Self {
            gather: Some(Arc::clone(gather)),
            ..self.clone()
        }
    }

    /// The same view with what is foreseen over it.
    pub(crate) fn with_foresight(&self, foresight: Foresight) -> Self {
        Self {
            foresight: Some(Arc::new(foresight)),
            ..self.clone()
        }
    }

    pub(crate) fn foresight(&self) -> Option<&Foresight> {
        self.foresight.as_deref()
    }

    /// Where what is asked of this view is gathered.
    pub(crate) fn gather(&self) -> Option<&Gather> {
        self.gather.as_deref()
    }

    /// Up to where this view holds everything.
    pub fn position(&self) -> Position {
        self.position
    }

    /// Answers a list of reads, all from this view, in one round trip; an empty one costs none. What is
    /// asked of [lasting](crate::schema::LASTING) tables alone is answered from a later view when this one is too old.
    ///
    /// # Errors
    ///
    /// The view is [too old](ReadError::TooOld); the engine fails.
    pub async fn read(&self, reads: &Reads) -> Result<Answers, ReadError> {
        if reads.is_empty() {
            return Ok(Answers::default());
        }
        let mut answers = self.answer(reads).await?;
        let pieces = long::missing(reads, &answers);
        if !pieces.is_empty() {
            let pieces = self.answer(&pieces).await?;
            long::join(&mut answers, pieces)?;
        }
        Ok(answers)
    }

    async fn answer(&self, reads: &Reads) -> Result<Answers, ReadError> {
        match &self.gather {
            Some(gather) => gather.read(reads).await,
            None => self.answer_list(reads).await,
        }
    }

    pub(crate) async fn answer_list(&self, reads: &Reads) -> Result<Answers, ReadError> {
        match &self.foresight {
            Some(foresight) => {
                let stored = |reads: Reads| async move { self.answer_stored(&reads).await };
                foresight.answer(reads, stored).await
            }
            None => self.answer_stored(reads).await,
        }
    }

    async fn answer_stored(&self, reads: &Reads) -> Result<Answers, ReadError> {
        let view = if self.storage.clock().elapsed().saturating_sub(self.taken) <= SNAPSHOT_LIFE {
            self.view.clone()
        } else if reads.is_lasting() {
            self.storage.snapshot(self.position).await?.view
        } else {
            return Err(ReadError::TooOld);
        };
        let answers = match view {
            View::Model(view) => view.read(reads, self.storage.clock()),
            View::Rocks(view) => view.read(reads).await?,
        };
        self.storage.counters().read(reads, &answers);
        Ok(answers)
    }

    /// Reads rows of one table; the answers come in the order of the keys.
    pub async fn multi_get<K: Key, V: Value>(
        &self,
        table: &Table<K, V>,
        keys: &[K],
    ) -> Result<Vec<Option<Found<V>>>, ReadError> {
        let mut reads = Reads::new();
        let slot = reads.get_all(table, keys);
        self.read(&reads).await?.all(&slot)
    }

    /// Reads ranges of one table; the answers come in the order of the ranges.
    pub async fn multi_range<K: Key, V: Value>(
        &self,
        table: &Table<K, V>,
        ranges: &[Range<K>],
    ) -> Result<Vec<Vec<(K, Found<V>)>>, ReadError> {
        let mut reads = Reads::new();
        let slots: Vec<_> = ranges
            .iter()
            .map(|range| reads.range(table, range))
            .collect();
        let answers = self.read(&reads).await?;
        slots.iter().map(|slot| answers.rows(slot)).collect()
    }
}
