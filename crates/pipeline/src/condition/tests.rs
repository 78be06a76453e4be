use outhaul_types::{DataType, Strings};

use super::*;
use crate::elements::MOST_ELEMENTS;

fn output(step: &str, output: &str) -> Reference {
    Reference::Output { step: step.into(), output: output.into() }
}

fn floats(shape: &[usize], elements: &[f32]) -> Tensor {
    Tensor::from_vec(shape, elements.to_vec()).unwrap()
}

fn texts(texts: &[&str]) -> Tensor {
    let strings: Strings = texts.iter().map(|text| text.as_bytes()).collect();
    Tensor::from_strings([texts.len()], strings).unwrap()
}

#[test]
fn what_an_expression_looks_at_is_known_before_it_runs() {
    struct Case(&'static str, Vec<Reference>);
    let input = |name: &str| Reference::Input(name.into());
    let cases = [
        Case("fast.score[0] < 0.8", vec![output("fast", "score")]),
        Case(
            "fast['the score'][0] < 0.8 && lang == 'en'",
            vec![output("fast", "the score"), input("lang")],
        ),
        Case("has(slow.label) && slow.label[0] == 'x'", vec![output("slow", "label")]),
        Case("text.exists(fast, fast == 'a')", vec![input("text")]),
        Case("size(text) > 3 || text[0].startsWith('!')", vec![input("text")]),
        Case("true", vec![]),
    ];
    for Case(text, expected) in cases {
        let condition = Condition::parse(text, &["fast", "slow"]);
        let condition = condition.unwrap_or_else(|mistakes| panic!("{text}: {mistakes:?}"));
        assert_eq!(condition.looks_at(), expected, "{text}");
    }
    let guarded = Condition::parse("has(slow.label) && slow.label[0] == 'x'", &["slow"]).unwrap();
    assert!(guarded.asks_for("slow", "label") && !guarded.asks_for("slow", "score"));
}

#[test]
fn mistakes_are_told_when_it_is_read() {
    let long = format!("x == '{}'", "a".repeat(LONGEST));
    let deep = format!("{}x{}", "(".repeat(400), ")".repeat(400));
    let choices = format!("{}false", "x?true:".repeat(100));
    let chain = format!("x{} > 0", "[0]".repeat(300));
    let cases = [
        ("fast.score <", "not an expression of CEL at 1:"),
        ("fast < 1", "'fast' is a step: write fast.OUTPUT"),
        ("fast", "'fast' is a step: write fast.OUTPUT"),
        ("x.all(a, x.all(b, a == b))", "a loop over a list may not hold another one"),
        ("{'a': 1}['a'] == 1", "maps and messages cannot be written here"),
        (long.as_str(), "an expression has at most 1000 bytes"),
        (deep.as_str(), "brackets and choices nest deeper than 8"),
        (choices.as_str(), "brackets and choices nest deeper than 8"),
        (chain.as_str(), "has more than 64 brackets, dots and choices"),
    ];
    for (text, expected) in cases {
        let mistakes = Condition::parse(text, &["fast"]).err().unwrap_or_default();
        assert!(mistakes.iter().any(|told| told.contains(expected)), "{text}: {mistakes:?}");
    }
}

/// The parser and the walk over what it returns take stack for each level.
#[test]
fn no_expression_is_too_deep_to_read_or_decide() {
    let number = floats(&[], &[1.0]);
    for text in [
        format!("{}x > 1.0", "!".repeat(900)),
        format!("{}x > 1.0", "-".repeat(900)),
        format!("x{} > 1", "[0]".repeat(22)),
        format!("x{} > 1", "[0]".repeat(60)),
        format!("x{} > 1", ".a".repeat(60)),
        format!("1{} > 0", "+1".repeat(450)),
        format!("x > 1.0{}", " || x > 1".repeat(90)),
        format!("x > 1.0{}", "&&!(x<1)".repeat(60)),
        format!("'{}' == '('", "(".repeat(8)),
        format!("x > {}1.0{}", "(".repeat(8), ")".repeat(8)),
        format!("x{} > 1", ".size()".repeat(32)),
    ] {
        // It ends, one way or the other.
        if let Ok(condition) = Condition::parse(&text, &[]) {
            let _ = condition.decide(|_| Some(&number)).is_ok();
        }
    }
}

#[test]
fn tensors_are_lists_by_row() {
    let score = floats(&[2, 3], &[0.25, 0.5, 0.75, 1.0, 2.0, 3.0]);
    let label = texts(&["good", "bad"]);
    let scalar = floats(&[], &[7.0]);
    let flags = Tensor::from_bools([2], vec![true, false]).unwrap();
    let large = Tensor::from_vec([1], vec![u64::MAX]).unwrap();
    let empty = floats(&[0, 3], &[]);
    let cases = [
        ("a.score[1][2] == 3", true),
        ("a.score[0][0] < 0.3 && a.score[0].size() == 3", true),
        ("size(a.score) == 2", true),
        ("a.score.exists(row, row[0] >= 1.0)", true),
        ("a.label[0] == 'good' && a.label[1] != 'good'", true),
        ("'bad' in a.label", true),
        ("a.scalar > 6.5 && a.scalar <= 7", true),
        ("a.flags[0] && !a.flags[1]", true),
        ("a.large[0] > 9223372036854775807", true),
        ("size(a.empty) == 0", true),
        ("missing == null", true),
        ("has(a.gone)", false),
        ("a.label[0].size() > 10 ? a.label[5] == '' : false", false),
    ];
    for (text, expected) in cases {
        let condition = Condition::parse(text, &["a"]);
        let condition = condition.unwrap_or_else(|mistakes| panic!("{text}: {mistakes:?}"));
        let decided = condition.decide(|reference| match reference {
            Reference::Output { output, .. } => match output.as_str() {
                "score" => Some(&score),
                "label" => Some(&label),
                "scalar" => Some(&scalar),
                "flags" => Some(&flags),
                "large" => Some(&large),
                "empty" => Some(&empty),
                _ => None,
            },
            Reference::Input(_) => None,
        });
        assert_eq!(decided, Ok(expected), "{text}");
    }
}

#[test]
fn a_condition_that_fails_says_why_without_the_values() {
    let score = floats(&[1], &[0.5]);
    let many = floats(&[MOST_ELEMENTS + 1], &vec![0.0; MOST_ELEMENTS + 1]);
    let hollow = floats(&[MOST_ELEMENTS, 2, 0], &[]);
    let long = texts(&["x".repeat(70_000).as_str()]);
    let cases = [
        ("a.score[3] < 1", "there is no element 3: the list is shorter"),
        ("a.score < 1", "'<' does not take a list and a int"),
        ("a.score[0]", "it is a float, and must be true or false"),
        ("a.gone[0] < 1", "'gone' is not there: its step did not run"),
        ("a.many[0] < 1", "it would look at more than 4096 elements"),
        ("a.hollow[0] == []", "it would look at more than 4096 elements"),
        ("a.long[0] == ''", "it would look at more than 65536 bytes of strings"),
    ];
    for (text, expected) in cases {
        let condition = Condition::parse(text, &["a"]).unwrap();
        let decided = condition.decide(|reference| match reference {
            Reference::Output { output, .. } => match output.as_str() {
                "score" => Some(&score),
                "many" => Some(&many),
                "hollow" => Some(&hollow),
                "long" => Some(&long),
                _ => None,
            },
            Reference::Input(_) => None,
        });
        assert_eq!(decided.map_err(|error| error.to_string()), Err(expected.to_owned()), "{text}");
    }
}

#[test]
fn every_type_can_be_looked_at() {
    for data_type in DataType::ALL {
        let tensor = match data_type.size() {
            Some(size) => Tensor::from_bytes(data_type, [2], vec![0; 2 * size].into()).unwrap(),
            None => texts(&["", ""]),
        };
        let zero = match data_type {
            DataType::Bool => "!x[1]",
            DataType::Bytes => "x[1] == ''",
            _ => "x[1] == 0 && x[1] >= 0.0",
        };
        let condition = Condition::parse(zero, &[]).unwrap();
        assert_eq!(condition.decide(|_| Some(&tensor)), Ok(true), "{data_type}");
    }
}
