use super::*;
use crate::samples::Random;

/// By hand: `M = B(a+x, b+n-x) / B(a, b) / (p^x (1-p)^(n-x))`, with a = 1 and b = 1 a Beta of integers.
#[test]
fn evidence_is_the_ratio_of_mixture_and_likelihood() {
    let test = ShareTest::around(0.5, 0.05);
    // B(4, 2) = 3! 1! / 5! = 0.05; 0.5^4 = 0.0625.
    assert!((test.log_evidence(3, 4, 0.5) - (0.05f64 / 0.0625).ln()).abs() < 1e-12);
    // B(11, 1) = 1/11; 0.5^10.
    let all = (1024.0f64 / 11.0).ln();
    assert!((test.log_evidence(10, 10, 0.5) - all).abs() < 1e-12);
}

#[test]
fn so_many_requests_tell_a_share_from_one_percent() {
    let test = ShareTest::around(0.01, 1.0 / 1600.0);
    for (share, enough, side) in [
        (0.0, 971, Ordering::Less),
        (0.003, 2_645, Ordering::Less),
        (0.023, 1_555, Ordering::Greater),
        (0.1, 90, Ordering::Greater),
        (1.0, 7, Ordering::Greater),
    ] {
        let hits = |n: u64| (share * n as f64).round() as u64;
        let few = enough * 9 / 10 - 1;
        assert_eq!(test.side(hits(few), few, 0.01), Ordering::Equal, "{share} of {few}");
        let many = enough * 21 / 20 + 1;
        assert_eq!(test.side(hits(many), many, 0.01), side, "{share} of {many}");
    }
}

#[test]
fn an_interval_holds_what_the_evidence_does_not_speak_against() {
    let test = ShareTest::around(0.01, 0.01);
    assert_eq!(test.interval(0, 0), (0.0, 1.0));
    for (hits, n) in [(0, 10), (10, 10), (3, 1_000), (500, 1_000), (30_000, 1_000_000)] {
        let (low, high) = test.interval(hits, n);
        let likeliest = hits as f64 / n as f64;
        assert!(low <= likeliest && likeliest <= high, "{hits} of {n}: {low} {high}");
        assert!(low > 0.0 || hits == 0, "{hits} of {n}");
        assert!(high < 1.0 || hits == n, "{hits} of {n}");
        for share in [low * 0.999, high * 1.001].into_iter().filter(|&s| s > 0.0 && s < 1.0) {
            assert_ne!(test.side(hits, n, share), Ordering::Equal, "{hits} of {n}: {share}");
        }
    }
}

/// The promise itself: looked at after every single request, a true limit is contradicted by at most `level` of all
/// sequences. And the test is worth its level: the rate is not far below it.
#[test]
fn looking_after_every_request_raises_no_more_false_alarms_than_stated() {
    const RUNS: u64 = 2_000;
    const LEVEL: f64 = 0.05;
    let (p, limit) = (0.05, -log(LEVEL));
    let test = ShareTest::around(p, LEVEL);
    let mut alarms = 0;
    for seed in 0..RUNS {
        let mut random = Random::new(seed);
        let (mut evidence, mut hits) = (0.0, 0.0);
        for n in 0..10_000 {
            // M by its increments: the mixture's prediction of this request over the true one.
            let n = f64::from(n);
            let expected = (test.a + hits) / (test.a + test.b + n);
            if random.unit() < p {
                evidence += (expected / p).ln();
                hits += 1.0;
            } else {
                evidence += ((1.0 - expected) / (1.0 - p)).ln();
            }
            if evidence >= limit {
                alarms += 1;
                break;
            }
        }
    }
    let rate = alarms as f64 / RUNS as f64;
    println!("false alarms in {RUNS} sequences of 10,000 looks at level {LEVEL}: {rate}");
    assert!(rate <= LEVEL, "{rate}");
    assert!(rate >= LEVEL / 10.0, "{rate}: the test wastes its level");
}

#[test]
fn a_quantile_lies_between_the_buckets_that_speak_against_it() {
    let ms = Duration::from_millis;
    let mut counts = LatencyCounts::default();
    assert_eq!(
        quantile_interval(&counts, 0.99, 0.01),
        QuantileInterval { low: Duration::ZERO, high: None }
    );
    (1..=100).for_each(|latency| counts.add(ms(latency), 1));
    let few = quantile_interval(&counts, 0.99, 0.01);
    assert_eq!(few.high, None, "a hundred requests do not bound a p99 from above");
    assert!(few.low > ms(50) && few.low < ms(99), "{few:?}");
    (1..=100).for_each(|latency| counts.add(ms(latency), 999));
    let many = quantile_interval(&counts, 0.99, 0.01);
    let high = many.high.unwrap();
    assert!(many.low >= ms(98) && many.low <= ms(99), "{many:?}");
    assert!(high >= ms(99) && high < ms(102), "{many:?}");
    let median = quantile_interval(&counts, 0.5, 0.01);
    assert!(median.low <= ms(50) && median.high.unwrap() >= ms(50), "{median:?}");
    assert!(median.low >= ms(48) && median.high.unwrap() <= ms(52), "{median:?}");
}
