//! Any bytes are one key or an error; what was read is written as the same bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use storage::{Key, NameHash, Position, ShortRoomId, ShortUserId, schema::Place};

fn check<K: Key>(bytes: &[u8]) {
    if let Ok(key) = K::decode(bytes) {
        assert_eq!(key.encode(), bytes);
    }
}

fuzz_target!(|bytes: &[u8]| {
    check::<(ShortRoomId, Place)>(bytes);
    check::<(ShortUserId, Position)>(bytes);
    check::<(ShortRoomId, u32, u8, NameHash)>(bytes);
    check::<(ShortRoomId, u32, [u8; 8], NameHash)>(bytes);
    check::<(ShortUserId, ShortRoomId, NameHash)>(bytes);
    check::<(u32, NameHash)>(bytes);
});
