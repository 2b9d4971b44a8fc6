//! Values that are longer than engines take: below the interface they are cut into pieces.
//!
//! The row keeps the first [`MAX_VALUE`] bytes, marked in its format byte, and behind them the number of
//! pieces; these are rows of a table of their own, under the row's key. A value that is not long costs
//! nothing. Who replaces or removes a long value requires that it is what was read: by that its pieces
//! are known, and removed with it.

use std::collections::HashMap;

use bytes::{Bytes, BytesMut};

use crate::{
    Batch, CommitError, ReadError,
    batch::{MAX_BATCH, Operation, Precondition},
    key::MAX_KEY,
    read::{Answers, Reads},
    value::ValueError,
};

/// The longest value that every engine takes, in bytes.
pub const MAX_VALUE: usize = 90_000;

/// The table of pieces, which no other table's id reaches.
const PIECES: u8 = u8::MAX;
/// Set in the format byte of a row that has pieces.
const MARK: u8 = 0x80;

/// The key of a row or, if it is one of a piece, what that of its row begins with.
pub(crate) fn whole(key: &[u8]) -> &[u8] {
    key.strip_prefix(&[PIECES]).unwrap_or(key)
}

/// Holds a batch to the limits of all engines, cutting long values into pieces.
///
/// # Errors
///
/// [`CommitError::TooLarge`] if the batch or a key is.
pub(crate) fn prepare(batch: &mut Batch) -> Result<(), CommitError> {
    if batch.len_bytes() > MAX_BATCH {
        return Err(CommitError::TooLarge);
    }
    let mut old: HashMap<Vec<u8>, u8> = HashMap::new();
    for precondition in &mut batch.preconditions {
        if let Precondition::Equals(key, raw) = precondition
            && let Some((head, pieces)) = cut(raw)
        {
            old.insert(key.clone(), pieces.len() as u8);
            *raw = head.into();
        }
    }
    let mut more = Vec::new();
    for operation in &mut batch.operations {
        let (key, value) = match operation {
            Operation::Put(key, value)
            | Operation::PutStamped(key, _, value)
            | Operation::PutStampedValue(key, value, _) => (key, Some(value)),
            Operation::Delete(key) => (key, None),
            Operation::DeleteRange(..) => continue,
            Operation::Add(key, _) | Operation::Max(key, _) => (key, None),
        };
        if key.len() > MAX_KEY {
            return Err(CommitError::TooLarge);
        }
        let mut written = 0;
        if let Some(value) = value
            && let Some((head, pieces)) = cut(value)
        {
            written = pieces.len() as u8;
            for (index, piece) in (0..).zip(pieces) {
                more.push(Operation::Put(piece_key(key, index), piece.to_vec()));
            }
            *value = head;
        }
        for index in written..old.remove(key).unwrap_or(0) {
            more.push(Operation::Delete(piece_key(key, index)));
        }
    }
    batch.operations.extend(more);
    Ok(())
}

/// The row and the pieces of a long value.
fn cut(value: &[u8]) -> Option<(Vec<u8>, Vec<&[u8]>)> {
    let (head, rest) = value.split_at_checked(MAX_VALUE)?;
    if rest.is_empty() {
        return None;
    }
    let pieces: Vec<_> = rest.chunks(MAX_VALUE).collect();
    let mut head = head.to_vec();
    if let Some(format) = head.first_mut() {
        *format |= MARK;
    }
    // A batch is smaller than 255 pieces are.
    head.push(pieces.len() as u8);
    Some((head, pieces))
}

fn piece_key(key: &[u8], index: u8) -> Vec<u8> {
    [&[PIECES], key, &[index]].concat()
}

/// Between which keys the pieces of rows lie that lie between these.
pub(crate) fn pieces_between(from: &[u8], to: &[u8]) -> (Vec<u8>, Vec<u8>) {
    ([&[PIECES], from].concat(), [&[PIECES], to].concat())
}

/// The number of pieces of a row as it is stored; none for nearly all.
fn pieces_of(value: &Bytes) -> Option<u8> {
    let marked = value.first().is_some_and(|format| format & MARK != 0);
    match value.last() {
        Some(pieces) if marked && value.len() == MAX_VALUE + 1 => Some(*pieces),
        _ => None,
    }
}

/// The pieces that belong to the rows of some answers; nothing for nearly all.
pub(crate) fn missing(reads: &Reads, answers: &Answers) -> Reads {
    let keys = reads.keys.iter().map(Vec::as_slice);
    let of_keys = keys
        .zip(&answers.keys)
        .filter_map(|(key, value)| Some((key, pieces_of(value.as_ref()?)?)));
    let rows = answers.ranges.iter().flatten();
    let of_ranges = rows.filter_map(|(key, value)| Some((key.as_ref(), pieces_of(value)?)));
    let mut pieces = Reads::new();
    for (key, count) in of_keys.chain(of_ranges) {
        pieces
            .keys
            .extend((0..count).map(|index| piece_key(key, index)));
    }
    pieces
}

/// Puts rows and their pieces together again.
///
/// # Errors
///
/// A piece is missing.
pub(crate) fn join(answers: &mut Answers, pieces: Answers) -> Result<(), ReadError> {
    let mut pieces = pieces.keys.into_iter();
    let keys = answers.keys.iter_mut().flatten();
    let rows = answers.ranges.iter_mut().flatten().map(|(_, value)| value);
    for value in keys.chain(rows) {
        let Some(count) = pieces_of(value) else {
            continue;
        };
        let mut whole = BytesMut::from(value.as_ref());
        whole.truncate(MAX_VALUE);
        if let Some(format) = whole.first_mut() {
            *format &= !MARK;
        }
        for piece in pieces.by_ref().take(usize::from(count)) {
            let piece = piece.ok_or(ValueError::Damaged("a piece of it is missing"))?;
            whole.extend_from_slice(&piece);
        }
        *value = whole.freeze();
    }
    Ok(())
}
