//! The tables and figures of `requests`.

use super::{Kind, Measured, Query, Subject};
use crate::Result;
use crate::report::Report;
use crate::stats::median;
use crate::usage::Usage;

const NONE: &str = "–";
/// The share of pgbench that the point query is to have.
const GOAL: f64 = 0.40;

/// The median of something over the rounds.
fn over(rounds: &[Measured], value: impl Fn(&Measured) -> f64) -> f64 {
    median(rounds.iter().map(value))
}

/// The median of the rounds' ratios of rates.
fn ratio(one: &[Measured], other: &[Measured]) -> f64 {
    median(
        one.iter()
            .zip(other)
            .map(|(a, b)| a.sample.rate / b.sample.rate),
    )
}

/// Where the last step is, which is the point query; pgbench is the first of all.
pub(super) fn point(subjects: &[Subject]) -> usize {
    let step = |subject: &Subject| matches!(subject.kind, Kind::Step(_));
    subjects.iter().rposition(step).unwrap_or(0)
}

/// Where our own answer to this query is.
fn ours(subjects: &[Subject], query: Query) -> usize {
    let same = |subject: &Subject| matches!(&subject.kind, Kind::Query(own, _) if *own == query);
    subjects.iter().position(same).unwrap_or(point(subjects))
}

/// Rates, latencies and shares.
pub(super) fn rates(
    report: &mut Report,
    subjects: &[Subject],
    measured: &[Vec<Measured>],
) -> Result<()> {
    let point = point(subjects);
    let mut rows = Vec::new();
    for (subject, rounds) in subjects.iter().zip(measured) {
        let rate = over(rounds, |m| m.sample.rate);
        let p99 = over(rounds, |m| m.sample.p99_ms.unwrap_or(f64::NAN));
        let mut faster = NONE.to_owned();
        match &subject.kind {
            Kind::Peer(query, peer, _) => {
                let times = ratio(&measured[ours(subjects, *query)], rounds);
                faster = format!("{times:.1} ×");
                report.figure(&format!("{}_x_{peer}", query.name()), times);
            }
            Kind::Query(query, _) => {
                let share = ratio(rounds, &measured[0]);
                report.figure(&format!("{}_share", query.name()), share);
            }
            Kind::Floor | Kind::Step(_) => {}
        }
        rows.push(vec![
            subject.name.clone(),
            format!("{rate:.0}"),
            format!("{:.2}", over(rounds, |m| m.sample.p50_ms)),
            if p99.is_nan() {
                NONE.to_owned()
            } else {
                format!("{p99:.2}")
            },
            format!("{:.1} %", 100.0 * ratio(rounds, &measured[0])),
            faster,
        ]);
    }
    report.figure("point_share", ratio(&measured[point], &measured[0]));
    report.figure("point_rps", over(&measured[point], |m| m.sample.rate));
    report.figure("pgbench_tps", over(&measured[0], |m| m.sample.rate));
    let header = [
        "",
        "per s",
        "p50 ms",
        "p99 ms",
        "of pgbench",
        "ours is faster by",
    ];
    report.table("Requests (pgbench: mean latency)", &header, rows)
}

/// Microseconds of all cores for each request, and who used them.
struct Cost {
    /// All there were: of a busy machine, others took some.
    all: f64,
    bulkhead: f64,
    postgres: f64,
    load: f64,
    idle: f64,
}

impl Cost {
    fn of(rounds: &[Measured], cores: u32) -> Self {
        let part = |value: fn(Usage) -> f64| {
            over(rounds, |m| {
                let requests = m.sample.rate * m.sample.seconds;
                m.usage
                    .map_or(f64::NAN, |usage| value(usage) * 1e6 / requests)
            })
        };
        Self {
            all: over(rounds, |m| f64::from(cores) * 1e6 / m.sample.rate),
            bulkhead: part(|usage| usage.server),
            postgres: part(|usage| usage.postgres),
            load: part(|usage| usage.load),
            idle: part(|usage| usage.idle),
        }
    }

    fn used(&self) -> f64 {
        self.bulkhead + self.postgres + self.load
    }
}

/// What a request costs, what each step adds, and who used it.
pub(super) fn costs(
    report: &mut Report,
    subjects: &[Subject],
    measured: &[Vec<Measured>],
    cores: u32,
) -> Result<()> {
    let number = |us: f64| {
        if us.is_nan() {
            NONE.to_owned()
        } else {
            format!("{us:.0}")
        }
    };
    let mut rows = Vec::new();
    let mut before = 0.0;
    for (subject, rounds) in subjects.iter().zip(measured) {
        let cost = Cost::of(rounds, cores);
        let used = cost.used();
        let added = match subject.kind {
            Kind::Peer(..) => continue,
            Kind::Floor | Kind::Query(..) => f64::NAN,
            Kind::Step(_) => used - std::mem::replace(&mut before, used),
        };
        let others = cost.all - used - cost.idle;
        let parts = [
            used,
            added,
            cost.bulkhead,
            cost.postgres,
            cost.load,
            cost.idle,
            others,
        ];
        rows.push(
            std::iter::once(subject.name.clone())
                .chain(parts.map(number))
                .collect(),
        );
    }
    let header = [
        "",
        "µs",
        "adds",
        "bulkhead",
        "PostgreSQL",
        "load",
        "idle",
        "others",
    ];
    let title = format!("Where it goes: µs of processor time for each request, on {cores} cores");
    report.table(&title, &header, rows)?;
    shares(report, subjects, measured, cores)
}

/// What limits on rates cost of the server's processor time for a row.
pub(super) fn limits(report: &mut Report, pairs: &[[Measured; 2]], cores: u32) -> Result<()> {
    let costs = pairs.iter().map(|pair| {
        let [limited, free] = pair.map(|turn| Cost::of(&[turn], cores).bulkhead);
        1.0 - free / limited
    });
    let cost = median(costs);
    report.figure("limits_cost", cost);
    report.text(&format!(
        "Of the server's time for the row, limits on rates take {:.1} % (median of {} pairs of turns).",
        100.0 * cost,
        pairs.len()
    ))
}

/// What the row costs beside pgbench's.
fn shares(
    report: &mut Report,
    subjects: &[Subject],
    measured: &[Vec<Measured>],
    cores: u32,
) -> Result<()> {
    let floor = Cost::of(&measured[0], cores);
    let point = Cost::of(&measured[point(subjects)], cores);
    report.figure("cpu_share", floor.used() / point.used());
    report.text(&format!(
        "\nFor {:.0} % of pgbench the row may take {:.0} µs of {cores} cores; it takes {:.0}. \
         By processor time alone, pgbench's is {:.1} % of the row's.",
        100.0 * GOAL,
        floor.all / GOAL,
        point.all,
        100.0 * floor.used() / point.used()
    ))
}

/// Resident memory, where it can be seen.
pub(super) fn memory(report: &mut Report, idle: Option<f64>, loaded: Option<f64>) -> Result<()> {
    let (Some(idle), Some(loaded)) = (idle, loaded) else {
        return report.text("\nResident memory is read from Linux's /proc only.");
    };
    report.figure("idle_rss_mb", idle);
    report.figure("loaded_rss_mb", loaded);
    let rows = [("idle, before the load", idle), ("after it", loaded)];
    let rows = rows.map(|(when, mb)| vec![when.to_owned(), format!("{mb:.1}")]);
    report.table(
        "Resident memory of the server, without PostgreSQL",
        &["", "MB"],
        rows.into(),
    )
}
