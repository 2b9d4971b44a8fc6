//! Randomness, as a parameter: a test seeds it and gets the same run again.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use rand::{RngCore, SeedableRng, rngs::StdRng};

/// Letters and digits that names are drawn from; 64 of them, so that six bits draw one without bias.
const LETTERS: &[u8; 64] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_-";

/// A source of unpredictable bytes (`StdRng` is a cryptographic generator). Clones draw from the
/// same source.
#[derive(Clone)]
pub struct Random(Arc<Mutex<StdRng>>);

impl Random {
    /// Seeded by the operating system.
    pub fn from_system() -> Self {
        Self(Arc::new(Mutex::new(StdRng::from_os_rng())))
    }

    /// The same bytes for the same seed. For tests only: what it draws can be foreseen.
    pub fn seeded(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(StdRng::seed_from_u64(seed))))
    }

    /// Fills `bytes`.
    pub fn fill(&self, bytes: &mut [u8]) {
        // A panic elsewhere while the lock was held leaves a generator that is as good as before.
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .fill_bytes(bytes);
    }

    /// `length` letters, digits, `_` and `-`, six bits each.
    pub fn letters(&self, length: usize) -> String {
        let mut bytes = vec![0; length];
        self.fill(&mut bytes);
        bytes
            .iter()
            .filter_map(|byte| LETTERS.get(usize::from(byte & 63)))
            .map(|letter| char::from(*letter))
            .collect()
    }
}

impl fmt::Debug for Random {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Random")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_draws_the_same_again_and_the_system_does_not() {
        assert_eq!(Random::seeded(7).letters(20), Random::seeded(7).letters(20));
        assert_ne!(Random::seeded(7).letters(20), Random::seeded(8).letters(20));
        let system = Random::from_system().letters(20);
        assert_eq!(system.len(), 20);
        assert_ne!(system, Random::from_system().letters(20));
    }
}
