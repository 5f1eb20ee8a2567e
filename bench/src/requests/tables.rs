//! The tables and figures of `requests`.

use super::{Kind, Measured, Subject};
use crate::Result;
use crate::report::Report;
use crate::stats::median;
use crate::usage::Usage;

const NONE: &str = "–";
/// The share of pgbench that the point query is to have.
const GOAL: f64 = 0.25;

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
fn point(subjects: &[Subject]) -> usize {
    let step = |subject: &Subject| matches!(subject.kind, Kind::Step(_));
    subjects.iter().rposition(step).unwrap_or(0)
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
        if let Kind::Peer(_) = subject.kind {
            let times = ratio(&measured[point], rounds);
            faster = format!("{times:.1} ×");
            report.figure(&format!("point_x_{}", subject.name), times);
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
        "the row is faster by",
    ];
    report.table("Requests (pgbench: mean latency)", &header, rows)
}

/// Microseconds of all cores for each request, what each step adds, and who used them.
pub(super) fn costs(
    report: &Report,
    subjects: &[Subject],
    measured: &[Vec<Measured>],
    cores: u32,
) -> Result<()> {
    let total = |rounds: &[Measured]| over(rounds, |m| f64::from(cores) * 1e6 / m.sample.rate);
    let mut rows = Vec::new();
    let mut before = None;
    for (subject, rounds) in subjects.iter().zip(measured) {
        let all = total(rounds);
        let mut added = NONE.to_owned();
        match subject.kind {
            Kind::Peer(_) => continue,
            Kind::Floor => {}
            Kind::Step(_) => added = format!("{:.0}", all - before.replace(all).unwrap_or(0.0)),
        }
        let part = |value: fn(Usage) -> f64| {
            over(rounds, |m| {
                m.usage.map_or(f64::NAN, |u| {
                    value(u) * 1e6 / (m.sample.rate * m.sample.seconds)
                })
            })
        };
        let parts = [part(|u| u.server), part(|u| u.postgres), part(|u| u.load)];
        let rest = all - parts.iter().sum::<f64>();
        let mut row = vec![subject.name.clone(), format!("{all:.0}"), added];
        row.extend(parts.into_iter().chain([rest]).map(|part| {
            if part.is_nan() {
                NONE.to_owned()
            } else {
                format!("{part:.0}")
            }
        }));
        rows.push(row);
    }
    let header = [
        "",
        "µs",
        "adds",
        "bulkhead",
        "PostgreSQL",
        "load",
        "idle, others",
    ];
    report.table(
        &format!("Where it goes: µs of {cores} cores for each request"),
        &header,
        rows,
    )?;
    let floor = total(&measured[0]);
    report.text(&format!(
        "\nFor {:.0} % of pgbench, the row may cost {:.0} µs; it costs {:.0}.",
        100.0 * GOAL,
        floor / GOAL,
        total(&measured[point(subjects)])
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
