//! Rust source as far as the rules need to understand it: without comments, strings and tests.

use std::path::{Path, PathBuf};

/// A source file.
pub(crate) struct Source {
    /// From the root of the repository.
    pub(crate) path: PathBuf,
    /// All of it.
    pub(crate) text: String,
    /// The same lines without comments and without what stands in strings.
    pub(crate) code: String,
}

impl Source {
    pub(crate) fn read(path: &Path) -> Self {
        let text = crate::read(path.to_str().unwrap());
        let code = blank(&text);
        Self {
            path: path.to_owned(),
            text,
            code,
        }
    }

    /// Whether all of it is for tests and benchmarks only.
    pub(crate) fn is_test(&self) -> bool {
        let stem = self.path.file_stem().unwrap().to_string_lossy();
        let below = |folder| {
            self.path
                .components()
                .any(|part| part.as_os_str() == folder)
        };
        stem == "tests" || stem.ends_with("_tests") || below("tests") || below("benches")
    }

    /// The code that ships: tests within the file are blank.
    pub(crate) fn shipped(&self) -> String {
        if self.is_test() {
            String::new()
        } else {
            without_tests(&self.code)
        }
    }

    /// The code that does not ship: only tests are left.
    pub(crate) fn tests(&self) -> String {
        if self.is_test() {
            return self.code.clone();
        }
        let shipped = without_tests(&self.code);
        let keep = |(all, shipped): (char, char)| {
            if all == shipped && all != '\n' {
                ' '
            } else {
                all
            }
        };
        self.code.chars().zip(shipped.chars()).map(keep).collect()
    }
}

/// `path:line: ` for each line of `code` on which `found` finds something, with what it found.
pub(crate) fn lines(
    source: &Source,
    code: &str,
    found: impl Fn(&str) -> Option<String>,
) -> Vec<String> {
    code.lines()
        .enumerate()
        .filter_map(|(at, line)| {
            found(line).map(|what| format!("{}:{}: {what}", source.path.display(), at + 1))
        })
        .collect()
}

/// Replaces comments, and what stands in strings and characters, with blanks; lines stay where they are.
fn blank(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = match (chars[at], chars.get(at + 1)) {
            ('/', Some('/')) => until(&chars, at, |i| chars[i] == '\n'),
            ('/', Some('*')) => end_of_comment(&chars, at),
            ('"', _) => end_of_string(&chars, at + 1),
            ('r' | 'b', _) if !follows_name(&chars, at) => match raw_string(&chars, at) {
                Some(end) => end,
                None => at,
            },
            ('\'', _) => end_of_char(&chars, at),
            _ => at,
        };
        if end == at {
            out.push(chars[at]);
            at += 1;
            continue;
        }
        out.extend(
            chars[at..end]
                .iter()
                .map(|c| if *c == '\n' { '\n' } else { ' ' }),
        );
        at = end;
    }
    out
}

fn until(chars: &[char], from: usize, stop: impl Fn(usize) -> bool) -> usize {
    (from..chars.len())
        .find(|at| stop(*at))
        .unwrap_or(chars.len())
}

fn end_of_comment(chars: &[char], from: usize) -> usize {
    let (mut at, mut depth) = (from, 0);
    while at < chars.len() {
        match (chars[at], chars.get(at + 1)) {
            ('/', Some('*')) => (depth, at) = (depth + 1, at + 2),
            ('*', Some('/')) => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at.min(chars.len())
}

fn end_of_string(chars: &[char], from: usize) -> usize {
    let mut at = from;
    while at < chars.len() && chars[at] != '"' {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(chars.len())
}

fn follows_name(chars: &[char], at: usize) -> bool {
    at > 0 && (chars[at - 1].is_alphanumeric() || chars[at - 1] == '_')
}

/// The end of `r"…"`, `r#"…"#`, `b"…"`, `br"…"`, if one begins here.
fn raw_string(chars: &[char], from: usize) -> Option<usize> {
    let prefix = until(chars, from, |i| !matches!(chars[i], 'r' | 'b'));
    let raw = chars[from..prefix].contains(&'r');
    let quote = until(chars, prefix, |i| chars[i] != '#');
    if prefix - from > 2 || chars.get(quote) != Some(&'"') {
        return None;
    }
    if !raw {
        return (quote == prefix).then(|| end_of_string(chars, quote + 1));
    }
    let hashes = quote - prefix;
    let closes =
        |at: usize| chars[at] == '"' && (1..=hashes).all(|more| chars.get(at + more) == Some(&'#'));
    Some((until(chars, quote + 1, closes) + 1 + hashes).min(chars.len()))
}

/// The end of `'x'` or `'\…'`; a lifetime is left alone.
fn end_of_char(chars: &[char], from: usize) -> usize {
    match chars.get(from + 1) {
        Some('\\') => (until(chars, from + 3, |i| chars[i] == '\'') + 1).min(chars.len()),
        Some(_) if chars.get(from + 2) == Some(&'\'') => from + 3,
        _ => from,
    }
}

/// Blanks what follows each `#[cfg(test)]`: up to the end of its block, or its semicolon.
fn without_tests(code: &str) -> String {
    const MARK: &str = "#[cfg(test)]";
    let mut out: Vec<char> = code.chars().collect();
    let mark: Vec<char> = MARK.chars().collect();
    let mut at = 0;
    while at + mark.len() <= out.len() {
        if out[at..at + mark.len()] != mark[..] {
            at += 1;
            continue;
        }
        let end = end_of_item(&out, at + mark.len());
        out[at..end]
            .iter_mut()
            .filter(|c| **c != '\n')
            .for_each(|c| *c = ' ');
        at = end;
    }
    out.into_iter().collect()
}

/// The end of the item that begins here: its semicolon, or the brace that closes its block.
pub(crate) fn end_of_item(code: &[char], from: usize) -> usize {
    let (mut braces, mut others) = (0_usize, 0_usize);
    for (at, c) in code.iter().enumerate().skip(from) {
        match c {
            '(' | '[' => others += 1,
            ')' | ']' => others = others.saturating_sub(1),
            '{' => braces += 1,
            '}' if braces <= 1 => return at + 1,
            '}' => braces -= 1,
            ';' if braces == 0 && others == 0 => return at + 1,
            _ => {}
        }
    }
    code.len()
}

#[test]
fn comments_and_strings_are_blank() {
    let text = "let a = \"x.unwrap()\"; // unwrap\n/* a /* b */ c */ fn f<'a>(c: char) { c == '\"' }\n\
                let r = r#\"\"panic!\"#; let b = b'\\''; for_(br\"x\"); let q = '\\\\';";
    let code = blank(text);
    assert_eq!(code.lines().count(), 3);
    assert_eq!(code.chars().count(), text.chars().count());
    assert!(
        !code.contains("unwrap") && !code.contains("panic"),
        "{code}"
    );
    assert!(code.contains("fn f<'a>(c: char) { c ==     }"), "{code}");
    assert!(
        code.contains("let r =") && code.contains("for_(") && code.contains("let q ="),
        "{code}"
    );
}

#[test]
fn tests_do_not_ship() {
    let source = Source {
        path: "src/x/y.rs".into(),
        text: String::new(),
        code: "fn a() {}\n#[cfg(test)]\nuse x::{Y, Z};\n#[cfg(test)]\nmod t { fn b() { { } } }\nfn c() {}\n".into(),
    };
    let (shipped, tests) = (source.shipped(), source.tests());
    assert!(
        shipped.contains("fn a") && shipped.contains("fn c") && !shipped.contains("fn b"),
        "{shipped}"
    );
    assert!(
        !tests.contains("fn a") && !tests.contains("fn c") && tests.contains("fn b"),
        "{tests}"
    );
    assert_eq!(shipped.lines().count(), 6);
    assert_eq!(tests.lines().count(), 6);
}
