//! What limits on rates cost: the row at two servers that are alike but for them, in short turns side by side, because they
//! cost less than the machine's moods.

use super::fixture;
use super::{Measured, Turn};
use crate::Result;
use crate::load::Plan;
use crate::place::Place;
use crate::postgres::Postgres;
use crate::report::note;
use crate::server::Server;
use crate::site::Target;
use std::path::Path;
use std::time::Duration;

/// Turns of each.
const PAIRS: usize = 20;
/// Each.
const TURN: Duration = Duration::from_secs(1);

/// The row with limits on rates and without, each first as often as the other.
pub(super) async fn pairs(
    (program, place): (&Path, &Place),
    postgres: &Postgres,
    connections: u16,
) -> Result<Vec<[Measured; 2]>> {
    note("what limits on rates cost");
    let mut servers = Vec::new();
    let mut targets = Vec::new();
    for enabled in [true, false] {
        let limits = [("BULKHEAD_RATE_LIMITS__ENABLED", enabled.to_string())];
        let server = Server::run(program, place, &["dev"], &limits).await?;
        targets.push(fixture::row(&server).await?);
        servers.push(server);
    }
    let turn = async |which: usize| {
        let target: &Target = &targets[which];
        let plan = Plan {
            connections: connections.into(),
            time: TURN,
        };
        Turn::of(&servers[which], postgres).load(target, plan).await
    };
    // What a server does once is not what is looked for.
    for which in [0, 1] {
        turn(which).await?;
    }
    let mut pairs = Vec::with_capacity(PAIRS);
    for number in 0..PAIRS {
        let first = number % 2;
        let mut pair = [turn(first).await?, turn(1 - first).await?];
        if first == 1 {
            pair.reverse();
        }
        pairs.push(pair);
    }
    Ok(pairs)
}
