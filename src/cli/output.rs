//! What a command prints: results to standard output, complaints to standard error.

use std::{
    fmt,
    io::{self, Write as _},
};

use super::Failure;

/// Prints a text as it is.
pub(crate) fn text(text: &str) -> Result<(), Failure> {
    printed(io::stdout().lock().write_all(text.as_bytes()))
}

/// Prints a line.
pub(crate) fn line(line: fmt::Arguments<'_>) -> Result<(), Failure> {
    printed(writeln!(io::stdout().lock(), "{line}"))
}

/// Who reads the beginning only (`chapar config | head`) has what they wanted.
fn printed(result: io::Result<()>) -> Result<(), Failure> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => Ok(result?),
    }
}

/// Says why a command failed.
pub(crate) fn complain(failure: &(dyn std::error::Error + 'static)) {
    let mut text = format!("chapar: {failure}");
    let mut next = failure.source();
    while let Some(deeper) = next {
        text.push_str(": ");
        text.push_str(&deeper.to_string());
        next = deeper.source();
    }
    // Where standard error is gone too, the exit code has to do.
    let _ = writeln!(io::stderr().lock(), "{text}");
}
