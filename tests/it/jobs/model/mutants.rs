//! What the model is worth: each of these mistakes, put into the functions of this test's own database, it notices.

use super::{cases, database, seed};
use crate::harness::run;

/// A function, and what of its text is written otherwise.
struct Mutant {
    mistake: &'static str,
    function: &'static str,
    changes: &'static [(&'static str, &'static str)],
}

const MUTANTS: [Mutant; 13] = [
    Mutant {
        mistake: "an end without its claim counts",
        function: "end_jobs",
        changes: &[("AND j.claim = e.claim", "")],
    },
    Mutant {
        mistake: "a claim waits for lanes that another holds",
        function: "claim_jobs",
        changes: &[("FOR NO KEY UPDATE OF l SKIP LOCKED", "FOR NO KEY UPDATE OF l")],
    },
    Mutant {
        mistake: "the largest tag is the virtual time",
        function: "claim_jobs",
        changes: &[("SELECT min(t.tag)", "SELECT max(t.tag)")],
    },
    Mutant {
        mistake: "what runs is counted before the lanes are locked",
        function: "claim_jobs",
        changes: &[
            (
                "present double precision;",
                "present double precision; ran jsonb := (SELECT jsonb_object_agg(c, (
                     SELECT count(*) FROM job r WHERE r.lane = c AND r.state = 2)) FROM unnest(candidates) c);",
            ),
            (
                "(SELECT count(*) FROM job r WHERE r.lane = l.id AND r.state = 2)",
                "(ran ->> l.id::text)::bigint",
            ),
        ],
    },
    Mutant {
        mistake: "an idle lane gathers credit",
        function: "claim_jobs",
        changes: &[("/ l.weight, present) AS start", "/ l.weight, 0) AS start")],
    },
    Mutant {
        mistake: "a lane is charged whatever its weight",
        function: "claim_jobs",
        changes: &[("vtime = s.start + s.cost / l.weight", "vtime = s.start + s.cost")],
    },
    Mutant {
        mistake: "tokens are not taken",
        function: "claim_jobs",
        changes: &[("coalesce(s.left - s.jobs, l.tokens)", "coalesce(s.left, l.tokens)")],
    },
    Mutant {
        mistake: "a paused lane is claimed from",
        function: "claim_jobs",
        changes: &[("AND l.paused IS NULL", "")],
    },
    Mutant {
        mistake: "priorities are nothing",
        function: "claim_jobs",
        changes: &[("ORDER BY q.priority, q.seq", "ORDER BY q.seq")],
    },
    Mutant {
        mistake: "who gives a job back is charged",
        function: "end_jobs",
        changes: &[("j.attempt - e.back::integer", "j.attempt")],
    },
    Mutant {
        mistake: "a lost job that was to be cancelled runs again",
        function: "reap_jobs",
        changes: &[("j.cancel OR j.attempt", "j.attempt")],
    },
    Mutant {
        mistake: "what runs is cancelled at once",
        function: "cancel_job",
        changes: &[("IN (1, 6, 7)", "IN (1, 2, 6, 7)")],
    },
    Mutant {
        mistake: "a job is made ready before its time",
        function: "promote_jobs",
        changes: &[("state = 6 AND run_at <= now()", "state = 6")],
    },
];

#[test]
fn each_mistake_is_noticed() {
    let seed = seed();
    let db = run(database());
    for Mutant {
        mistake,
        function,
        changes,
    } in &MUTANTS
    {
        let sound = run(async { db.lock().await.function(function).await });
        let mut mutant = sound.clone();
        for (from, to) in *changes {
            assert!(
                mutant.contains(from),
                "{mistake}: the function has no {from:?}"
            );
            mutant = mutant.replace(from, to);
        }
        run(async { db.lock().await.run(mutant).await });
        let failed = cases(&db, seed, 400, false);
        assert!(failed.is_some(), "nobody noticed that {mistake}");
        run(async { db.lock().await.run(sound).await });
    }
}
