//! Folders as Hugging Face keeps them: the graphs that Outhaul makes of their weights, and texts that
//! become embeddings, held against answers that numpy computed from the same files
//! (`testdata/make_huggingface_answers.py`), on both engines.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use outhaul::types::{
    EngineChoice, InferRequest, InferResponse, NamedTensor, RequestContext, Strings,
};
use outhaul::{OpenOptions, Problem, Router, Severity, open};
use outhaul_engine::embedded::Embedded;
use outhaul_engine::{Engine, LoadOptions, Session};
use outhaul_onnx::huggingface::convert;
use outhaul_types::{BoundInputs, Tensor};
use serde_json::Value;
use tempfile::TempDir;

/// numpy computes in FP64 and these engines in FP32, through two layers with normalisations whose
/// deviations are about 1; measured 1e-5 at most.
const ABSOLUTE: f64 = 1e-4;

/// How alike the embedding of a whole model must be to that which numpy computed in FP64.
const LEAST_COSINE: f64 = 0.99999;

fn testdata(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/huggingface").join(name)
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// Returns the folder of all-MiniLM-L6-v2; `None` where nobody has fetched it, except in CI.
fn minilm() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.outhaul/minilm");
    if folder.join("model.safetensors").is_file() {
        return Some(folder);
    }
    let is_ci = std::env::var_os("CI").is_some_and(|value| !value.is_empty());
    assert!(!is_ci, "all-MiniLM-L6-v2 is not there; run scripts/minilm.sh");
    eprintln!("all-MiniLM-L6-v2 is not there, so nothing is tested; run scripts/minilm.sh");
    None
}

fn engines() -> [Arc<dyn Engine>; 2] {
    let found = outhaul_engine_ort::find_library(None).open().unwrap();
    [found.expect("no ONNX Runtime library; run scripts/fetch_onnxruntime.sh"), Arc::new(Embedded)]
}

/// Turns a folder's weights into a graph and opens it in an engine.
fn session(folder: &Path, engine: &dyn Engine) -> Box<dyn Session> {
    let target = tempfile::tempdir().unwrap();
    let index = folder.join("model.safetensors.index.json");
    let weights = if index.is_file() { index } else { folder.join("model.safetensors") };
    let file = target.path().join("model.onnx");
    convert(&weights, &file).unwrap();
    let model = outhaul_onnx::read(&file).unwrap();
    engine.load(&model, &LoadOptions::default()).unwrap().session().unwrap()
}

fn ids(rows: usize, values: &[i64]) -> Option<Tensor> {
    Some(Tensor::from_vec([rows, values.len() / rows], values.to_vec()).unwrap())
}

fn integers(value: &Value) -> Vec<i64> {
    value.as_array().unwrap().iter().map(|number| number.as_i64().unwrap()).collect()
}

#[test]
fn graphs_made_of_weights_answer_as_numpy_does() {
    let reference = json(&testdata("reference.json"));
    for engine in engines() {
        let mut largest = 0_f64;
        for model in reference["models"].as_array().unwrap() {
            let name = model["folder"].as_str().unwrap();
            let mut session = session(&testdata(name), &*engine);
            for case in model["cases"].as_array().unwrap() {
                let rows = case["shape"][0].as_u64().unwrap() as usize;
                let given = ["input_ids", "attention_mask", "token_type_ids"];
                let given = given.iter().filter_map(|name| case.get(name));
                let inputs: BoundInputs = given.map(|of| ids(rows, &integers(of))).collect();
                let answer = session.run(&inputs).unwrap().remove(0);
                let expected = &case["answer"];
                let shape: Vec<i64> = answer.shape().iter().map(|&size| size as i64).collect();
                assert_eq!(shape, integers(&expected["shape"]), "{name}");
                let expected = expected["data"].as_array().unwrap();
                for (ours, theirs) in answer.as_slice::<f32>().unwrap().iter().zip(expected) {
                    let difference = (f64::from(*ours) - theirs.as_f64().unwrap()).abs();
                    largest = largest.max(difference);
                    assert!(difference <= ABSOLUTE, "{name} on {}: {ours} {theirs}", engine.name());
                }
            }
        }
        println!("{}: {largest:.1e} at most", engine.name());
    }
}

/// One sentence, its tokens and its embedding.
struct Sentence {
    text: String,
    ids: Vec<i64>,
    embedding: Vec<f32>,
}

fn sentences() -> Vec<Sentence> {
    let reference = json(&testdata("minilm_reference.json"));
    let cases = reference["cases"].as_array().unwrap().iter();
    let sentence = |case: &Value| {
        let bytes = BASE64_STANDARD.decode(case["embedding"].as_str().unwrap()).unwrap();
        let floats = bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
        Sentence {
            text: case["text"].as_str().unwrap().to_owned(),
            ids: integers(&case["ids"]),
            embedding: floats.collect(),
        }
    };
    cases.map(sentence).collect()
}

fn cosine(left: &[f32], right: &[f32]) -> f64 {
    let dot = |left: &[f32], right: &[f32]| -> f64 {
        left.iter().zip(right).map(|(left, right)| f64::from(*left) * f64::from(*right)).sum()
    };
    assert_eq!(left.len(), right.len());
    dot(left, right) / (dot(left, left) * dot(right, right)).sqrt()
}

#[test]
fn the_graph_of_minilm_gives_the_reference_embeddings() {
    let Some(folder) = minilm() else { return };
    for engine in engines() {
        let mut session = session(&folder, &*engine);
        let mut least = 1_f64;
        for Sentence { text, ids: tokens, embedding } in sentences() {
            let (ones, zeros) = (vec![1; tokens.len()], vec![0; tokens.len()]);
            let inputs: BoundInputs =
                [ids(1, &tokens), ids(1, &ones), ids(1, &zeros)].into_iter().collect();
            let answer = session.run(&inputs).unwrap().remove(0);
            let mut mean = vec![0_f32; embedding.len()];
            for token in answer.as_slice::<f32>().unwrap().chunks_exact(embedding.len()) {
                mean.iter_mut().zip(token).for_each(|(sum, value)| *sum += value);
            }
            let alike = cosine(&mean, &embedding);
            least = least.min(alike);
            assert!(alike > LEAST_COSINE, "{text:?} on {}: {alike}", engine.name());
        }
        println!("{}: 1 - {:.1e} at least", engine.name(), 1.0 - least);
    }
}

/// Opens a folder as a server would, on one engine.
fn router(folder: &Path, engine: EngineChoice) -> Arc<Router> {
    let opened = open(&OpenOptions { engine, ..OpenOptions::path(folder) }).unwrap();
    let is_error = |problem: &&Problem| problem.severity == Severity::Error;
    let errors: Vec<&Problem> = opened.problems.iter().filter(is_error).collect();
    assert!(errors.is_empty(), "{errors:?}");
    opened.router
}

async fn infer(router: &Router, model: &str, inputs: Vec<NamedTensor>) -> InferResponse {
    let request = InferRequest::new(model, inputs);
    router.infer(request, &RequestContext::default()).await.unwrap()
}

fn texts(texts: &[&str]) -> Vec<NamedTensor> {
    let strings: Strings = texts.iter().copied().collect();
    let tensor = Tensor::from_strings([texts.len()], strings).unwrap();
    vec![NamedTensor { name: "text".into(), tensor }]
}

fn embeddings(response: &InferResponse) -> Vec<f32> {
    response.output("embedding").unwrap().as_slice::<f32>().unwrap().to_vec()
}

/// Holds embeddings of all sentences, each asked for alone and all in one request, against the reference.
async fn check_embeddings(router: &Router, model: &str, by: &str) {
    let sentences = sentences();
    let size = sentences[0].embedding.len();
    let all: Vec<&str> = sentences.iter().map(|sentence| sentence.text.as_str()).collect();
    let together = infer(router, model, texts(&all)).await;
    let tokens: usize = sentences.iter().map(|sentence| sentence.ids.len()).sum();
    assert_eq!(together.tokens, Some(tokens));
    let together = embeddings(&together);
    assert_eq!(together.len(), sentences.len() * size);
    for (sentence, joined) in sentences.iter().zip(together.chunks_exact(size)) {
        let alone = embeddings(&infer(router, model, texts(&[&sentence.text])).await);
        let alike = cosine(&alone, &sentence.embedding);
        assert!(alike > LEAST_COSINE, "{:?} on {by}: {alike}", sentence.text);
        // Matrix products are blocked differently for other numbers of rows, which rounds differently.
        let pairs = alone.iter().zip(joined);
        let apart = pairs.map(|(left, right)| (left - right).abs()).fold(0.0, f32::max);
        assert!(apart < 1e-6, "{:?} on {by}: {apart}", sentence.text);
        let length: f32 = alone.iter().map(|value| value * value).sum();
        assert!((length - 1.0).abs() < 1e-5, "{length}");
    }
}

#[tokio::test]
async fn minilm_is_served_as_it_is_and_imported() {
    let Some(folder) = minilm() else { return };
    let models = tempfile::tempdir().unwrap();
    let (success, said) = import(&[
        folder.as_os_str(),
        "--name".as_ref(),
        "imported".as_ref(),
        "--to".as_ref(),
        models.path().as_os_str(),
    ]);
    assert!(success, "{said}");
    assert!(said.contains("from Hugging Face (config.json)"), "{said}");
    assert!(said.contains("a BERT graph made of its weights in"), "{said}");
    for file in ["1/model.onnx", "tokenizer.json", "model.toml"] {
        assert!(models.path().join("imported").join(file).is_file(), "{file}");
    }
    for engine in [EngineChoice::OnnxRuntime, EngineChoice::Embedded] {
        check_embeddings(&router(&folder, engine), "minilm", &format!("{engine:?}")).await;
        let imported = router(models.path(), engine);
        check_embeddings(&imported, "imported", &format!("{engine:?}, imported")).await;
    }
}

/// A folder of models with some of the tiny ones, each with the tokenizer.
fn tiny(names: &[&str]) -> TempDir {
    let models = tempfile::tempdir().unwrap();
    for name in names {
        let folder = models.path().join(name);
        std::fs::create_dir(&folder).unwrap();
        for file in ["config.json", "model.safetensors"] {
            std::fs::copy(testdata(name).join(file), folder.join(file)).unwrap();
        }
        std::fs::copy(testdata("tokenizer.json"), folder.join("tokenizer.json")).unwrap();
    }
    models
}

#[tokio::test]
async fn heads_answer_in_the_words_of_the_folder() {
    let models =
        tiny(&["bert-sequence", "distilbert-sequence", "bert-token", "distilbert-masked", "bert"]);
    for engine in [EngineChoice::OnnxRuntime, EngineChoice::Embedded] {
        let router = router(models.path(), engine);
        for model in ["bert-sequence", "distilbert-sequence"] {
            let answer = infer(&router, model, texts(&["the cat sits", "a dog!"])).await;
            let probabilities = answer.output("probabilities").unwrap();
            assert_eq!(&**probabilities.shape(), [2, 3]);
            for row in probabilities.as_slice::<f32>().unwrap().chunks_exact(3) {
                assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-5, "{row:?}");
            }
            let label = answer.output("label").unwrap().as_strings().unwrap().get(0).unwrap();
            assert!(["low", "middle", "high"].map(str::as_bytes).contains(&label), "{label:?}");
        }
        let answer = infer(&router, "bert-token", texts(&["the cat sits"])).await;
        let entities = answer.output("entities").unwrap().as_strings().unwrap();
        let entities: Value = serde_json::from_slice(entities.get(0).unwrap()).unwrap();
        let is_known = |entity: &Value| !entity["word"].is_null() && entity["start"].is_u64();
        assert!(entities.as_array().unwrap().iter().all(is_known), "{entities}");
        let answer = infer(&router, "distilbert-masked", texts(&["the [MASK] sits"])).await;
        let predictions = answer.output("predictions").unwrap().as_strings().unwrap();
        let predictions: Value = serde_json::from_slice(predictions.get(0).unwrap()).unwrap();
        assert_eq!(predictions[0].as_array().unwrap().len(), 5, "{predictions}");
        let answer = infer(&router, "bert", texts(&["the cat sits"])).await;
        assert_eq!(&**answer.output("embedding").unwrap().shape(), [1, 16]);
    }
}

#[test]
fn a_folder_whose_weights_are_wrong_says_so_and_stops_no_other() {
    let models = tiny(&["bert", "bert-sequence"]);
    let config = models.path().join("bert/config.json");
    let text = std::fs::read_to_string(&config).unwrap();
    let text = text.replace("\"hidden_act\": \"gelu\"", "\"hidden_act\": \"silu\"");
    std::fs::write(&config, text).unwrap();
    let opened = open(&OpenOptions::path(models.path())).unwrap();
    let is_error = |problem: &&Problem| problem.severity == Severity::Error;
    let errors: Vec<String> =
        opened.problems.iter().filter(is_error).map(ToString::to_string).collect();
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(errors[0].contains("hidden_act = \"silu\": gelu, gelu_new"), "{errors:?}");
    let latest = outhaul::types::VersionChoice::Latest;
    assert!(opened.router.readiness("bert-sequence", &latest).is_ok());
}

/// Runs `outhaul import` and returns what it says, on both streams.
fn import(arguments: &[&std::ffi::OsStr]) -> (bool, String) {
    let run =
        Command::new(env!("CARGO_BIN_EXE_outhaul")).arg("import").args(arguments).output().unwrap();
    let said = [run.stdout, run.stderr].concat();
    (run.status.success(), String::from_utf8_lossy(&said).into_owned())
}

#[tokio::test]
async fn an_imported_folder_answers_like_the_folder_itself() {
    let models = tiny(&["bert-sequence", "bert-token"]);
    // As exporters leave it: the graph below `onnx`, and the weights beside it.
    let exported = models.path().join("bert-token/onnx");
    std::fs::create_dir(&exported).unwrap();
    let weights = models.path().join("bert-token/model.safetensors");
    convert(&weights, &exported.join("model.onnx")).unwrap();
    let target = tempfile::tempdir().unwrap();
    let to = [models.path().as_os_str(), "--to".as_ref(), target.path().as_os_str()];
    let (success, said) = import(&to);
    assert!(success, "{said}");
    assert!(said.contains("version 1 is a BERT graph made of its weights in"), "{said}");
    assert_eq!(said.matches("version 1 was loaded once, on ").count(), 2, "{said}");
    let (success, said) = import(&to);
    assert!(!success && said.contains("is there already"), "{said}");
    let engine = EngineChoice::Embedded;
    let (before, after) = (router(models.path(), engine), router(target.path(), engine));
    for (model, output) in [("bert-sequence", "probabilities"), ("bert-token", "entities")] {
        let ask = || texts(&["the cat sits", "a dog dreams in town"]);
        let (theirs, ours) =
            (infer(&before, model, ask()).await, infer(&after, model, ask()).await);
        assert_eq!(theirs.output(output), ours.output(output), "{model}");
        assert!(ours.output(output).is_some());
    }
}

#[test]
fn what_cannot_be_imported_leaves_nothing_behind() {
    let models = tiny(&["bert"]);
    let (folder, target) = (models.path().join("bert"), models.path().join("target"));
    std::fs::write(folder.join("model.safetensors"), "no weights").unwrap();
    let (success, said) = import(&[folder.as_os_str(), "--to".as_ref(), target.as_os_str()]);
    assert!(!success);
    assert!(said.contains("is damaged: its header would have"), "{said}");
    assert_eq!(std::fs::read_dir(&target).unwrap().count(), 0);
}
