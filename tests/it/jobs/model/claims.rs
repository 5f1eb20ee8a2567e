//! Claims, by themselves and beside what another transaction does.

use super::database::{Db, same};
use super::queue::{LANES, Lanes, Queue, THEIRS};
use crate::harness::until;
use sqlx::{AssertSqlSafe, Executor as _, PgConnection, Row as _};
use std::collections::BTreeSet;
use std::pin::pin;
use uuid::Uuid;

/// A claim's jobs with their start tags, in order.
type Started = Vec<(Uuid, f64)>;

impl Db {
    /// A claim does not wait for a job that is cancelled in a transaction which is open still.
    pub(super) async fn during_cancel(
        &mut self,
        queue: &mut Queue,
        id: Uuid,
        (lanes, jobs): (u8, usize),
    ) -> Result<(), String> {
        let cancel = self.cancel(queue, id);
        let [one, two] = &mut self.nodes;
        one.1.execute("SET lock_timeout = '100ms'").await.unwrap();
        two.1.execute("BEGIN").await.unwrap();
        let told: Option<String> = sqlx::query_scalar(AssertSqlSafe(cancel))
            .fetch_one(&mut two.1)
            .await
            .map_err(|e| e.to_string())?;
        let open = Lanes::from(&queue.open(lanes));
        let claimed = claim(one, (&self.lanes, lanes), jobs).await?;
        two.1.execute("COMMIT").await.unwrap();
        let present = queue.present();
        let expected = queue.claim(0, (&open, jobs), (present, claimed.0), Some(id));
        same("the claim", &claimed.1, &expected)?;
        same("what is told", &told, &Some(queue.cancel(id).to_owned()))
    }

    /// The second claim skips what the first one holds; only if that is all, it waits, and then sees what the first one did.
    pub(super) async fn beside(
        &mut self,
        queue: &mut Queue,
        (first, second): (u8, u8),
        jobs: usize,
    ) -> Result<(), String> {
        let [one, two] = &mut self.nodes;
        let present = queue.present();
        let (first_open, second_open) = (queue.open(first), queue.open(second));
        let free: BTreeSet<usize> = second_open.difference(&first_open).copied().collect();
        let waits = free.is_empty() && !second_open.is_empty();
        let patience = if waits { "20s" } else { "100ms" };
        let patience = format!("SET lock_timeout = '{patience}'");
        two.1.execute(AssertSqlSafe(patience)).await.unwrap();
        one.1.execute("BEGIN").await.unwrap();
        let claimed = claim(one, (&self.lanes, first), jobs).await?;
        let lanes = Lanes::from(&first_open);
        let expected = queue.claim(0, (&lanes, jobs), (present, claimed.0), None);
        same("the first claim", &claimed.1, &expected)?;
        let look = &mut self.look;
        let claimed = {
            let mut claimed = pin!(claim(two, (&self.lanes, second), jobs));
            tokio::select! {
                biased;
                done = &mut claimed => {
                    one.1.execute("COMMIT").await.unwrap();
                    done
                }
                () = waiting(look), if waits => {
                    one.1.execute("COMMIT").await.unwrap();
                    claimed.await
                }
            }?
        };
        let mut lanes = Lanes::from(if waits { &second_open } else { &free });
        // The tenant's limit is counted by one claim at a time.
        if !waits && queue.limit.is_some() && first_open.iter().any(|lane| THEIRS.contains(lane)) {
            lanes.open.retain(|lane| !THEIRS.contains(lane));
        }
        let expected = queue.claim(1, (&lanes, jobs), (present, claimed.0), None);
        same("the second claim", &claimed.1, &expected)
    }
}

/// Returns when somebody waits for a lock.
async fn waiting(look: &mut PgConnection) {
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    until("it waits", async || {
        let count: i64 = sqlx::query_scalar(waiting)
            .fetch_one(&mut *look)
            .await
            .unwrap();
        (count == 1).then_some(())
    })
    .await;
}

/// The claim's number, and its jobs.
pub(super) async fn claim(
    (node, connection): &mut (Uuid, PgConnection),
    (lanes, some): (&[i32; LANES], u8),
    jobs: usize,
) -> Result<(i64, Started), String> {
    let offered: Vec<i32> = (0..LANES)
        .filter(|lane| some & (1 << lane) != 0)
        .map(|lane| lanes[lane])
        .collect();
    let claim = "WITH taken AS (SELECT * FROM take_jobs($1, $2, $3, NULL, '{\"\": 1}', '{}'))
        SELECT id, claim, l.start + (count(*) OVER (PARTITION BY lane ORDER BY priority, seq) - 1) / l.weight AS start
        FROM taken JOIN (SELECT lane, start, weight FROM taken WHERE room IS NOT NULL) l USING (lane) WHERE id IS NOT NULL
        ORDER BY 3, lane, priority, seq";
    let rows = sqlx::query(claim)
        .bind(*node)
        .bind(offered)
        .bind(i32::try_from(jobs).unwrap())
        .fetch_all(&mut *connection)
        .await
        .map_err(|e| e.to_string())?;
    let token = rows.first().map_or(0, |row| row.get("claim"));
    Ok((
        token,
        rows.iter()
            .map(|row| (row.get("id"), row.get("start")))
            .collect(),
    ))
}
