//! Tables: typed constants that readers and writers share.

use std::marker::PhantomData;

/// How a table is read and written, which decides how the engine lays it out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Access {
    /// Looked up by whole keys, seldom rewritten.
    Point,
    /// Large values looked up by whole keys or in short ranges, hardly ever rewritten: events, nodes.
    Bulk,
    /// Read in ranges, in key order.
    Range,
    /// Written once at rising keys, read from a cursor on, deleted key by key: logs and queues.
    Log,
    /// Rewritten all the time: heads, tails, counters.
    Hot,
    /// Numbers under blind `Add`.
    Sum,
    /// Numbers under blind `Max`.
    Greatest,
}

/// What is known of a table besides its types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableInfo {
    /// First byte of every key of the table; never used again once its table is gone.
    pub id: u8,
    /// `<value>_by_<key>`.
    pub name: &'static str,
    /// How it is used.
    pub access: Access,
    /// What a row means and who writes it.
    pub doc: &'static str,
}

/// A table: keys of type `K`, values of type `V`.
#[derive(Debug)]
pub struct Table<K, V> {
    /// Its name, use and meaning.
    pub info: TableInfo,
    types: PhantomData<fn() -> (K, V)>,
}

impl<K, V> Table<K, V> {
    /// Declares a table; only the schema does.
    pub(crate) const fn new(id: u8, name: &'static str, access: Access, doc: &'static str) -> Self {
        Self {
            info: TableInfo {
                id,
                name,
                access,
                doc,
            },
            types: PhantomData,
        }
    }
}

/// Declares tables, and the list of them.
macro_rules! tables {
    ($list:ident: $($(#[doc = $doc:literal])+ $id:literal $constant:ident $access:ident: $key:ty => $value:ty;)*) => {
        $(
            $(#[doc = $doc])+
            pub const $constant: $crate::Table<$key, $value> = $crate::Table::new(
                $id,
                stringify!($constant),
                $crate::table::Access::$access,
                concat!($($doc),+),
            );
        )*
        /// The tables of this part of the schema, with their types' names.
        pub const $list: &[($crate::table::TableInfo, &str, &str)] = &[
            $(($constant.info, stringify!($key), stringify!($value))),*
        ];
    };
}
pub(crate) use tables;
