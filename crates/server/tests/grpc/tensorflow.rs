//! `tensorflow.serving.PredictionService` and `ModelService`.

use std::sync::Arc;
use std::time::Duration;

use outhaul_protocol::tensorflow_grpc::pb::serving::inference_result::Result as Written;
use outhaul_protocol::tensorflow_grpc::pb::serving::model_service_client::ModelServiceClient;
use outhaul_protocol::tensorflow_grpc::pb::serving::model_spec::VersionChoice;
use outhaul_protocol::tensorflow_grpc::pb::serving::prediction_service_client::PredictionServiceClient;
use outhaul_protocol::tensorflow_grpc::pb::serving::*;
use outhaul_protocol::tensorflow_grpc::pb::tensor_shape_proto::Dim;
use outhaul_protocol::tensorflow_grpc::pb::*;
use outhaul_server::App;
use outhaul_server::grpc::GrpcConfig;
use outhaul_types::{
    Activation, ClassificationOutput, Labels, OutputTransform, RegressionOutput, TransformSpec,
};
use prost::Message;
use tonic::codec::CompressionEncoding;
use tonic::transport::Channel;
use tonic::{Code, Request};

use crate::fixture::{Server, wait_for_queue};
use crate::models::{self, Gate, Model, echo};

type Client = PredictionServiceClient<Channel>;

async fn client(server: &Server) -> Client {
    Client::new(server.channel().await)
}

fn spec(name: &str) -> ModelSpec {
    ModelSpec { name: name.into(), ..Default::default() }
}

fn tensor(dimensions: &[i64], elements: &[f32]) -> TensorProto {
    let dim = dimensions.iter().map(|&size| Dim { size, name: String::new() }).collect();
    TensorProto {
        dtype: DataType::DtFloat.into(),
        tensor_shape: Some(TensorShapeProto { dim, unknown_rank: false }),
        float_val: elements.to_vec(),
        ..Default::default()
    }
}

fn request(model: &str, elements: [f32; 2]) -> PredictRequest {
    PredictRequest {
        model_spec: Some(spec(model)),
        inputs: [("X".to_owned(), tensor(&[1, 2], &elements))].into(),
        output_filter: Vec::new(),
    }
}

fn example(features: &[(&str, &[f32])]) -> Example {
    let feature = |&(name, value): &(&str, &[f32])| {
        let list = FloatList { value: value.to_vec() };
        (name.to_owned(), Feature { kind: Some(feature::Kind::FloatList(list)) })
    };
    Example { features: Some(Features { feature: features.iter().map(feature).collect() }) }
}

fn examples(rows: &[[f32; 2]]) -> Option<Input> {
    let examples = rows.iter().map(|row| example(&[("X", row)])).collect();
    Some(Input { kind: Some(input::Kind::ExampleList(ExampleList { examples })) })
}

/// How often calls of this contract ended so.
fn counted(server: &Server, outcome: &str) -> usize {
    let text = server.app.monitor().render();
    let wanted = |line: &&str| {
        line.contains("_count{")
            && line.contains("contract=\"tensorflow_grpc\"")
            && line.contains(&format!("\"{outcome}\""))
    };
    let counts = text.lines().filter(wanted);
    counts.map(|line| line.rsplit(' ').next().unwrap().parse::<usize>().unwrap()).sum()
}

#[tokio::test]
async fn tensors_are_answered_with_tensors() {
    let server = Server::start().await;
    let mut client = client(&server).await;
    let response = client.predict(request("double", [1.0, -2.5])).await.unwrap();
    assert!(response.metadata().get("x-request-id").is_none(), "nobody asked for it");
    let response = response.into_inner();
    let answered = response.model_spec.unwrap();
    assert_eq!(
        (answered.name.as_str(), answered.signature_name.as_str()),
        ("double", "serving_default")
    );
    assert_eq!(answered.version_choice, Some(VersionChoice::Version(1)));
    assert_eq!(response.outputs["Y"], tensor(&[1, 2], &[2.0, -5.0]));

    let mut content = request("double", [0.0; 2]);
    let input = content.inputs.get_mut("X").unwrap();
    input.float_val.clear();
    input.tensor_content = [4.0_f32, 8.0].iter().flat_map(|x| x.to_le_bytes()).collect();
    let response = client.predict(content).await.unwrap().into_inner();
    assert_eq!(response.outputs["Y"].float_val, [8.0, 16.0]);

    let mut repeated = request("double", [0.0; 2]);
    repeated.inputs.insert("X".into(), tensor(&[3, 2], &[1.5]));
    let response = client.predict(repeated).await.unwrap().into_inner();
    assert_eq!(response.outputs["Y"], tensor(&[3, 2], &[3.0; 6]));
    assert_eq!(counted(&server, "ok"), 3);
}

#[tokio::test]
async fn versions_and_outputs_are_chosen() {
    let server = Server::start().await;
    let mut client = client(&server).await;
    let of = |version_choice, filter: &[&str]| {
        let model_spec = ModelSpec { version_choice, ..spec("double") };
        PredictRequest {
            model_spec: Some(model_spec),
            output_filter: filter.iter().map(|&name| name.into()).collect(),
            ..request("double", [1.0, 2.0])
        }
    };
    for version in [None, Some(VersionChoice::Version(0)), Some(VersionChoice::Version(1))] {
        let response = client.predict(of(version.clone(), &["Y"])).await.unwrap().into_inner();
        assert_eq!(response.outputs["Y"].float_val, [2.0, 4.0], "{version:?}");
    }
    let cases = [
        (
            of(Some(VersionChoice::Version(9)), &[]),
            Code::NotFound,
            "'double' version 9 is not found",
        ),
        (
            of(Some(VersionChoice::Version(-3)), &[]),
            Code::InvalidArgument,
            "'model_spec.version' is -3: it must be a version, or 0 for the latest",
        ),
        (
            of(Some(VersionChoice::VersionLabel("stable".into())), &[]),
            Code::NotFound,
            "'double' has no version labelled 'stable'",
        ),
        (
            of(Some(VersionChoice::VersionLabel("-".into())), &[]),
            Code::InvalidArgument,
            "'model_spec.version_label': '-' is not a model version",
        ),
        (of(None, &["Z"]), Code::InvalidArgument, "unknown output 'Z'; the model gives 'Y'"),
        (of(None, &["Y", "Y"]), Code::InvalidArgument, "output 'Y' is requested twice"),
        (of(None, &[""]), Code::InvalidArgument, "'output_filter' must not be empty"),
    ];
    for (message, code, text) in cases {
        let status = client.predict(message).await.unwrap_err();
        assert_eq!(status.code(), code, "{status}");
        assert!(status.message().contains(text), "{status}");
    }
}

#[tokio::test]
async fn every_failure_has_its_code_and_says_why() {
    let server = Server::start().await;
    let mut client = client(&server).await;
    let with = |change: fn(&mut PredictRequest)| {
        let mut message = request("double", [0.0; 2]);
        change(&mut message);
        message
    };
    let cases = [
        (PredictRequest::default(), Code::InvalidArgument, "'model_spec' names no model"),
        (
            with(|message| message.model_spec.as_mut().unwrap().signature_name = "train".into()),
            Code::InvalidArgument,
            "'model_spec.signature_name' is 'train': every model has the signature \
             'serving_default' alone",
        ),
        (
            request("nobody", [0.0; 2]),
            Code::NotFound,
            "Request for unknown model: 'nobody' is not found",
        ),
        (
            request("damaged", [0.0; 2]),
            Code::Unavailable,
            "model 'damaged' is not ready: failed to load: its file is <damaged>",
        ),
        (with(|message| message.inputs.clear()), Code::InvalidArgument, "missing input 'X'"),
        (
            with(|message| {
                message.inputs.insert("Z".into(), tensor(&[1, 2], &[0.0]));
            }),
            Code::InvalidArgument,
            "unknown input 'Z'; the model takes 'X'",
        ),
        (
            with(|message| message.inputs.get_mut("X").unwrap().dtype = 8),
            Code::InvalidArgument,
            "input 'X' has the dtype 8, which no model here takes",
        ),
        (
            request("failing", [0.0; 2]),
            Code::Internal,
            "engine 'scripted' failed to run the model: it broke",
        ),
        (
            request("crashing", [0.0; 2]),
            Code::Internal,
            "the engine crashed while running the model",
        ),
    ];
    let total = cases.len();
    for (message, code, text) in cases {
        let status = client.predict(message).await.unwrap_err();
        assert_eq!(status.code(), code, "{status}");
        assert!(status.message().starts_with(text), "{status}");
        assert!(status.metadata().get("x-request-id").is_some(), "{text}");
    }
    assert_eq!(counted(&server, "caller_error") + counted(&server, "server_error"), total);
    assert_eq!(server.counted("caller_error"), 0, "nothing counts for the other contract");
    client.predict(request("double", [1.0, 1.0])).await.expect("the server goes on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queues_ids_and_compression_are_as_elsewhere() {
    let server = Server::start().await;
    let mut first = client(&server).await;
    let held = tokio::spawn(async move { first.predict(request("gated", [1.0; 2])).await });
    server.gate.wait_for_runs(1).await;
    let mut client = client(&server).await;
    let mut waiting = client.clone();
    let waits = tokio::spawn(async move { waiting.predict(request("gated", [3.0; 2])).await });
    wait_for_queue(&server.app, 1).await;
    let mut asked = Request::new(request("gated", [4.0; 2]));
    asked.metadata_mut().insert("x-request-id", "mine".parse().unwrap());
    let status = client.predict(asked).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    assert_eq!(status.metadata().get("retry-after").unwrap(), "1");
    assert_eq!(status.metadata().get("x-request-id").unwrap(), "mine");
    server.gate.open();
    held.await.unwrap().unwrap();
    waits.await.unwrap().unwrap();

    let gzip = CompressionEncoding::Gzip;
    let mut compressing = client.accept_compressed(gzip).send_compressed(gzip);
    let response = compressing.predict(request("double", [1.0, 2.0])).await.unwrap();
    assert_eq!(response.metadata().get("grpc-encoding").unwrap(), "gzip");
    assert_eq!(response.get_ref().outputs["Y"].float_val, [2.0, 4.0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_servers_own_limits_count() {
    let config = GrpcConfig {
        request_timeout: Some(Duration::from_millis(20)),
        max_message_bytes: 1 << 16,
        ..GrpcConfig::default()
    };
    let server = Server::with(config).await;
    let mut client = client(&server).await;
    let status = client.predict(request("gated", [1.0; 2])).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    let mut generous = Request::new(request("gated", [1.0; 2]));
    generous.set_timeout(Duration::from_secs(60));
    let status = client.predict(generous).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    let mut large = request("double", [0.0; 2]);
    large.inputs.insert("X".into(), tensor(&[1 << 14, 2], &vec![0.0; 1 << 15]));
    let status = client.predict(large).await.unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange, "{status}");
}

#[tokio::test]
async fn a_model_is_described() {
    let server = Server::start().await;
    let mut client = client(&server).await;
    let asked = |fields: &[&str]| GetModelMetadataRequest {
        model_spec: Some(spec("double")),
        metadata_field: fields.iter().map(|&field| field.into()).collect(),
    };
    let response = client.get_model_metadata(asked(&["signature_def"])).await.unwrap().into_inner();
    assert_eq!(response.model_spec.unwrap().version_choice, Some(VersionChoice::Version(1)));
    let any = &response.metadata["signature_def"];
    assert_eq!(any.type_url, "type.googleapis.com/tensorflow.serving.SignatureDefMap");
    let definitions = SignatureDefMap::decode(&*any.value).unwrap().signature_def;
    let definition = &definitions["serving_default"];
    assert_eq!(definition.method_name, "tensorflow/serving/predict");
    let input = &definition.inputs["X"];
    assert_eq!(input.dtype(), DataType::DtFloat);
    assert_eq!(input.encoding, Some(tensor_info::Encoding::Name("X:0".into())));
    let sizes: Vec<_> =
        input.tensor_shape.as_ref().unwrap().dim.iter().map(|dim| dim.size).collect();
    assert_eq!(sizes, [-1, 2]);
    assert!(definition.outputs.contains_key("Y"));
    for (fields, text) in [(&[][..], "got none"), (&["signature_def", "graph"], "got 'graph'")] {
        let status = client.get_model_metadata(asked(fields)).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        assert!(status.message().ends_with(text), "{status}");
    }
}

#[tokio::test]
async fn the_states_of_versions_are_told() {
    let server = Server::start().await;
    let mut client = ModelServiceClient::new(server.channel().await);
    let mut status = async |name: &str, version: Option<i64>| {
        let version_choice = version.map(VersionChoice::Version);
        let model_spec = Some(ModelSpec { version_choice, ..spec(name) });
        let answer = client.get_model_status(GetModelStatusRequest { model_spec }).await;
        answer.map(|answer| answer.into_inner().model_version_status)
    };
    let double = status("double", None).await.unwrap();
    assert_eq!((double.len(), double[0].version), (1, 1));
    assert_eq!(double[0].state(), model_version_status::State::Available);
    assert_eq!(double[0].status.as_ref().unwrap().error_code(), error::Code::Ok);
    assert_eq!(status("double", Some(1)).await.unwrap(), double);
    let damaged = status("damaged", None).await.unwrap();
    assert_eq!((damaged[0].version, damaged[0].state()), (3, model_version_status::State::End));
    let told = damaged[0].status.as_ref().unwrap();
    assert_eq!(told.error_code(), error::Code::Unknown);
    assert_eq!(told.error_message, "its file is <damaged>");
    for (name, version) in [("nobody", None), ("double", Some(9))] {
        assert_eq!(status(name, version).await.unwrap_err().code(), Code::NotFound, "{name}");
    }
    assert_eq!(status("", None).await.unwrap_err().code(), Code::InvalidArgument);
    let status = client.handle_reload_config_request(ReloadConfigRequest {}).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    assert!(status.message().contains("RepositoryModelLoad"), "{status}");
}

/// `plain`, of which nothing is known; `classes`, a classifier; `value`, a regression. All answer what
/// they are asked.
fn declared(_: &Arc<Gate>) -> Arc<App> {
    let classes = ClassificationOutput {
        labels: Labels::List(vec!["no".into(), "yes".into()]),
        activation: Activation::None,
        ..ClassificationOutput::default()
    };
    let output = |output| TransformSpec { input: None, output: Some(output) };
    let value = RegressionOutput { scale: 10.0, ..RegressionOutput::default() };
    models::app([
        Model::new("plain", 2, echo).batched(),
        Model::new("classes", 2, echo)
            .batched()
            .transformed(output(OutputTransform::Classification(classes))),
        Model::new("value", 1, echo)
            .batched()
            .transformed(output(OutputTransform::Regression(value))),
    ])
}

fn classification(model: &str, input: Option<Input>) -> ClassificationRequest {
    ClassificationRequest { model_spec: Some(spec(model)), input }
}

#[tokio::test]
async fn examples_are_answered_with_classes() {
    let server = Server::over(declared, GrpcConfig::default()).await;
    let mut client = client(&server).await;
    let asked = classification("classes", examples(&[[0.25, 0.75], [0.5, 0.0]]));
    let response = client.classify(asked).await.unwrap().into_inner();
    assert_eq!(response.model_spec.unwrap().version_choice, Some(VersionChoice::Version(1)));
    let class = |label: &str, score| Class { label: label.into(), score };
    let rows = response.result.unwrap().classifications;
    let rows: Vec<_> = rows.into_iter().map(|row| row.classes).collect();
    let expected = [[class("no", 0.25), class("yes", 0.75)], [class("no", 0.5), class("yes", 0.0)]];
    assert_eq!(rows, expected);

    let context = example(&[("X", &[1.0, 0.0])]);
    let examples = vec![Example::default(), example(&[("X", &[0.0, 0.5])])];
    let list = ExampleListWithContext { examples, context: Some(context) };
    let input = Input { kind: Some(input::Kind::ExampleListWithContext(list)) };
    let response = client.classify(classification("classes", Some(input))).await.unwrap();
    let rows = response.into_inner().result.unwrap().classifications;
    let first: Vec<_> = rows.iter().map(|row| row.classes[0].score).collect();
    assert_eq!(first, [1.0, 0.0], "the context counts where an example has nothing of its own");
    assert_eq!(counted(&server, "ok"), 2);
}

#[tokio::test]
async fn examples_are_answered_with_values_and_in_several_forms() {
    let server = Server::over(declared, GrpcConfig::default()).await;
    let mut client = client(&server).await;
    let examples =
        ExampleList { examples: [1.5, -2.0].map(|value| example(&[("X", &[value])])).to_vec() };
    let input = Some(Input { kind: Some(input::Kind::ExampleList(examples)) });
    let asked = RegressionRequest { model_spec: Some(spec("value")), input: input.clone() };
    let response = client.regress(asked).await.unwrap().into_inner();
    let expected = [15.0, -20.0].map(|value| Regression { value });
    assert_eq!(response.result.unwrap().regressions, expected);

    let task = |model: &str, method: &str| InferenceTask {
        model_spec: Some(spec(model)),
        method_name: format!("tensorflow/serving/{method}"),
    };
    let ask = |tasks: &[InferenceTask]| MultiInferenceRequest {
        tasks: tasks.to_vec(),
        input: input.clone(),
    };
    let twice = ask(&[task("value", "regress"), task("value", "regress")]);
    let results = client.multi_inference(twice).await.unwrap().into_inner().results;
    assert_eq!(results.len(), 2);
    for result in results {
        assert_eq!(result.model_spec.unwrap().name, "value");
        let Some(Written::RegressionResult(written)) = result.result else { panic!("no values") };
        assert_eq!(written.regressions, expected);
    }
    let cases = [
        (ask(&[]), Code::InvalidArgument, "'tasks' is empty"),
        (
            ask(&[task("value", "regress"), task("classes", "classify")]),
            Code::InvalidArgument,
            "'tasks[1]' asks for another model or version than the first task",
        ),
        (
            ask(&[task("value", "predict")]),
            Code::InvalidArgument,
            "'tasks[0].method_name' must be tensorflow/serving/classify or",
        ),
        (
            ask(&[task("value", "regress"), task("value", "classify")]),
            Code::FailedPrecondition,
            "model 'value' is no classifier (its task is regression)",
        ),
    ];
    for (message, code, text) in cases {
        let status = client.multi_inference(message).await.unwrap_err();
        assert_eq!(status.code(), code, "{status}");
        assert!(status.message().starts_with(text), "{status}");
    }
}

#[tokio::test]
async fn examples_that_do_not_fit_are_refused_by_row_and_feature() {
    let server = Server::over(declared, GrpcConfig::default()).await;
    let mut client = client(&server).await;
    let of = |rows: Vec<Example>| {
        let list = ExampleList { examples: rows };
        Some(Input { kind: Some(input::Kind::ExampleList(list)) })
    };
    let sound = || example(&[("X", &[0.0, 1.0])]);
    let cases = [
        (
            "plain",
            examples(&[[0.0; 2]]),
            Code::FailedPrecondition,
            "model 'plain' is no classifier",
        ),
        ("nobody", examples(&[[0.0; 2]]), Code::NotFound, "Request for unknown model"),
        ("classes", None, Code::InvalidArgument, "'input' holds no examples"),
        ("classes", of(vec![]), Code::InvalidArgument, "'input' holds no examples"),
        (
            "classes",
            of(vec![sound(), Example::default()]),
            Code::InvalidArgument,
            "example 1: there is no feature 'X' (FP32)",
        ),
        (
            "classes",
            of(vec![sound(), example(&[("X", &[0.0; 2]), ("Z", &[0.0])])]),
            Code::InvalidArgument,
            "example 1: unknown feature 'Z'; the model takes 'X'",
        ),
        (
            "classes",
            of(vec![sound(), sound(), example(&[("X", &[0.0; 3])])]),
            Code::InvalidArgument,
            "example 2: feature 'X' has 3 values, expected 2",
        ),
    ];
    for (model, input, code, text) in cases {
        let status = client.classify(classification(model, input)).await.unwrap_err();
        assert_eq!(status.code(), code, "{status}");
        assert!(status.message().starts_with(text), "{status}");
    }
    let asked = RegressionRequest { model_spec: Some(spec("classes")), input: of(vec![sound()]) };
    let status = client.regress(asked).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
}
