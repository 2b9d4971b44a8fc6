//! Words: into what a text, or what somebody searches for, is taken apart ([`rooms::fold`] makes them alike).

use std::collections::HashSet;

use rooms::fold;

/// The longest word, in letters; what is longer is cut there, in a text and in a search alike.
const LETTERS_MAX: usize = 64;

/// Behind this letter a Persian word goes on, in a part of its own: `می‌روم`.
const NON_JOINER: char = '\u{200c}';

/// A word of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Word<'a> {
    /// As it stands there.
    pub(crate) spelled: &'a str,
    /// As it is compared.
    pub(crate) folded: String,
    /// Its parts as they are compared, if it has several: who searches may write them as words.
    pub(crate) parts: Vec<String>,
}

impl<'a> Word<'a> {
    fn of(spelled: &'a str) -> Option<Self> {
        let parts: Vec<_> = spelled.split(NON_JOINER).filter_map(compared).collect();
        Some(Self {
            spelled,
            folded: compared(spelled)?,
            parts: if parts.len() > 1 { parts } else { Vec::new() },
        })
    }

    /// All forms under which it is found.
    pub(crate) fn forms(&self) -> impl Iterator<Item = &String> {
        std::iter::once(&self.folded).chain(&self.parts)
    }
}

/// A word as it is compared; `None` if nothing of it is.
fn compared(spelled: &str) -> Option<String> {
    let folded: String = fold(spelled)
        .chars()
        .filter(|letter| letter.is_alphanumeric())
        .take(LETTERS_MAX)
        .collect();
    (!folded.is_empty()).then_some(folded)
}

/// What a letter is to the words around it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    /// It belongs to a word.
    Letter,
    /// It is a word by itself: in scripts that put no spaces between words.
    Alone,
    /// It changes the letter before it, or nothing.
    Mark,
    /// It stands between words.
    Between,
}

impl Role {
    fn of(letter: char) -> Self {
        if letter.is_ascii() {
            return if letter.is_ascii_alphanumeric() {
                Self::Letter
            } else {
                Self::Between
            };
        }
        if letter.is_alphanumeric() {
            return if is_unspaced(letter) {
                Self::Alone
            } else {
                Self::Letter
            };
        }
        // What is taken away in comparing does not end a word either.
        if fold(letter.encode_utf8(&mut [0; 4])).is_empty() {
            Self::Mark
        } else {
            Self::Between
        }
    }
}

/// Letters of Thai, Lao, Burmese, Khmer, and those of Chinese and Japanese.
fn is_unspaced(letter: char) -> bool {
    matches!(
        letter,
        '\u{e00}'..='\u{eff}' | '\u{1000}'..='\u{109f}' | '\u{1780}'..='\u{17ff}' | '\u{3040}'..='\u{30ff}'
            | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{f900}'..='\u{faff}'
            | '\u{20000}'..='\u{3ffff}'
    )
}

/// The words of a text, in its order.
pub(crate) fn words(text: &str) -> impl Iterator<Item = Word<'_>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        while !rest.is_empty() {
            let (spelled, after) = first_word(rest);
            rest = after;
            if let Some(word) = Word::of(spelled) {
                return Some(word);
            }
        }
        None
    })
}

/// The first word of a text, or what stands before it, and what follows.
fn first_word(text: &str) -> (&str, &str) {
    let mut first = Role::Mark;
    for (at, letter) in text.char_indices() {
        let role = Role::of(letter);
        let goes_on = match (first, role) {
            (_, Role::Mark) => true,
            (Role::Mark, role) => {
                first = role;
                at == 0
            }
            (Role::Letter, role) => role == Role::Letter,
            (Role::Between, role) => role == Role::Between,
            (Role::Alone, _) => false,
        };
        if !goes_on {
            return text.split_at(at);
        }
    }
    (text, "")
}

/// What somebody searches for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// Its words, each once: whole, and in its parts if it has several. All are wanted.
    pub(crate) words: Vec<(String, Vec<String>)>,
}

impl Wanted {
    pub(crate) fn of(term: &str) -> Self {
        let mut seen = HashSet::new();
        let words = words(term)
            .map(|word| (word.folded, word.parts))
            .filter(|word| seen.insert(word.clone()));
        Self {
            words: words.collect(),
        }
    }

    /// Whether a text has all of the words.
    pub(crate) fn is_in(&self, text: &str) -> bool {
        let forms: HashSet<String> = words(text)
            .flat_map(|word| word.forms().cloned().collect::<Vec<_>>())
            .collect();
        self.words.iter().all(|(whole, parts)| {
            forms.contains(whole)
                || (!parts.is_empty() && parts.iter().all(|part| forms.contains(part)))
        })
    }

    /// Whether some texts together have words that begin with each of these.
    pub(crate) fn begins_words_of<'a>(&self, texts: impl IntoIterator<Item = &'a str>) -> bool {
        let forms: Vec<String> = texts
            .into_iter()
            .flat_map(words)
            .flat_map(|word| word.forms().cloned().collect::<Vec<_>>())
            .collect();
        let begins = |wanted: &String| forms.iter().any(|form| form.starts_with(wanted.as_str()));
        self.words
            .iter()
            .all(|(whole, parts)| begins(whole) || (!parts.is_empty() && parts.iter().all(begins)))
    }

    /// The words of a text that are among those searched for, as they stand there.
    pub(crate) fn spelled_in<'a>(&'a self, text: &'a str) -> impl Iterator<Item = &'a str> {
        let forms: HashSet<&String> = self
            .words
            .iter()
            .flat_map(|(whole, parts)| std::iter::once(whole).chain(parts))
            .collect();
        words(text)
            .filter(move |word| word.forms().any(|form| forms.contains(form)))
            .map(|word| word.spelled)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn folded(text: &str) -> Vec<String> {
        words(text).map(|word| word.folded).collect()
    }

    #[test]
    fn words_end_where_readers_see_them_end() {
        assert_eq!(
            folded("Hello, wörld! 4 x-y"),
            ["hello", "world", "4", "x", "y"]
        );
        assert_eq!(folded(" ,.-\u{200c}\u{301} "), Vec::<String>::new());
        assert_eq!(folded("cafe\u{301}s"), ["cafes"]);
        assert_eq!(folded("سلام، دنیا؟"), ["سلام", "دنیا"]);
        assert_eq!(folded("日本語 text"), ["日", "本", "語", "text"]);
        assert_eq!(folded("½ ﬁn"), ["12", "fin"]);
        assert_eq!(folded(&"x".repeat(1_000)), ["x".repeat(LETTERS_MAX)]);
    }

    #[test]
    fn a_word_is_found_however_it_is_spelled() {
        for (text, term) in [
            ("می‌روم به خانه", "ميروم"),
            ("می‌روم به خانه", "می روم"),
            ("مي روم", "می‌روم"),
            ("ميروم", "می‌روم"),
            ("كِتَاب‌ها", "کتاب"),
            ("شمارهٔ ۱۲۳", "123"),
            ("رقم ٤٥٦", "۴۵۶"),
            ("ســلام", "سلام"),
            ("أخبار", "اخبار"),
            ("مسئولیّت", "مسيوليت"),
            ("İSTANBUL Straße", "istanbul STRASSE"),
            ("日本語", "本語"),
        ] {
            assert!(Wanted::of(term).is_in(text), "{term} in {text}");
        }
        for (text, term) in [("hello", "hell"), ("می‌روم", "رو"), ("one", "one two")] {
            assert!(!Wanted::of(term).is_in(text), "{term} in {text}");
        }
    }

    #[test]
    fn names_are_found_by_how_their_words_begin() {
        let names = ["Zoë Ångström", "علي رضا"];
        for (term, found) in [
            ("zo ang", true),
            ("ANG", true),
            ("على", true),
            ("strom", false),
            ("zoe bob", false),
        ] {
            assert_eq!(Wanted::of(term).begins_words_of(names), found, "{term}");
        }
    }

    #[test]
    fn highlights_are_words_of_the_message() {
        let wanted = Wanted::of("کتاب خانه café");
        let text = "كِتاب را به خانه‌ام ببر, CAFE!";
        let spelled: Vec<_> = wanted.spelled_in(text).collect();
        assert_eq!(spelled, ["كِتاب", "خانه‌ام", "CAFE"]);
    }

    proptest! {
        #[test]
        fn every_word_of_a_text_finds_it(text in "\\PC{0,80}") {
            for word in words(&text) {
                prop_assert!(text.contains(word.spelled));
                prop_assert!(Wanted::of(word.spelled).is_in(&text), "{:?}", word);
            }
            prop_assert!(Wanted::of(&text).is_in(&text));
        }
    }
}
