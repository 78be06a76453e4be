//! The whole way of a request through `Router::infer`, with real models and no socket.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use outhaul::types::{
    Classification, Classify, Deadline, ErrorKind, InferRequest, NamedTensor, Parameter,
    RequestContext, RequestedOutput, Tensor, VersionChoice,
};
use outhaul::{OpenOptions, Router, open};

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/models")
}

fn router() -> Arc<Router> {
    let opened = open(&OpenOptions::path(examples())).unwrap();
    assert!(opened.problems.is_empty(), "{:?}", opened.problems);
    opened.router
}

fn iris(features: &[[f32; 4]]) -> InferRequest {
    let elements: Vec<f32> = features.iter().flatten().copied().collect();
    let tensor = Tensor::from_vec([features.len(), 4], elements).unwrap();
    InferRequest::new("iris", [NamedTensor { name: "X".into(), tensor }])
}

const SETOSA: [f32; 4] = [5.1, 3.5, 1.4, 0.2];
const VIRGINICA: [f32; 4] = [6.7, 3.0, 5.2, 2.3];

#[tokio::test]
async fn a_request_is_answered_with_where_its_time_went() {
    let router = router();
    let mut request = iris(&[SETOSA, VIRGINICA]);
    request.id = Some("mine".into());
    let answer = router.infer(request, &RequestContext::default()).await.unwrap();
    assert_eq!(answer.id.as_deref(), Some("mine"));
    assert_eq!(answer.output("label").unwrap().as_slice::<i64>(), Some(&[0, 2][..]));
    assert_eq!(answer.timings.batch_rows, 2);
    assert!(!answer.timings.compute.is_zero());
    let statistics = router.statistics(Some("iris"), &VersionChoice::Latest).unwrap();
    assert_eq!((statistics[0].2.success.count, statistics[0].2.inference_count), (1, 2));
}

#[tokio::test]
async fn outputs_are_chosen_named_and_classified() {
    let router = router();
    let mut request = iris(&[VIRGINICA]);
    request.outputs = vec![RequestedOutput {
        name: "probabilities".into(),
        classification: Some(Classification { count: 1 }),
    }];
    let answer = router.infer(request, &RequestContext::default()).await.unwrap();
    assert_eq!(answer.outputs.len(), 1);
    let top = answer.outputs[0].tensor.as_strings().unwrap().get(0).unwrap().to_vec();
    assert!(top.ends_with(b":2"), "{}", String::from_utf8_lossy(&top));
}

#[tokio::test]
async fn every_mistake_is_the_callers_and_is_told() {
    let router = router();
    let context = RequestContext::default();
    let unknown = InferRequest::new("nope", []);
    let mut unknown_version = iris(&[SETOSA]);
    unknown_version.version = "7".parse().unwrap();
    let mut bad_timeout = iris(&[SETOSA]);
    bad_timeout.parameters.insert("timeout".to_owned(), Parameter::String("soon".to_owned()));
    let cases = [
        (unknown, ErrorKind::NotFound, "Request for unknown model: 'nope' is not found"),
        (unknown_version, ErrorKind::NotFound, "'iris' version 7 is not found"),
        (InferRequest::new("iris", []), ErrorKind::InvalidInput, "missing input 'X'"),
        (bad_timeout, ErrorKind::InvalidInput, "parameter 'timeout'"),
    ];
    for (request, kind, text) in cases {
        let error = router.infer(request, &context).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.client_message().contains(text), "{error}");
    }
    let late = RequestContext { deadline: Some(Deadline(Instant::now())), ..context };
    let error = router.infer(iris(&[SETOSA]), &late).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DeadlineExceeded);
    let answer = router.infer(iris(&[SETOSA]), &RequestContext::default()).await;
    assert!(answer.is_ok(), "the model goes on");
}

/// Requests that come at once and may share a batch get the answers that they get alone.
///
/// ONNX Runtime multiplies matrices of one row and of several by different kernels, so the last bits
/// may differ: 1e-6 of a probability.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batched_answers_equal_single_answers() {
    let router = router();
    let image = |seed: usize| {
        let pixels = (0..64).map(|pixel| ((pixel * 7 + seed * 13) % 17) as f32).collect();
        let tensor = Tensor::from_vec([1, 1, 8, 8], pixels).unwrap();
        InferRequest::new("digits", [NamedTensor { name: "image".into(), tensor }])
    };
    let probabilities = |answer: outhaul::types::InferResponse| {
        answer.output("probabilities").unwrap().elements_of::<f32>().unwrap().into_owned()
    };
    let mut alone = Vec::new();
    for seed in 0..64 {
        let answer = router.infer(image(seed), &RequestContext::default()).await.unwrap();
        assert_eq!(answer.timings.batch_rows, 1);
        alone.push(probabilities(answer));
    }
    let together: Vec<_> = (0..64)
        .map(|seed| {
            let (router, request) = (Arc::clone(&router), image(seed));
            tokio::spawn(async move { router.infer(request, &RequestContext::default()).await })
        })
        .collect();
    for (answer, alone) in together.into_iter().zip(alone) {
        let answer = probabilities(answer.await.unwrap().unwrap());
        for (together, alone) in answer.iter().zip(&alone) {
            assert!((together - alone).abs() <= 1e-6, "{together} and {alone}");
        }
    }
}
