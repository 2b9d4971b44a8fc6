//! The real binary on a free port and an empty folder, spoken to in raw JSON. One file per endpoint group,
//! as in `src/api`.
