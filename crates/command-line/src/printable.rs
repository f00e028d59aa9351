//! Text from outside, as a terminal may get it.

/// `text` with each character that a terminal acts on, or that nobody can see, as an escape: `\\n`, `\\u{1b}`.
/// A pod may have any name, and an escape sequence in it could rewrite what the terminal shows.
#[must_use]
pub fn printable(text: &str) -> String {
    let mut printed = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            // `escape_debug` would escape these too.
            '"' | '\'' | '\\' => printed.push(character),
            other => printed.extend(other.escape_debug()),
        }
    }
    printed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminal_gets_no_escapes_of_others() {
        for (text, expect) in [
            ("default/web-0 \"a\" 'b' c:\\d", "default/web-0 \"a\" 'b' c:\\d"),
            ("über 10.0.0.1", "über 10.0.0.1"),
            ("a\nb\r\tc", "a\\nb\\r\\tc"),
            ("\u{1b}[2J\u{7}\u{9b}1m\0", "\\u{1b}[2J\\u{7}\\u{9b}1m\\0"),
            ("a\u{202e}b\u{200b}", "a\\u{202e}b\\u{200b}"),
        ] {
            assert_eq!(printable(text), expect);
        }
    }
}
