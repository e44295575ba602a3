//! Names on a terminal: what cannot be printed is escaped as kubo does it, which is Go's way.

use std::fmt::Write as _;

/// The name as it is printed: as it is, unless it has a backslash or a character that does not print.
pub fn escaped(name: &[u8]) -> Vec<u8> {
    if name.utf8_chunks().all(|chunk| chunk.valid().chars().all(|character| character != '\\' && prints(character))) {
        return name.to_vec();
    }
    let mut text = String::with_capacity(name.len() + 8);
    for chunk in name.utf8_chunks() {
        for character in chunk.valid().chars() {
            escape(character, &mut text);
        }
        for byte in chunk.invalid() {
            // Writing to a string does not fail.
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text.into_bytes()
}

fn escape(character: char, text: &mut String) {
    let short = match character {
        '\u{7}' => "\\a",
        '\u{8}' => "\\b",
        '\u{c}' => "\\f",
        '\n' => "\\n",
        '\r' => "\\r",
        '\t' => "\\t",
        '\u{b}' => "\\v",
        '\\' => "\\\\",
        printing if prints(printing) => return text.push(printing),
        _ => "",
    };
    let code = u32::from(character);
    let _ = match code {
        _ if !short.is_empty() => write!(text, "{short}"),
        0..=0x7f => write!(text, "\\x{code:02x}"),
        0x80..=0xffff => write!(text, "\\u{code:04x}"),
        _ => write!(text, "\\U{code:08x}"),
    };
}

/// Whether a character has a glyph: letters, marks, numbers, punctuation, symbols, and the space.
fn prints(character: char) -> bool {
    match character {
        '"' | '\'' | '\\' => true,
        // The standard library escapes what does not print, and a mark that stands first.
        _ => {
            let mut text = String::from("a");
            text.push(character);
            text.escape_debug().nth(1) != Some('\\')
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped_as_kubo_does() {
        for (name, shown) in [
            (&b"plain name"[..], "plain name"),
            (
                "caf\u{e9} cafe\u{301} \u{65e5}\u{672c} \u{1f600}".as_bytes(),
                "caf\u{e9} cafe\u{301} \u{65e5}\u{672c} \u{1f600}",
            ),
            (b"new\nline", "new\\nline"),
            (b"back\\slash \"q\"", "back\\\\slash \"q\""),
            (b"tab\there\x7f\x1b", "tab\\there\\x7f\\x1b"),
            ("nbsp\u{a0}zero\u{200b}\u{10ffff}".as_bytes(), "nbsp\\u00a0zero\\u200b\\U0010ffff"),
            (b"bad\xff\n", "bad\\xff\\n"),
        ] {
            assert_eq!(String::from_utf8(escaped(name)).unwrap(), shown);
        }
        assert_eq!(escaped(b"only\xffbad"), b"only\xffbad");
    }
}
