//! Folding: what people type when they search, and what they search in, made alike.

use icu_normalizer::{
    DecomposingNormalizerBorrowed, properties::CanonicalCombiningClassMapBorrowed,
};

/// Text in the form in which it is compared: without the case of letters, without marks (accents, harakat),
/// in the letters and digits that keyboards of Persian and of Arabic write differently, without joiners and
/// tatweel.
pub(crate) fn fold(text: &str) -> String {
    let decomposed = DecomposingNormalizerBorrowed::new_nfkd().normalize(text);
    let classes = CanonicalCombiningClassMapBorrowed::new();
    decomposed
        .chars()
        .filter(|letter| classes.get_u8(*letter) == 0 && !is_invisible(*letter))
        // Through upper case, which some letters share that have lower cases of their own: ß, ς.
        .flat_map(char::to_uppercase)
        .flat_map(char::to_lowercase)
        .filter(|letter| classes.get_u8(*letter) == 0)
        .map(alike)
        .collect()
}

/// The zero-width (non-)joiners, the soft hyphen, tatweel.
fn is_invisible(letter: char) -> bool {
    matches!(letter, '\u{200b}'..='\u{200d}' | '\u{ad}' | '\u{640}')
}

/// One letter for all that are the same to who reads.
fn alike(letter: char) -> char {
    match letter {
        'ي' | 'ى' => 'ی',
        'ك' => 'ک',
        'ة' => 'ه',
        'ٱ' => 'ا',
        '\u{660}'..='\u{669}' => digit(letter, '\u{660}'),
        '\u{6f0}'..='\u{6f9}' => digit(letter, '\u{6f0}'),
        _ => letter,
    }
}

fn digit(letter: char, zero: char) -> char {
    let value = u32::from(letter).saturating_sub(u32::from(zero));
    char::from_digit(value, 10).unwrap_or(letter)
}

#[cfg(test)]
mod tests {
    use super::fold;

    #[test]
    fn what_reads_alike_is_alike() {
        for (one, other) in [
            ("Straße", "STRASSE"),
            ("Ὀδυσσεύς", "οδυσσευσ"),
            ("français", "FRANCAIS"),
            ("İstanbul", "istanbul"),
            ("می‌روم", "ميروم"),
            ("كتاب", "کتاب"),
            ("كِتَابٌ", "کتاب"),
            ("۱۲۳", "123"),
            ("٤٥٦", "456"),
            ("ســـلام", "سلام"),
            ("ﬁne", "FINE"),
            ("Ａｂｃ", "abc"),
        ] {
            assert_eq!(fold(one), fold(other), "{one} {other}");
        }
        assert_ne!(fold("a"), fold("b"));
        assert_eq!(fold(&fold("Ünïcödé ي")), fold("Ünïcödé ي"));
    }
}
