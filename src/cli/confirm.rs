//! Asks before what cannot be undone.

use crate::error::{Error, Result};
use std::io::{IsTerminal as _, Write as _};

/// Goes on only if `word` is typed at a terminal; without one, nobody can have meant it.
pub(super) fn confirm(act: &str, word: &str) -> Result<()> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Err(Error::config(format!(
            "{act}: this wants to be confirmed, and there is no terminal to ask at; add --yes"
        )));
    }
    let mut err = std::io::stderr().lock();
    write!(err, "{act}. Type {word} to confirm: ")
        .and_then(|()| err.flush())
        .map_err(Error::internal)?;
    let mut line = String::new();
    stdin.read_line(&mut line).map_err(Error::internal)?;
    if line.trim() == word {
        return Ok(());
    }
    Err(Error::config("not confirmed; nothing was changed"))
}
