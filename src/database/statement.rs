//! Which statements a unit of work runs: those that read and change rows. What it is bound to is not theirs to change.

/// The keywords they begin with.
const KEYWORDS: [&str; 7] = [
    "select", "insert", "update", "delete", "with", "values", "merge",
];

/// Whether the statement's first keyword is one of [`KEYWORDS`]: `SET`, `COMMIT`, `DO`, `COPY` and the like are not, however
/// they are dressed in comments and parentheses. PostgreSQL's own rules of lexing: what we skip, it skips.
pub(super) fn is_allowed(statement: &str) -> bool {
    let word = first_word(statement.as_bytes());
    KEYWORDS
        .iter()
        .any(|keyword| word.eq_ignore_ascii_case(keyword.as_bytes()))
}

fn first_word(mut text: &[u8]) -> &[u8] {
    loop {
        text = match text {
            [b' ' | b'\t' | b'\n' | b'\r' | 0x0c | b'(', rest @ ..] => rest,
            [b'-', b'-', rest @ ..] => {
                let end = rest.iter().position(|b| matches!(b, b'\n' | b'\r'));
                &rest[end.unwrap_or(rest.len())..]
            }
            [b'/', b'*', rest @ ..] => after_comment(rest),
            _ => break,
        }
    }
    let in_word = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'$' | 0x80..);
    let end = text.iter().position(|b| !in_word(b));
    &text[..end.unwrap_or(text.len())]
}

/// What follows a comment whose beginning was read. Comments nest.
fn after_comment(mut text: &[u8]) -> &[u8] {
    let mut depth = 1_usize;
    while depth > 0 {
        text = match text {
            [b'*', b'/', rest @ ..] => {
                depth -= 1;
                rest
            }
            [b'/', b'*', rest @ ..] => {
                depth += 1;
                rest
            }
            [_, rest @ ..] => rest,
            [] => return text,
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::is_allowed;

    #[test]
    fn only_rows_are_read_and_changed() {
        for allowed in [
            "SELECT 1",
            "  \n\tselect 1",
            "((SELECT 1) UNION (SELECT 2))",
            "-- why\n/* /* nested */ */ Insert INTO t VALUES (1)",
            "WITH a AS (SELECT 1) SELECT * FROM a",
            "UPDATE t SET a = 1",
            "DELETE FROM t",
            "VALUES (1)",
            "merge into t using s on true when matched then delete",
            "SELECT(1)",
            "SELECT--\n1",
        ] {
            assert!(is_allowed(allowed), "{allowed}");
        }
        for refused in [
            "",
            ";",
            "SET LOCAL ROLE other",
            "/* SELECT */ SET LOCAL ROLE other",
            "-- SELECT\rRESET ROLE",
            "-- SELECT",
            "/* SELECT",
            "/* /* */ SELECT */ COMMIT",
            "; SELECT 1",
            "( COMMIT",
            "selected",
            "select_ 1",
            "sélect 1",
            "\u{a0}SELECT 1",
            "\"select\"",
            "do $$ begin end $$",
            "TABLE device",
            "EXPLAIN ANALYZE DELETE FROM t",
        ] {
            assert!(!is_allowed(refused), "{refused}");
        }
    }
}
