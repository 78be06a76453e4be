use std::sync::Arc;

use outhaul_types::{
    DataType, Dimension, Field, Interface, ModelSignature, ShapePattern, TensorSpec,
};

use super::*;
use crate::spec::Reference;
use crate::{Plan, StepModel};

/// A step as `NAME INPUT=FROM|FROM… [when CONDITION]`.
fn step(text: &str) -> StepSpec {
    let (text, when) = match text.split_once(" when ") {
        Some((text, when)) => (text, Some(when.to_owned())),
        None => (text, None),
    };
    let mut words = text.split(' ');
    let name = words.next().unwrap();
    let feed = |word: &str| {
        let (input, from) = word.split_once('=').unwrap();
        let from = from.split('|').filter(|from| !from.is_empty());
        (input.into(), from.map(|from| Reference::parse(from, &[])).collect())
    };
    StepSpec {
        name: name.into(),
        model: format!("model-{}", name.to_lowercase()).parse().unwrap(),
        when,
        eager: false,
        inputs: words.map(feed).collect(),
        outputs: Vec::new(),
    }
}

fn pipeline(steps: &[&str], outputs: &[&str]) -> PipelineSpec {
    let output = |text: &&str| {
        let (name, from) = text.split_once('=').unwrap();
        let from = from.split('|').map(|from| Reference::parse(from, &[])).collect();
        OutputSpec { name: name.into(), from }
    };
    PipelineSpec {
        steps: steps.iter().map(|text| step(text)).collect(),
        outputs: outputs.iter().map(output).collect(),
        ..PipelineSpec::default()
    }
}

fn told(faults: Vec<Fault>) -> Vec<String> {
    faults.iter().map(Fault::to_string).collect()
}

#[test]
fn what_names_alone_can_tell_is_told_all_at_once() {
    struct Case(&'static [&'static str], &'static [&'static str], &'static [&'static str]);
    let cases = [
        Case(&["a x=x", "b x=a.y when a.s[0] < 1"], &["y=b.y|a.y"], &[]),
        Case(
            &[],
            &[],
            &[
                "steps: a pipeline needs a step; write a [[steps]]",
                "outputs: a pipeline needs an output; write NAME = \"STEP.OUTPUT\" below [outputs]",
            ],
        ),
        Case(
            &["a x=c.y", "b x=a.y", "c x=b.y"],
            &["y=b.y"],
            &["steps.a: the steps wait for each other: a -> c -> b -> a; \
             let one of them do without the other"],
        ),
        Case(
            &["a x=x when b.y[0] > 1", "b x=a.y"],
            &["y=b.y"],
            &["steps.a: the steps wait for each other: a -> b -> a; \
             let one of them do without the other"],
        ),
        Case(
            &["a x=a.y"],
            &["y=a.y"],
            &[
                "steps.a: the steps wait for each other: a -> a; let one of them do without the other",
            ],
        ),
        Case(
            &["a x=fsat.y when gone > 1 && dead.z[0] < 1"],
            &["y=late.y"],
            &[
                "steps.a.inputs.x: there is no step 'fsat'; the steps are a",
                "steps.a.when: 'gone' is no input of the pipeline; the inputs are none",
                "steps.a.when: 'dead' is no input of the pipeline; the inputs are none",
                "outputs.y: there is no step 'late'; the steps are a",
            ],
        ),
        Case(
            &["a x=x", "a x=x", "1b x="],
            &["y=a.y"],
            &[
                "steps.1b.inputs.x: must be fed by something; write INPUT or STEP.OUTPUT",
                "steps.a: there are two steps of this name; rename one",
                "steps.1b: must be a word of letters, digits and '_' that does not begin with a digit; \
             rename the step",
            ],
        ),
        Case(
            &["a x=x", "b x=a.y", "c x=b.y"],
            &["y=a.y"],
            &[
                "steps.b: nobody takes what this step gives; \
             name it in [outputs] or in another step, or remove it",
                "steps.c: nobody takes what this step gives; \
             name it in [outputs] or in another step, or remove it",
            ],
        ),
    ];
    for Case(steps, outputs, expected) in cases {
        let faults = Outline::of(pipeline(steps, outputs)).err().unwrap_or_default();
        assert_eq!(told(faults), expected, "{steps:?} {outputs:?}");
    }
}

/// A model as `INPUTS -> OUTPUTS`, each `NAME:TYPE[SIZE,…]`, `?` behind the name of an optional input.
fn model(text: &str) -> (ModelSignature, Interface) {
    let tensor = |text: &str| {
        let (name, kind) = text.split_once(':').unwrap();
        let (data_type, sizes) = kind.trim_end_matches(']').split_once('[').unwrap();
        let sizes = sizes.split(',').filter(|size| !size.is_empty());
        let size = |size: &str| size.parse().map_or(Dimension::Any, Dimension::Fixed);
        TensorSpec {
            name: name.trim_end_matches('?').into(),
            data_type: data_type.parse().unwrap(),
            shape: ShapePattern::ranked(sizes.map(size)),
            optional: name.ends_with('?'),
        }
    };
    let (inputs, outputs) = text.split_once("->").unwrap();
    let tensors = |text: &str| text.split_whitespace().map(tensor).collect();
    let signature = ModelSignature { inputs: tensors(inputs), outputs: tensors(outputs) };
    let mut interface = Interface::of_tensors(&signature);
    for (field, spec) in interface.inputs.iter_mut().zip(&signature.inputs) {
        if spec.data_type == DataType::Bytes {
            *field = Field::of(outhaul_types::Content::Text);
        }
    }
    (signature, interface)
}

fn check(spec: PipelineSpec, models: &[&str]) -> Result<Plan, Vec<String>> {
    let outline = Arc::new(Outline::of(spec).map_err(told)?);
    let models: Vec<_> =
        models.iter().map(|text| (*text != "remote").then(|| model(text))).collect();
    let known = |model: &Option<(ModelSignature, Interface)>| -> Option<StepModel<'static>> {
        let (signature, interface) = model.clone()?;
        // Tests may leak.
        let (signature, interface) =
            (Box::leak(Box::new(signature)), Box::leak(Box::new(interface)));
        Some(StepModel { signature, interface })
    };
    let models: Vec<_> = models.iter().map(known).collect();
    outline.check(&models).map_err(told)
}

fn shown(signature: &ModelSignature) -> String {
    let tensor = |spec: &TensorSpec| {
        let optional = if spec.optional { "?" } else { "" };
        format!("{}{optional}:{}{}", spec.name, spec.data_type, spec.shape)
    };
    let tensors = |specs: &[TensorSpec]| specs.iter().map(tensor).collect::<Vec<_>>().join(" ");
    format!("{} -> {}", tensors(&signature.inputs), tensors(&signature.outputs))
}

#[test]
fn what_a_pipeline_takes_and_gives_follows_from_its_models() {
    struct Case(PipelineSpec, [&'static str; 2], &'static str);
    let text = "text:BYTES[-1] -> label:BYTES[-1] score:FP32[-1,3]";
    let cases = [
        Case(
            pipeline(
                &["fast text=text", "slow text=text when fast.score[0][0] < 0.8"],
                &["label=slow.label|fast.label", "sure=fast.score"],
            ),
            [text, text],
            "text:BYTES[-1] -> label:BYTES[-1] sure:FP32[-1,3]",
        ),
        Case(
            pipeline(&["a x=x", "b x=x y=a.o z=z"], &["o=b.o"]),
            ["x:FP32[-1,4] -> o:FP32[-1]", "x:FP32[2,-1] y:FP32[-1] z?:INT64[] -> o:FP32[2,4]"],
            "x:FP32[2,4] z?:INT64[] -> o:FP32[2,4]",
        ),
        Case(
            pipeline(&["a x=x when y[0] > 1", "b x=x"], &["o=a.o|b.o"])
                .declaring(&["x:FP32", "y:INT8[1]"]),
            ["x:FP32[-1] -> o:FP32[3]", "x:FP32[-1] -> o:FP32[4]"],
            "x:FP32[-1] y:INT8[1] -> o:FP32[-1]",
        ),
    ];
    for Case(spec, models, expected) in cases {
        let plan = check(spec, &models).unwrap_or_else(|faults| panic!("{expected}: {faults:?}"));
        assert_eq!(shown(plan.signature()), expected);
    }
}

impl PipelineSpec {
    /// Declares inputs, each `NAME:TYPE` with or without `[SIZE,…]`.
    fn declaring(mut self, inputs: &[&str]) -> Self {
        for text in inputs {
            let whole = if text.contains('[') { (*text).to_owned() } else { format!("{text}[]") };
            let spec = model(&format!("{whole} ->")).0.inputs.remove(0);
            let shape = text.contains('[').then_some(spec.shape);
            let data_type = Some(spec.data_type);
            self.inputs.push(TensorDecl { name: spec.name, data_type, shape });
        }
        self
    }

    fn with_remote(mut self, step: usize, outputs: &[&str]) -> Self {
        self.steps[step].model = "http://host/v2/models/m".parse().unwrap();
        self.giving(step, outputs)
    }

    fn giving(mut self, step: usize, outputs: &[&str]) -> Self {
        let declared = PipelineSpec::default().declaring(outputs);
        self.steps[step].outputs = declared.inputs;
        self
    }
}

#[test]
fn what_does_not_fit_is_told_all_at_once() {
    struct Case(PipelineSpec, &'static [&'static str], &'static [&'static str]);
    let two = |first: &str, second: &str| pipeline(&[first, second], &["o=b.o"]);
    let cases = [
        Case(
            two("a x=x", "b x=a.o"),
            &["x:FP32[-1,4] -> o:FP32[-1,3]", "x:FP32[-1,4] -> o:FP32[1]"],
            &["steps.b.inputs.x: takes [-1,4], and 'a.o' is [-1,3]; \
               feed it with a tensor of its shape"],
        ),
        Case(
            two("a x=x", "b x=a.o w=a.gone"),
            &["x:FP32[1] y:FP32[1] -> o:INT64[1]", "x:FP32[1] -> o:FP32[1]"],
            &[
                "steps.a.inputs.y: 'model-a' needs this input; feed it with INPUT or STEP.OUTPUT",
                "steps.b.inputs.x: takes FP32, and 'a.o' is INT64; feed it with a tensor of its type",
                "steps.b.inputs.w: 'model-b' has no such input; it takes x",
                "steps.b.inputs.w: 'model-a' has no output 'gone'; it gives o",
            ],
        ),
        Case(
            pipeline(&["a x=x", "b x=x"], &["o=a.o", "p=b.o"]),
            &["x:FP32[-1] -> o:FP32[1]", "x:INT64[1,2] -> o:FP32[1]"],
            &[
                "steps.b.inputs.x: takes INT64, and the input 'x' is FP32; \
                 feed it with a tensor of its type",
                "steps.b.inputs.x: takes [1,2], and the input 'x' is [-1]; \
                 feed it with a tensor of its shape",
            ],
        ),
        Case(
            pipeline(&["a x=x when x[0] > 1.0"], &["o=a.o"]),
            &["x:FP32[-1] -> o:FP32[1]"],
            &["outputs.o: may be missing: 'a.o' is not always there; \
               name a further one that is, whose step has no `when`"],
        ),
        Case(
            pipeline(&["a x=x", "b x=x when a.o[0] > 1.0"], &["o=a.o|b.o"]),
            &["x:FP32[-1] -> o:FP32[1]", "x:FP32[-1] -> o:FP32[1]"],
            &["outputs.o: 'b.o' is never taken, since 'a.o' is always there; \
               put it first and give its step a `when`"],
        ),
        Case(
            pipeline(
                &["a x=x when x[0] > 1.0", "b x=x when a.o[0] > 1.0", "c x=x when x < 1"],
                &["o=c.o|b.o|x"],
            ),
            &["x:FP32[-1] -> o:FP32[1]", "x:FP32[-1] -> o:FP32[1]", "x:FP32[-1] -> o:INT8[1]"],
            &[
                "outputs.o: 'b.o' is FP32, and 'c.o' is INT8; give tensors of one type",
                "outputs.o: 'x' is FP32, and 'c.o' is INT8; give tensors of one type",
                "steps.b.when: 'a.o' may be missing; ask for it first: has(a.o) && …",
                "steps.c.when: '<' does not take a list and a int; \
                 tensors are lists by row: write as in \"STEP.OUTPUT[0] < 0.8\"",
            ],
        ),
        Case(
            two("a x=x", "b x=a.o").with_remote(0, &[]),
            &["remote", "x:FP32[1] -> o:FP32[1]"],
            &[
                "inputs.x: nothing tells its type and shape; \
                 declare it as in { type = \"FP32\", shape = [-1, 4] }",
                "steps.b.inputs.x: 'http://host/v2/models/m' is a model of another server; \
                 declare o = { type = …, shape = … } in the outputs of step 'a'",
            ],
        ),
        Case(
            two("a x=x", "b x=a.o").with_remote(0, &["o:FP32[1]"]).declaring(&["x:FP32[1]"]),
            &["remote", "x:FP32[1] -> o:FP32[1]"],
            &[],
        ),
        Case(
            pipeline(&["a x=x"], &["o=a.o"]).giving(0, &["o:FP32[4]"]),
            &["x:FP32[1] -> o:FP32[3]"],
            &["steps.a.outputs.o: the model gives FP32 [3]; \
               leave it out: only of models elsewhere nothing is known"],
        ),
        Case(
            pipeline(&["a x=x", "b x=x when a.o[0] > 1.0"], &["o=b.o|a.o"]),
            &["x:FP32[1] -> o:FP32[5000]", "x:FP32[1] -> o:FP32[5000]"],
            &["steps.b.when: it would look at more than 4096 elements; \
               tensors are lists by row: write as in \"STEP.OUTPUT[0] < 0.8\""],
        ),
    ];
    for Case(spec, models, expected) in cases {
        let faults = check(spec.clone(), models).err().unwrap_or_default();
        assert_eq!(faults, expected, "{spec:?}");
    }
}

#[test]
fn meaning_is_the_models_where_they_agree() {
    let spec = pipeline(&["a text=text", "b text=text"], &["x=a.y", "y=b.y"]);
    let model = "text:BYTES[-1] -> y:FP32[-1]";
    let plan = check(spec, &[model, model]).unwrap();
    assert_eq!(plan.interface().inputs, [Field::of(outhaul_types::Content::Text)]);
    assert_eq!(plan.interface().outputs, [Field::default(), Field::default()]);
}
