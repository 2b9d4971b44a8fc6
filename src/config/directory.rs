//! Section `directory`.

section! {
    /// The directory of rooms that are published on this server.
    pub struct Directory {
        /// Whether people without an account may read it.
        open: bool = false,
    }
}
