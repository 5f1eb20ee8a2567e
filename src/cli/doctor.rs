//! `bulkhead doctor`.

use super::{FOUND, out};
use crate::config::Config;
use crate::database::{Finding, Health, Look};
use crate::error::Result;
use crate::tenancy;
use serde_json::json;
use std::io::IsTerminal as _;
use std::process::ExitCode;

/// Looks at everything, and says what to run to mend it. Warnings alone are a success.
pub(super) async fn run(config: Config, as_json: bool) -> Result<ExitCode> {
    let key = super::serve::key(&config)?;
    let look = Look::new(&config, &key).await?;
    let examined = examine(&look, config.spares).await;
    let ended = look.end().await;
    let findings = examined?;
    ended?;
    if as_json {
        out::json(&json!(findings))?;
    } else {
        out::print(&text(&findings, std::io::stdout().is_terminal()))?;
    }
    let failing = findings.iter().any(|found| found.health == Health::Fail);
    Ok(if failing {
        FOUND.into()
    } else {
        ExitCode::SUCCESS
    })
}

async fn examine(look: &Look, spares: u32) -> Result<Vec<Finding>> {
    let mut findings = vec![look.pooler().await?];
    if look.is_pooled().await? {
        findings.push(Finding::trouble(
            ("the rest", Health::Fail),
            "not looked at: it takes a connection that is PostgreSQL's own",
            "let direct_url lead to PostgreSQL itself",
        ));
        return Ok(findings);
    }
    findings.extend(look.findings().await?);
    findings.extend(tenancy::doctor::findings(look, spares).await?);
    Ok(findings)
}

fn text(findings: &[Finding], colours: bool) -> String {
    let mut text = String::new();
    for found in findings {
        let (word, colour) = match found.health {
            Health::Ok => ("ok  ", 32),
            Health::Warn => ("warn", 33),
            Health::Fail => ("FAIL", 31),
        };
        let word = if colours {
            format!("\x1b[{colour}m{word}\x1b[0m")
        } else {
            word.to_owned()
        };
        let (check, detail) = (found.check, &found.detail);
        text.extend([format!("{word}  {check:<18} {detail}\n")]);
        let mend = found.mend.iter();
        text.extend(mend.map(|mend| format!("{:<25}{mend}\n", "")));
    }
    let count = |health| findings.iter().filter(|f| f.health == health).count();
    text.extend([format!(
        "{} to mend, {} to think about\n",
        count(Health::Fail),
        count(Health::Warn)
    )]);
    text
}
