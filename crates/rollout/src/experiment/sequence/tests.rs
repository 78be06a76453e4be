use super::*;
use crate::samples::Random;

/// Distributions of rewards in `[0, 1]`, by how one is drawn.
fn draw(kind: &str, random: &mut Random) -> f64 {
    let unit = random.unit();
    match kind {
        "half" => f64::from(unit < 0.5),
        "rare" => f64::from(unit < 0.03),
        "often" => f64::from(unit < 0.9),
        "uniform" => unit,
        "skewed" => unit.powi(8),
        "stars" => (unit * 5.0).floor() / 4.0,
        "narrow" => 0.6 + 0.02 * (unit - 0.5),
        "constant" => 0.25,
        _ => panic!("{kind}"),
    }
}

const KINDS: [(&str, f64); 8] = [
    ("half", 0.5),
    ("rare", 0.03),
    ("often", 0.9),
    ("uniform", 0.5),
    ("skewed", 1.0 / 9.0),
    ("stars", 0.5),
    ("narrow", 0.6),
    ("constant", 0.25),
];

fn coin(successes: u64, outcomes: u64) -> VariantStats {
    let sum = successes as f64;
    VariantStats { predictions: outcomes, outcomes, sum, sum_squares: sum }
}

#[test]
fn intervals_miss_at_most_as_often_as_stated_though_read_after_each_outcome() {
    // 200 histories of 500 outcomes, each read 500 times. At a level of 0.1 for both sides 20 may miss; that more
    // than 33 do has a probability of 0.002 if exactly 0.1 is the truth.
    let (level, histories) = (0.05, 200);
    for (kind, mean) in KINDS {
        let mut random = Random::new(7);
        let mut missed = 0;
        for _ in 0..histories {
            let mut stats = VariantStats::default();
            for _ in 0..500 {
                stats.add(draw(kind, &mut random));
                // A bound is on the wrong side exactly where something beyond the mean is doubted; what is doubted
                // is doubted most near the bound, so the mean itself tells.
                let below = Doubt::of_at_most(&stats).at(mean) >= -f64::ln(level);
                let above = Doubt::of_at_least(&stats).at(1.0 - mean) >= -f64::ln(level);
                if below || above {
                    missed += 1;
                    break;
                }
            }
        }
        println!("{kind}: {missed} of {histories} missed");
        assert!(missed <= 33, "{kind}: {missed} of {histories}");
    }
}

#[test]
fn bounds_are_on_the_right_side_when_read_at_growing_intervals() {
    for (kind, mean) in KINDS {
        let mut random = Random::new(11);
        let mut missed = 0;
        for _ in 0..40 {
            let mut stats = VariantStats::default();
            let mut next = 1;
            for outcome in 1..=600 {
                stats.add(draw(kind, &mut random));
                if outcome == next {
                    next += 1 + next / 8;
                    if lower(&stats, 0.025) > mean + 1e-12 || upper(&stats, 0.025) < mean - 1e-12 {
                        missed += 1;
                        break;
                    }
                }
            }
        }
        // At 0.05 two are expected if the bound is sharp; more than seven have a probability of 0.001.
        assert!(missed <= 7, "{kind}: {missed} of 40");
    }
}

#[test]
fn intervals_are_as_narrow_as_the_method_promises() {
    struct Case {
        stats: VariantStats,
        half_width: f64,
        what: &'static str,
    }
    let narrow = VariantStats {
        outcomes: 5_000,
        sum: 3_000.0,
        sum_squares: 5_000.0 * (0.36 + 0.02 * 0.02 / 12.0),
        ..VariantStats::default()
    };
    let cases = [
        // A fixed number of outcomes known beforehand would give 0.0158 (2.24 standard errors).
        Case { stats: coin(2_500, 5_000), half_width: 0.026, what: "the widest there is" },
        Case { stats: coin(50, 5_000), half_width: 0.006, what: "a small variance" },
        Case { stats: narrow, half_width: 0.004, what: "hardly any variance" },
        Case { stats: coin(500_000, 1_000_000), half_width: 0.0021, what: "very many" },
        Case { stats: coin(20, 40), half_width: 0.4, what: "few" },
    ];
    for Case { stats, half_width, what } in cases {
        let (low, high) = (lower(&stats, 0.0125), upper(&stats, 0.0125));
        let mean = stats.mean().unwrap();
        assert!(low < mean && mean < high, "{what}: {low} {mean} {high}");
        assert!((high - low) / 2.0 <= half_width, "{what}: {low} {high}");
    }
    let nothing = VariantStats::default();
    assert_eq!((lower(&nothing, 0.05), upper(&nothing, 0.05)), (0.0, 1.0));
    assert_eq!(lower(&coin(0, 1_000), 0.05), 0.0);
    assert_eq!(upper(&coin(1_000, 1_000), 0.05), 1.0);
    assert!(upper(&coin(0, 1_000), 0.05) < 0.012);
}

#[test]
fn the_inequality_under_the_method_holds() {
    for stake in [1e-6, 0.001, 0.1, 0.7, 1.5, 4.0] {
        for m in [0.0, 1e-6, 0.01, 0.2, 0.5, 0.9, 1.0].into_iter().filter(|m| stake * m < 1.0) {
            for x in (0..=100).map(|step| f64::from(step) / 100.0) {
                let y = x - m;
                let (wealth, bound) = (1.0 + stake * y, (stake * y - psi(stake, m) * y * y).exp());
                assert!(wealth >= bound - 1e-12, "stake {stake}, m {m}, x {x}: {wealth} {bound}");
            }
        }
    }
    // The series meets the formula.
    let (stake, m) = (1.0, 0.000_999);
    let formula = (-f64::ln_1p(-stake * m) - stake * m) / (m * m);
    assert!((psi(stake, m) - formula).abs() < 1e-8, "{} {formula}", psi(stake, m));
}

#[test]
fn equal_variants_are_seldom_told_apart_though_asked_after_each_outcome() {
    let (level, histories) = (0.05, 60);
    for kind in ["half", "rare", "uniform", "skewed"] {
        let mut random = Random::new(3);
        let mut wrong = 0;
        for _ in 0..histories {
            let mut both = [VariantStats::default(); 2];
            for round in 0..400 {
                // Traffic follows what leads, as a bandit's does: that must not matter.
                let leads = usize::from(both[1].mean() > both[0].mean());
                let dealt = if random.unit() < 0.8 { leads } else { 1 - leads };
                both[dealt].add(draw(kind, &mut random));
                let told = round % 8 == 0
                    && (beats(&both[0], &both[1], 0.0, level / 2.0)
                        || beats(&both[1], &both[0], 0.0, level / 2.0));
                if told {
                    wrong += 1;
                    break;
                }
            }
        }
        // Three are allowed for; more than nine have a probability of 0.002 at exactly the level.
        assert!(wrong <= 9, "{kind}: {wrong} of {histories}");
    }
}

#[test]
fn a_difference_of_five_points_is_found() {
    let mut needed: Vec<u64> = Vec::new();
    for seed in 0..30 {
        let mut random = Random::new(seed);
        let mut both = [VariantStats::default(); 2];
        loop {
            for (stats, mean) in both.iter_mut().zip([0.50, 0.55]) {
                stats.add(f64::from(random.unit() < mean));
            }
            let outcomes = both[0].outcomes;
            assert!(outcomes < 20_000, "seed {seed} never decides");
            if outcomes.is_multiple_of(50) && beats(&both[1], &both[0], 0.0, 0.025) {
                needed.push(outcomes);
                break;
            }
        }
    }
    needed.sort_unstable();
    let (median, most) = (needed[15], needed[29]);
    println!(
        "0.50 against 0.55 was decided after {median} outcomes of each in the middle, {most} at most"
    );
    assert!(median <= 3_500, "{needed:?}");
    assert!(needed[27] <= 7_500, "{needed:?}");
}

#[test]
fn a_lead_is_told_with_its_size() {
    let (better, other) = (coin(6_000, 10_000), coin(5_000, 10_000));
    let found = lead(&better, &other, 0.025).unwrap();
    assert!((0.07..0.1).contains(&found), "{found}");
    assert!(beats(&better, &other, found, 0.025) && !beats(&better, &other, 0.1, 0.025));
    assert_eq!(lead(&other, &better, 0.025), None);
    assert_eq!(lead(&coin(502, 1_000), &coin(500, 1_000), 0.025), None);
    assert_eq!(lead(&better, &VariantStats::default(), 0.025), None);
    // Where intervals have parted, the comparison says so too.
    for successes in (5_000..6_000).step_by(50) {
        let better = coin(successes, 10_000);
        if lower(&better, 0.0125) > upper(&other, 0.0125) {
            assert!(beats(&better, &other, 0.0, 0.025), "{successes}");
        }
    }
}
