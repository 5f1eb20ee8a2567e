//! `bulkhead tenant check`.

use super::{FOUND, out};
use crate::database::Database;
use crate::error::Result;
use crate::tenancy::check::{self, Checked};
use crate::tenancy::limits::no_tenant;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use std::process::ExitCode;

/// Schemas compared in one query.
const CHUNK: usize = 50;

/// Compares tenants and spares with the template, and names each difference.
pub(super) async fn run(
    database: &Database,
    slug: Option<&str>,
    as_json: bool,
) -> Result<ExitCode> {
    let subjects = check::subjects(database, slug).await?;
    if let (Some(slug), true) = (slug, subjects.is_empty()) {
        return Err(no_tenant(slug));
    }
    let bar = ProgressBar::new(subjects.len() as u64);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len}  {eta}") {
        bar.set_style(style);
    }
    let mut checked = Vec::with_capacity(subjects.len());
    for some in subjects.chunks(CHUNK) {
        checked.extend(check::compare(database, some).await?);
        bar.inc(some.len() as u64);
    }
    bar.finish_and_clear();
    let differ = checked.iter().any(|one| !one.differences.is_empty());
    if as_json {
        out::json(&json!(checked))?;
    } else {
        out::print(&text(&checked))?;
    }
    Ok(if differ {
        FOUND.into()
    } else {
        ExitCode::SUCCESS
    })
}

fn text(checked: &[Checked]) -> String {
    let mut text = String::new();
    for one in checked {
        let name = match &one.slug {
            Some(slug) => slug.clone(),
            None => format!("spare {}", one.schema),
        };
        for difference in &one.differences {
            text.extend([format!("{name}: {difference}\n")]);
        }
    }
    let tenants = checked.iter().filter(|one| one.slug.is_some()).count();
    let spares = checked.len() - tenants;
    let differ = checked.iter().filter(|one| !one.differences.is_empty());
    let verdict = match differ.count() {
        0 => "all like the template".to_owned(),
        1 => "1 differs from the template".to_owned(),
        n => format!("{n} differ from the template"),
    };
    text.extend([format!(
        "{tenants} {}, {spares} {}: {verdict}\n",
        plural(tenants, "tenant", "tenants"),
        plural(spares, "spare", "spares")
    )]);
    text
}

fn plural(count: usize, one: &'static str, many: &'static str) -> &'static str {
    if count == 1 { one } else { many }
}
