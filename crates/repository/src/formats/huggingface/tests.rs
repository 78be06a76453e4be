//! Folders as they are found in the wild, each file written here, and what they mean.

use std::fs;
use std::num::NonZeroU32;

use outhaul_types::{Activation, ImageInput, Labels, Pooling, Resize, ResizeFilter, Truncation};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;

/// A folder with these files; those that are no text hold nothing of interest.
fn folder(files: &[(&str, Value)]) -> TempDir {
    // The folder's name may be a model's, which does not start with a dot.
    let folder = tempfile::Builder::new().prefix("model-").tempdir().unwrap();
    for (name, content) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content.to_string()).unwrap();
    }
    folder
}

fn bert(class: &str) -> Value {
    json!({"architectures": [class], "model_type": "bert", "max_position_embeddings": 512})
}

fn with(mut value: Value, more: &[(&str, Value)]) -> Value {
    for (key, entry) in more {
        value[key] = entry.clone();
    }
    value
}

const WEIGHTS_FILE: (&str, Value) = ("model.safetensors", Value::Null);
const TOKENIZER: (&str, Value) = ("tokenizer.json", Value::Null);

/// Reads a folder and returns what it means, and its problems relative to it.
fn read_files(files: &[(&str, Value)]) -> (Foreign, Vec<String>) {
    let folder = folder(files);
    let foreign = read(folder.path());
    let place = format!("{}", folder.path().display());
    let brief = |text: String| text.replace(&format!("{place}/"), "").replace(&place, ".");
    let problems = foreign.problems.iter().map(|problem| brief(problem.to_string())).collect();
    (foreign, problems)
}

fn text_input(foreign: &Foreign) -> TextInput {
    match foreign.manifest.as_ref().and_then(|manifest| manifest.transform.input.clone()) {
        Some(InputTransform::Text(text)) => text,
        other => panic!("{other:?}"),
    }
}

fn output(foreign: &Foreign) -> OutputTransform {
    foreign.manifest.as_ref().and_then(|manifest| manifest.transform.output.clone()).unwrap()
}

fn modules(kinds: &[&str]) -> (&'static str, Value) {
    let module = |(index, kind): (usize, &&str)| {
        let path = if index == 0 { String::new() } else { format!("{index}_{kind}") };
        json!({"idx": index, "path": path, "type": format!("sentence_transformers.models.{kind}")})
    };
    ("modules.json", kinds.iter().enumerate().map(module).collect())
}

fn pooling(modes: Value) -> (&'static str, Value) {
    ("1_Pooling/config.json", modes)
}

#[test]
fn a_folder_of_sentence_transformers_is_an_embedding() {
    let (foreign, problems) = read_files(&[
        ("config.json", bert("BertModel")),
        WEIGHTS_FILE,
        TOKENIZER,
        modules(&["Transformer", "Pooling", "Normalize"]),
        pooling(json!({"pooling_mode_mean_tokens": true, "pooling_mode_cls_token": false})),
        ("sentence_bert_config.json", json!({"max_seq_length": 256})),
        ("tokenizer_config.json", json!({"model_max_length": 512, "truncation_side": "left"})),
        (
            "config_sentence_transformers.json",
            json!({"prompts": {"query": "query: "}, "default_prompt_name": "query"}),
        ),
    ]);
    assert_eq!(problems, [] as [&str; 0]);
    assert_eq!(foreign.model_file.as_deref(), Some("model.safetensors"));
    let input = text_input(&foreign);
    assert!(input.tokenizer.ends_with("tokenizer.json"));
    assert_eq!(input.max_tokens.map(NonZeroUsize::get), Some(256));
    assert_eq!((input.truncation, input.pairs), (Truncation::Beginning, false));
    assert_eq!(input.prefix, "query: ");
    let OutputTransform::Embedding(embedding) = output(&foreign) else { panic!() };
    assert_eq!((embedding.pooling, embedding.normalize), (Pooling::Mean, true));
}

#[test]
fn pooling_is_carried_out_or_refused() {
    struct Case(Value, Result<Pooling, &'static str>);
    let cases = [
        Case(json!({"pooling_mode_cls_token": true}), Ok(Pooling::Cls)),
        Case(json!({"pooling_mode_max_tokens": true}), Ok(Pooling::Max)),
        Case(json!({"pooling_mode": "mean"}), Ok(Pooling::Mean)),
        Case(
            json!({"pooling_mode_lasttoken": true}),
            Err("1_Pooling/config.json: pooling_mode_lasttoken = true: pooling by the mean"),
        ),
        Case(
            json!({"pooling_mode_mean_tokens": true, "pooling_mode_max_tokens": true}),
            Err("1_Pooling/config.json: must say exactly one way of pooling"),
        ),
        Case(json!({}), Err("1_Pooling/config.json: must say exactly one way of pooling")),
        Case(
            json!({"pooling_mode_mean_tokens": true, "include_prompt": false}),
            Err("1_Pooling/config.json: include_prompt = false: prompts are part"),
        ),
    ];
    for Case(modes, expected) in cases {
        let (foreign, problems) = read_files(&[
            ("config.json", bert("BertModel")),
            WEIGHTS_FILE,
            TOKENIZER,
            modules(&["Transformer", "Pooling"]),
            pooling(modes.clone()),
        ]);
        match expected {
            Ok(expected) => {
                let OutputTransform::Embedding(embedding) = output(&foreign) else { panic!() };
                assert_eq!((embedding.pooling, embedding.normalize), (expected, false), "{modes}");
            }
            Err(expected) => {
                assert_eq!(foreign.manifest, None, "{modes}");
                assert!(problems[0].starts_with(expected), "{problems:?}");
            }
        }
    }
    let (foreign, problems) = read_files(&[
        ("config.json", bert("BertModel")),
        WEIGHTS_FILE,
        TOKENIZER,
        modules(&["Transformer", "Pooling", "Dense"]),
        pooling(json!({"pooling_mode_mean_tokens": true})),
    ]);
    assert_eq!(foreign.manifest, None);
    let expected = "modules.json: [2].type = \"sentence_transformers.models.Dense\": this module";
    assert!(problems[0].starts_with(expected), "{problems:?}");
}

#[test]
fn a_bare_encoder_is_an_embedding_with_a_warning() {
    let files = [("config.json", bert("BertModel")), WEIGHTS_FILE, TOKENIZER];
    let (foreign, problems) = read_files(&files);
    assert!(problems[0].starts_with("warning: .: there is no modules.json"), "{problems:?}");
    let OutputTransform::Embedding(embedding) = output(&foreign) else { panic!() };
    assert_eq!((embedding.pooling, embedding.normalize), (Pooling::Mean, false));
    assert_eq!(text_input(&foreign).max_tokens.map(NonZeroUsize::get), Some(512));
}

#[test]
fn a_class_says_what_the_answer_means() {
    let labels = ("id2label", json!({"0": "sad", "1": "glad"}));
    let one = ("id2label", json!({"0": "LABEL_0"}));
    let sequence = || bert("BertForSequenceClassification");
    let answer = |config: Value| {
        let (foreign, problems) = read_files(&[("config.json", config), WEIGHTS_FILE, TOKENIZER]);
        assert_eq!(problems, [] as [&str; 0]);
        (output(&foreign), text_input(&foreign).pairs)
    };
    let classification = |config: Value| match answer(config) {
        (OutputTransform::Classification(output), pairs) => {
            (output.labels, output.activation, pairs)
        }
        other => panic!("{other:?}"),
    };
    let names = |names: [&str; 2]| Labels::List(names.map(str::to_owned).to_vec());
    let found = classification(with(sequence(), std::slice::from_ref(&labels)));
    assert_eq!(found, (names(["sad", "glad"]), Activation::Softmax, false));
    let multiple = ("problem_type", json!("multi_label_classification"));
    let found = classification(with(sequence(), &[labels.clone(), multiple]));
    assert_eq!(found, (names(["sad", "glad"]), Activation::Sigmoid, false));
    let inference = ("id2label", json!({"1": "not_entailment", "0": "entailment"}));
    let found = classification(with(sequence(), &[inference]));
    assert_eq!(found, (names(["entailment", "not_entailment"]), Activation::Softmax, true));
    assert_eq!(classification(sequence()), (Labels::Numbers, Activation::Softmax, false));

    let regression = ("problem_type", json!("regression"));
    let (found, _) = answer(with(sequence(), &[one.clone(), regression]));
    assert!(matches!(found, OutputTransform::Regression(_)), "{found:?}");
    let identity = "torch.nn.modules.linear.Identity";
    for (more, expected) in [
        (("x", json!(0)), Activation::Sigmoid),
        (("sbert_ce_default_activation_function", json!(identity)), Activation::None),
        (("sentence_transformers", json!({"activation_fn": identity})), Activation::None),
    ] {
        match answer(with(sequence(), &[one.clone(), more])) {
            (OutputTransform::Rerank(output), false) => assert_eq!(output.activation, expected),
            other => panic!("{other:?}"),
        }
    }
    let (found, _) = answer(with(bert("BertForTokenClassification"), &[labels]));
    assert!(matches!(found, OutputTransform::TokenClassification(_)), "{found:?}");
    let (found, _) = answer(bert("BertForMaskedLM"));
    assert!(matches!(found, OutputTransform::FillMask(_)), "{found:?}");
}

#[test]
fn what_is_not_carried_out_is_named() {
    let sequence = || bert("BertForSequenceClassification");
    let one = ("id2label", json!({"0": "LABEL_0"}));
    let tanh = ("sentence_transformers", json!({"activation_fn": "torch.nn.Tanh"}));
    let cases = [
        (
            with(sequence(), &[("problem_type", json!("other"))]),
            "config.json: problem_type = \"other\"",
        ),
        (
            with(sequence(), &[("problem_type", json!("regression"))]),
            "config.json: problem_type = ",
        ),
        (with(sequence(), &[("id2label", json!({"1": "a"}))]), "config.json: "),
        (with(sequence(), &[("id2label", json!([1]))]), "config.json: id2label = [1]: must name"),
        (with(sequence(), &[one, tanh]), "config.json: activation_fn = \"torch.nn.Tanh\""),
        (json!([]), "config.json: must hold an object"),
    ];
    for (config, expected) in cases {
        // One label that is not numbered from 0 is one number of a reranker.
        let config = with_two_labels(config);
        let (foreign, problems) = read_files(&[("config.json", config), WEIGHTS_FILE, TOKENIZER]);
        assert_eq!(foreign.manifest, None, "{expected}");
        assert!(problems[0].starts_with(expected), "{problems:?}");
    }
    let (foreign, problems) =
        read_files(&[("config.json", bert("BertForQuestionAnswering")), WEIGHTS_FILE, TOKENIZER]);
    assert!(foreign.manifest.unwrap().transform.is_empty());
    assert!(problems[0].starts_with("warning: config.json: architectures = "), "{problems:?}");
}

fn with_two_labels(mut config: Value) -> Value {
    if config.get("id2label") == Some(&json!({"1": "a"})) {
        config["id2label"] = json!({"1": "a", "2": "b"});
    }
    config
}

#[test]
fn the_model_file_is_chosen_in_one_order() {
    struct Case(&'static [&'static str], Option<&'static str>, &'static str);
    let cases = [
        Case(&["onnx/model.onnx", "model.safetensors"], Some("onnx/model.onnx"), ""),
        Case(&["model.onnx", "model.safetensors"], Some("model.onnx"), ""),
        Case(
            &["onnx/model.onnx", "onnx/model_fp16.onnx", "onnx/model_O2.onnx"],
            Some("onnx/model.onnx"),
            "warning: onnx: onnx/model.onnx is served, and not onnx/model_O2.onnx, \
             onnx/model_fp16.onnx; ",
        ),
        Case(
            &["onnx/model_quantized.onnx", "model.safetensors"],
            Some("model.safetensors"),
            "warning: onnx: model.safetensors is served, and not onnx/model_quantized.onnx; ",
        ),
        Case(&["onnx/model_int8.onnx"], Some("onnx/model_int8.onnx"), ""),
        Case(&["onnx/other.onnx"], Some("onnx/other.onnx"), ""),
        Case(
            &["model.safetensors.index.json", "pytorch_model.bin"],
            Some("model.safetensors.index.json"),
            "",
        ),
        Case(&["pytorch_model.bin"], None, "pytorch_model.bin: is the only file of weights here"),
        Case(&[], None, ".: there is neither an ONNX file nor model.safetensors"),
    ];
    for Case(names, expected, problem) in cases {
        let mut files = vec![("config.json", bert("BertForMaskedLM")), TOKENIZER];
        files.extend(names.iter().map(|name| (*name, Value::Null)));
        let (foreign, problems) = read_files(&files);
        assert_eq!(foreign.model_file.as_deref(), expected, "{names:?}");
        assert_eq!(problems.len(), usize::from(!problem.is_empty()), "{problems:?}");
        assert!(problems.iter().all(|text| text.starts_with(problem)), "{problems:?}");
    }
}

#[test]
fn a_tokenizer_must_be_there_in_one_file() {
    let masked = || ("config.json", bert("BertForMaskedLM"));
    let (foreign, problems) = read_files(&[masked(), WEIGHTS_FILE, ("vocab.txt", Value::Null)]);
    assert_eq!(foreign.manifest, None);
    let expected = "tokenizer.json: is not here, only vocab.txt, from which it can be made; ";
    assert!(problems[0].starts_with(expected), "{problems:?}");
    let (_, problems) = read_files(&[masked(), WEIGHTS_FILE]);
    assert!(problems[0].starts_with("tokenizer.json: is not here, and texts"), "{problems:?}");
}

#[test]
fn the_most_tokens_are_the_least_of_what_is_said() {
    let roberta = json!({
        "architectures": ["RobertaForMaskedLM"], "model_type": "roberta", "pad_token_id": 1,
        "max_position_embeddings": 514
    });
    let cases = [
        (roberta.clone(), json!({}), Some(512)),
        (roberta.clone(), json!({"model_max_length": 128}), Some(128)),
        (roberta, json!({"model_max_length": 1e30}), Some(512)),
        (bert("BertForMaskedLM"), json!({"model_max_length": 1000}), Some(512)),
        (json!({"architectures": ["T5Model"]}), json!({}), None),
    ];
    for (config, tokenizer, expected) in cases {
        let files = [
            ("config.json", config),
            WEIGHTS_FILE,
            TOKENIZER,
            ("tokenizer_config.json", tokenizer.clone()),
        ];
        let (foreign, _) = read_files(&files);
        let most = text_input(&foreign).max_tokens.map(NonZeroUsize::get);
        assert_eq!(most, expected, "{tokenizer}");
    }
}

fn picture(processor: Value) -> (Result<ImageInput, Vec<String>>, Option<OutputTransform>) {
    let config = json!({
        "architectures": ["ViTForImageClassification"], "model_type": "vit",
        "id2label": {"0": "cat", "1": "dog"}
    });
    let files = [
        ("config.json", config),
        ("preprocessor_config.json", processor),
        ("onnx/model.onnx", Value::Null),
    ];
    let (foreign, problems) = read_files(&files);
    let transform = foreign.manifest.map(|manifest| manifest.transform);
    match transform.as_ref().and_then(|transform| transform.input.clone()) {
        Some(InputTransform::Image(image)) => (Ok(image), transform.unwrap().output),
        _ => (Err(problems), None),
    }
}

#[test]
fn a_processor_of_pictures_is_an_input() {
    let side = |pixels| NonZeroU32::new(pixels).unwrap();
    let vit = json!({
        "do_normalize": true, "do_rescale": true, "do_resize": true, "image_mean": [0.5, 0.4, 0.3],
        "image_processor_type": "ViTImageProcessor", "image_std": [0.5, 0.6, 0.7], "resample": 2,
        "rescale_factor": 0.00392156862745098, "size": {"height": 224, "width": 200}
    });
    let (image, output) = picture(vit.clone());
    let expected = ImageInput {
        resize: Some(Resize::Exact { height: side(224), width: side(200) }),
        mean: vec![0.5, 0.4, 0.3],
        std: vec![0.5, 0.6, 0.7],
        ..ImageInput::default()
    };
    assert_eq!(image, Ok(expected));
    let Some(OutputTransform::Classification(output)) = output else { panic!() };
    assert_eq!(output.labels, Labels::List(vec!["cat".to_owned(), "dog".to_owned()]));
    let clip = json!({
        "crop_size": 224, "do_center_crop": true, "do_normalize": false, "do_rescale": false,
        "feature_extractor_type": "CLIPFeatureExtractor", "resample": 3, "size": 256
    });
    let expected = ImageInput {
        resize: Some(Resize::Shorter(side(256))),
        crop: Some((side(224), side(224))),
        filter: ResizeFilter::Bicubic,
        scale: 1.0,
        ..ImageInput::default()
    };
    assert_eq!(picture(clip).0, Ok(expected));
    let convnext = |edge: u32| {
        let more = [
            ("image_processor_type", json!("ConvNextImageProcessor")),
            ("size", json!({"shortest_edge": edge})),
            ("crop_pct", json!(0.875)),
        ];
        let image = picture(with(vit.clone(), &more)).0.unwrap();
        (image.resize, image.crop)
    };
    let middle = Some((side(224), side(224)));
    assert_eq!(convnext(224), (Some(Resize::Shorter(side(256))), middle));
    let exact = Resize::Exact { height: side(384), width: side(384) };
    assert_eq!(convnext(384), (Some(exact), None));

    for (key, value) in [
        ("image_processor_type", json!("EfficientNetImageProcessor")),
        ("do_pad", json!(true)),
        ("size", json!({"longest_edge": 3})),
        ("image_mean", json!([1, 2])),
        ("resample", json!(9)),
    ] {
        let problems = picture(with(vit.clone(), &[(key, value.clone())])).0.unwrap_err();
        let expected = format!("preprocessor_config.json: {key} = {value}: ");
        assert!(problems[0].starts_with(&expected), "{problems:?}");
    }
}

/// Scans a folder and returns each model's file, and all problems.
fn scanned(folder: &Path) -> (Vec<(String, String)>, Vec<String>) {
    let scan = crate::scan(&[folder]);
    let below = |path: &Path| path.strip_prefix(folder).unwrap().display().to_string();
    let models = scan.models.iter().map(|model| {
        let [version] = model.versions.as_slice() else { panic!("{model:?}") };
        (model.name.to_string(), below(&version.path))
    });
    let place = format!("{}/", folder.display());
    let problems = scan.problems.iter().map(|problem| problem.to_string().replace(&place, ""));
    (models.collect(), problems.collect())
}

#[test]
fn folders_are_found_alone_and_among_others() {
    let masked = || bert("BertForMaskedLM");
    let models = folder(&[
        ("weights/config.json", masked()),
        ("weights/model.safetensors", Value::Null),
        ("weights/tokenizer.json", Value::Null),
        ("weights/1_Pooling/config.json", Value::Null),
        ("exported/config.json", masked()),
        ("exported/onnx/model.onnx", Value::Null),
        ("exported/tokenizer.json", Value::Null),
        ("plain/config.json", json!({"anything": 1})),
        ("plain/model.onnx", Value::Null),
        ("bad/config.json", masked()),
        ("bad/pytorch_model.bin", Value::Null),
        ("bad/tokenizer.json", Value::Null),
    ]);
    let (found, problems) = scanned(models.path());
    let pair = |name: &str, file: &str| (name.to_owned(), file.to_owned());
    let expected = [
        pair("exported", "exported/onnx/model.onnx"),
        pair("plain", "plain/model.onnx"),
        pair("weights", "weights/model.safetensors"),
    ];
    assert_eq!(found, expected);
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].starts_with("bad/pytorch_model.bin: is the only file"), "{problems:?}");
    let (found, problems) = scanned(&models.path().join("weights"));
    assert_eq!((found, problems.len()), (vec![pair("weights", "model.safetensors")], 0));
}

#[test]
fn a_model_toml_beside_comes_first_and_the_folder_fills_in() {
    let models = folder(&[
        ("config.json", bert("BertModel")),
        WEIGHTS_FILE,
        TOKENIZER,
        modules(&["Transformer", "Pooling"]),
        pooling(json!({"pooling_mode_lasttoken": true})),
    ]);
    let declare = |text: &str| {
        fs::write(models.path().join("model.toml"), text).unwrap();
        crate::scan(&[models.path()])
    };
    let scan = declare("[batching]\nmax_rows = 7\n");
    assert!(scan.models.is_empty(), "the pooling is not carried out");
    assert_eq!(scan.problems.len(), 1, "{:?}", scan.problems);
    let scan = declare("[transform.output]\nkind = \"embedding\"\npooling = \"cls\"\n");
    assert_eq!(scan.problems, []);
    assert!(scan.models[0].versions[0].path.ends_with("model.safetensors"));

    fs::write(
        models.path().join("1_Pooling/config.json"),
        json!({"pooling_mode_max_tokens": true}).to_string(),
    )
    .unwrap();
    let scan = declare("[batching]\nmax_rows = 7\n");
    assert_eq!(scan.problems, []);
    let manifest = &scan.models[0].manifest;
    assert_eq!(manifest.batching.max_rows.get(), 7);
    let Some(OutputTransform::Embedding(output)) = &manifest.transform.output else { panic!() };
    assert_eq!(output.pooling, Pooling::Max);
    assert!(manifest.transform.input.is_some());
}

#[test]
fn whatever_an_answer_comes_from_is_part_of_the_version() {
    let models = folder(&[
        ("config.json", bert("BertModel")),
        ("model.safetensors.index.json", Value::Null),
        ("model-00001-of-00001.safetensors", Value::Null),
        ("pytorch_model.bin", Value::Null),
        ("README.md", Value::Null),
        TOKENIZER,
        modules(&["Transformer", "Pooling"]),
        pooling(json!({"pooling_mode_mean_tokens": true})),
    ]);
    let edition = || {
        let mut scan = crate::scan(&[models.path()]);
        assert_eq!(scan.problems, []);
        let model = scan.models.remove(0);
        (model.versions[0].identity.clone(), model.beside, model.manifest)
    };
    let mut before = edition();
    for (file, content) in [
        ("config.json", with(bert("BertModel"), &[("layer_norm_eps", json!(1e-5))])),
        ("model.safetensors.index.json", json!({})),
        ("model-00001-of-00001.safetensors", json!({})),
        ("tokenizer.json", json!({})),
        ("1_Pooling/config.json", json!({"pooling_mode_cls_token": true})),
        ("sentence_bert_config.json", json!({"max_seq_length": 7})),
    ] {
        fs::write(models.path().join(file), content.to_string()).unwrap();
        let after = edition();
        assert_ne!(before, after, "{file}");
        before = after;
    }
    for file in ["README.md", "pytorch_model.bin"] {
        fs::write(models.path().join(file), "other").unwrap();
        assert_eq!(before, edition(), "{file}");
    }
}
