//! Keys: bytes that compare as the values they stand for do.

use pdu::EventNumber;

/// The longest key that every engine takes, in bytes.
pub const MAX_KEY: usize = 1024;

/// A stored key that is not what its table says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a stored key does not have the form of its table")]
pub struct KeyError;

/// Puts a key together.
#[derive(Debug, Default)]
pub struct KeyWriter {
    bytes: Vec<u8>,
    stamp_at: Option<usize>,
}

impl KeyWriter {
    /// Appends bytes of fixed length, most significant first.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Says that a pending position begins here.
    pub fn stamp_here(&mut self) {
        self.stamp_at = Some(self.bytes.len());
    }

    /// The key, and where in it a pending position lies.
    pub fn finish(self) -> (Vec<u8>, Option<usize>) {
        (self.bytes, self.stamp_at)
    }
}

/// Takes a key apart.
#[derive(Debug)]
pub struct KeyReader<'a>(&'a [u8]);

impl<'a> KeyReader<'a> {
    /// Reads from the beginning of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The next `N` bytes.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], KeyError> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or(KeyError)?;
        self.0 = rest;
        Ok(*head)
    }

    /// An error if anything is left.
    pub fn end(&self) -> Result<(), KeyError> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(KeyError)
        }
    }
}

/// A part of a key, of fixed length, whose bytes keep its order.
pub trait KeyPart: Sized {
    /// Appends this part.
    fn write(&self, to: &mut KeyWriter);
    /// Reads what [`Self::write`] wrote.
    fn read(from: &mut KeyReader<'_>) -> Result<Self, KeyError>;
}

/// A whole key: a part, or several in a row.
pub trait Key: Sized {
    /// Appends the whole key.
    fn write(&self, to: &mut KeyWriter);
    /// Reads the whole key.
    fn read(from: &mut KeyReader<'_>) -> Result<Self, KeyError>;

    /// The key's bytes.
    fn encode(&self) -> Vec<u8> {
        let mut writer = KeyWriter::default();
        self.write(&mut writer);
        writer.bytes
    }

    /// Reads a key that fills `bytes` exactly.
    fn decode(bytes: &[u8]) -> Result<Self, KeyError> {
        let mut reader = KeyReader::new(bytes);
        let key = Self::read(&mut reader)?;
        reader.end()?;
        Ok(key)
    }
}

/// The first parts of a key `K`: names the rows whose keys begin with them.
pub trait KeyPrefix<K> {
    /// The prefix' bytes.
    fn prefix(&self) -> Vec<u8>;
}

/// Everything in a table.
impl<K> KeyPrefix<K> for () {
    fn prefix(&self) -> Vec<u8> {
        Vec::new()
    }
}

macro_rules! unsigned {
    ($($number:ty),*) => {$(
        impl KeyPart for $number {
            fn write(&self, to: &mut KeyWriter) {
                to.bytes(&self.to_be_bytes());
            }
            fn read(from: &mut KeyReader<'_>) -> Result<Self, KeyError> {
                from.array().map(Self::from_be_bytes)
            }
        }
    )*};
}
unsigned!(u8, u16, u32, u64);

impl KeyPart for i32 {
    fn write(&self, to: &mut KeyWriter) {
        // The sign bit turned over puts the negative ones first.
        to.bytes(&(self.cast_unsigned() ^ (1 << 31)).to_be_bytes());
    }
    fn read(from: &mut KeyReader<'_>) -> Result<Self, KeyError> {
        from.array()
            .map(|bytes| (u32::from_be_bytes(bytes) ^ (1 << 31)).cast_signed())
    }
}

impl<const N: usize> KeyPart for [u8; N] {
    fn write(&self, to: &mut KeyWriter) {
        to.bytes(self);
    }
    fn read(from: &mut KeyReader<'_>) -> Result<Self, KeyError> {
        from.array()
    }
}

impl KeyPart for EventNumber {
    fn write(&self, to: &mut KeyWriter) {
        KeyPart::write(&self.0, to);
    }
    fn read(from: &mut KeyReader<'_>) -> Result<Self, KeyError> {
        KeyPart::read(from).map(Self)
    }
}

impl<P: KeyPart> Key for P {
    fn write(&self, to: &mut KeyWriter) {
        KeyPart::write(self, to);
    }
    fn read(from: &mut KeyReader<'_>) -> Result<Self, KeyError> {
        KeyPart::read(from)
    }
}

macro_rules! tuple {
    ($($part:ident . $index:tt),*) => {
        impl<$($part: KeyPart),*> Key for ($($part,)*) {
            fn write(&self, to: &mut KeyWriter) {
                $(self.$index.write(to);)*
            }
            fn read(from: &mut KeyReader<'_>) -> Result<Self, KeyError> {
                Ok(($($part::read(from)?,)*))
            }
        }
    };
}
tuple!(A.0, B.1);
tuple!(A.0, B.1, C.2);
tuple!(A.0, B.1, C.2, D.3);

macro_rules! prefix {
    ($($all:ident),* ; $($part:ident . $index:tt),*) => {
        impl<$($all: KeyPart),*> KeyPrefix<($($all,)*)> for ($($part,)*) {
            fn prefix(&self) -> Vec<u8> {
                let mut writer = KeyWriter::default();
                $(self.$index.write(&mut writer);)*
                writer.bytes
            }
        }
    };
}
prefix!(A, B; A.0);
prefix!(A, B, C; A.0);
prefix!(A, B, C; A.0, B.1);
prefix!(A, B, C, D; A.0);
prefix!(A, B, C, D; A.0, B.1);
prefix!(A, B, C, D; A.0, B.1, C.2);

/// A key type of 8 or 16 opaque bytes.
macro_rules! opaque {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
        )]
        pub struct $name(pub [u8; $len]);

        impl KeyPart for $name {
            fn write(&self, to: &mut KeyWriter) {
                to.bytes(&self.0);
            }
            fn read(from: &mut KeyReader<'_>) -> Result<Self, KeyError> {
                from.array().map(Self)
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }
    };
}

opaque! {
    /// A room's short id: eight random bytes, new for each incarnation of the room on this server.
    ShortRoomId, 8
}
opaque! {
    /// A local user's short id: eight random bytes.
    ShortUserId, 8
}
opaque! {
    /// The keyed hash of a name (a user id, an event id, an alias …), so that keys hold no text.
    NameHash, 16
}

impl ShortRoomId {
    /// Stands for "no room" where a key has a room: a user's global account data, for instance.
    pub const NONE: Self = Self([0; 8]);
}

impl NameHash {
    /// Stands for "no name".
    pub const NONE: Self = Self([0; 16]);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing)]

    use std::fmt::Debug;

    use proptest::{prelude::*, test_runner::TestCaseResult};

    use super::*;
    use crate::{Position, Stamp, schema::Place};

    /// Values of which many are close together or at an end, where an order goes wrong first.
    fn near<T: Copy + Debug + 'static>(
        ends: &'static [T],
        all: impl Strategy<Value = T> + 'static,
    ) -> BoxedStrategy<T> {
        prop_oneof![1 => prop::sample::select(ends), 1 => all].boxed()
    }

    fn any_u32() -> BoxedStrategy<u32> {
        near(&[0, 1, 255, 256, 1 << 31, u32::MAX], any::<u32>())
    }

    fn any_u64() -> BoxedStrategy<u64> {
        near(&[0, 1, 255, 256, 1 << 32, 1 << 63, u64::MAX], any::<u64>())
    }

    fn any_i32() -> BoxedStrategy<i32> {
        near(&[i32::MIN, -256, -1, 0, 1, 255, i32::MAX], any::<i32>())
    }

    fn any_place() -> BoxedStrategy<Place> {
        let place = (any_u64(), any_i32()).prop_map(|(slot, step)| Place { slot, step });
        near(&[Place::START, Place::END], place)
    }

    fn any_stamp() -> impl Strategy<Value = Stamp> {
        (any_u64(), any::<[u8; 2]>()).prop_map(|(high, low)| {
            let mut stamp = [0; 10];
            stamp[..8].copy_from_slice(&high.to_be_bytes());
            stamp[8..].copy_from_slice(&low);
            Stamp(stamp)
        })
    }

    /// Positions of commits that have happened.
    fn any_position() -> BoxedStrategy<Position> {
        let position = (0u32..4, any_stamp(), any::<u16>())
            .prop_map(|(epoch, stamp, index)| Position::new(epoch, stamp, index));
        near(&[Position::START, Position::END], position)
    }

    fn any_room() -> impl Strategy<Value = ShortRoomId> {
        any_u64().prop_map(|id| ShortRoomId(id.to_be_bytes()))
    }

    fn any_name() -> impl Strategy<Value = NameHash> {
        (any_u64(), any_u64()).prop_map(|(high, low)| {
            NameHash((u128::from(high) << 64 | u128::from(low)).to_be_bytes())
        })
    }

    /// Keys compare as their bytes do, are as long as each other, and read back.
    fn keeps_order<K: Key + Ord + Debug>(a: &K, b: &K) -> TestCaseResult {
        let (a_bytes, b_bytes) = (a.encode(), b.encode());
        prop_assert_eq!(a.cmp(b), a_bytes.cmp(&b_bytes), "{:?} and {:?}", a, b);
        prop_assert_eq!(a_bytes.len(), b_bytes.len());
        prop_assert!(a_bytes.len() < MAX_KEY);
        prop_assert!(K::decode(&a_bytes).is_ok_and(|read| read == *a), "{:?}", a);
        prop_assert!(K::decode(&b_bytes).is_ok_and(|read| read == *b), "{:?}", b);
        Ok(())
    }

    /// Bytes that are no key are an error; bytes that are one are its only encoding.
    fn reads_only_its_own<K: Key + Debug + PartialEq>(bytes: &[u8]) -> TestCaseResult {
        match K::decode(bytes) {
            Ok(key) => prop_assert_eq!(key.encode(), bytes),
            Err(KeyError) => {
                // The length is all that can be wrong: every part takes any bytes.
                let longer = [bytes, &[0; 64]].concat();
                let right = (0..longer.len()).find(|end| K::decode(&longer[..*end]).is_ok());
                prop_assert!(right.is_some_and(|length| length != bytes.len()));
            }
        }
        Ok(())
    }

    fn names_its_rows<K: Key, P: KeyPrefix<K>>(key: &K, prefix: &P, same: bool) -> TestCaseResult {
        prop_assert_eq!(key.encode().starts_with(&prefix.prefix()), same);
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1024))]

        #[test]
        fn numbers_keep_their_order(
            a in (any_u32(), any_u64(), any_i32()), b in (any_u32(), any_u64(), any_i32()),
        ) {
            keeps_order(&a.0, &b.0)?;
            keeps_order(&a.1, &b.1)?;
            keeps_order(&a.2, &b.2)?;
            keeps_order(&EventNumber(a.0), &EventNumber(b.0))?;
            keeps_order(&(a.0 as u8), &(b.0 as u8))?;
            keeps_order(&(a.0 as u16), &(b.0 as u16))?;
        }

        #[test]
        fn places_and_positions_keep_their_order(
            a in (any_place(), any_position()), b in (any_place(), any_position()),
        ) {
            keeps_order(&a.0, &b.0)?;
            keeps_order(&a.1, &b.1)?;
        }

        #[test]
        fn keys_of_several_parts_compare_part_by_part(
            a in (any_room(), any_i32(), any_name(), any_place()),
            b in (any_room(), any_i32(), any_name(), any_place()),
            same in 0usize..4,
        ) {
            keeps_order(&a, &b)?;
            // With equal beginnings the later parts decide.
            let b = (
                if same > 0 { a.0 } else { b.0 },
                if same > 1 { a.1 } else { b.1 },
                if same > 2 { a.2 } else { b.2 },
                b.3,
            );
            keeps_order(&a, &b)?;
            keeps_order(&(a.0, a.1, a.2), &(b.0, b.1, b.2))?;
            keeps_order(&(a.3, a.1), &(b.3, b.1))?;
        }

        #[test]
        fn a_prefix_names_the_keys_that_begin_with_its_parts(
            key in (any_room(), any_i32(), any_name(), any_place()),
            other in (any_room(), any_i32(), any_name(), any_place()),
        ) {
            let (a, b, c, d) = key;
            names_its_rows(&key, &(), true)?;
            names_its_rows(&key, &(a,), true)?;
            names_its_rows(&key, &(a, b), true)?;
            names_its_rows(&key, &(a, b, c), true)?;
            names_its_rows(&key, &(other.0,), a == other.0)?;
            names_its_rows(&key, &(a, other.1), b == other.1)?;
            names_its_rows(&key, &(a, b, other.2), c == other.2)?;
            names_its_rows(&(a, b, c), &(a, other.1), b == other.1)?;
            names_its_rows(&(b, d), &(other.1,), b == other.1)?;
        }

        #[test]
        fn any_bytes_are_one_key_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..48)) {
            reads_only_its_own::<i32>(&bytes)?;
            reads_only_its_own::<Position>(&bytes)?;
            reads_only_its_own::<(ShortRoomId, Place)>(&bytes)?;
            reads_only_its_own::<(ShortRoomId, NameHash, u8)>(&bytes)?;
            reads_only_its_own::<(ShortUserId, u16, Position, EventNumber)>(&bytes)?;
        }

        #[test]
        fn a_key_says_where_its_pending_position_lies(room in any_room(), index in any::<u16>(), happened in any_position()) {
            let placed = |key: &dyn Fn(&mut KeyWriter)| {
                let mut writer = KeyWriter::default();
                key(&mut writer);
                writer.finish().1
            };
            let pending = Position::pending(index);
            prop_assert_eq!(placed(&|to| Key::write(&(room, pending), to)), Some(8));
            prop_assert_eq!(placed(&|to| Key::write(&pending, to)), Some(0));
            prop_assert_eq!(placed(&|to| Key::write(&(room, happened), to)), None);
            // Behind everything that has happened, whatever the engine makes of it.
            prop_assert!(happened == Position::END || happened < pending);
        }
    }
}
