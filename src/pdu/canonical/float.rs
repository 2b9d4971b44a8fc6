//! Fractions, which room versions 1–5 let into events.

/// Writes a finite double as Python's `repr` does: the fewest digits that read back as the same number,
/// always with a point or an exponent.
///
/// NOTSPEC: the spec gives versions 1–5 no form for fractions; every hash of such an event on the
/// network was made over what Synapse, hence Python, writes.
pub(super) fn python_repr(number: f64) -> String {
    let scientific = format!("{number:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let (sign, mantissa) = match mantissa.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", mantissa),
    };
    let digits: String = mantissa.chars().filter(|c| *c != '.').collect();
    if (-4..16).contains(&exponent) {
        format!("{sign}{}", fixed(&digits, exponent))
    } else {
        let (first, rest) = digits.split_at_checked(1).unwrap_or((&digits, ""));
        let point = if rest.is_empty() { "" } else { "." };
        let exponent_sign = if exponent < 0 { '-' } else { '+' };
        format!(
            "{sign}{first}{point}{rest}e{exponent_sign}{:02}",
            exponent.unsigned_abs()
        )
    }
}

fn fixed(digits: &str, exponent: i32) -> String {
    match usize::try_from(exponent) {
        Err(_) => {
            let zeros = usize::try_from(-exponent - 1).unwrap_or(0);
            format!("0.{}{digits}", "0".repeat(zeros))
        }
        Ok(exponent) => {
            let whole = exponent + 1;
            match digits.split_at_checked(whole) {
                Some((whole, rest)) if !rest.is_empty() => format!("{whole}.{rest}"),
                _ => format!(
                    "{digits}{}.0",
                    "0".repeat(whole.saturating_sub(digits.len()))
                ),
            }
        }
    }
}
