//! Folding: what people type when they search, and what they search in, made alike.

use icu_normalizer::{
    DecomposingNormalizerBorrowed, properties::CanonicalCombiningClassMapBorrowed,
};

/// Text in the form in which it is compared: without the case of letters, without marks (accents, harakat),
/// in the letters and digits that keyboards of Persian and of Arabic write differently, without joiners and
/// tatweel. A hamza on a letter goes with the other marks; one by itself is a letter.
pub fn fold(text: &str) -> String {
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

/// What is not seen, or only as a longer line: zero-width spaces, joiners and non-joiners, signs of direction,
/// variation selectors, the soft hyphen, tatweel, and the high hamza into which some letters come apart.
fn is_invisible(letter: char) -> bool {
    matches!(
        letter,
        '\u{ad}' | '\u{61c}' | '\u{640}' | '\u{674}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{2069}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}'
    )
}

/// One letter for all that are the same to who reads.
fn alike(letter: char) -> char {
    match letter {
        'ي' | 'ى' => 'ی',
        'ك' | 'ڪ' => 'ک',
        'ة' | 'ہ' | 'ھ' | 'ە' => 'ه',
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
            ("آخر", "اخر"),
            ("أخبار إلى مسئول مؤمن", "اخبار الي مسيول مومن"),
            ("خانۀ ما", "خانه ما"),
            ("مدرسة", "مدرسہ"),
            ("ﮐﺘﺎﺏ", "کتاب"),
            ("\u{202b}سلام\u{202c}\u{200f}", "سلام"),
            ("☺\u{fe0f}", "☺"),
            ("ﬁne", "FINE"),
            ("Ａｂｃ", "abc"),
        ] {
            assert_eq!(fold(one), fold(other), "{one} {other}");
        }
        assert_ne!(fold("a"), fold("b"));
        assert_eq!(fold(&fold("Ünïcödé ي")), fold("Ünïcödé ي"));
    }
}
