//! Finds the last number of a text.

/// The last decimal number of a text: digits, perhaps a minus sign before and a fraction after.
///
/// A minus sign belongs to the number unless a letter or digit stands right before it, and a
/// full stop only when a digit follows. Digits in groups (`1,000`) are several numbers.
pub(super) fn last(text: &str) -> Option<f64> {
    let bytes = text.as_bytes();
    let digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
    let end = (0..bytes.len()).rev().find(|&at| digit(at))? + 1;
    let back = |from: usize| (0..from).rev().take_while(|&at| digit(at)).last().unwrap_or(from);
    let mut start = back(end);
    if start >= 2 && bytes[start - 1] == b'.' && digit(start - 2) {
        let whole = back(start - 1);
        // `1.2.3` is no fraction of anything: its last part stands alone.
        if !(whole >= 1 && bytes[whole - 1] == b'.') {
            start = whole;
        }
    }
    let minus = start >= 1
        && bytes[start - 1] == b'-'
        && !(start >= 2 && (bytes[start - 2].is_ascii_alphanumeric() || !bytes[start - 2].is_ascii()));
    text.get(start - usize::from(minus)..end)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::last;

    #[test]
    fn the_last_number_is_found_with_its_sign_and_fraction() {
        for (text, number) in [
            ("69", 69.0),
            ("12 + 3 = 15.", 15.0),
            ("it is -4", -4.0),
            ("3-4", 4.0),
            ("é-4", 4.0),
            ("0.25 of it", 0.25),
            ("-0.5", -0.5),
            (".5", 5.0),
            ("1.2.3", 3.0),
            ("1,000", 0.0),
            ("007", 7.0),
        ] {
            assert_eq!(last(text), Some(number), "{text}");
        }
        for text in ["", "none", "-", ".", "½"] {
            assert_eq!(last(text), None, "{text}");
        }
    }
}
