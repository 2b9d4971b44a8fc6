//! Sync tokens: what a device has seen, in a string.

use std::{fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use storage::Position;

/// What a device has seen. It survives restarts of the server; in a restored one its epoch tells that it
/// belongs to another history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    /// Everything up to here was told.
    pub position: Position,
    /// Messages to the device up to here were told.
    pub to_device: Position,
    /// What is kept in memory only, such as who types.
    pub ephemeral: EphemeralCursor,
}

/// A place in the changes of what is kept in memory only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EphemeralCursor {
    /// The run of the process that counts; in another run everything is told anew.
    pub run: u64,
    /// How far it had counted.
    pub serial: u64,
}

const LEN: usize = 2 * Position::LEN + 16;

/// `s`, and the parts in a row.
impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = [
            &self.position.to_bytes()[..],
            &self.to_device.to_bytes(),
            &self.ephemeral.run.to_be_bytes(),
            &self.ephemeral.serial.to_be_bytes(),
        ]
        .concat();
        write!(f, "s{}", URL_SAFE_NO_PAD.encode(bytes))
    }
}

/// A text that is no sync token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoToken;

impl FromStr for Token {
    type Err = NoToken;

    fn from_str(text: &str) -> Result<Self, NoToken> {
        let text = text.strip_prefix('s').ok_or(NoToken)?;
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| NoToken)?;
        let bytes: [u8; LEN] = bytes.try_into().map_err(|_| NoToken)?;
        let (position, rest) = bytes.split_first_chunk().ok_or(NoToken)?;
        let (to_device, rest) = rest.split_first_chunk().ok_or(NoToken)?;
        let (run, rest) = rest.split_first_chunk().ok_or(NoToken)?;
        let (serial, _) = rest.split_first_chunk().ok_or(NoToken)?;
        Ok(Self {
            position: Position::from_bytes(*position),
            to_device: Position::from_bytes(*to_device),
            ephemeral: EphemeralCursor {
                run: u64::from_be_bytes(*run),
                serial: u64::from_be_bytes(*serial),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn tokens_are_read_back() {
        let token = Token {
            position: Position::from_bytes([7; 16]),
            to_device: Position::from_bytes([9; 16]),
            ephemeral: EphemeralCursor { run: 3, serial: 4 },
        };
        assert_eq!(token.to_string().parse(), Ok(token));
        for wrong in ["", "s", "t12", "sAAAA", &format!("{token}A"), "s\u{2603}"] {
            assert_eq!(wrong.parse::<Token>(), Err(NoToken), "{wrong}");
        }
    }
}
