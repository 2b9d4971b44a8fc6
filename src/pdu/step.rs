//! What an algorithm answers that may lack data.

/// What an algorithm of this crate answers: its result, or the keys of what it lacks.
///
/// The caller loads all of what is asked for in one round trip and calls again; nothing computed from
/// incomplete data is ever returned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step<T, K> {
    /// The result.
    Done(T),
    /// What has to be loaded before the algorithm can go on; never empty.
    Need(Vec<K>),
}

impl<T, K> Step<T, K> {
    /// The result, if there is one already.
    pub fn done(self) -> Option<T> {
        match self {
            Self::Done(result) => Some(result),
            Self::Need(_) => None,
        }
    }
    /// Both results, or all that either of them lacks: two algorithms that go on side by side.
    pub fn and<U>(self, other: Step<U, K>) -> Step<(T, U), K>
    where
        K: Ord,
    {
        match (self, other) {
            (Self::Done(one), Step::Done(other)) => Step::Done((one, other)),
            (Self::Need(keys), Step::Done(_)) | (Self::Done(_), Step::Need(keys)) => {
                Step::Need(keys)
            }
            (Self::Need(mut keys), Step::Need(others)) => {
                keys.extend(others);
                keys.sort_unstable();
                keys.dedup();
                Step::Need(keys)
            }
        }
    }
}
