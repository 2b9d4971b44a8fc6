//! The index on the disk: opening it, or beginning anew; writing documents; the place up to which it holds
//! the stream, saved in each of its commits.

use std::{fs, io, path::Path};

use parking_lot::Mutex;
use pdu::EventNumber;
use serde::{Deserialize, Serialize};
use storage::{NameHash, Position, ShortRoomId};
use tantivy::{
    IndexReader, IndexSettings, IndexWriter, ReloadPolicy, Searcher, TantivyDocument, TantivyError,
    Term,
    collector::{Count, DocSetCollector},
    directory::MmapDirectory,
    indexer::IndexWriterOptions,
    query::TermQuery,
    schema::IndexRecordOption,
};

use crate::fields::{FORMAT, Fields, columns, listing_key, message_key};

/// How much memory documents may take on their way to the disk, in bytes; it is the least that tantivy takes.
const WRITER_MEMORY: usize = 15_000_000;

/// The index.
pub(crate) struct Index {
    pub(crate) fields: Fields,
    reader: IndexReader,
    writer: Mutex<IndexWriter>,
    owner: Owner,
}

/// Whose index it is: what another one left here is of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Owner {
    /// Tells databases apart.
    pub(crate) database: NameHash,
    /// A restored database has gone another way since.
    pub(crate) epoch: u32,
}

/// What the index says about itself in each commit.
#[derive(Serialize, Deserialize)]
struct Mark {
    format: u32,
    owner: Owner,
    /// It holds the stream up to here.
    place: Position,
}

/// A change of the index.
pub(crate) enum Change {
    /// Removes the documents with this term.
    Remove(Term),
    /// Adds a document.
    Add(TantivyDocument),
}

impl Index {
    /// Opens the index in a folder, and tells up to where it holds the stream; makes a new one if there is
    /// none that is whole, of this form, its owner's, and not ahead of `now`. Blocks.
    pub(crate) fn open(
        folder: &Path,
        owner: Owner,
        now: Position,
    ) -> Result<(Self, Position), TantivyError> {
        if folder.exists() {
            match Self::open_old(folder, owner) {
                Ok(Some((index, place))) if place <= now => return Ok((index, place)),
                Ok(_) => tracing::info!("the search index is of another time and is built anew"),
                Err(error @ TantivyError::LockFailure(..)) => return Err(error),
                Err(error) => {
                    tracing::warn!(%error, "the search index is damaged and is built anew")
                }
            }
        }
        Self::remove(folder)?;
        fs::create_dir_all(folder)?;
        let fields = Fields::new();
        let directory = MmapDirectory::open(folder)?;
        let settings = IndexSettings::default();
        let index = tantivy::Index::create(directory, fields.schema.clone(), settings)?;
        Ok((Self::of(&index, fields, owner)?, Position::START))
    }

    /// Takes away what is in the folder. Blocks.
    pub(crate) fn remove(folder: &Path) -> io::Result<()> {
        match fs::remove_dir_all(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done,
        }
    }

    fn open_old(folder: &Path, owner: Owner) -> Result<Option<(Self, Position)>, TantivyError> {
        let fields = Fields::new();
        let directory = MmapDirectory::open(folder)?;
        if !tantivy::Index::exists(&directory)? {
            // It was begun, and the server was killed.
            return Ok(None);
        }
        let index = tantivy::Index::open(directory)?;
        let mark = index.load_metas()?.payload;
        let mark = mark.and_then(|mark| serde_json::from_str::<Mark>(&mark).ok());
        let Some(mark) = mark.filter(|mark| mark.format == FORMAT && mark.owner == owner) else {
            return Ok(None);
        };
        if index.schema() != fields.schema {
            return Ok(None);
        }
        Ok(Some((Self::of(&index, fields, owner)?, mark.place)))
    }

    fn of(index: &tantivy::Index, fields: Fields, owner: Owner) -> Result<Self, TantivyError> {
        let options = IndexWriterOptions::builder()
            .memory_budget_per_thread(WRITER_MEMORY)
            .num_worker_threads(1)
            .num_merge_threads(1)
            .build();
        let reader = index.reader_builder().reload_policy(ReloadPolicy::Manual);
        Ok(Self {
            fields,
            reader: reader.try_into()?,
            writer: Mutex::new(index.writer_with_options(options)?),
            owner,
        })
    }

    /// What is committed.
    pub(crate) fn searcher(&self) -> Searcher {
        self.reader.searcher()
    }

    /// Makes changes, which are seen and kept from the next commit on. Blocks.
    pub(crate) fn apply(&self, changes: Vec<Change>) -> Result<(), TantivyError> {
        let writer = self.writer.lock();
        for change in changes {
            match change {
                Change::Remove(term) => {
                    writer.delete_term(term);
                }
                Change::Add(document) => {
                    writer.add_document(document)?;
                }
            }
        }
        Ok(())
    }

    /// Brings all changes to the disk, with the place up to which the index holds the stream now. Blocks.
    pub(crate) fn commit(&self, place: Position) -> Result<(), TantivyError> {
        let mark = Mark {
            format: FORMAT,
            owner: self.owner,
            place,
        };
        let mark = serde_json::to_string(&mark).map_err(io::Error::other)?;
        let mut writer = self.writer.lock();
        let mut prepared = writer.prepare_commit()?;
        prepared.set_payload(&mark);
        prepared.commit()?;
        self.reader.reload()
    }

    /// Whether the members of a room are in the index, and if so whether everybody may find them.
    pub(crate) fn listing(&self, room: ShortRoomId) -> Result<Option<bool>, TantivyError> {
        for public in [false, true] {
            let term = Term::from_field_bytes(self.fields.key, &listing_key(room, public));
            let query = TermQuery::new(term, IndexRecordOption::Basic);
            if self.searcher().search(&query, &Count)? > 0 {
                return Ok(Some(public));
            }
        }
        Ok(None)
    }

    /// The message that says what an edit says.
    pub(crate) fn edited_by(
        &self,
        room: ShortRoomId,
        edit: EventNumber,
    ) -> Result<Option<EventNumber>, TantivyError> {
        let term = Term::from_field_bytes(self.fields.edit, &message_key(room, edit));
        let query = TermQuery::new(term, IndexRecordOption::Basic);
        let searcher = self.searcher();
        let Some(found) = searcher
            .search(&query, &DocSetCollector)?
            .into_iter()
            .next()
        else {
            return Ok(None);
        };
        let segment = searcher.segment_reader(found.segment_ord);
        let number = segment.fast_fields().u64(columns::NUMBER)?;
        let number = number
            .first(found.doc_id)
            .and_then(|it| u32::try_from(it).ok());
        Ok(number.map(EventNumber))
    }
}
