//! Values: what a row holds, in a form that says which form it is.

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

use crate::Position;

/// A stored value that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ValueError {
    /// The value is of a form that this version does not know.
    #[error("a stored value has the unknown format {format} under key {key}")]
    Format {
        /// The format byte found.
        format: u8,
        /// The key id found.
        key: u8,
    },
    /// The value is shorter than its header, or its content does not fit its type.
    #[error("a stored value is damaged: {0}")]
    Damaged(&'static str),
}

/// What a table can hold.
///
/// Every value but a merged number begins with a format byte and a key id (0: not sealed), so that old
/// forms can be read for ever and values be sealed one by one.
pub trait Value: Sized {
    /// The bytes to store.
    fn encode(&self) -> Vec<u8>;
    /// Reads stored bytes.
    fn decode(bytes: &Bytes) -> Result<Self, ValueError>;
}

/// Format byte and key id of a value in its first form, not sealed.
pub const HEADER: [u8; 2] = [1, 0];

/// The bytes behind the header of a value in its first form.
pub fn strip_header(bytes: &Bytes) -> Result<Bytes, ValueError> {
    match bytes.get(..2) {
        Some([1, 0]) => Ok(bytes.slice(2..)),
        Some([format, key]) => Err(ValueError::Format {
            format: *format,
            key: *key,
        }),
        _ => Err(ValueError::Damaged("shorter than its header")),
    }
}

/// A value in serde's model, stored by postcard.
pub trait Record: Serialize + DeserializeOwned {}

impl<R: Record> Value for R {
    fn encode(&self) -> Vec<u8> {
        // Serializing plain data into a vector has no way to fail.
        postcard::to_extend(self, HEADER.to_vec()).unwrap_or_default()
    }

    fn decode(bytes: &Bytes) -> Result<Self, ValueError> {
        postcard::from_bytes(&strip_header(bytes)?)
            .map_err(|_| ValueError::Damaged("its content does not fit its type"))
    }
}

/// A value that carries the position of the commit that wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamped<R> {
    /// When the row was written.
    pub position: Position,
    /// What it holds.
    pub value: R,
}

impl<R> Stamped<R> {
    /// Where the position lies in the stored bytes.
    pub const POSITION_AT: usize = HEADER.len();
}

impl<R: Record> Value for Stamped<R> {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = HEADER.to_vec();
        bytes.extend_from_slice(&self.position.to_bytes());
        postcard::to_extend(&self.value, bytes).unwrap_or_default()
    }

    fn decode(bytes: &Bytes) -> Result<Self, ValueError> {
        let bytes = strip_header(bytes)?;
        let (position, rest) = bytes
            .split_first_chunk()
            .ok_or(ValueError::Damaged("shorter than a position"))?;
        let value = postcard::from_bytes(rest)
            .map_err(|_| ValueError::Damaged("its content does not fit its type"))?;
        Ok(Self {
            position: Position::from_bytes(*position),
            value,
        })
    }
}

/// Bytes as they are, behind the header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Raw(pub Bytes);

impl Value for Raw {
    fn encode(&self) -> Vec<u8> {
        [&HEADER, self.0.as_ref()].concat()
    }

    fn decode(bytes: &Bytes) -> Result<Self, ValueError> {
        strip_header(bytes).map(Self)
    }
}

/// Numbers that blind merges change: eight bytes without a header, so that the engine can merge them.
macro_rules! numbers {
    ($($(#[$doc:meta])* $name:ident;)*) => { $(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $name(pub i64);

        impl Value for $name {
            fn encode(&self) -> Vec<u8> {
                self.0.to_le_bytes().to_vec()
            }

            fn decode(bytes: &Bytes) -> Result<Self, ValueError> {
                let bytes = bytes
                    .as_ref()
                    .try_into()
                    .map_err(|_| ValueError::Damaged("not a number"))?;
                Ok(Self(i64::from_le_bytes(bytes)))
            }
        }
    )* };
}

numbers! {
    /// What a table with [`Access::Sum`](crate::Access::Sum) holds: the sum of all that was added.
    Sum;
    /// What a table with [`Access::Greatest`](crate::Access::Greatest) holds: the greatest of all numbers that
    /// were named.
    Greatest;
}

macro_rules! records {
    ($($type:ty),* $(,)?) => { $(impl $crate::value::Record for $type {})* };
}
pub(crate) use records;

records!(
    (),
    String,
    Vec<u8>,
    u64,
    crate::ShortRoomId,
    crate::ShortUserId,
    pdu::EventNumber
);
