use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::time::Duration;

use outhaul_types::{
    DataType, Dimension, Fill, InstanceCount, LevelSpec, ShapePattern, TensorDeclaration,
    VersionPolicy, WarmupRequest,
};
use proptest::prelude::*;

use super::super::textproto::tests::undecided;
use super::*;

mod ensemble;
mod taken;

fn example(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/formats/triton").join(name)
}

/// What a text says, in a folder that holds nothing else.
fn read_text(text: &str) -> Foreign {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("warmup")).unwrap();
    std::fs::write(folder.path().join("warmup/x.bin"), [0; 4]).unwrap();
    let file = Path::new(FILE);
    match Document::parse(file, text, &schema(MESSAGE)) {
        Ok(document) => map(&document, folder.path()),
        Err(problems) => Foreign { problems, ..Foreign::default() },
    }
}

fn sound(text: &str) -> ModelManifest {
    let foreign = read_text(text);
    foreign.manifest.unwrap_or_else(|| panic!("{text}: {:?}", foreign.problems))
}

fn told(foreign: &Foreign, folder: &Path) -> Vec<String> {
    let folder = format!("{}/", folder.display());
    let told = foreign.problems.iter().map(|problem| problem.to_string().replace(&folder, ""));
    told.collect()
}

fn number(number: usize) -> NonZeroUsize {
    NonZeroUsize::new(number).unwrap()
}

fn tensor(name: &str, shape: &[i64], data_type: DataType) -> TensorDeclaration {
    let data_type = Some(data_type);
    TensorDeclaration { name: name.into(), data_type, shape: Some(pattern(shape)), reshape: None }
}

fn pattern(sizes: &[i64]) -> ShapePattern {
    let size = |size: &i64| usize::try_from(*size).map_or(Dimension::Any, Dimension::Fixed);
    ShapePattern::ranked(sizes.iter().map(size))
}

#[test]
fn every_field_has_a_decision_and_every_decision_a_field() {
    let (fields, rows) = undecided(&schema(MESSAGE), decisions::DECISIONS);
    assert_eq!((fields, rows), (Vec::new(), Vec::new()), "without a decision, without a field");
}

#[test]
fn an_image_classifier_is_read() {
    let folder = example("images");
    let foreign = read(&folder);
    let manifest = foreign.manifest.clone().unwrap();
    assert_eq!(foreign.name.as_ref().map(ModelName::as_str), Some("images"));
    assert_eq!(foreign.model_file, None);
    assert_eq!(manifest.batching.max_rows, number(16));
    assert_eq!(manifest.batching.max_delay, Duration::from_micros(500));
    assert_eq!(manifest.instances.count, InstanceCount::Fixed(number(2)));
    assert_eq!(manifest.instances.threads, number(2));
    let versions = [1, 3].map(outhaul_types::ModelVersion);
    assert_eq!(manifest.versions, VersionPolicy::Specific(versions.into()));
    assert_eq!(manifest.inputs, [tensor("pixels", &[-1, 3, 224, 224], DataType::Fp32)]);
    let scores = TensorDeclaration {
        reshape: Some(pattern(&[-1, 1000, 1, 1])),
        ..tensor("scores", &[-1, 1000], DataType::Fp32)
    };
    assert_eq!(manifest.outputs, [scores]);
    assert_eq!((manifest.queue.levels.len(), manifest.queue.capacity), (0, number(1024)));

    let [one, sixteen] = <[WarmupRequest; 2]>::try_from(manifest.warmup.unwrap()).unwrap();
    assert_eq!((one.name.as_str(), one.rows, one.count), ("one picture", number(1), number(3)));
    assert_eq!(one.inputs[0].fill, Fill::File(folder.join("warmup/picture.bin")));
    assert_eq!(one.inputs[0].shape.as_deref(), Some(&[1, 3, 224, 224][..]));
    assert_eq!((sixteen.rows, &sixteen.inputs[0].fill), (number(16), &Fill::Random));
    assert_eq!(sixteen.inputs[0].shape.as_deref(), Some(&[16, 3, 224, 224][..]));

    let expected = [
        "warning: config.pbtxt:9: input[0].format = FORMAT_NCHW: images are not turned from one \
         layout into another; nothing needs doing",
        "warning: config.pbtxt:19: output[0].label_filename = \"labels.txt\": classifications are \
         answered without labels; let callers look labels up",
        "warning: config.pbtxt:25: dynamic_batching.preferred_batch_size = [4, 8]: a batch takes \
         whatever is waiting, so no size is preferred; nothing needs doing",
    ];
    assert_eq!(told(&foreign, &folder), expected);
}

#[test]
fn levels_and_whole_shapes_are_read() {
    let folder = example("text");
    let foreign = read(&folder);
    let manifest = foreign.manifest.clone().unwrap();
    assert_eq!(
        (foreign.name.clone(), foreign.model_file.as_deref()),
        (None, Some("classifier.onnx"))
    );
    assert_eq!(manifest.batching.max_rows, number(1), "requests have no rows to join");
    let reshaped = |declared: TensorDeclaration, sizes: &[i64]| TensorDeclaration {
        reshape: Some(pattern(sizes)),
        ..declared
    };
    let ids = reshaped(tensor("ids", &[-1], DataType::Int64), &[1, -1]);
    assert_eq!(manifest.inputs, [ids, tensor("mask", &[-1], DataType::Int64)]);
    assert_eq!(manifest.outputs, [reshaped(tensor("label", &[1], DataType::Bytes), &[])]);
    assert_eq!(manifest.versions, VersionPolicy::All);

    let level = |capacity: Option<usize>, millis: Option<u64>, allow_override| LevelSpec {
        capacity: capacity.map(number),
        timeout: millis.map(Duration::from_millis),
        allow_override: Some(allow_override),
    };
    let levels = [
        level(Some(10), Some(100_000), true),
        level(Some(100), Some(50), false),
        level(None, None, false),
    ];
    assert_eq!(manifest.queue.levels, levels);
    assert_eq!(manifest.queue.default_level, number(2));
    assert_eq!(manifest.queue.capacity, number(1024), "level 3 has no bound of its own");
    assert_eq!(manifest.queue.timeout, Duration::from_secs(160), "it cuts no level's wait");
    let expected =
        ["warning: config.pbtxt:23: dynamic_batching.priority_queue_policy[3].timeout_action = \
         DELAY: a request that waits too long is refused, not put behind the others; nothing \
         needs doing"];
    assert_eq!(told(&foreign, &folder), expected);
}

#[test]
fn what_cannot_be_served_says_what_to_do() {
    struct Case(&'static str, &'static [&'static str]);
    let cases = [
        Case(
            "python",
            &[
                "config.pbtxt:2: backend = \"python\": only ONNX models are served; export what \
                 the script computes to ONNX",
                "config.pbtxt:5: model_transaction_policy.decoupled = true: every request has \
                 exactly one answer; serve a model that answers once",
            ],
        ),
        Case(
            "torch",
            &[
                "config.pbtxt:1: platform = \"pytorch_libtorch\": only ONNX models are served; \
                 export the module with outhaul.export of the Python package outhaul",
                "warning: config.pbtxt:5: instance_group[0].gpus = [0]: models run on the CPU; \
                 nothing needs doing",
                "warning: config.pbtxt:5: instance_group[0].kind = KIND_GPU: models run on the \
                 CPU, in as many instances as it has cores; write kind: KIND_CPU with a count to \
                 choose the number",
            ],
        ),
    ];
    for Case(name, expected) in cases {
        let folder = example(name);
        let foreign = read(&folder);
        assert_eq!(foreign.manifest, None, "{name}");
        assert_eq!(told(&foreign, &folder), expected, "{name}");
    }
}

/// `OUTHAUL_BLESS=1` writes the file anew; the diff is reviewed.
#[test]
fn a_file_that_sets_everything_is_answered_field_by_field() {
    let folder = example("everything");
    let foreign = read(&folder);
    assert_eq!((foreign.manifest.clone(), foreign.model_file.as_deref()), (None, Some("net.onnx")));
    let told = told(&foreign, &folder).join("\n") + "\n";
    let golden = folder.join("problems.txt");
    if std::env::var_os("OUTHAUL_BLESS").is_some() {
        std::fs::write(&golden, &told).unwrap();
    }
    assert_eq!(told, std::fs::read_to_string(golden).unwrap_or_default());
}

#[test]
fn values_break_rules_all_at_once() {
    struct Case(&'static str, &'static [&'static str]);
    let cases = [
        Case("name: 'a/b'", &["name = \"a/b\": 'a/b' is not a model name"]),
        Case("default_model_filename: '../m.onnx'", &["default_model_filename"]),
        Case("default_model_filename: '/m.onnx'", &["default_model_filename"]),
        Case("default_model_filename: '.'", &["default_model_filename"]),
        Case(
            "max_batch_size: -1",
            &["max_batch_size = -1: must be a whole number from 0 to 65536"],
        ),
        Case("max_batch_size: 65537", &["max_batch_size = 65537: must be"]),
        Case("platform: 'onnx' backend: 'x'", &["backend = \"x\": only ONNX models are served"]),
        Case("input { dims: 1 }", &["input[0]: must have a name"]),
        Case("input [{ name: 'x' }, { name: 'x' }]", &["input[1].name = \"x\": is there twice"]),
        Case("input { name: 'x' dims: [0, -2] }", &["input[0].dims = [0, -2]: a size is at least"]),
        Case("input { name: 'x' data_type: 77 }", &["input[0].data_type = 77: no such choice"]),
        Case(
            "input { name: 'x' dims: [2, -1, 3] reshape { shape: [-1, 6] } }",
            &["input[0].reshape.shape = [-1, 6]: does not hold the elements of dims [2,-1,3]"],
        ),
        Case(
            "output { name: 'x' dims: 6 reshape { shape: 5 } }",
            &["output[0].reshape.shape = [5]: does not hold the elements of dims [6]"],
        ),
        Case("input { name: 'x' reshape { } }", &["input[0].reshape: there are no dims"]),
        Case("version_policy { specific { } }", &["version_policy.specific: no version would be"]),
        Case(
            "version_policy { specific { versions: [1, 0, -3] } }",
            &["version_policy.specific.versions = [1, 0, -3]: 0 is not a version", "-3 is not"],
        ),
        Case("instance_group { count: -1 }", &["instance_group[0].count = -1: must be a whole"]),
        Case("instance_group { count: 1025 }", &["instance_group[0].count = 1025: must be"]),
        Case(
            "instance_group [{ count: 1024 }, { count: 2 }]",
            &["instance_group: the counts add up to 1026, and 1024 is the most"],
        ),
        Case(
            "parameters { key: 'intra_op_thread_count' value { string_value: 'two' } }",
            &["parameters[intra_op_thread_count].string_value = \"two\": must be a whole number"],
        ),
        Case(
            "dynamic_batching { priority_levels: 5000000000 }",
            &["dynamic_batching.priority_levels = 5000000000: must be a whole number from 0 to"],
        ),
        Case(
            "dynamic_batching { priority_levels: 2 }",
            &["dynamic_batching.default_priority_level: must be a level from 1 to 2"],
        ),
        Case(
            "dynamic_batching { priority_levels: 2 default_priority_level: 3 \
             priority_queue_policy { key: 3 value { } } \
             priority_queue_policy { key: 0 value { } } }",
            &[
                "dynamic_batching.default_priority_level = 3: must be a level from 1 to 2",
                "dynamic_batching.priority_queue_policy[0]: there is no level 0",
                "dynamic_batching.priority_queue_policy[3]: there is no level 3",
            ],
        ),
        Case(
            "model_warmup { batch_size: 2 }",
            &["model_warmup[0].batch_size = 2: a model without a batch dimension"],
        ),
        Case(
            "model_warmup { count: 20000 }",
            &["model_warmup[0].count = 20000: must be a whole number from 1 to 10000"],
        ),
        Case(
            "model_warmup { inputs { key: 'x' value { dims: -1 } } }",
            &["model_warmup[0].inputs[x].dims = [-1]: a warm-up needs sizes", "must say what the"],
        ),
        Case(
            "model_warmup { inputs { key: 'x' value { input_data_file: '../config.pbtxt' } } }",
            &["input_data_file = \"../config.pbtxt\": must be a file in the folder warmup"],
        ),
        Case(
            "model_warmup { inputs { key: 'x' value { input_data_file: 'y.bin' } } }",
            &["model_warmup[0].inputs[x].input_data_file = \"y.bin\": there is no such file in "],
        ),
        Case(
            "input { name: 'x' data_type: TYPE_FP32 } \
             model_warmup { inputs { key: 'x' value { data_type: TYPE_FP64 zero_data: true } } }",
            &["model_warmup[0].inputs[x].data_type = TYPE_FP64: the input 'x' is declared as FP32"],
        ),
        Case("sequence_batching { }", &["sequence_batching: sequences of requests that share"]),
    ];
    for Case(text, expected) in cases {
        let foreign = read_text(text);
        assert_eq!(foreign.manifest, None, "{text}");
        let told: Vec<String> = foreign.problems.iter().map(Problem::to_string).collect();
        assert_eq!(told.len(), expected.len(), "{text}: {told:?}");
        for (told, expected) in told.iter().zip(expected) {
            assert!(told.starts_with("config.pbtxt:1: "), "{text}: {told}");
            assert!(told.contains(expected), "{text}: {told}");
        }
    }
}

#[test]
fn what_has_its_default_is_told_to_nobody() {
    let text = "platform: 'onnxruntime_onnx' backend: 'onnxruntime' max_batch_size: 4 \
                input { name: 'x' format: FORMAT_NONE is_shape_tensor: false optional: false } \
                instance_group { kind: KIND_AUTO passive: false gpus: [] } \
                response_cache { enable: false } model_transaction_policy { decoupled: false } \
                dynamic_batching { preserve_ordering: false } model_operations { } \
                default_model_filename: 'model.onnx'";
    let foreign = read_text(text);
    assert_eq!(foreign.problems, []);
    assert_eq!(foreign.manifest.unwrap().batching.max_rows, number(4));
}

#[test]
fn the_response_cache_is_kept_with_its_defaults() {
    for (text, expected) in [
        ("", None),
        ("response_cache { }", None),
        ("response_cache { enable: false }", None),
        ("response_cache { enable: true }", Some(CacheSpec::default())),
    ] {
        assert_eq!(sound(text).cache, expected, "{text}");
    }
}

#[test]
fn batching_is_as_declared() {
    struct Case(&'static str, usize, Duration);
    let (two, none) = (Duration::from_millis(2), Duration::ZERO);
    let cases = [
        Case("", 32, two),
        Case("input { name: 'x' }", 32, two),
        Case("max_batch_size: 0", 1, two),
        Case("input { name: 'x' dims: 1 }", 1, two),
        Case("max_batch_size: 8 dynamic_batching { }", 8, two),
        Case("dynamic_batching { max_queue_delay_microseconds: 0 }", 32, none),
        Case(
            "dynamic_batching { max_queue_delay_microseconds: 99000000 }",
            32,
            Duration::from_secs(10),
        ),
    ];
    for Case(text, rows, delay) in cases {
        let batching = sound(text).batching;
        assert_eq!((batching.max_rows.get(), batching.max_delay), (rows, delay), "{text}");
    }
}

#[test]
fn a_policy_without_levels_is_one_level() {
    struct Case(&'static str, Vec<LevelSpec>, usize, u64);
    let one = |capacity: Option<usize>, micros: Option<u64>| LevelSpec {
        capacity: capacity.map(number),
        timeout: micros.map(Duration::from_micros),
        allow_override: Some(false),
    };
    let cases = [
        Case("dynamic_batching { }", Vec::new(), 1024, 60),
        Case(
            "dynamic_batching { default_queue_policy { max_queue_size: 7 } }",
            vec![one(Some(7), None)],
            7,
            60,
        ),
        Case(
            "dynamic_batching { default_queue_policy { max_queue_size: 0 } }",
            vec![one(Some(1_000_000), None)],
            1_000_000,
            60,
        ),
        Case(
            "dynamic_batching { default_queue_policy { default_timeout_microseconds: 9000000 } }",
            vec![one(None, Some(9_000_000))],
            1024,
            69,
        ),
        Case(
            "dynamic_batching { priority_levels: 2 default_priority_level: 1 }",
            vec![LevelSpec::default(); 2],
            1024,
            60,
        ),
        Case(
            "dynamic_batching { priority_levels: 2 default_priority_level: 1 \
             default_queue_policy { max_queue_size: 5 } \
             priority_queue_policy { key: 2 value { max_queue_size: 6 } } }",
            vec![one(Some(5), None), one(Some(6), None)],
            11,
            60,
        ),
    ];
    for Case(text, levels, capacity, seconds) in cases {
        let queue = sound(text).queue;
        assert_eq!(queue.levels, levels, "{text}");
        assert_eq!(queue.capacity.get(), capacity, "{text}");
        assert_eq!(queue.timeout, Duration::from_secs(seconds), "{text}");
        assert_eq!(queue.default_level, number(1), "{text}");
    }
}

#[test]
fn a_warmup_from_a_file_runs_one_row() {
    let text = "max_batch_size: 4 model_warmup { batch_size: 4 \
                inputs { key: 'x' value { dims: 2 input_data_file: 'x.bin' } } \
                inputs { key: 'y' value { data_type: TYPE_STRING dims: [1] random_data: true } } }";
    let foreign = read_text(text);
    assert_eq!(foreign.problems.len(), 1, "{:?}", foreign.problems);
    assert!(foreign.problems[0].to_string().contains("runs with the one row that the file holds"));
    let manifest = foreign.manifest.unwrap();
    let [request] = <[WarmupRequest; 1]>::try_from(manifest.warmup.unwrap()).unwrap();
    assert_eq!((request.name.as_str(), request.rows), ("warmup 1", number(1)));
    assert_eq!(request.inputs[0].shape.as_deref(), Some(&[1, 2][..]));
    assert_eq!(request.inputs[1].fill, Fill::Zeros, "there are no random strings");
    // What the warm-up says of an input's type is held against the model's file.
    let declared = &manifest.inputs[0];
    assert_eq!((declared.name.as_str(), declared.data_type), ("y", Some(DataType::Bytes)));
}

#[test]
fn a_model_file_may_lie_in_a_folder_of_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: Option<&str>| {
        let text = name.map(|name| format!("default_model_filename: '{name}'")).unwrap_or_default();
        std::fs::write(folder.path().join(FILE), text).unwrap();
        read(folder.path()).model_file
    };
    assert_eq!(file(None), None);
    assert_eq!(file(Some("./net.onnx")).as_deref(), Some("net.onnx"));
    for nested in ["1/model.onnx", "1/net.onnx"] {
        let nested = folder.path().join(nested);
        std::fs::create_dir_all(&nested).unwrap();
        std::fs::write(nested.join(nested.file_name().unwrap()), "").unwrap();
    }
    assert_eq!(file(None).as_deref(), Some("model.onnx/model.onnx"));
    assert_eq!(file(Some("net.onnx")).as_deref(), Some("net.onnx/net.onnx"));
}

#[test]
fn a_folder_of_another_name_is_told() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(FILE), "name: 'iris'").unwrap();
    let foreign = read(folder.path());
    assert_eq!(foreign.name.as_ref().map(ModelName::as_str), Some("iris"));
    assert!(foreign.manifest.is_some());
    assert!(
        told(&foreign, folder.path())[0].starts_with("warning: config.pbtxt:1: name = \"iris\"")
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_declaration_makes_it_panic(
        picked in prop::collection::vec(prop::sample::select(taken::TAKEN), 0..6)
    ) {
        let text: Vec<&str> = picked.iter().map(|(_, _, with)| *with).collect();
        let foreign = read_text(&text.join("\n"));
        let errors = foreign.problems.iter().any(|problem| problem.severity == Severity::Error);
        prop_assert_eq!(foreign.manifest.is_none(), errors);
    }
}
