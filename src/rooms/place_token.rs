//! Places as clients hold them: `prev_batch`, and the tokens of `/messages` and `/context`.

use std::{fmt, str::FromStr};

use storage::schema::Place;

/// A boundary in a room's timeline: behind the event at this place, before the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PlaceToken(pub Place);

impl PlaceToken {
    /// The boundary just before the event at `place`.
    pub fn before(place: Place) -> Self {
        Self(Place {
            slot: place.slot,
            step: place.step.saturating_sub(1),
        })
    }

    /// The place of the event before which this boundary is, if it is [just before](Self::before) one.
    pub(crate) fn next(self) -> Place {
        Place {
            slot: self.0.slot,
            step: self.0.step.saturating_add(1),
        }
    }
}

/// `t` and the slot; for a place that is not a live event's, `_` and the step.
impl fmt::Display for PlaceToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "t{}", self.0.slot)?;
        match self.0.step {
            0 => Ok(()),
            step => write!(f, "_{step}"),
        }
    }
}

/// A text that is no such token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoPlaceToken;

impl FromStr for PlaceToken {
    type Err = NoPlaceToken;

    fn from_str(text: &str) -> Result<Self, NoPlaceToken> {
        let text = text.strip_prefix('t').ok_or(NoPlaceToken)?;
        let (slot, step) = text.split_once('_').unwrap_or((text, "0"));
        Ok(Self(Place {
            slot: slot.parse().map_err(|_| NoPlaceToken)?,
            step: step.parse().map_err(|_| NoPlaceToken)?,
        }))
    }
}
