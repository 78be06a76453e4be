use half::{bf16, f16};
use outhaul_types::{ModelName, ModelVersion, Shape, Strings, Timings};

use super::*;

fn answer(outputs: impl IntoIterator<Item = (&'static str, Tensor)>) -> InferResponse {
    let named = |(name, tensor): (&str, Tensor)| NamedTensor { name: name.into(), tensor };
    InferResponse {
        id: None,
        model: ModelName::new("m").unwrap(),
        version: ModelVersion(1),
        outputs: outputs.into_iter().map(named).collect(),
        timings: Timings::default(),
        tokens: None,
        cache: outhaul_types::CacheStatus::Off,
        via: None,
    }
}

fn floats<const N: usize>(shape: [usize; N], elements: &[f32]) -> Tensor {
    Tensor::from_vec(shape, elements.to_vec()).unwrap()
}

fn integers(elements: &[i64]) -> Tensor {
    Tensor::from_vec([elements.len()], elements.to_vec()).unwrap()
}

fn texts<const N: usize>(shape: [usize; N], elements: &[&str]) -> Tensor {
    Tensor::from_strings(shape, elements.iter().collect::<Strings>()).unwrap()
}

struct Case {
    what: &'static str,
    rule: Option<Comparison>,
    pair: (Tensor, Tensor),
    agrees: bool,
    distance: f64,
}

fn case(
    what: &'static str,
    rule: impl Into<Option<Comparison>>,
    pair: (Tensor, Tensor),
    agrees: bool,
    distance: f64,
) -> Case {
    Case { what, rule: rule.into(), pair, agrees, distance }
}

/// Tells of every case that is not as expected, at once.
fn check(cases: impl IntoIterator<Item = Case>) {
    let wrong = cases.into_iter().filter_map(|case| {
        let (primary, shadow) = (answer([("y", case.pair.0)]), answer([("y", case.pair.1)]));
        let found = compare(case.rule, &[], &primary, &shadow);
        let close = (found.distance - case.distance).abs() <= 1e-6 * case.distance.max(1.0);
        let noted = found.note.is_empty() == found.agrees;
        let right = found.agrees == case.agrees && close && noted;
        (!right).then(|| format!("{}: {found:?}, expected {}", case.what, case.distance))
    });
    let wrong: Vec<String> = wrong.collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn exact_means_bit_by_bit_but_for_nans() {
    use Comparison::Exact;
    let other_nan = f32::from_bits(0x7fc0_0001);
    check([
        case("equal", Exact, (floats([2], &[1.0, 2.0]), floats([2], &[1.0, 2.0])), true, 0.0),
        case("one of two", Exact, (floats([2], &[1.0, 2.0]), floats([2], &[1.0, 2.5])), false, 0.5),
        case("NaNs", Exact, (floats([1], &[f32::NAN]), floats([1], &[other_nan])), true, 0.0),
        case("a NaN", Exact, (floats([1], &[f32::NAN]), floats([1], &[1.0])), false, 1.0),
        case("zeros", Exact, (floats([1], &[0.0]), floats([1], &[-0.0])), false, 1.0),
        case("strings", Exact, (texts([2], &["a", "b"]), texts([2], &["a", "c"])), false, 0.5),
        case("nothing", Exact, (floats([0, 3], &[]), floats([0, 3], &[])), true, 0.0),
    ]);
}

#[test]
fn a_tolerance_is_absolute_and_relative() {
    let rule = Comparison::Tolerance { absolute: 0.5, relative: 0.1 };
    let halves = |element| Tensor::from_vec([1], vec![f16::from_f32(element)]).unwrap();
    let brains = |element| Tensor::from_vec([1], vec![bf16::from_f32(element)]).unwrap();
    let scalar = |element: f64| Tensor::from_vec(Shape::new([]), vec![element]).unwrap();
    let none = Comparison::Tolerance { absolute: 0.0, relative: 0.0 };
    let infinity = || floats([1], &[f32::INFINITY]);
    check([
        case("within", rule, (floats([2], &[0.0, 10.0]), floats([2], &[0.25, 10.0])), true, 0.5),
        case("by the primary's", rule, (floats([1], &[10.0]), floats([1], &[13.0])), false, 2.0),
        case("FP16", rule, (halves(10.0), halves(13.0)), false, 2.0),
        case("BF16", rule, (brains(10.0), brains(11.5)), true, 1.0),
        case("a scalar", rule, (scalar(0.0), scalar(1.0)), false, 2.0),
        case("integers", rule, (integers(&[10]), integers(&[13])), false, 2.0),
        case("NaNs", rule, (floats([1], &[f32::NAN]), floats([1], &[-f32::NAN])), true, 0.0),
        case("a NaN", rule, (floats([1], &[f32::NAN]), floats([1], &[1.0])), false, FARTHEST),
        case("infinities", rule, (infinity(), infinity()), true, 0.0),
        case("an infinity", rule, (infinity(), floats([1], &[1.0])), false, FARTHEST),
        case("signs", rule, (infinity(), floats([1], &[f32::NEG_INFINITY])), false, FARTHEST),
        case("of nothing", none, (floats([1], &[1.0]), floats([1], &[2.0])), false, FARTHEST),
        case("zeros of two signs", none, (floats([1], &[0.0]), floats([1], &[-0.0])), true, 0.0),
        case("strings", rule, (texts([1], &["a"]), texts([1], &["b"])), false, 1.0),
        case("nothing", rule, (floats([0], &[]), floats([0], &[])), true, 0.0),
    ]);
}

#[test]
fn top_1_looks_at_the_first_place_of_each_row() {
    use Comparison::Top1;
    let pair = |left: &[f32], right: &[f32]| (floats([1, 3], left), floats([1, 3], right));
    let tokens = |elements: &[f32]| floats([1, 2, 2], elements);
    let nan = f32::NAN;
    check([
        case("the same", Top1, pair(&[0.1, 0.7, 0.2], &[0.3, 0.4, 0.3]), true, 0.0),
        case("another", Top1, pair(&[1.0, 5.0, 2.0], &[0.0, 0.0, 9.0]), false, 3.0),
        case("a tie of the primary", Top1, pair(&[1.0, 1.0, 0.0], &[0.0, 1.0, 0.0]), true, 0.0),
        case("a tie of the shadow", Top1, pair(&[1.0, 0.0, 0.0], &[0.5, 0.5, 0.1]), true, 0.0),
        case("NaNs", Top1, pair(&[nan, 1.0, 0.0], &[0.0, nan, 0.0]), true, 0.0),
        case("a NaN", Top1, pair(&[nan, 1.0, 0.0], &[0.0, 1.0, 0.0]), false, FARTHEST),
        case(
            "each token by itself",
            Top1,
            (tokens(&[0.0, 9.0, 1.0, 0.0]), tokens(&[0.0, 9.0, 0.0, 1.0])),
            false,
            1.0,
        ),
        case(
            "the first label",
            Top1,
            (texts([1, 2], &["a", "b"]), texts([1, 2], &["a", "c"])),
            true,
            0.0,
        ),
        case(
            "another label",
            Top1,
            (texts([2, 2], &["a", "b", "a", "b"]), texts([2, 2], &["a", "b", "b", "a"])),
            false,
            0.5,
        ),
        case("no neighbours", Top1, (integers(&[3, 4]), integers(&[3, 5])), false, 0.5),
        case("no rows", Top1, (floats([0, 3], &[]), floats([0, 3], &[])), true, 0.0),
    ]);
}

#[test]
fn ranks_correlate() {
    let rule = Comparison::Rank { at_least: 0.9 };
    let all = Comparison::Rank { at_least: 1.0 };
    let row = |elements: &[f32]| floats([1, elements.len()], elements);
    let pair = |left: &[f32], right: &[f32]| (row(left), row(right));
    check([
        case("one order", all, pair(&[1.0, 2.0, 3.0], &[10.0, 11.0, 99.0]), true, 0.0),
        case("reversed", rule, pair(&[1.0, 2.0, 3.0], &[3.0, 2.0, 1.0]), false, 2.0),
        // scipy.stats.spearmanr([1, 2, 3, 4, 5], [5, 6, 7, 8, 7]) = 0.8207826816681233
        case(
            "ties share a rank",
            rule,
            pair(&[1.0, 2.0, 3.0, 4.0, 5.0], &[5.0, 6.0, 7.0, 8.0, 7.0]),
            false,
            1.0 - 0.820_782_681_668_123_3,
        ),
        case("no order twice", rule, pair(&[1.0, 1.0], &[2.0, 2.0]), true, 0.0),
        case("no order once", rule, pair(&[1.0, 1.0], &[1.0, 2.0]), false, 1.0),
        case("NaNs come last", all, pair(&[1.0, f32::NAN], &[2.0, -f32::NAN]), true, 0.0),
        case(
            "the worst row counts",
            rule,
            (floats([2, 2], &[1.0, 2.0, 1.0, 2.0]), floats([2, 2], &[3.0, 4.0, 4.0, 3.0])),
            false,
            2.0,
        ),
        case("one element", rule, (floats([1, 1], &[1.0]), floats([1, 1], &[2.0])), false, 1.0),
        case("strings", rule, (texts([1, 2], &["a", "b"]), texts([1, 2], &["b", "a"])), false, 1.0),
    ]);
}

#[test]
fn without_a_rule_the_output_decides() {
    let shares = |elements: &[f32]| floats([1, 2], elements);
    check([
        case("probabilities", None, (shares(&[0.9, 0.1]), shares(&[0.6, 0.4])), true, 0.0),
        case("another class", None, (shares(&[0.9, 0.1]), shares(&[0.4, 0.6])), false, 0.8),
        case("a vector", None, (shares(&[3.0, 1.0]), shares(&[3.3, 1.0])), false, 0.3 / 0.00301),
        case(
            "near",
            None,
            (floats([1], &[1.0]), floats([1], &[1.0 + 2f32.powi(-11)])),
            true,
            2f64.powi(-11) / 0.00101,
        ),
        case("integers", None, (integers(&[1]), integers(&[2])), false, 1.0),
        case("strings", None, (texts([1], &["a"]), texts([1], &["b"])), false, 1.0),
        case(
            "booleans",
            None,
            (
                Tensor::from_bools([2], [true, false]).unwrap(),
                Tensor::from_bools([2], [true, true]).unwrap(),
            ),
            false,
            0.5,
        ),
        case("nothing", None, (floats([0, 2], &[]), floats([0, 2], &[])), true, 0.0),
    ]);
    // Logits look like any vector; the model's word counts.
    let logits = |elements: &[f32]| answer([("y", floats([1, 2], elements))]);
    let (primary, shadow) = (logits(&[3.0, 1.0]), logits(&[9.0, 1.0]));
    assert!(compare(None, &["y".into()], &primary, &shadow).agrees);
    assert!(!compare(None, &["z".into()], &primary, &shadow).agrees);
}

#[test]
fn what_cannot_be_compared_disagrees() {
    let one = || floats([1], &[1.0]);
    let cases = [
        (vec![("y", one())], vec![], "'y': only the primary gives it"),
        (vec![], vec![("y", one())], "'y': only the shadow gives it"),
        (
            vec![("y", one())],
            vec![("y", floats([1, 1], &[1.0]))],
            "'y': FP32 [1], the shadow's is FP32 [1,1]",
        ),
        (
            vec![("y", one())],
            vec![("y", integers(&[1]))],
            "'y': FP32 [1], the shadow's is INT64 [1]",
        ),
    ];
    for (primary, shadow, note) in cases {
        let found = compare(None, &[], &answer(primary), &answer(shadow));
        let expected = Compared { agrees: false, distance: FARTHEST, note: note.to_owned() };
        assert_eq!(found, expected);
    }
}

#[test]
fn outputs_are_found_by_name_and_the_worst_is_told() {
    let answer = |y: f32, z: f32| [("y", floats([1], &[y])), ("z", floats([1], &[z]))];
    let rule = Some(Comparison::Tolerance { absolute: 1.0, relative: 0.0 });
    let mut reversed = answer(1.0, 2.0);
    reversed.reverse();
    let same = compare(rule, &[], &self::answer(answer(1.0, 2.0)), &self::answer(reversed));
    assert_eq!(same, Compared { agrees: true, distance: 0.0, note: String::new() });
    let (primary, shadow) = (self::answer(answer(0.0, 0.0)), self::answer(answer(2.0, 3.0)));
    let found = compare(rule, &[], &primary, &shadow);
    assert_eq!((found.agrees, found.distance), (false, 3.0));
    assert_eq!(found.note, "'z': element 0 is 0, the shadow's 3");
}
