//! The disk format as a text: a change of it is a visible line in review. And its keys keep their order.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::fmt::Write as _;

use pdu::EventNumber;
use proptest::prelude::*;
use storage::{
    Access, Key, NameHash, Position, ShortRoomId, ShortUserId, Stamp,
    schema::{self, Place},
};

#[test]
fn every_table_is_as_it_was() {
    let mut text = String::new();
    for (info, key, value) in schema::tables() {
        let doc = info.doc.trim();
        writeln!(
            text,
            "{:>3} {} {:?}: {key} => {value}\n    {doc}",
            info.id, info.name, info.access
        )
        .unwrap();
    }
    insta::assert_snapshot!("schema", text);
}

#[test]
fn no_two_tables_share_a_number_and_none_has_that_of_the_pieces_of_long_values() {
    let mut ids: Vec<_> = schema::tables().iter().map(|(info, ..)| info.id).collect();
    let count = ids.len();
    ids.dedup();
    assert_eq!(ids.len(), count);
    assert!(!ids.contains(&u8::MAX));
}

#[test]
fn merged_numbers_lie_where_the_engine_merges_them_and_nothing_else_does() {
    for (info, _, value) in schema::tables() {
        let merged = match info.access {
            Access::Sum => Some("Sum"),
            Access::Greatest => Some("Greatest"),
            _ => None,
        };
        let number = ["Sum", "Greatest"].into_iter().find(|name| value == *name);
        assert_eq!(merged, number, "{}", info.name);
    }
}

fn place() -> impl Strategy<Value = Place> {
    (any::<u64>(), any::<i32>()).prop_map(|(slot, step)| Place { slot, step })
}

fn position() -> impl Strategy<Value = Position> {
    (0..u32::MAX - 1, any::<[u8; 10]>(), any::<u16>())
        .prop_map(|(epoch, stamp, index)| Position::new(epoch, Stamp(stamp), index))
}

/// Keys of two rows: read back as they were written, and ordered as what they stand for.
fn check<K: Key + Ord + std::fmt::Debug>(a: &K, b: &K) {
    let (x, y) = (a.encode(), b.encode());
    assert_eq!(&K::decode(&x).unwrap(), a);
    assert_eq!(a.cmp(b), x.cmp(&y), "{a:?} {b:?}");
    assert!(K::decode(&x[..x.len() - 1]).is_err());
    assert!(K::decode(&[x.as_slice(), &[0]].concat()).is_err());
}

proptest! {
    #[test]
    fn keys_are_read_back_and_keep_their_order(
        rooms in any::<([u8; 8], [u8; 8])>(), places in (place(), place()),
        positions in (position(), position()), numbers in any::<(u32, u32)>(),
        names in any::<([u8; 16], [u8; 16])>(), days in any::<(u32, u32)>(), kinds in any::<(u8, u8)>(),
        steps in any::<(i32, i32)>(),
    ) {
        let room = |n| ShortRoomId(n);
        check(&(room(rooms.0), places.0), &(room(rooms.1), places.1));
        check(&(room(rooms.0), places.0), &(room(rooms.0), places.1));
        check(&(room(rooms.0), positions.0), &(room(rooms.0), positions.1));
        let number = |n: u32| EventNumber(n);
        check(&(ShortUserId(rooms.0), number(numbers.0)), &(ShortUserId(rooms.0), number(numbers.1)));
        check(&(days.0, NameHash(names.0)), &(days.1, NameHash(names.1)));
        check(&(room(rooms.0), kinds.0, NameHash(names.0)), &(room(rooms.0), kinds.1, NameHash(names.1)));
        check(&steps.0, &steps.1);
    }

    #[test]
    fn bytes_that_are_no_key_are_refused_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let _ = <(ShortRoomId, Place)>::decode(&bytes);
        let _ = <(ShortUserId, Position)>::decode(&bytes);
        let _ = <(u32, NameHash)>::decode(&bytes);
        let _ = <(ShortRoomId, u32, [u8; 8], NameHash)>::decode(&bytes);
    }
}
