//! Ensembles.

use super::*;

#[test]
fn an_ensemble_is_a_pipeline() {
    let folder = example("ensemble");
    let foreign = read(&folder);
    assert_eq!(told(&foreign, &folder), <[&str; 0]>::default());
    let text = crate::write_pipeline(foreign.pipeline.unwrap().spec());
    let expected = "\
[inputs]
RAW = { datatype = \"UINT8\", shape = [-1, -1] }

[[steps]]
name = \"decode\"
model = \"decode\"
inputs = { bytes = \"RAW\" }

[[steps]]
name = \"images\"
model = \"images\"
inputs = { pixels = \"decode.pixels\" }

[outputs]
SCORES = \"images.scores\"
";
    assert_eq!(text, expected);
}

#[test]
fn what_is_wrong_with_an_ensemble_is_told() {
    struct Case(&'static str, &'static [&'static str]);
    let cases = [
        Case(
            "output { name: 'Y' } ensemble_scheduling { step { model_name: 'a b' \
             input_map { key: 'x' value: 'X' } output_map { key: 'y' value: 'Y' } } }",
            &[
                "config.pbtxt:1: ensemble_scheduling.step[0].model_name = \"a b\": 'a b' is not a \
                 model name: use 1 to 128 letters, digits, '-', '_' or '.', not starting with a \
                 dot; name the model that the step asks",
                "config.pbtxt:1: ensemble_scheduling.step[0].input_map: nobody gives the tensor \
                 'X'; name an input of the ensemble, or a tensor of a step's output_map",
            ],
        ),
        Case(
            "output { name: 'Y' } ensemble_scheduling { \
             step { model_name: 'm' input_map { key: 'x' value: 'B' } output_map { key: 'y' value: 'A' } } \
             step { model_name: 'm' input_map { key: 'x' value: 'A' } output_map { key: 'y' value: 'B' } \
             output_map { key: 'z' value: 'Y' } } }",
            &["config.pbtxt:1: ensemble_scheduling: steps.m: the steps wait for each other: \
               m -> m_2 -> m; let one of them do without the other"],
        ),
    ];
    for Case(text, expected) in cases {
        let foreign = read_text(text);
        let told = told(&foreign, Path::new(""));
        for expected in expected {
            assert!(told.iter().any(|told| told.starts_with(expected)), "{expected}: {told:?}");
        }
        assert!(foreign.pipeline.is_none() && foreign.manifest.is_none(), "{text}");
    }
}
