use std::num::NonZeroUsize;

use outhaul_types::{
    BatchingSpec, DataType, Dimension, EngineChoice, FallbackSpec, Fill, InputTransform,
    InstancesSpec, Label, LoadingSpec, ModelVersion, OutputTransform, RerankOutput, Shape,
    ShapePattern, TensorDeclaration, TextInput, TransformSpec, Truncation, VersionPolicy,
    WarmupInput, WarmupRequest,
};
use proptest::collection::{btree_map, btree_set, vec};
use proptest::option::of;
use proptest::prelude::*;

use super::cache::tests::caches;
use super::fallback::tests::fallbacks;
use super::transform::strategies::transforms;
use super::*;

fn number(number: usize) -> NonZeroUsize {
    NonZeroUsize::new(number).unwrap()
}

pub(super) fn read(text: &str) -> Result<ModelManifest, Vec<Problem>> {
    validate(Declarations::parse(Path::new("model.toml"), text, MANIFEST_KEYS))
}

#[test]
fn no_text_gives_the_defaults() {
    assert_eq!(read(""), Ok(ModelManifest::default()));
}

#[test]
fn every_key_is_read() {
    let text = r#"
        engine = "embedded"
        versions = { latest = 2 }
        labels = { stable = 3, canary = 4 }
        sample = "try/rows.json"
        [batching]
        max_rows = 8
        max_request_rows = 64
        max_delay = "500us"
        exact = false
        [instances]
        count = 3
        threads = 2
        [queue]
        capacity = 16
        timeout = "1m 30s"
        levels = [{ capacity = 10, timeout = "1s", allow_override = false }, {}]
        default_level = 2
        [loading]
        pin = true
        min_residency = "10m"
        allow_breaking = true
        [inputs]
        X = { datatype = "FP32", shape = [-1, 4], reshape = [-1, 2, 2] }
        A = { shape = ["batch", 4] }
        [outputs.Y]
        datatype = "BYTES"
        [[warmup]]
        name = "large"
        rows = 32
        count = 3
        inputs.X = { shape = [32, 4], fill = "random" }
        inputs.A.fill = "warmup/./a.bin"
        [[warmup]]
        [transform]
        input = { kind = "text" }
        [transform.output]
        kind = "rerank"
        [fallback]
        to = ["small"]
    "#;
    let label = |label| Label::new(label).unwrap();
    let tensor = |name: &str| TensorDeclaration {
        name: name.into(),
        data_type: None,
        shape: None,
        reshape: None,
    };
    let (four, any) = (Dimension::Fixed(4), Dimension::Any);
    let two = Dimension::Fixed(2);
    let input = |name: &str, shape, fill| WarmupInput { name: name.into(), shape, fill };
    let expected = ModelManifest {
        engine: EngineChoice::Embedded,
        versions: VersionPolicy::Latest(number(2)),
        labels: [(label("stable"), ModelVersion(3)), (label("canary"), ModelVersion(4))].into(),
        batching: BatchingSpec {
            max_rows: number(8),
            max_request_rows: Some(number(64)),
            max_delay: Duration::from_micros(500),
            exact: false,
        },
        instances: InstancesSpec { count: InstanceCount::Fixed(number(3)), threads: number(2) },
        queue: LimitsSpec {
            capacity: number(16),
            timeout: Duration::from_secs(90),
            levels: vec![
                LevelSpec {
                    capacity: Some(number(10)),
                    timeout: Some(Duration::from_secs(1)),
                    allow_override: Some(false),
                },
                LevelSpec::default(),
            ],
            default_level: number(2),
        },
        loading: LoadingSpec {
            pin: true,
            min_residency: Some(Duration::from_secs(600)),
            allow_breaking: true,
        },
        inputs: vec![
            TensorDeclaration {
                data_type: Some(DataType::Fp32),
                shape: Some(ShapePattern::ranked([any.clone(), four.clone()])),
                reshape: Some(ShapePattern::ranked([any, two.clone(), two])),
                ..tensor("X")
            },
            TensorDeclaration {
                shape: Some(ShapePattern::ranked([Dimension::Named("batch".into()), four])),
                ..tensor("A")
            },
        ],
        outputs: vec![TensorDeclaration { data_type: Some(DataType::Bytes), ..tensor("Y") }],
        warmup: Some(vec![
            WarmupRequest {
                name: "large".to_owned(),
                rows: number(32),
                count: number(3),
                inputs: vec![
                    input("X", Some(Shape::from([32, 4])), Fill::Random),
                    input("A", None, Fill::File("warmup/a.bin".into())),
                ],
            },
            WarmupRequest { name: "warmup-2".to_owned(), ..WarmupRequest::default() },
        ]),
        transform: TransformSpec {
            input: Some(InputTransform::Text(TextInput {
                tokenizer: "tokenizer.json".into(),
                max_tokens: None,
                truncation: Truncation::End,
                pairs: false,
                prefix: String::new(),
            })),
            output: Some(OutputTransform::Rerank(RerankOutput::default())),
        },
        sample: Some("try/rows.json".into()),
        fallback: Some(FallbackSpec {
            to: vec!["small".parse().unwrap()],
            ..FallbackSpec::default()
        }),
        ..ModelManifest::default()
    };
    assert_eq!(read(text), Ok(expected));
}

#[test]
fn what_has_several_forms_is_read_in_each() {
    assert_eq!(read("instances.count = 'auto'").unwrap().instances.count, InstanceCount::Auto);
    let versions = |text: &str| read(&format!("versions = {text}")).unwrap().versions;
    assert_eq!(versions("'latest'"), VersionPolicy::Latest(number(1)));
    assert_eq!(versions("'all'"), VersionPolicy::All);
    let specific = [ModelVersion(3), ModelVersion(u64::MAX)].into();
    assert_eq!(versions("[18446744073709551615, 3]"), VersionPolicy::Specific(specific));
    assert_eq!(read("").unwrap().warmup, None);
    assert_eq!(read("warmup = []").unwrap().warmup, Some(Vec::new()));
}

#[test]
fn every_rule_refuses_what_breaks_it() {
    struct Case(&'static str, &'static str);
    let whole = "must be a whole number from 1 to";
    let cases = [
        Case("engine = 'python'", "runs no Python models; export the model to ONNX"),
        Case("engine = 'onnx'", "or \"embedded\"; leave it out"),
        Case("engine = 'onnxruntim'", "did you mean \"onnxruntime\"?"),
        Case("engine = 3", "must be \"auto\""),
        Case("batching.max_rows = 0", whole),
        Case("batching.max_rows = -1", whole),
        Case("batching.max_rows = 1.5", whole),
        Case("batching.max_rows = '8'", whole),
        Case("batching.max_rows = 9999999999999999999999", whole),
        Case("batching.max_delay = 2", "must be a duration of at most 10s; write a number with"),
        Case("batching.max_delay = '11s'", "must be a duration of at most 10s"),
        Case("batching.max_delay = '-1s'", "must be a duration of at most 10s"),
        Case("batching.exact = 'no'", "must be true or false"),
        Case("instances.count = 'many'", "or write \"auto\""),
        Case("instances.count = 0", whole),
        Case("instances.threads = 100000", whole),
        Case("queue.capacity = 0", whole),
        Case("queue.timeout = '0s'", "must be a duration above zero"),
        Case("queue.timeout = '25h'", "must be a duration above zero and of at most 24h"),
        Case("queue.timeout = 1979-05-27", "must be a duration above zero"),
        Case("queue.levels = 3", "must be a list of tables; write as in [{ capacity = 10 }"),
        Case("queue.levels = [{}, { capacity = 0 }]", "queue.levels[1].capacity = 0: must be a"),
        Case("queue.levels = [{ timeout = '0s' }]", "queue.levels[0].timeout = \"0s\": must be"),
        Case("queue.levels = [{ size = 1 }]", "queue.levels[0].size = 1: unknown key; the keys"),
        Case("queue.default_level = 1", "there are no levels; declare queue.levels"),
        Case("queue = { levels = [{}], default_level = 2 }", "a whole number from 1 to 1; level 1"),
        Case("versions = 3", "must be \"latest\", \"all\", a table or a list"),
        Case("versions = 'newest'", "must be \"latest\", \"all\", a table or a list"),
        Case("versions = []", "must be \"latest\", \"all\", a table or a list"),
        Case("versions = {}", "must be \"latest\", \"all\", a table or a list"),
        Case("versions = { latest = 0 }", "versions.latest = 0: must be a whole number"),
        Case("versions = { last = 1 }", "versions.last = 1: unknown key; did you mean latest?"),
        Case("versions = [1, 'b']", "versions[1] = \"b\": must be the number of a version"),
        Case("versions = [1, 1]", "names a version twice"),
        Case("labels = 3", "must be a table; write as in { stable = 3"),
        Case("labels = { '1' = 3 }", "labels.1 = 3: is not a label"),
        Case("labels = { stable = 0 }", "labels.stable = 0: must be the number of a version"),
        Case("label = { stable = 1 }", "unknown key; did you mean [labels]?"),
        Case("loading.pin = 1", "must be true or false"),
        Case("loading.min_residency = '0s'", "must be a duration above zero and of at most 30days"),
        Case("inputs = []", "must be a table"),
        Case("inputs.X = 'FP32'", "inputs.X = \"FP32\": must be a table; write one of datatype"),
        Case("inputs.X.dtype = 'FP32'", "inputs.X.dtype = \"FP32\": unknown key; did you mean d"),
        Case("inputs.X.datatype = 'fp23'", "is not an element type; did you mean \"FP"),
        Case("inputs.X.datatype = 'float'", "is not an element type"),
        Case("inputs.X.shape = [-2]", "inputs.X.shape = [-2]: must be a list of sizes, -1 where"),
        Case("inputs.X.shape = 4", "must be a list of sizes"),
        Case("inputs.X.reshape = [4]", "a reshape needs a shape; declare the shape"),
        Case("inputs.X = { shape = [-1, 4], reshape = [-1, 5] }", "4 elements, the reshape 5"),
        Case("inputs.X = { shape = [4], reshape = [-1, -1] }", "may have one open size"),
        Case("warmup = {}", "must be a list of requests; write [[warmup]]"),
        Case("warmup = [{ row = 1 }]", "warmup[0].row = 1: unknown key; did you mean rows?"),
        Case("warmup = [{}, { rows = 0 }]", "warmup[1].rows = 0: must be a whole number"),
        Case("warmup = [{ count = 'x' }]", "warmup[0].count = \"x\": must be a whole number"),
        Case("warmup = [{ name = 1 }]", "warmup[0].name = 1: must be a text"),
        Case("warmup = [{ inputs.X.fill = '../x' }]", "must lie in the model's folder"),
        Case("warmup = [{ inputs.X.fill = '/x' }]", "warmup[0].inputs.X.fill = \"/x\": must lie"),
        Case("warmup = [{ inputs.X.fill = '.' }]", "must be the path of a file"),
        Case("warmup = [{ inputs.X.shape = [-1] }]", "sizes must be whole numbers from 0"),
        Case("warmup = [{ inputs.X.shape = [99999, 99999] }]", "must have at most 268435456"),
    ];
    for Case(text, expected) in cases {
        let problems = read(text).unwrap_err();
        let [problem] = problems.as_slice() else { panic!("{text}: {problems:?}") };
        let line = problem.to_string();
        assert!(line.starts_with("model.toml:1: "), "{line}");
        assert!(line.contains(expected), "{text}: {line}");
    }
}

#[test]
fn all_problems_of_a_file_come_at_once() {
    let problems = read(include_str!("../../testdata/wrongkey.toml")).unwrap_err();
    let lines: Vec<String> = problems.iter().map(Problem::to_string).collect();
    let expected = include_str!("../../testdata/wrongkey.problems.txt");
    assert_eq!(lines.join("\n"), expected.trim_end());
}

#[test]
fn the_guide_mentions_every_key() {
    let guide = include_str!("../../../../docs/guide/model-toml.md");
    for key in MANIFEST_KEYS {
        assert!(guide.contains(&format!("### `{key}`")), "docs/guide/model-toml.md: {key}");
    }
}

#[test]
fn all_problems_inside_a_value_come_at_once() {
    let text = "\n[[warmup]]\nrows = 0\n[[warmup]]\ncount = 0\ninputs.X.fill = 1\n[labels]\na = 0";
    let problems = read(text).unwrap_err();
    let lines: Vec<String> = problems.iter().map(Problem::to_string).collect();
    let starts = [
        "model.toml:2: warmup[0].rows = 0: ",
        "model.toml:2: warmup[1].count = 0: ",
        "model.toml:2: warmup[1].inputs.X.fill = 1: ",
        "model.toml:7: labels.a = 0: ",
    ];
    assert_eq!(lines.len(), starts.len(), "{lines:#?}");
    for (line, start) in lines.iter().zip(starts) {
        assert!(line.starts_with(start), "{line}");
    }
}

#[test]
fn what_is_as_usual_is_not_written() {
    assert_eq!(write_manifest(&ModelManifest::default()), "");
    let text = "engine = \"embedded\"\n\n[labels]\nstable = 3\n\n[queue]\nlevels = [\n    \
                { capacity = 10 },\n    {},\n]\n\n[inputs]\nX = { datatype = \"FP32\", shape = \
                [-1, 4] }\n\n[[warmup]]\nrows = 8\ninputs.X = { fill = \"random\" }\n";
    assert_eq!(write_manifest(&read(text).unwrap()), text);
}

fn size() -> impl Strategy<Value = NonZeroUsize> {
    (1..=1024_usize).prop_map(number)
}

fn time() -> impl Strategy<Value = Duration> {
    prop_oneof![1..10_000_000_000_u64, (1..10_000_u64).prop_map(|ms| ms * 1_000_000)]
        .prop_map(Duration::from_nanos)
}

pub(super) fn tensor_name() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z]{1,3}", "[ -~\\n\u{7f}\u{1}äß]{1,4}"]
}

fn patterns() -> impl Strategy<Value = ShapePattern> {
    let dimension = prop_oneof![
        (0..9_usize).prop_map(Dimension::Fixed),
        Just(Dimension::Any),
        "[a-z\"]{1,3}".prop_map(|name| Dimension::Named(name.into())),
    ];
    vec(dimension, 0..4).prop_map(ShapePattern::ranked)
}

fn tensors() -> impl Strategy<Value = Vec<TensorDeclaration>> {
    let data_type = prop::sample::select(DataType::ALL.to_vec());
    let body = (of(data_type), of(patterns()), any::<bool>());
    btree_map(tensor_name(), body, 0..3).prop_map(|tensors| {
        let tensor =
            |(name, (data_type, shape, reshapes)): (String, (_, Option<ShapePattern>, _))| {
                let flat = |shape: &ShapePattern| match shape {
                    ShapePattern::Ranked(parts) if !parts.contains(&Dimension::Any) => {
                        let fixed = |part: &Dimension| matches!(part, Dimension::Fixed(_));
                        parts.iter().all(fixed).then(|| shape.clone())
                    }
                    _ => None,
                };
                let reshape = shape.as_ref().filter(|_| reshapes).and_then(flat);
                TensorDeclaration { name: name.into(), data_type, shape, reshape }
            };
        // An order that is not that of the names.
        tensors.into_iter().rev().map(tensor).collect()
    })
}

fn warmups() -> impl Strategy<Value = Option<Vec<WarmupRequest>>> {
    let fill = prop_oneof![
        Just(Fill::Zeros),
        Just(Fill::Random),
        prop_oneof!["[a-z ]{1,3}/[a-z\"]{1,3}", Just("zeros".to_owned())]
            .prop_map(|path| Fill::File(path.into())),
    ];
    let shape = vec(0..9_usize, 0..3).prop_map(Shape::new);
    let inputs = btree_map(tensor_name(), (of(shape), fill), 0..3).prop_map(|inputs| {
        let input =
            |(name, (shape, fill)): (String, _)| WarmupInput { name: name.into(), shape, fill };
        inputs.into_iter().rev().map(input).collect::<Vec<_>>()
    });
    let name = prop_oneof!["warmup-[12]", "[a-z\" ]{1,5}"];
    let request = (name, size(), size(), inputs)
        .prop_map(|(name, rows, count, inputs)| WarmupRequest { name, rows, count, inputs });
    of(vec(request, 0..3))
}

fn manifests() -> impl Strategy<Value = ModelManifest> {
    let version = prop_oneof![1..5_u64, Just(u64::MAX)].prop_map(ModelVersion);
    let engine = prop::sample::select(vec![
        EngineChoice::Auto,
        EngineChoice::OnnxRuntime,
        EngineChoice::Embedded,
    ]);
    let versions = prop_oneof![
        size().prop_map(VersionPolicy::Latest),
        Just(VersionPolicy::All),
        btree_set(version.clone(), 1..3).prop_map(VersionPolicy::Specific),
    ];
    let label = "[a-z][a-z0-9._-]{0,3}".prop_map(|label| Label::new(&label).unwrap());
    let batching = (size(), of(size()), time(), any::<bool>()).prop_map(
        |(max_rows, max_request_rows, max_delay, exact)| BatchingSpec {
            max_rows,
            max_request_rows,
            max_delay,
            exact,
        },
    );
    let count = prop_oneof![Just(InstanceCount::Auto), size().prop_map(InstanceCount::Fixed)];
    let instances = (count, size()).prop_map(|(count, threads)| InstancesSpec { count, threads });
    let level = (of(size()), of(time()), of(any::<bool>())).prop_map(
        |(capacity, timeout, allow_override)| LevelSpec { capacity, timeout, allow_override },
    );
    let queue = (size(), time(), vec(level, 0..3)).prop_map(|(capacity, timeout, levels)| {
        let default_level = number(levels.len().max(1));
        LimitsSpec { capacity, timeout, levels, default_level }
    });
    let loading = (any::<bool>(), of(time()), any::<bool>()).prop_map(
        |(pin, min_residency, allow_breaking)| LoadingSpec { pin, min_residency, allow_breaking },
    );
    let choices = (engine, versions, btree_map(label, version, 0..3), loading);
    let declared =
        (tensors(), tensors(), warmups(), transforms().boxed(), (caches(), fallbacks())).boxed();
    (choices, batching, instances, queue, declared).prop_map(
        |((engine, versions, labels, loading), batching, instances, queue, declared)| {
            let (inputs, outputs, warmup, (transform, sample), (cache, fallback)) = declared;
            ModelManifest {
                engine,
                batching,
                instances,
                queue,
                versions,
                labels,
                loading,
                warmup,
                inputs,
                outputs,
                transform,
                sample,
                cache,
                fallback,
            }
        },
    )
}

proptest! {
    #[test]
    fn what_is_written_reads_back_equal(manifest in manifests()) {
        let text = write_manifest(&manifest);
        prop_assert_eq!(read(&text), Ok(manifest), "{}", text);
    }
}
