//! How a setting is declared.

use crate::{node::Value, problem::Fields};

/// One section of the file.
pub(crate) trait Section: Default {
    /// Its documentation, line by line.
    const DOC: &'static [&'static str];

    /// What may stand in it.
    fn settings() -> Vec<Setting>;

    /// Reads it; what is not there keeps its default.
    fn read(fields: &mut Fields<'_>) -> Self;
}

/// A type that a setting can have.
pub(crate) trait Kind: Sized {
    /// What to write, for the example and for error messages: `a duration like "30s"`.
    const KIND: &'static str;

    /// Reads a value of the file, or the text of a variable or an argument (as `Value::Text`).
    ///
    /// # Errors
    ///
    /// Why it cannot be read, as a part of a sentence.
    fn read(value: &Value) -> Result<Self, String>;

    /// As TOML.
    fn write(&self) -> String;
}

/// What the example and the search for unknown keys know of a setting.
pub(crate) struct Setting {
    /// Its key within the section.
    pub(crate) name: &'static str,
    /// Its documentation, line by line.
    pub(crate) doc: &'static [&'static str],
    /// What to write.
    pub(crate) kind: &'static str,
    /// Its default, as TOML.
    pub(crate) default: String,
}

/// A section with its key.
pub(crate) struct Declaration {
    /// Its key in the file.
    pub(crate) key: &'static str,
    /// Whether it may stand several times, as `[[key]]`.
    pub(crate) list: bool,
    /// Its documentation, line by line.
    pub(crate) doc: &'static [&'static str],
    /// What may stand in it.
    pub(crate) settings: Vec<Setting>,
}

impl Declaration {
    /// The declaration of section `S` under `key`.
    pub(crate) fn of<S: Section>(key: &'static str, list: bool) -> Self {
        Self {
            key,
            list,
            doc: S::DOC,
            settings: S::settings(),
        }
    }
}

/// Declares a section: a struct with a public field for each setting. One place a setting, with
/// documentation, name, type and default.
macro_rules! section {
    (
        $(#[doc = $doc:literal])*
        pub struct $name:ident {
            $($(#[doc = $about:literal])* $field:ident: $type:ty = $default:expr,)*
        }
    ) => {
        $(#[doc = $doc])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $name {
            $($(#[doc = $about])* pub $field: $type,)*
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default,)* }
            }
        }

        impl $crate::declare::Section for $name {
            const DOC: &'static [&'static str] = &[$($doc),*];

            fn settings() -> Vec<$crate::declare::Setting> {
                let defaults = Self::default();
                vec![$($crate::declare::Setting {
                    name: stringify!($field),
                    doc: &[$($about),*],
                    kind: <$type as $crate::declare::Kind>::KIND,
                    default: $crate::declare::Kind::write(&defaults.$field),
                },)*]
            }

            fn read(fields: &mut $crate::problem::Fields<'_>) -> Self {
                let defaults = Self::default();
                Self { $($field: fields.setting(stringify!($field), defaults.$field),)* }
            }
        }
    };
}

/// Declares a setting that takes one of several words.
macro_rules! choice {
    (
        $(#[doc = $doc:literal])*
        pub enum $name:ident {
            $($(#[doc = $about:literal])* $variant:ident = $word:literal,)*
        }
    ) => {
        $(#[doc = $doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[doc = $about])* $variant,)*
        }

        impl $name {
            /// Every word there is, in the order of declaration.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The word that stands in the file.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
        }

        impl $crate::declare::Kind for $name {
            const KIND: &'static str = choice!(@words $($word)*);

            fn read(value: &$crate::node::Value) -> Result<Self, String> {
                let word = value.text()?;
                Self::ALL
                    .iter()
                    .copied()
                    .find(|choice| choice.as_str() == word)
                    .ok_or_else(|| format!("found {word:?}"))
            }

            fn write(&self) -> String {
                format!("{:?}", self.as_str())
            }
        }
    };
    (@words $first:literal $($more:literal)*) => {
        concat!("one of \"", $first, "\"" $(, ", \"", $more, "\"")*)
    };
}
