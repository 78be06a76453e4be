use outhaul_pipeline::Outline;

use super::*;

fn read(text: &str) -> Result<Outline, Vec<String>> {
    let path = Path::new("pipeline.toml");
    let spec = spec(Declarations::parse(path, text, KEYS));
    let outline = spec.and_then(|spec| Outline::of(spec).map_err(|faults| problems(path, faults)));
    outline.map_err(|problems| problems.iter().map(Problem::to_string).collect())
}

const CASCADE: &str = r#"timeout = "5s"

[inputs]
text = { datatype = "BYTES", shape = [-1] }
"input.1" = { datatype = "FP32", shape = ["batch", 4] }

[[steps]]
name = "fast"
model = "reviews-small"
inputs = { text = "text", x = "input.1" }

[[steps]]
name = "slow"
model = "reviews@stable"
when = "fast.score[0][1] < 0.8 && fast.label[0] != \"\""
eager = true
inputs = { text = ["fast.text", "text"] }

[[steps]]
name = "far"
model = "http://host:8080/v2/models/m"
inputs = { x = "slow.x" }
outputs = { y = { datatype = "INT64", shape = [] } }

[outputs]
label = ["far.y", "slow.label", "fast.label"]
"the score" = "fast.score"
"#;

#[test]
fn a_pipeline_is_read_in_the_order_it_is_written_and_written_as_it_is_read() {
    let outline = read(CASCADE).unwrap();
    let spec = outline.spec();
    assert_eq!(spec.timeout, Duration::from_secs(5));
    let names: Vec<_> = spec.inputs.iter().map(|input| input.name.as_str()).collect();
    assert_eq!(names, ["text", "input.1"], "in the order written");
    assert_eq!(spec.steps[0].inputs[1].1, [Reference::Input("input.1".into())]);
    assert_eq!(spec.steps[1].model.to_string(), "reviews@stable");
    assert_eq!(spec.outputs[0].from.len(), 3);
    let text = write_pipeline(spec);
    assert_eq!(text, CASCADE);
    assert_eq!(read(&text).unwrap().spec(), spec);
}

#[test]
fn every_mistake_is_told_with_its_place() {
    struct Case(&'static str, &'static [&'static str]);
    let cases = [
        Case(
            "",
            &[
                "pipeline.toml: steps: a pipeline needs a step; write a [[steps]]",
                "pipeline.toml: outputs: a pipeline needs an output; \
             write NAME = \"STEP.OUTPUT\" below [outputs]",
            ],
        ),
        Case(
            "[[step]]\nname = 'a'",
            &["pipeline.toml:1: step = [{ name = \"a\" }]: unknown key; did you mean steps?"],
        ),
        Case(
            "timeout = 5\n[[steps]]\nmodel = 'a b'\nwhn = 'x'\neager = 1\ninputs = { x = [1] }\n\
             [outputs]\ny = 2",
            &[
                "pipeline.toml:1: timeout = 5: must be a duration above zero and of at most 24h; \
                 write a number with a unit, as in \"60s\"",
                "pipeline.toml:2: steps[0].whn = \"x\": unknown key; did you mean when?",
                "pipeline.toml:2: steps[0].model = \"a b\": 'a b' names no model: write NAME, \
                 NAME@VERSION, NAME@LABEL, or the URL http://HOST/v2/models/NAME; name who is asked",
                "pipeline.toml:2: steps[0].eager = 1: must be true or false; \
                 write it without quotes",
                "pipeline.toml:2: steps[0].inputs.x[0] = 1: must be INPUT or STEP.OUTPUT, or a \
                 list of them; put it in quotes",
                "pipeline.toml:2: steps[0] = { model = \"a b\", whn = \"x\", eager = 1, inputs = \
                 { x = [1] } }: 'name' is missing; a step has a name and a model that it asks",
                "pipeline.toml:7: outputs.y = 2: must be INPUT or STEP.OUTPUT, or a list of them; \
                 put it in quotes",
            ],
        ),
        Case(
            "[inputs]\nx = { datatype = 'FLOAT', shape = 4 }\n[[steps]]\nname = 'a'\nmodel = 'm'\n\
             inputs = { x = 'x' }\n[outputs]\ny = 'a.y'",
            &[
                "pipeline.toml:1: inputs.x.datatype = \"FLOAT\": is not an element type; \
                 write one of BOOL, UINT8, UINT16, UINT32, UINT64, INT8, INT16, INT32, INT64, FP16, \
                 BF16, FP32, FP64, BYTES",
                "pipeline.toml:1: inputs.x.shape = 4: must be a list of sizes, -1 where the size \
                 is open; write rows included, as in [-1, 4]",
            ],
        ),
        Case(
            "[[steps]]\nname = 'a'\nmodel = 'm'\nwhen = 'b.y[0] >'\ninputs = { x = 'b.y' }\n\
             [[steps]]\nname = 'b'\nmodel = 'm'\ninputs = { x = 'a.y' }\n[outputs]\ny = 'b.y'",
            &[
                "pipeline.toml: steps.a.when: not an expression of CEL at 1:9: Syntax error: \
                 mismatched input '<EOF>' expecting {'[', '{', '(', '.', '-', '!', 'true', \
                 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}; \
                 write as in \"STEP.OUTPUT[0] < 0.8\"",
                "pipeline.toml: steps.a: the steps wait for each other: a -> b -> a; \
                 let one of them do without the other",
            ],
        ),
    ];
    for Case(text, expected) in cases {
        assert_eq!(read(text).err().unwrap_or_default(), expected, "{text}");
    }
}
