//! What the benches print: notes while they run, tables, and the figures as JSON.

use crate::Result;
use comfy_table::{CellAlignment, Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Map, Value, json};
use std::io::{Write, stderr, stdout};

/// Tables and figures of one run.
#[derive(Debug)]
pub(crate) struct Report {
    json: bool,
    figures: Map<String, Value>,
}

impl Report {
    /// With `json`, standard output is kept for the figures.
    pub(crate) fn new(json: bool) -> Self {
        Self {
            json,
            figures: Map::new(),
        }
    }

    /// Prints a table in Markdown, its first column to the left.
    pub(crate) fn table(&self, title: &str, header: &[&str], rows: Vec<Vec<String>>) -> Result<()> {
        let mut table = Table::new();
        table.load_style(presets::ASCII_MARKDOWN).set_header(header);
        table.add_rows(rows);
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        self.text(&format!("\n{title}\n\n{table}\n"))
    }

    /// Prints text.
    pub(crate) fn text(&self, text: &str) -> Result<()> {
        let mut out: Box<dyn Write> = if self.json {
            Box::new(stderr())
        } else {
            Box::new(stdout())
        };
        writeln!(out, "{text}")?;
        Ok(out.flush()?)
    }

    /// Keeps a figure, to three decimals, if there is one.
    pub(crate) fn figure(&mut self, name: &str, value: f64) {
        if value.is_finite() {
            let value = (value * 1000.0).round() / 1000.0;
            self.figures.insert(name.to_owned(), json!(value));
        }
    }

    /// Keeps a count.
    pub(crate) fn count(&mut self, name: &str, value: u64) {
        self.figures.insert(name.to_owned(), json!(value));
    }

    /// Prints the figures, if asked to.
    pub(crate) fn finish(self) -> Result<()> {
        if self.json {
            writeln!(stdout(), "{}", Value::Object(self.figures))?;
        }
        Ok(())
    }
}

/// Says on standard error what is going on.
pub(crate) fn note(text: &str) {
    // Nobody is left to tell if this fails.
    let _ = writeln!(stderr(), "{text}");
}

/// A bar on standard error, if that is a terminal.
pub(crate) fn progress(length: u64) -> ProgressBar {
    let style =
        ProgressStyle::with_template("{bar:40} {human_pos} of {human_len}, {per_sec}, {eta} left");
    let bar = ProgressBar::new(length);
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
