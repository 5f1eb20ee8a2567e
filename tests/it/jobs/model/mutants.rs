//! What the model is worth: each of these mistakes, put into the functions of this test's own database, it notices.

use super::{cases, database, seed};
use crate::harness::run;

/// A function, and what of its text is written otherwise.
struct Mutant {
    mistake: &'static str,
    function: &'static str,
    changes: &'static [(&'static str, &'static str)],
}

const MUTANTS: [Mutant; 22] = [
    Mutant {
        mistake: "an end without its claim counts",
        function: "end_jobs",
        changes: &[("AND j.claim = e.claim", "")],
    },
    Mutant {
        mistake: "a run that went well without its claim counts",
        function: "done_jobs",
        changes: &[("AND j.claim = claims[array_position(ids, j.id)]", "")],
    },
    Mutant {
        mistake: "a claim waits for lanes that another holds",
        function: "take_jobs",
        changes: &[("FOR NO KEY UPDATE OF l SKIP LOCKED", "FOR NO KEY UPDATE OF l")],
    },
    Mutant {
        mistake: "the largest tag is the virtual time",
        function: "take_jobs",
        changes: &[("SELECT min(starts[s.nth])", "SELECT max(starts[s.nth] + s.cost)")],
    },
    Mutant {
        mistake: "what runs is counted before the lanes are locked",
        function: "take_jobs",
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
        function: "take_jobs",
        changes: &[("/ l.weight, present) AS start", "/ l.weight, 0) AS start")],
    },
    Mutant {
        mistake: "a lane is charged whatever its weight",
        function: "take_jobs",
        changes: &[("starts[s.nth] + s.cost / l.weight", "starts[s.nth] + s.cost")],
    },
    Mutant {
        mistake: "tokens are not taken",
        function: "take_jobs",
        changes: &[("coalesce(lefts[s.nth] - s.jobs, l.tokens)", "coalesce(lefts[s.nth], l.tokens)")],
    },
    Mutant {
        mistake: "a paused lane is claimed from",
        function: "take_jobs",
        changes: &[("AND l.paused IS NULL", "")],
    },
    Mutant {
        mistake: "priorities are nothing",
        function: "take_jobs",
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
    Mutant {
        mistake: "a run that ends in its own unit of work needs no claim",
        function: "complete_job",
        changes: &[("AND j.claim = its_claim", "")],
    },
    Mutant {
        mistake: "a claim waits for a job that is being cancelled",
        function: "take_jobs",
        changes: &[("q.state + 0 = 1 FOR UPDATE SKIP LOCKED", "q.state + 0 = 1 FOR UPDATE")],
    },
    Mutant {
        mistake: "a tenant's limit is none",
        function: "take_jobs",
        changes: &[("WHERE r.nth <= r.tenant_room", "")],
    },
    Mutant {
        mistake: "a tenant's limit is each of its lanes'",
        function: "take_jobs",
        changes: &[
            ("WHERE r.lane = ANY (ARRAY(SELECT o.id FROM lane o WHERE o.tenant_id = t.id))", "WHERE r.lane = l.id"),
        ],
    },
    Mutant {
        mistake: "two claims count what a tenant may run at the same time",
        function: "take_jobs",
        changes: &[("OR t.id = ANY (limited)", "OR true")],
    },
    Mutant {
        mistake: "a key keeps nobody from adding the same",
        function: "add_job",
        changes: &[("timeout, job_key,", "timeout, NULL,")],
    },
    Mutant {
        mistake: "a job that is done begins anew",
        function: "retry_job",
        changes: &[("j.state IN (4, 5)", "j.state IN (3, 4, 5)")],
    },
    Mutant {
        mistake: "one that waits for others waits for none",
        function: "release_batches",
        changes: &[("NOT EXISTS (SELECT FROM job a WHERE a.batch = w.id)", "true")],
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
