//! Counts a text's tokens (GraphQL §2.1) and its open brackets without parsing it: the parser calls itself for each bracket.

/// What a text has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tokens {
    pub(super) count: u64,
    /// Brackets of all kinds that are open at once, at most.
    pub(super) nesting: u64,
}

/// Counts. A text that is no GraphQL is counted somehow; the parser refuses it.
pub(super) fn count(text: &str) -> Tokens {
    let mut tokens = Tokens::default();
    let mut open: u64 = 0;
    let mut rest = text.as_bytes();
    while let [first, ..] = rest {
        let (length, is_token) = match first {
            b' ' | b'\t' | b'\n' | b'\r' | b',' => (1, false),
            b'#' => (up_to(rest, |b| matches!(b, b'\n' | b'\r')), false),
            b'"' => (string(rest), true),
            b'.' => (up_to(rest, |b| b != b'.'), true),
            b'-' | b'+' | b'_' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => (word(rest), true),
            b'{' | b'(' | b'[' => {
                open += 1;
                tokens.nesting = tokens.nesting.max(open);
                (1, true)
            }
            b'}' | b')' | b']' => {
                open = open.saturating_sub(1);
                (1, true)
            }
            _ => (1, true),
        };
        tokens.count += u64::from(is_token);
        rest = &rest[length.max(1)..];
    }
    tokens
}

fn up_to(text: &[u8], is_end: impl Fn(u8) -> bool) -> usize {
    let end = text.iter().position(|&b| is_end(b));
    end.unwrap_or(text.len())
}

/// Length of the name or number that the text begins with.
fn word(text: &[u8]) -> usize {
    let number = !text[0].is_ascii_alphabetic() && text[0] != b'_';
    let within = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    up_to(text, |b| {
        !(within(b) || number && matches!(b, b'.' | b'-' | b'+'))
    })
}

/// Length of the string that the text begins with; of all the rest, if it does not end.
fn string(text: &[u8]) -> usize {
    if text.starts_with(br#"""""#) {
        let mut at = 3;
        while at < text.len() && !text[at..].starts_with(br#"""""#) {
            let escaped = text[at..].starts_with(br#"\""""#);
            at += if escaped { 4 } else { 1 };
        }
        return (at + 3).min(text.len());
    }
    let mut at = 1;
    while let Some(&b) = text.get(at) {
        at += if b == b'\\' { 2 } else { 1 };
        if matches!(b, b'"' | b'\n' | b'\r') {
            break;
        }
    }
    at.min(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_what_the_specification_calls_so() {
        for (text, tokens, nesting) in [
            ("", 0, 0),
            (" ,\t\r\n # a { comment \n", 0, 0),
            ("{ a }", 3, 1),
            ("query A($b: [Int!] = 1) { c(d: $b) }", 22, 2),
            ("{...F...on G{h}}", 10, 2),
            (r#"{a(b:"} # \" }",c:-1.5e+3)}"#, 11, 2),
            (r#"{a(b:"""block " \""" { """)}"#, 8, 2),
            ("\"no end\n{", 2, 1),
            (r#"""""no end {"#, 1, 0),
            ("\"\\", 1, 0),
            ("}}}{é", 6, 1),
        ] {
            let found = count(text);
            assert_eq!((found.count, found.nesting), (tokens, nesting), "{text}");
        }
    }
}
