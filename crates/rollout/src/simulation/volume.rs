//! How much traffic a comparison of p99s needs at a step of 1 %: the table of `docs/guide/rollouts-statistics.md`.

use std::fmt::Write as _;

use super::*;
use crate::judge::{Verdict, judge};

const SEEDS: u64 = 40;

/// Requests that a candidate of so much more latency needs until `p99<1.2x` is decided, by the median.
fn requests(sigma: f64, slower: f64, rollout: &Rollout) -> f64 {
    let latencies = log_normal(Duration::from_millis(12), sigma);
    let old = Behaviour { errors: 0.0, latencies, disagreement: 0.0 };
    let candidate = old.clone().slower(slower);
    let expected = if slower > 1.2 { Verdict::Breached } else { Verdict::Keeps };
    let mut needed: Vec<f64> = (0..SEEDS)
        .map(|seed| {
            let mut random = Random::new(seed);
            let mut seen = RolloutObserved::default();
            let (mut n, mut more) = (0.0, 100.0);
            loop {
                candidate.serve(&mut random, more, &mut seen.candidate);
                old.serve(&mut random, more * 99.0, &mut seen.other);
                n += more;
                match judge(rollout, &seen)[0].verdict {
                    Verdict::Undecided => more = (n * 0.03).max(100.0),
                    verdict => {
                        assert_eq!(verdict, expected, "sigma {sigma}, seed {seed}");
                        return n;
                    }
                }
            }
        })
        .collect();
    needed.sort_by(f64::total_cmp);
    needed[needed.len() / 2]
}

/// Rounded, so that a table does not claim more than it knows.
fn about(n: f64) -> u64 {
    (n / 500.0).ceil() as u64 * 500
}

fn time(requests: u64, rate: f64) -> String {
    let minutes = (requests as f64 / (rate * 0.01) / 60.0).ceil();
    match minutes {
        _ if minutes < 100.0 => format!("{minutes} min"),
        _ => format!("{} h", (minutes / 60.0).ceil()),
    }
}

fn table() -> String {
    let spec = serde_json::json!({
        "to": "m@2", "guards": ["p99<1.2x", "error_rate<1%"], "false_alarm": 0.01,
    });
    let rollout = Rollout {
        id: "m-1".to_owned(),
        spec: serde_json::from_value(spec).unwrap(),
        before: outhaul_types::RouteSpec::to("m@1".parse().unwrap()),
        phase: Phase::Stepping,
        step: 0,
        step_since: Timestamp(0),
        started_at: Timestamp(0),
        ended_at: None,
        reason: String::new(),
    };
    let mut out = String::from(
        "| p99 of the old version over its median | candidate | its requests | at 20/s | at 200/s | at 2000/s |\n\
         |---|---|---|---|---|---|\n",
    );
    for sigma in [0.2, 0.4, 0.6, 0.8] {
        let tail = libm::exp(sigma * normal_quantile(0.01));
        for (slower, what) in
            [(1.0, "equal: kept"), (1.3, "+30 %: breached"), (1.5, "+50 %: breached")]
        {
            let n = about(requests(sigma, slower, &rollout));
            let times = [20.0, 200.0, 2_000.0].map(|rate| time(n, rate)).join(" | ");
            writeln!(out, "| {tail:.1} | {what} | {n} | {times} |").unwrap();
        }
    }
    out
}

/// `OUTHAUL_BLESS=1` writes the table anew; the diff is reviewed.
#[test]
fn the_table_of_the_guide_is_what_the_simulation_says() {
    const START: &str = "<!-- volume table -->\n";
    const END: &str = "<!-- end of volume table -->";
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/guide/rollouts-statistics.md");
    let guide = std::fs::read_to_string(path).unwrap();
    let (before, rest) = guide.split_once(START).unwrap();
    let (found, after) = rest.split_once(END).unwrap();
    let table = table();
    println!("{table}");
    if std::env::var_os("OUTHAUL_BLESS").is_some() {
        std::fs::write(path, format!("{before}{START}{table}{END}{after}")).unwrap();
    } else {
        assert_eq!(found, table, "if this is meant, run with OUTHAUL_BLESS=1");
    }
}
