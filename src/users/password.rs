//! Passwords, kept as argon2id hashes.

use std::sync::Arc;

use argon2::{
    Algorithm, Argon2, Block, Params, Version,
    password_hash::{self, Output, ParamsString, PasswordHash, PasswordVerifier, SaltString},
};
use error::Result;
use parking_lot::Mutex;
use storage::Random;
use tokio::sync::Semaphore;

/// The longest password, in bytes: longer ones only cost time.
const MAX_PASSWORD: usize = 512;

/// How many people may wait for a password to be hashed. Each costs some milliseconds of a core.
const MAX_WAITING: usize = 1_000;

/// Hashes and checks passwords, a few at a time, beside the tasks that serve requests.
pub(crate) struct Passwords {
    hasher: Hasher,
    random: Random,
    min_length: usize,
    /// As many as there are cores: more would only take memory.
    working: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
}

/// Hashes in memory that is used again and again: as much as is hashed at once. Asked for anew each time
/// it would stay with the allocator, many times over.
#[derive(Clone)]
struct Hasher {
    argon2: Argon2<'static>,
    memory: Arc<Mutex<Vec<Vec<Block>>>>,
}

/// The length of a hash, in bytes.
const HASH: usize = 32;

impl Hasher {
    fn output(&self, password: &str, salt: &[u8]) -> argon2::Result<[u8; HASH]> {
        let free = self.memory.lock().pop();
        let blocks = self.argon2.params().block_count();
        let mut memory = free.unwrap_or_else(|| vec![Block::default(); blocks]);
        let mut output = [0; HASH];
        let done = self.argon2.hash_password_into_with_memory(
            password.as_bytes(),
            salt,
            &mut output,
            &mut memory,
        );
        self.memory.lock().push(memory);
        done.map(|()| output)
    }
}

/// What came of checking a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Checked {
    /// Right, and hashed at the cost that holds now.
    Right,
    /// Right, but hashed at another cost: here is the new hash.
    RightBut(String),
    /// Wrong, or there is no account, or none with a password. Takes as long either way.
    Wrong,
}

impl Passwords {
    pub(crate) fn new(settings: &config::Passwords, random: &Random) -> Result<Self> {
        let memory_kib = u32::try_from(settings.memory.get() / 1024).unwrap_or(u32::MAX);
        let params = Params::new(memory_kib, settings.passes, settings.lanes, None)
            .map_err(|failure| error::internal(failure.to_string()))?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Self {
            hasher: Hasher {
                argon2: Argon2::new(Algorithm::Argon2id, Version::V0x13, params),
                memory: Arc::default(),
            },
            random: random.clone(),
            min_length: usize::try_from(settings.min_length).unwrap_or(usize::MAX),
            working: Arc::new(Semaphore::new(cores)),
            waiting: Arc::new(Semaphore::new(MAX_WAITING)),
        })
    }

    /// Whether a new password may be set.
    ///
    /// # Errors
    ///
    /// 400 `M_WEAK_PASSWORD` with what it lacks.
    pub(crate) fn check_strength(&self, password: &str) -> Result<()> {
        if password.len() > MAX_PASSWORD {
            return Err(error::weak_password(format!(
                "A password has at most {MAX_PASSWORD} bytes"
            )));
        }
        if password.chars().count() < self.min_length {
            return Err(error::weak_password(format!(
                "A password needs at least {} letters",
                self.min_length
            )));
        }
        Ok(())
    }

    /// The hash of a new password, in PHC form.
    pub(crate) async fn hash(&self, password: &str) -> Result<String> {
        let hasher = self.hasher.clone();
        let salt = self.salt()?;
        let password = password.to_owned();
        self.apart(move || hash(&hasher, &password, &salt)).await?
    }

    /// Checks a password against a stored hash, or against nothing, in the same time.
    pub(crate) async fn check(&self, password: &str, stored: Option<&str>) -> Result<Checked> {
        if password.len() > MAX_PASSWORD {
            return Ok(Checked::Wrong);
        }
        let hasher = self.hasher.clone();
        let salt = self.salt()?;
        let password = password.to_owned();
        let stored = stored.map(str::to_owned);
        self.apart(move || check(&hasher, &password, stored.as_deref(), &salt))
            .await?
    }

    fn salt(&self) -> Result<SaltString> {
        let mut salt = [0; 16];
        self.random.fill(&mut salt);
        SaltString::encode_b64(&salt).map_err(|failure| error::internal(failure.to_string()))
    }

    /// Runs `work` where it does not keep requests waiting.
    async fn apart<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T> {
        let Ok(_waiting) = self.waiting.try_acquire() else {
            return Err(error::limit_exceeded(
                Some(std::time::Duration::from_secs(2)),
                "Too many people are logging in at once",
            ));
        };
        let working = Arc::clone(&self.working)
            .acquire_owned()
            .await
            .map_err(error::internal)?;
        tokio::task::spawn_blocking(move || {
            let done = work();
            // Not before the work is done, even if nobody waits for it any more.
            drop(working);
            done
        })
        .await
        .map_err(error::internal)
    }
}

fn hash(hasher: &Hasher, password: &str, salt: &SaltString) -> Result<String> {
    let hash = || -> password_hash::Result<String> {
        let mut bytes = [0; 64];
        let output = hasher.output(password, salt.as_salt().decode_b64(&mut bytes)?)?;
        let hash = PasswordHash {
            algorithm: Algorithm::Argon2id.ident(),
            version: Some(Version::V0x13.into()),
            params: ParamsString::try_from(hasher.argon2.params())?,
            salt: Some(salt.as_salt()),
            hash: Some(Output::new(&output)?),
        };
        Ok(hash.to_string())
    };
    hash().map_err(|failure| error::internal(failure.to_string()))
}

fn check(
    hasher: &Hasher,
    password: &str,
    stored: Option<&str>,
    salt: &SaltString,
) -> Result<Checked> {
    let Some(stored) = stored else {
        // The same work, so that nobody learns by the clock who has an account.
        hash(hasher, password, salt)?;
        return Ok(Checked::Wrong);
    };
    let stored =
        PasswordHash::new(stored).map_err(|failure| error::internal(failure.to_string()))?;
    if has_own_form(hasher, &stored) {
        return Ok(match is_right(hasher, password, &stored) {
            Ok(true) => Checked::Right,
            _ => Checked::Wrong,
        });
    }
    let verified = hasher.argon2.verify_password(password.as_bytes(), &stored);
    if verified.is_err() {
        return Ok(Checked::Wrong);
    }
    hash(hasher, password, salt).map(Checked::RightBut)
}

/// Whether a stored hash is one that we would make now.
fn has_own_form(hasher: &Hasher, stored: &PasswordHash<'_>) -> bool {
    let same_cost = Params::try_from(stored).is_ok_and(|params| {
        let now = hasher.argon2.params();
        (params.m_cost(), params.t_cost(), params.p_cost())
            == (now.m_cost(), now.t_cost(), now.p_cost())
    });
    same_cost
        && stored.algorithm == Algorithm::Argon2id.ident()
        && stored.version == Some(Version::V0x13.into())
        && stored.hash.is_some_and(|hash| hash.len() == HASH)
}

/// Whether a password is that of a hash of our own form. Outputs are compared in constant time.
fn is_right(
    hasher: &Hasher,
    password: &str,
    stored: &PasswordHash<'_>,
) -> password_hash::Result<bool> {
    let mut bytes = [0; 64];
    let salt = stored.salt.ok_or(password_hash::Error::Password)?;
    let output = hasher.output(password, salt.decode_b64(&mut bytes)?)?;
    Ok(stored.hash == Some(Output::new(&output)?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn with_passes(passes: u32) -> Passwords {
        let settings = config::Passwords {
            memory: config::ByteCount::kib(64),
            passes,
            ..config::Passwords::default()
        };
        Passwords::new(&settings, &Random::seeded(1)).unwrap()
    }

    #[tokio::test]
    async fn the_right_password_is_right_and_others_are_not() {
        let passwords = with_passes(1);
        let stored = passwords.hash("correct horse").await.unwrap();
        assert!(
            stored.starts_with("$argon2id$v=19$m=64,t=1,p=1$"),
            "{stored}"
        );
        let checked = |password: &'static str| passwords.check(password, Some(&stored));
        assert_eq!(checked("correct horse").await.unwrap(), Checked::Right);
        assert_eq!(checked("correct horsf").await.unwrap(), Checked::Wrong);
        assert_eq!(checked("").await.unwrap(), Checked::Wrong);
        assert_eq!(passwords.check("x", None).await.unwrap(), Checked::Wrong);
        let endless = "x".repeat(MAX_PASSWORD + 1);
        assert_eq!(
            passwords.check(&endless, Some(&stored)).await.unwrap(),
            Checked::Wrong
        );
        assert_ne!(stored, passwords.hash("correct horse").await.unwrap());
    }

    #[tokio::test]
    async fn what_others_hashed_is_right_and_they_take_what_we_hash() {
        use argon2::password_hash::PasswordHasher as _;
        let passwords = with_passes(1);
        let other = passwords.hasher.argon2.clone();
        let salt = passwords.salt().unwrap();
        let theirs = other.hash_password(b"correct horse", &salt).unwrap();
        let theirs = theirs.to_string();
        let checked = passwords.check("correct horse", Some(&theirs)).await;
        assert_eq!(checked.unwrap(), Checked::Right);
        let ours = passwords.hash("correct horse").await.unwrap();
        let ours = PasswordHash::new(&ours).unwrap();
        assert!(other.verify_password(b"correct horse", &ours).is_ok());
        assert!(other.verify_password(b"correct horsf", &ours).is_err());
    }

    #[tokio::test]
    async fn another_cost_gives_a_new_hash() {
        let stored = with_passes(1).hash("correct horse").await.unwrap();
        let dearer = with_passes(2);
        let Checked::RightBut(new) = dearer.check("correct horse", Some(&stored)).await.unwrap()
        else {
            panic!("the cost is another");
        };
        assert_eq!(
            dearer.check("correct horse", Some(&new)).await.unwrap(),
            Checked::Right
        );
        assert!(dearer.check("x", Some("no hash at all")).await.is_err());
    }

    #[test]
    fn short_and_endless_passwords_are_refused() {
        let passwords = with_passes(1);
        assert!(passwords.check_strength("1234567").is_err());
        assert!(passwords.check_strength("گذرواژه۸").is_ok());
        assert!(passwords.check_strength(&"x".repeat(MAX_PASSWORD)).is_ok());
        assert!(
            passwords
                .check_strength(&"x".repeat(MAX_PASSWORD + 1))
                .is_err()
        );
    }
}
