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
