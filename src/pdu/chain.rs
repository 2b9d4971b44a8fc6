//! Auth chains: which events an event leans on, as sets of numbers.
//!
//! The chain of an event is its auth events and all of theirs, back to the start of the room. Events
//! with the same auth events have the same chain, so it is stored once per distinct set of auth events,
//! named by an [`AuthSetHash`]: the first join of a person to a public room adds none. Room version 2,
//! *State resolution*, *Auth chain*.
//!
//! Since room version 12 the `m.room.create` event is not listed among the auth events, but stands behind
//! all of them. It may be counted in or left out, for a whole room alike.

use std::fmt;

use roaring::RoaringBitmap;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;
use thiserror::Error;

use crate::EventNumber;

/// The auth chain of an event: its auth events and everything in their chains.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AuthChain(RoaringBitmap);

/// Names an [`AuthChain`] within a room, by the auth events that it begins with.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AuthSetHash(pub [u8; 16]);

/// Why stored bytes are no auth chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum AuthChainError {
    /// The bytes end before what they announce.
    #[error("the stored auth chain is cut off")]
    CutOff,
    /// Numbers overflow, fall, or repeat.
    #[error("the stored auth chain holds numbers that do not rise")]
    NotRising,
    /// A form that this version does not know.
    #[error("the stored auth chain has the unknown form {0}")]
    UnknownForm(u8),
    /// The bitmap is damaged.
    #[error("the stored auth chain holds a damaged bitmap")]
    Bitmap,
    /// Something follows the end.
    #[error("{0} bytes follow the stored auth chain")]
    Trailing(usize),
}

/// Rising numbers, each as a variable-length difference to the one before.
const FORM_DIFFERENCES: u8 = 1;
/// Roaring's portable serialisation.
const FORM_BITMAP: u8 = 2;

impl AuthChain {
    /// The chain of an event with these auth events, each with the chain of its own.
    pub fn of<'a>(auth_events: impl IntoIterator<Item = (EventNumber, &'a AuthChain)>) -> Self {
        let mut chain = RoaringBitmap::new();
        for (number, own) in auth_events {
            chain.insert(number.0);
            chain |= &own.0;
        }
        Self(chain)
    }

    /// Adds all that is in another one.
    pub fn add(&mut self, other: &Self) {
        self.0 |= &other.0;
    }

    /// The numbers of all events in the chain.
    pub fn numbers(&self) -> &RoaringBitmap {
        &self.0
    }

    /// Whether that event is in the chain.
    pub fn contains(&self, number: EventNumber) -> bool {
        self.0.contains(number.0)
    }

    /// The stored form, the shorter of two. A byte or so for each event of a short chain.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut differences = vec![FORM_DIFFERENCES];
        put_rising(&mut differences, &self.0);
        let mut compact = self.0.clone();
        compact.optimize();
        if differences.len() <= compact.serialized_size() {
            return differences;
        }
        let mut bytes = Vec::with_capacity(1 + compact.serialized_size());
        bytes.push(FORM_BITMAP);
        // A vector takes all that is written to it.
        let _ = compact.serialize_into(&mut bytes);
        bytes
    }

    /// Reads the stored form.
    ///
    /// # Errors
    ///
    /// An [`AuthChainError`] if the bytes are not one of the forms, whole and with nothing after it.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, AuthChainError> {
        let (&form, mut rest) = bytes.split_first().ok_or(AuthChainError::CutOff)?;
        let chain = match form {
            FORM_DIFFERENCES => take_rising(&mut rest)?,
            FORM_BITMAP => {
                RoaringBitmap::deserialize_from(&mut rest).map_err(|_| AuthChainError::Bitmap)?
            }
            form => return Err(AuthChainError::UnknownForm(form)),
        };
        if rest.is_empty() {
            Ok(Self(chain))
        } else {
            Err(AuthChainError::Trailing(rest.len()))
        }
    }
}

impl FromIterator<EventNumber> for AuthChain {
    fn from_iter<T: IntoIterator<Item = EventNumber>>(numbers: T) -> Self {
        Self(numbers.into_iter().map(|number| number.0).collect())
    }
}

impl AuthSetHash {
    /// The keyed BLAKE3 hash, 16 bytes of it, of the numbers of an event's auth events.
    ///
    /// The order in which they come does not matter, nor does repetition. The key is the server's own:
    /// who does not have it cannot look for two sets with one name.
    pub fn of(key: &[u8; 32], auth_events: impl IntoIterator<Item = EventNumber>) -> Self {
        let mut numbers: SmallVec<[EventNumber; 8]> = auth_events.into_iter().collect();
        numbers.sort_unstable();
        numbers.dedup();
        let mut hasher = blake3::Hasher::new_keyed(key);
        hasher.update(b"auth set");
        for number in numbers {
            hasher.update(&number.0.to_be_bytes());
        }
        let mut hash = [0; 16];
        hasher.finalize_xof().fill(&mut hash);
        Self(hash)
    }
}

impl fmt::Debug for AuthSetHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AuthSetHash({:032x})", u128::from_be_bytes(self.0))
    }
}

/// Writes seven bits a byte, the lowest first; the top bit says that more follow.
fn put_varint(bytes: &mut Vec<u8>, mut value: u32) {
    while value >= 0x80 {
        bytes.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

fn take_varint(bytes: &mut &[u8]) -> Result<u32, AuthChainError> {
    let mut value = 0_u32;
    for shift in [0, 7, 14, 21, 28] {
        let (&byte, rest) = bytes.split_first().ok_or(AuthChainError::CutOff)?;
        *bytes = rest;
        let bits = u32::from(byte & 0x7f);
        if shift == 28 && bits > 0xf {
            return Err(AuthChainError::NotRising);
        }
        value |= bits << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(AuthChainError::NotRising)
}

fn put_rising(bytes: &mut Vec<u8>, numbers: &RoaringBitmap) {
    let mut last = 0;
    for number in numbers {
        put_varint(bytes, number.wrapping_sub(last));
        last = number;
    }
}

fn take_rising(bytes: &mut &[u8]) -> Result<RoaringBitmap, AuthChainError> {
    let mut numbers = RoaringBitmap::new();
    let mut last = None;
    while !bytes.is_empty() {
        let difference = take_varint(bytes)?;
        let number = match last {
            None => difference,
            Some(_) if difference == 0 => return Err(AuthChainError::NotRising),
            Some(last) => difference
                .checked_add(last)
                .ok_or(AuthChainError::NotRising)?,
        };
        numbers.insert(number);
        last = Some(number);
    }
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

    use proptest::{collection, prelude::*};

    use super::*;

    fn chain(numbers: impl IntoIterator<Item = u32>) -> AuthChain {
        numbers.into_iter().map(EventNumber).collect()
    }

    #[test]
    fn a_chain_is_the_auth_events_and_their_chains() {
        let create = AuthChain::default();
        let join = AuthChain::of([(EventNumber(1), &create)]);
        let levels = AuthChain::of([(EventNumber(2), &join), (EventNumber(1), &create)]);
        let topic = AuthChain::of([(EventNumber(5), &levels), (EventNumber(2), &join)]);

        assert_eq!(create.numbers().len(), 0);
        assert_eq!(levels, chain([1, 2]));
        assert_eq!(topic, chain([1, 2, 5]));
        assert!(topic.contains(EventNumber(5)) && !topic.contains(EventNumber(6)));
        assert_eq!(
            AuthChain::of([(EventNumber(9), &topic)]),
            chain([1, 2, 5, 9])
        );
    }

    #[test]
    fn the_name_depends_on_the_set_and_the_key_alone() {
        let name = |key, numbers: &[u32]| {
            AuthSetHash::of(&[key; 32], numbers.iter().copied().map(EventNumber))
        };
        let first = name(7, &[1, 2, 5]);
        assert_eq!(first, name(7, &[5, 1, 2, 1]));
        assert_ne!(first, name(7, &[1, 2]));
        assert_ne!(first, name(8, &[1, 2, 5]));
        // On disk this is a key: it may not change from one version to the next.
        assert_eq!(
            format!("{first:?}"),
            "AuthSetHash(b60b2e4e27b398a86d1a7443916b7488)"
        );
    }

    #[test]
    fn short_chains_take_a_byte_or_two_a_number_and_long_ones_are_bitmaps() {
        assert_eq!(chain([]).to_bytes(), [1]);
        assert_eq!(
            chain([1, 3, 4, 7, 400]).to_bytes(),
            [1, 1, 2, 1, 3, 0x89, 3]
        );

        let every_other = chain((0..100_000).step_by(2)).to_bytes();
        assert_eq!(every_other[0], FORM_BITMAP);
        assert!(every_other.len() < 17_000);

        assert!(chain(0..100_000).to_bytes().len() < 50);
    }

    #[test]
    fn damage_is_an_error() {
        let read = AuthChain::from_bytes;
        assert_eq!(read(&[]), Err(AuthChainError::CutOff));
        assert_eq!(read(&[1, 5, 0x80]), Err(AuthChainError::CutOff));
        assert_eq!(read(&[9, 0]), Err(AuthChainError::UnknownForm(9)));
        assert_eq!(read(&[1, 3, 0]), Err(AuthChainError::NotRising));
        assert_eq!(
            read(&[1, 0xff, 0xff, 0xff, 0xff, 0xf, 1]),
            Err(AuthChainError::NotRising)
        );
        assert_eq!(
            read(&[1, 0xff, 0xff, 0xff, 0xff, 0x1f]),
            Err(AuthChainError::NotRising)
        );
        assert_eq!(read(&[2, 0, 1, 2, 3]), Err(AuthChainError::Bitmap));
        let mut long = chain((0..100_000).step_by(2)).to_bytes();
        assert_eq!(read(&long[..long.len() - 1]), Err(AuthChainError::Bitmap));
        long.push(0);
        assert_eq!(read(&long), Err(AuthChainError::Trailing(1)));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            dense in collection::btree_set(0_u32..5_000, 0..600),
            wide in collection::btree_set(any::<u32>(), 0..20),
        ) {
            let chain = chain(dense.into_iter().chain(wide));
            prop_assert_eq!(AuthChain::from_bytes(&chain.to_bytes()), Ok(chain));
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes in collection::vec(any::<u8>(), 0..200)) {
            if let Ok(chain) = AuthChain::from_bytes(&bytes) {
                prop_assert_eq!(AuthChain::from_bytes(&chain.to_bytes()), Ok(chain));
            }
        }
    }
}
