//! Tables that no server writes: the tests of the engines do, where no other table is used in that way yet.

use crate::{Greatest, NameHash, Sum, table::tables};

tables! { PROBE_TABLES:
    /// Numbers under blind Add. Only the tests of the engines write them.
    250 PROBE_SUM_BY_NAME Sum: NameHash => Sum;
    /// Numbers under blind Max. Only the tests of the engines write them.
    251 PROBE_GREATEST_BY_NAME Greatest: NameHash => Greatest;
}
