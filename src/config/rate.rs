//! How often something may be done: a bucket of tokens.

use std::{fmt, str::FromStr, time::Duration};

use crate::{declare::Kind, kinds::quoted, node::Value};

/// So many at once, and then so many in a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rate {
    burst: u32,
    count: u32,
    unit: Unit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Unit {
    Second,
    Minute,
    Hour,
    Day,
}

const UNITS: [(Unit, &str); 4] = [
    (Unit::Second, "s"),
    (Unit::Minute, "min"),
    (Unit::Hour, "h"),
    (Unit::Day, "d"),
];

/// The most at once, and in a while.
const MOST: u32 = 1_000_000;

impl Unit {
    const fn seconds(self) -> u64 {
        match self {
            Self::Second => 1,
            Self::Minute => 60,
            Self::Hour => 3_600,
            Self::Day => 86_400,
        }
    }
}

impl Rate {
    pub(crate) const fn per_second(burst: u32, count: u32) -> Option<Self> {
        Some(Self {
            burst,
            count,
            unit: Unit::Second,
        })
    }

    pub(crate) const fn per_minute(burst: u32, count: u32) -> Option<Self> {
        Some(Self {
            burst,
            count,
            unit: Unit::Minute,
        })
    }

    pub(crate) const fn per_hour(burst: u32, count: u32) -> Option<Self> {
        Some(Self {
            burst,
            count,
            unit: Unit::Hour,
        })
    }

    /// So many at once, and so many a second; none if either is 0 or too many.
    pub fn of_seconds(burst: u32, count: u32) -> Option<Self> {
        let possible = 1..=MOST;
        let rate = Self::per_second(burst, count);
        rate.filter(|_| possible.contains(&burst) && possible.contains(&count))
    }

    /// How many at once.
    pub const fn burst(self) -> u32 {
        self.burst
    }

    /// How many a second.
    pub fn each_second(self) -> f64 {
        f64::from(self.count) / Duration::from_secs(self.unit.seconds()).as_secs_f64()
    }

    /// How long it takes until one more is possible.
    pub fn interval(self) -> Duration {
        Duration::from_secs(self.unit.seconds()) / self.count.max(1)
    }
}

/// As it stands in the settings: `10, then 12/min`.
impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = UNITS.iter().find(|(unit, _)| *unit == self.unit);
        let unit = unit.map_or("s", |(_, name)| *name);
        write!(f, "{}, then {}/{unit}", self.burst, self.count)
    }
}

/// A text that is no rate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a rate like \"10, then 12/min\"")]
pub struct NoRate(String);

impl FromStr for Rate {
    type Err = NoRate;

    fn from_str(text: &str) -> Result<Self, NoRate> {
        let number = |text: &str| {
            let number = text.trim().parse::<u32>().ok();
            number.filter(|number| (1..=MOST).contains(number))
        };
        let read = || {
            let (burst, refill) = text.split_once(',')?;
            let (count, name) = refill.trim().strip_prefix("then ")?.split_once('/')?;
            let unit = UNITS.iter().find(|(_, unit)| *unit == name.trim())?;
            Some(Self {
                burst: number(burst)?,
                count: number(count)?,
                unit: unit.0,
            })
        };
        read().ok_or_else(|| NoRate(text.to_owned()))
    }
}

impl Kind for Option<Rate> {
    const KIND: &'static str =
        "a rate like \"10, then 12/min\" (or /s, /h, /d), or \"none\" for any";

    fn read(value: &Value) -> Result<Self, String> {
        match value.text()? {
            "none" => Ok(None),
            text => text
                .parse()
                .map(Some)
                .map_err(|_| format!("found {text:?}")),
        }
    }

    fn write(&self) -> String {
        quoted(&self.map_or_else(|| "none".to_owned(), |rate| rate.to_string()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn rates_are_read_as_they_are_written() {
        for text in [
            "1, then 1/s",
            "10, then 12/min",
            "5, then 10/h",
            "7, then 3/d",
        ] {
            assert_eq!(text.parse::<Rate>().unwrap().to_string(), text);
        }
        let rate: Rate = "10,then  12 / min".parse().unwrap();
        assert_eq!(rate.interval(), Duration::from_secs(5));
        assert!((rate.each_second() - 0.2).abs() < 1e-9);
    }

    #[test]
    fn what_is_no_rate_is_refused() {
        for text in [
            "",
            "none",
            "10",
            "0, then 1/s",
            "1, then 0/s",
            "1, then 1/week",
            "1, 1/s",
            "-1, then 1/s",
            "1, then 1",
            "1000001, then 1/s",
            "99999999999, then 1/s",
        ] {
            assert!(text.parse::<Rate>().is_err(), "{text}");
        }
    }
}
