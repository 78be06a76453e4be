//! Requests to a model with a transform, through `Router::infer`: a real tokenizer before a scripted
//! model that tells what it was given.

#![allow(clippy::unwrap_used, reason = "everything here is a test")]

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use outhaul_engine::{LoadError, LoadedModel, RunError, Session};
use outhaul_monitor::Monitor;
use outhaul_onnx::RowIndependence;
use outhaul_repository::{Catalog, ModelFacts, Resident, VersionState};
use outhaul_router::{Declared, Router, RouterError, Served, ServedVersion, VersionPlan};
use outhaul_transform::Transform;
use outhaul_types::{
    BoundInputs, Classify, DataType, DefaultValue, Dimension, EmbeddingOutput, ErrorKind,
    FallbackCause, FallbackSpec, InferRequest, InferResponse, InputTransform, ModelManifest,
    ModelName, ModelSignature, ModelVersion, NamedTensor, OutputTransform, Parameter,
    RequestContext, RequestedOutput, ShapePattern, Strings, Tensor, TensorSpec, Tensors, TextInput,
    TransformSpec, Truncation,
};

/// `hidden[b, s] = [input_ids[b, s], 1]`, and the shapes of what it was given. A negative id makes it fail.
#[derive(Clone)]
struct Ids(Arc<Mutex<Vec<Vec<usize>>>>);

impl LoadedModel for Ids {
    fn engine(&self) -> &'static str {
        "scripted"
    }

    fn session(&self) -> Result<Box<dyn Session>, LoadError> {
        Ok(Box::new(self.clone()))
    }
}

impl Session for Ids {
    fn run(&mut self, inputs: &BoundInputs) -> Result<Tensors, RunError> {
        let ids = inputs[0].as_ref().unwrap();
        assert_eq!(ids.shape(), inputs[1].as_ref().unwrap().shape(), "the mask has its shape");
        self.0.lock().unwrap().push(ids.shape().to_vec());
        let hidden = ids.elements_of::<i64>().unwrap();
        if hidden.iter().any(|&id| id < 0) {
            return Err(RunError::Failed { engine: "scripted", reason: "told to".to_owned() });
        }
        let hidden: Vec<f32> = hidden.iter().flat_map(|&id| [id as f32, 1.0]).collect();
        let shape = [ids.shape()[0], ids.shape()[1], 2];
        Ok(Tensors::from_iter([Tensor::from_vec(shape, hidden).unwrap()]))
    }
}

struct Fixture {
    router: Router,
    catalog: Arc<Catalog<Served>>,
    given: Arc<Mutex<Vec<Vec<usize>>>>,
}

impl Fixture {
    /// A model called `ids`; `output` stands behind it.
    fn new(
        rows: RowIndependence,
        output: Option<OutputTransform>,
        max_rows: Option<usize>,
    ) -> Self {
        let spec = |name: &str, data_type, rank: usize| TensorSpec {
            name: name.into(),
            data_type,
            shape: ShapePattern::ranked((0..rank).map(|axis| match axis {
                2 => Dimension::Fixed(2),
                _ => Dimension::Any,
            })),
            optional: false,
        };
        let signature = ModelSignature {
            inputs: vec![
                spec("input_ids", DataType::Int64, 2),
                spec("attention_mask", DataType::Int64, 2),
            ],
            outputs: vec![spec("last_hidden_state", DataType::Fp32, 3)],
        };
        let tokenizer = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join("../../testdata/text_models/tiny-embedder/tokenizer.json");
        let text = TextInput {
            tokenizer,
            max_tokens: None,
            truncation: Truncation::End,
            pairs: false,
            prefix: String::new(),
        };
        let mut manifest = ModelManifest {
            transform: TransformSpec { input: Some(InputTransform::Text(text)), output },
            ..ModelManifest::default()
        };
        manifest.batching.max_request_rows = max_rows.and_then(NonZeroUsize::new);
        let declared = Declared::apply(&signature, &manifest).unwrap();
        let given = Arc::default();
        let plan = VersionPlan {
            name: ModelName::new("ids").unwrap(),
            version: ModelVersion(1),
            transform: Transform::build(&manifest.transform, &declared.outer).unwrap(),
            declared,
            signature,
            sample: None,
            rows,
            cost_follows_size: false,
            manifest,
            model: Arc::new(Ids(Arc::clone(&given))),
            engine_reason: String::new(),
            cores: NonZeroUsize::MIN,
            cache: Default::default(),
        };
        let (catalog, monitor) = (Arc::new(Catalog::new()), Arc::new(Monitor::new()));
        let (name, version) = (plan.name.clone(), plan.version);
        let served = ServedVersion::start(plan, &monitor).unwrap();
        let served = Arc::new(Resident::unattended(served));
        catalog.publish([(name, version, Some(VersionState::Ready(served)))]);
        Fixture { router: Router::new(Arc::clone(&catalog), monitor), catalog, given }
    }

    fn embedding() -> Option<OutputTransform> {
        Some(OutputTransform::Embedding(EmbeddingOutput::default()))
    }

    async fn ask(
        &self,
        inputs: Vec<NamedTensor>,
        outputs: &[&str],
    ) -> Result<InferResponse, RouterError> {
        let requested =
            |name: &&str| RequestedOutput { name: (*name).into(), classification: None };
        let mut request = InferRequest::new("ids", inputs);
        request.outputs = outputs.iter().map(requested).collect();
        self.router.infer(request, &RequestContext::default()).await
    }

    /// The shapes that the model has been given since the last look, in order of size.
    fn given(&self) -> Vec<Vec<usize>> {
        let mut given = std::mem::take(&mut *self.given.lock().unwrap());
        given.sort();
        given
    }
}

fn texts(texts: &[&str]) -> Vec<NamedTensor> {
    let tensor = Tensor::from_strings([texts.len()], texts.iter().collect::<Strings>());
    vec![NamedTensor { name: "text".into(), tensor: tensor.unwrap() }]
}

fn ids(name: &str, rows: usize, ids: Vec<i64>) -> NamedTensor {
    let shape = [rows, ids.len() / rows];
    NamedTensor { name: name.into(), tensor: Tensor::from_vec(shape, ids).unwrap() }
}

fn floats(tensor: &Tensor) -> Vec<f32> {
    tensor.as_slice::<f32>().unwrap().to_vec()
}

#[tokio::test]
async fn texts_of_one_length_share_a_run_and_others_run_apart() {
    let fixture = Fixture::new(RowIndependence::Exact, Fixture::embedding(), None);
    let mixed = ["a good film", "good", "a bad film", "", "bad"];
    let together = fixture.ask(texts(&mixed), &[]).await.unwrap();
    let given = fixture.given();
    let mut lengths: Vec<usize> = given.iter().map(|shape| shape[1]).collect();
    lengths.sort_unstable();
    assert!(lengths.windows(2).all(|pair| pair[0] < pair[1]), "each length once: {lengths:?}");
    assert!(lengths.len() > 1, "{lengths:?}");
    assert_eq!(given.iter().map(|shape| shape[0]).sum::<usize>(), mixed.len());
    let embedding = together.output("embedding").unwrap();
    assert_eq!(&embedding.shape()[..], [5, 2]);
    for (row, text) in mixed.iter().enumerate() {
        let alone = fixture.ask(texts(&[text]), &[]).await.unwrap();
        let expected = embedding.slice_rows(row..row + 1);
        assert_eq!(alone.output("embedding"), Some(&expected), "row {row}");
    }
    assert!(together.tokens.unwrap() >= 2 * mixed.len(), "special tokens count");
    assert!(!together.timings.transform.is_zero());
}

#[tokio::test]
async fn a_model_that_mixes_rows_gets_one_at_a_time() {
    let mixed = RowIndependence::NoBatch { reason: "it is a script".into() };
    let fixture = Fixture::new(mixed, Fixture::embedding(), None);
    fixture.ask(texts(&["good", "good", "good"]), &[]).await.unwrap();
    assert_eq!(fixture.given().iter().map(|shape| shape[0]).collect::<Vec<_>>(), [1, 1, 1]);
}

#[tokio::test]
async fn both_kinds_of_names_may_be_used_on_either_side() {
    let fixture = Fixture::new(RowIndependence::Exact, Fixture::embedding(), None);
    // The mask is filled in.
    let given = vec![ids("input_ids", 2, vec![2, 4, 6, 8])];
    let answer = fixture.ask(given.clone(), &[]).await.unwrap();
    assert_eq!(floats(answer.output("embedding").unwrap()), [3.0, 1.0, 7.0, 1.0]);
    assert_eq!(answer.tokens, None);
    // Half of the first row is masked.
    let masked = vec![given[0].clone(), ids("attention_mask", 2, vec![1, 0, 1, 1])];
    let answer = fixture.ask(masked, &["last_hidden_state", "embedding"]).await.unwrap();
    assert_eq!(&answer.outputs[0].tensor.shape()[..], [2, 2, 2]);
    assert_eq!(floats(&answer.outputs[1].tensor), [2.0, 1.0, 7.0, 1.0]);
    fixture.given();
    // The model's own tensor for texts of different lengths is one padded tensor.
    let answer =
        fixture.ask(texts(&["a good film", "good"]), &["last_hidden_state"]).await.unwrap();
    let [shape] = &fixture.given()[..] else { panic!("one run") };
    assert_eq!(answer.outputs[0].tensor.shape()[..2], shape[..]);
}

#[tokio::test]
async fn what_the_caller_did_wrong_is_named() {
    let fixture = Fixture::new(RowIndependence::Exact, Fixture::embedding(), Some(3));
    let bytes = Strings::from_iter([&b"good"[..], b"\xff"]);
    let not_utf8 = Tensor::from_strings([2], bytes).unwrap();
    let not_utf8 = vec![NamedTensor { name: "text".into(), tensor: not_utf8 }];
    for (inputs, outputs, expected) in [
        (not_utf8, &[][..], "row 1: 'text' is not valid UTF-8"),
        (texts(&[]), &[], "the request has no rows"),
        (texts(&["a"; 4]), &[], "the request has 4 rows, and one request may have 3"),
        (texts(&["a"]), &["logits"], "unknown output 'logits'; the model gives 'embedding'"),
        (texts(&["a"]), &["embedding", "embedding"], "output 'embedding' is requested twice"),
        (vec![ids("ids", 1, vec![1])], &[], "unknown input 'ids'; the model takes 'text'"),
        (vec![], &[], "missing input 'text' (BYTES [-1])"),
        (vec![ids("attention_mask", 1, vec![1])], &[], "missing input 'input_ids' (INT64 [-1,-1])"),
    ] {
        let error = fixture.ask(inputs, outputs).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        assert!(error.to_string().starts_with(expected), "'{error}' is not '{expected}'");
    }
    assert_eq!(fixture.given(), Vec::<Vec<usize>>::new(), "nothing was run");
}

#[tokio::test]
async fn while_its_circuit_is_open_either_kind_of_names_gets_the_default() {
    let fixture = Fixture::new(RowIndependence::Exact, Fixture::embedding(), Some(3));
    let half = DefaultValue::One(Parameter::Float(0.5));
    let default = [("embedding".into(), DefaultValue::Many(vec![half.clone(), half]))].into();
    let fallback = FallbackSpec { default, ..FallbackSpec::default() };
    let facts = ModelFacts { fallback: Some(Arc::new(fallback)), ..ModelFacts::default() };
    fixture.catalog.update(|draft| draft.set_facts(&ModelName::new("ids").unwrap(), facts));
    for _ in 0..40 {
        fixture.ask(vec![ids("input_ids", 1, vec![-1])], &[]).await.unwrap();
    }
    fixture.given();
    for right in [texts(&["good"]), vec![ids("input_ids", 1, vec![2])]] {
        let answer = fixture.ask(right, &[]).await.unwrap();
        assert_eq!(floats(answer.output("embedding").unwrap()), [0.5, 0.5]);
        assert_eq!(answer.via.unwrap().cause, Some(FallbackCause::OpenCircuit));
    }
    for (wrong, outputs, expected) in [
        (texts(&["a"; 4]), &[][..], "the request has 4 rows, and one request may have 3"),
        (texts(&["a"]), &["logits"], "unknown output 'logits'; the model gives 'embedding'"),
        (vec![ids("ids", 1, vec![1])], &[], "unknown input 'ids'; the model takes 'text'"),
        (vec![ids("attention_mask", 1, vec![1])], &[], "missing input 'input_ids' (INT64 [-1,-1])"),
    ] {
        let error = fixture.ask(wrong, outputs).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        assert!(error.to_string().starts_with(expected), "'{error}' is not '{expected}'");
    }
    assert_eq!(fixture.given(), Vec::<Vec<usize>>::new(), "nothing was run");
}

#[tokio::test]
async fn without_an_output_side_texts_give_the_models_own_tensors() {
    let fixture = Fixture::new(RowIndependence::Exact, None, None);
    let answer = fixture.ask(texts(&["a good film", "good"]), &[]).await.unwrap();
    let hidden = answer.output("last_hidden_state").unwrap();
    assert_eq!(hidden.shape()[0], 2);
    assert_eq!(fixture.given().len(), 1, "padded to one tensor");
}
