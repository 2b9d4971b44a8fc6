//! Section `presence`.

section! {
    /// Who is online.
    pub struct Presence {
        /// Whether people see who is online. Without, everybody is offline.
        enabled: bool = true,
    }
}
