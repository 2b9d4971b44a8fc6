//! Which key somebody meant.

use crate::declare::Declaration;

/// A setting in another section must be this much closer than one in the section at hand.
const OTHER_SECTION: usize = 2;

/// The declared section, or setting, nearest to a key that stands outside all sections.
pub(crate) fn to_section(key: &str, declared: &[Declaration]) -> String {
    let sections = declared
        .iter()
        .map(|section| (distance(key, section.key), section.key.to_owned()));
    let settings = settings(declared).map(|(section, name)| {
        let bare = distance(key, name) + 1;
        let full = format!("{section}.{name}");
        (bare.min(distance(key, &full)), full)
    });
    first_of(sections.chain(settings))
}

/// The declared setting nearest to `key` of `section`.
pub(crate) fn to_setting(section: &str, key: &str, declared: &[Declaration]) -> String {
    first_of(settings(declared).map(|(other, name)| {
        let far = if other == section { 0 } else { OTHER_SECTION };
        (distance(key, name) + far, format!("{other}.{name}"))
    }))
}

fn settings(declared: &[Declaration]) -> impl Iterator<Item = (&'static str, &'static str)> {
    declared.iter().flat_map(|section| {
        section
            .settings
            .iter()
            .map(|setting| (section.key, setting.name))
    })
}

/// The nearest; of equally near ones the first declared.
fn first_of(candidates: impl Iterator<Item = (usize, String)>) -> String {
    candidates
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
        .unwrap_or_default()
}

/// How many characters to insert, delete or replace, or neighbours to swap.
fn distance(a: &str, b: &str) -> usize {
    // Only the start of a very long key is looked at: the table below grows with it.
    let a: Vec<char> = a.chars().take(64).collect();
    let b: Vec<char> = b.chars().collect();
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let at = |row: &[usize], j: usize| row.get(j).copied().unwrap_or(usize::MAX / 2);
            let replaced = at(&last, j) + usize::from(x != y);
            let mut best = replaced.min(at(&last, j + 1) + 1).min(at(&row, j) + 1);
            let swapped = i > 0 && j > 0 && a.get(i - 1) == Some(y) && b.get(j - 1) == Some(x);
            if swapped {
                best = best.min(at(&before_last, j - 1) + 1);
            }
            row.push(best);
        }
        before_last = last;
        last = row;
    }
    last.last().copied().unwrap_or(a.len())
}

#[cfg(test)]
mod tests {
    use super::distance;

    #[test]
    fn distance_counts_edits_and_swaps() {
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("abc", ""), 3);
        assert_eq!(distance("name", "name"), 0);
        assert_eq!(distance("nmae", "name"), 1);
        assert_eq!(distance("nam", "name"), 1);
        assert_eq!(distance("fame", "name"), 1);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance(&"x".repeat(10_000), "name"), 64);
    }
}
