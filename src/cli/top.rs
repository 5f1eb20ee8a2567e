//! `bulkhead jobs top`: a table that is drawn anew every second, until Ctrl-C.

use super::out;
use crate::error::Result;
use crate::jobs::operate::{self, Load};
use crate::services::Services;
use serde_json::json;
use std::io::IsTerminal as _;
use std::time::Duration;
use tokio::time::sleep;

const EVERY: Duration = Duration::from_secs(1);
/// Moves to the first place of the terminal and clears it (ECMA-48, CUP and ED).
const CLEAR: &str = "\x1b[H\x1b[2J";

pub(super) async fn run(services: &Services, limit: u32, once: bool, as_json: bool) -> Result<()> {
    // What is no terminal gets one table, not one below the other for ever.
    let once = once || as_json || !std::io::stdout().is_terminal();
    loop {
        let tx = services.database.platform().await?;
        let loads = operate::top(&tx, limit).await?;
        tx.commit().await?;
        if as_json {
            return out::json(&json!(loads));
        }
        let table = table(&loads);
        if once {
            return out::print(&table);
        }
        out::print(&format!("{CLEAR}{table}"))?;
        tokio::select! {
            () = sleep(EVERY) => {}
            _ = tokio::signal::ctrl_c() => return Ok(()),
        }
    }
}

fn table(loads: &[Load]) -> String {
    let or_none = |seconds: Option<f64>| seconds.map_or_else(|| "-".to_owned(), out::seconds);
    let rows = loads.iter().map(|load| {
        [
            load.tenant.clone().unwrap_or_else(|| "-".to_owned()),
            load.ready.to_string(),
            or_none(load.oldest),
            load.running.to_string(),
            load.done.to_string(),
            load.dead.to_string(),
            or_none(load.wait),
            or_none(load.run),
            load.held.to_string(),
        ]
    });
    let header = [
        "TENANT", "READY", "OLDEST", "RUNNING", "DONE/MIN", "DEAD/MIN", "WAIT", "RUN", "HELD",
    ];
    out::table(header, rows)
}
