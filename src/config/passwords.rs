//! Section `passwords`.

use crate::{kinds::ByteCount, problem::Problem};

section! {
    /// How passwords are kept. The cost applies to passwords that are set from now on; those set
    /// before keep what they were hashed with until their next login.
    pub struct Passwords {
        /// The fewest letters of a new password.
        min_length: u32 = 8,

        /// The memory that hashing one password with argon2id takes.
        memory: ByteCount = ByteCount::mib(19),

        /// How often argon2id passes over that memory.
        passes: u32 = 2,

        /// In how many lanes argon2id works.
        lanes: u32 = 1,
    }
}

/// What argon2 itself asks for, and what one request may cost at most.
pub(crate) fn check(passwords: &Passwords, problems: &mut Vec<Problem>) {
    let least = ByteCount::kib(8 * u64::from(passwords.lanes.max(1)));
    let most = ByteCount::mib(1 << 10);
    if passwords.memory < least || passwords.memory > most {
        problems.push(Problem::new(format!(
            "passwords.memory must be between {least} (8 KiB a lane) and {most}, found {}",
            passwords.memory
        )));
    }
    for (name, value, most) in [
        ("min_length", passwords.min_length, 128),
        ("passes", passwords.passes, 64),
        ("lanes", passwords.lanes, 64),
    ] {
        if value < 1 || value > most {
            problems.push(Problem::new(format!(
                "passwords.{name} must be between 1 and {most}, found {value}"
            )));
        }
    }
}
