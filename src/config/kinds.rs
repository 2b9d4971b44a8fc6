//! The types of settings that are no section's own.

use std::{path::PathBuf, time::Duration};

use ruma::{OwnedServerName, OwnedUserId, RoomVersionId};

use crate::{declare::Kind, node::Value};

impl Kind for bool {
    const KIND: &'static str = "true or false";

    fn read(value: &Value) -> Result<Self, String> {
        match value {
            Value::Boolean(value) => Ok(*value),
            other => Err(other.found()),
        }
    }

    fn write(&self) -> String {
        self.to_string()
    }
}

impl Kind for u32 {
    const KIND: &'static str = "a whole number";

    fn read(value: &Value) -> Result<Self, String> {
        let number = match value {
            Value::Integer(number) => Self::try_from(*number).ok(),
            Value::Text(text) => text.parse().ok(),
            _ => None,
        };
        number.ok_or_else(|| value.found())
    }

    fn write(&self) -> String {
        self.to_string()
    }
}

impl Kind for String {
    const KIND: &'static str = "text";

    fn read(value: &Value) -> Result<Self, String> {
        value.text().map(str::to_owned)
    }

    fn write(&self) -> String {
        quoted(self)
    }
}

impl Kind for PathBuf {
    const KIND: &'static str = "a path";

    fn read(value: &Value) -> Result<Self, String> {
        match value.text()? {
            "" => Err("found none".to_owned()),
            path => Ok(path.into()),
        }
    }

    fn write(&self) -> String {
        quoted(&self.to_string_lossy())
    }
}

/// Empty text is none.
impl Kind for Option<PathBuf> {
    const KIND: &'static str = "a path, or empty for none";

    fn read(value: &Value) -> Result<Self, String> {
        Ok(Some(value.text()?)
            .filter(|path| !path.is_empty())
            .map(PathBuf::from))
    }

    fn write(&self) -> String {
        self.as_ref().map_or_else(|| quoted(""), Kind::write)
    }
}

/// Empty text is none.
impl Kind for Option<OwnedUserId> {
    const KIND: &'static str = "a user ID like \"@anna:example.org\", or empty for none";

    fn read(value: &Value) -> Result<Self, String> {
        match value.text()? {
            "" => Ok(None),
            text => text
                .try_into()
                .map(Some)
                .map_err(|error| format!("found {text:?}: {error}")),
        }
    }

    fn write(&self) -> String {
        quoted(self.as_ref().map_or("", |user| user.as_str()))
    }
}

/// Empty text is none.
impl Kind for Option<OwnedServerName> {
    const KIND: &'static str = "a server name like \"example.org\", or empty for none";

    fn read(value: &Value) -> Result<Self, String> {
        match value.text()? {
            "" => Ok(None),
            text => text
                .try_into()
                .map(Some)
                .map_err(|error| format!("found {text:?}: {error}")),
        }
    }

    fn write(&self) -> String {
        quoted(self.as_ref().map_or("", |name| name.as_str()))
    }
}

impl Kind for RoomVersionId {
    const KIND: &'static str = "a room version from \"1\" to \"12\"";

    fn read(value: &Value) -> Result<Self, String> {
        let text = match value {
            // `default_room_version = 12` leaves no doubt either.
            Value::Integer(number) => number.to_string(),
            other => other.text()?.to_owned(),
        };
        let known = |version: &RoomVersionId| {
            version
                .rules()
                .is_some_and(|rules| rules.disposition == STABLE)
        };
        RoomVersionId::try_from(text.as_str())
            .ok()
            .filter(known)
            .ok_or_else(|| format!("found {text:?}"))
    }

    fn write(&self) -> String {
        quoted(self.as_str())
    }
}

const STABLE: ruma::room_version_rules::RoomVersionDisposition =
    ruma::room_version_rules::RoomVersionDisposition::Stable;

/// Text that is not shown: not by `Debug`, not by `chapar config`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// A secret.
    pub const fn new(text: String) -> Self {
        Self(text)
    }

    /// The text.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Empty text is none.
impl Kind for Option<Secret> {
    const KIND: &'static str = "a secret, or empty for none";

    fn read(value: &Value) -> Result<Self, String> {
        // What is found is not repeated: it may be the secret.
        let text = value
            .text()
            .map_err(|_| "found something else".to_owned())?;
        Ok(Some(text)
            .filter(|text| !text.is_empty())
            .map(|text| Secret(text.to_owned())))
    }

    fn write(&self) -> String {
        quoted(self.as_ref().map_or("", |_| "…"))
    }
}

/// A number of bytes, written with a unit: `"64 MiB"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteCount(u64);

const BYTE_UNITS: &[(&str, u64)] = &[
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("B", 1),
];

impl ByteCount {
    /// That many bytes.
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// That many KiB.
    pub const fn kib(count: u64) -> Self {
        Self(count << 10)
    }

    /// That many MiB.
    pub const fn mib(count: u64) -> Self {
        Self(count << 20)
    }

    /// In bytes.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// In bytes; as many as can be addressed where that is fewer.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl std::fmt::Display for ByteCount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write_with_unit(f, self.0, BYTE_UNITS, "B")
    }
}

impl Kind for ByteCount {
    const KIND: &'static str = "a number of bytes like \"64 MiB\"";

    fn read(value: &Value) -> Result<Self, String> {
        read_with_unit(value, BYTE_UNITS, Some(1)).map(Self)
    }

    fn write(&self) -> String {
        quoted(&self.to_string())
    }
}

/// In milliseconds.
const TIME_UNITS: &[(&str, u64)] = &[
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("min", 60_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// To the millisecond.
impl Kind for Duration {
    const KIND: &'static str = "a duration like \"500 ms\", \"30 s\", \"5 min\", \"12 h\", \"7 d\"";

    fn read(value: &Value) -> Result<Self, String> {
        read_with_unit(value, TIME_UNITS, None).map(Self::from_millis)
    }

    fn write(&self) -> String {
        struct Written(u64);
        impl std::fmt::Display for Written {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write_with_unit(f, self.0, TIME_UNITS, "s")
            }
        }
        quoted(&Written(u64::try_from(self.as_millis()).unwrap_or(u64::MAX)).to_string())
    }
}

/// `bare`: what a number without a unit counts, if it may stand without one.
fn read_with_unit(value: &Value, units: &[(&str, u64)], bare: Option<u64>) -> Result<u64, String> {
    let text = match value {
        Value::Integer(number) => number.to_string(),
        other => other.text()?.to_owned(),
    };
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit.trim_start() {
        "" => bare.ok_or_else(|| format!("found {text:?} without a unit"))?,
        unit => units
            .iter()
            .find_map(|(name, factor)| name.eq_ignore_ascii_case(unit).then_some(*factor))
            .ok_or_else(|| format!("found {text:?}"))?,
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(factor))
        .ok_or_else(|| format!("found {text:?}"))
}

/// In the largest unit that says it exactly.
fn write_with_unit(
    f: &mut std::fmt::Formatter<'_>,
    number: u64,
    units: &[(&str, u64)],
    unit_of_zero: &str,
) -> std::fmt::Result {
    let exact = units
        .iter()
        .find(|(_, factor)| number != 0 && number.is_multiple_of(*factor));
    match exact {
        Some((unit, factor)) => write!(f, "{} {unit}", number / factor),
        None => write!(f, "{number} {unit_of_zero}"),
    }
}

/// Several; in a variable with commas between them.
impl<T: Kind> Kind for Vec<T> {
    const KIND: &'static str = "a list";

    fn read(value: &Value) -> Result<Self, String> {
        match value {
            Value::List(items) => items.iter().map(|item| item_of(&item.value)).collect(),
            Value::Text(text) | Value::Raw(text) if !text.starts_with('[') => text
                .split(',')
                .map(str::trim)
                .filter(|item| !item.is_empty())
                .map(|item| item_of(&Value::Text(item.to_owned())))
                .collect(),
            other => Err(other.found()),
        }
    }

    fn write(&self) -> String {
        format!(
            "[{}]",
            self.iter().map(Kind::write).collect::<Vec<_>>().join(", ")
        )
    }
}

fn item_of<T: Kind>(value: &Value) -> Result<T, String> {
    T::read(value).map_err(|why| format!("each item {}, {why}", T::KIND))
}

/// A TOML string.
pub(crate) fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}
