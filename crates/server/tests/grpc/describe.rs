//! Questions about the server and its models; health and reflection.

use outhaul_protocol::grpc::pb::model_config::SchedulingChoice;
use outhaul_protocol::grpc::pb::*;
use tokio_stream::StreamExt;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};

use crate::fixture::{Server, request};

#[tokio::test]
async fn the_server_names_itself() {
    let server = Server::start().await;
    let mut client = server.client().await;
    assert!(client.server_live(ServerLiveRequest {}).await.unwrap().get_ref().live);
    assert!(client.server_ready(ServerReadyRequest {}).await.unwrap().get_ref().ready);
    let metadata = client.server_metadata(ServerMetadataRequest {}).await.unwrap().into_inner();
    assert_eq!(metadata.name, "outhaul");
    assert_eq!(metadata.version, env!("CARGO_PKG_VERSION"));
    assert!(metadata.extensions.contains(&"statistics".to_owned()), "{:?}", metadata.extensions);
}

#[tokio::test]
async fn a_model_is_ready_or_not() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let cases = [
        ("double", "", Ok(true)),
        ("double", "1", Ok(true)),
        ("double", "0", Ok(true)),
        ("double", "2", Ok(false)),
        ("damaged", "", Ok(false)),
        ("nobody", "", Ok(false)),
        ("double", "stable", Ok(false)),
        ("double", "1st", Err(Code::InvalidArgument)),
    ];
    for (name, version, expected) in cases {
        let asked = ModelReadyRequest { name: name.into(), version: version.into() };
        let ready = client.model_ready(asked).await;
        let ready = ready.map(|ready| ready.get_ref().ready).map_err(|status| status.code());
        assert_eq!(ready, expected, "{name} {version}");
    }
}

#[tokio::test]
async fn a_model_is_described() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let asked = ModelMetadataRequest { name: "double".into(), ..Default::default() };
    let metadata = client.model_metadata(asked).await.unwrap().into_inner();
    assert_eq!((metadata.name.as_str(), metadata.platform.as_str()), ("double", "scripted_onnx"));
    assert_eq!(metadata.versions, ["1"]);
    assert_eq!((metadata.inputs[0].name.as_str(), metadata.outputs[0].name.as_str()), ("X", "Y"));
    assert_eq!(metadata.inputs[0].datatype, "FP32");
    assert_eq!(metadata.inputs[0].shape, [-1, 2]);
    let unknown = ModelMetadataRequest { name: "nobody".into(), ..Default::default() };
    let status = client.model_metadata(unknown).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    assert!(status.message().starts_with("Request for unknown model"), "{}", status.message());
}

#[tokio::test]
async fn a_configuration_leaves_the_batch_out_of_the_dimensions() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let mut config = async |name: &str| {
        let asked = ModelConfigRequest { name: name.into(), ..Default::default() };
        client.model_config(asked).await.unwrap().into_inner().config.unwrap()
    };
    let batched = config("double").await;
    assert_eq!(batched.max_batch_size, 32);
    assert_eq!(batched.input[0].dims, [2]);
    assert_eq!(batched.input[0].data_type(), DataType::TypeFp32);
    assert!(matches!(batched.scheduling_choice, Some(SchedulingChoice::DynamicBatching(_))));
    assert_eq!(batched.instance_group[0].count, 2);
    assert_eq!(batched.instance_group[0].kind(), model_instance_group::Kind::Cpu);
    assert_eq!(
        (batched.backend.as_str(), batched.platform.as_str()),
        ("scripted", "scripted_onnx")
    );
    assert_eq!(batched.parameters["batching"].string_value, "exact");
    assert!(!batched.parameters.contains_key("batching_reason"), "there is none");
    let single = config("words").await;
    assert_eq!(single.max_batch_size, 0);
    assert_eq!(single.input[0].dims, [-1, 2]);
    assert_eq!(single.input[0].data_type(), DataType::TypeString);
    assert_eq!(single.scheduling_choice, None);
    assert_eq!(single.parameters["batching"].string_value, "off");
    assert_eq!(single.parameters["batching_reason"].string_value, "it is a <script>");
}

#[tokio::test]
async fn what_a_model_did_is_counted() {
    let server = Server::start().await;
    let mut client = server.client().await;
    for _ in 0..3 {
        client.model_infer(request("double", [1.0; 2])).await.unwrap();
    }
    client.model_infer(request("failing", [1.0; 2])).await.unwrap_err();
    let mut ask = async |name: &str| {
        let asked = ModelStatisticsRequest { name: name.into(), ..Default::default() };
        client.model_statistics(asked).await.map(|answer| answer.into_inner().model_stats)
    };
    let double = ask("double").await.unwrap();
    assert_eq!(double.len(), 1);
    assert_eq!((double[0].name.as_str(), double[0].version.as_str()), ("double", "1"));
    assert_eq!((double[0].inference_count, double[0].execution_count), (3, 3));
    let stats = double[0].inference_stats.unwrap();
    assert_eq!(stats.success.unwrap().count, 3);
    assert_eq!(stats.fail.unwrap().count, 0);
    assert_eq!(double[0].batch_stats[0].batch_size, 1);
    let failing = ask("failing").await.unwrap();
    assert_eq!(failing[0].inference_stats.unwrap().fail.unwrap().count, 1);
    let all = ask("").await.unwrap();
    assert_eq!(all.len(), 5, "every model that is ready");
    assert_eq!(ask("nobody").await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn the_index_lists_what_is_there() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let mut index = async |repository_name: &str, ready| {
        let asked = RepositoryIndexRequest { repository_name: repository_name.into(), ready };
        client.repository_index(asked).await.map(|answer| answer.into_inner().models)
    };
    let all = index("", false).await.unwrap();
    let names: Vec<_> = all.iter().map(|entry| entry.name.as_str()).collect();
    assert_eq!(names, ["crashing", "damaged", "double", "failing", "gated", "words"]);
    assert_eq!((all[1].state.as_str(), all[1].version.as_str()), ("UNAVAILABLE", "3"));
    assert_eq!(all[1].reason, "its file is <damaged>");
    assert_eq!((all[2].state.as_str(), all[2].reason.as_str()), ("READY", ""));
    assert_eq!(index("", true).await.unwrap().len(), 5);
    assert_eq!(index("other", false).await.unwrap_err().code(), Code::InvalidArgument);
    let load = RepositoryModelLoadRequest { model_name: "double".into(), ..Default::default() };
    let status = client.repository_model_load(load).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented, "this server has no repository");
}

#[tokio::test]
async fn health_is_that_of_the_models() {
    let mut server = Server::start().await;
    let mut health = HealthClient::new(server.channel().await);
    let named = |service: &str| HealthCheckRequest { service: service.into() };
    let cases = [
        ("", Ok(ServingStatus::Serving)),
        ("inference.GRPCInferenceService", Ok(ServingStatus::Serving)),
        ("tensorflow.serving.PredictionService", Ok(ServingStatus::Serving)),
        ("tensorflow.serving.ModelService", Ok(ServingStatus::Serving)),
        ("double", Ok(ServingStatus::Serving)),
        ("damaged", Ok(ServingStatus::NotServing)),
        ("nobody", Err(Code::NotFound)),
    ];
    for (name, expected) in cases {
        let state = health.check(named(name)).await;
        let state = state.map(|state| state.get_ref().status()).map_err(|status| status.code());
        assert_eq!(state, expected, "{name}");
    }
    let mut unknown = health.watch(named("nobody")).await.unwrap().into_inner();
    let state = unknown.message().await.unwrap().unwrap();
    assert_eq!(state.status(), ServingStatus::ServiceUnknown);
    let mut watch = health.watch(named("")).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    server.shut_down();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    assert!(watch.message().await.unwrap().is_none());
    assert_eq!(server.ended().await, Ok(()), "a watch does not hold the shutdown up");
}

#[tokio::test]
async fn the_services_describe_themselves() {
    let server = Server::start().await;
    let mut client = ServerReflectionClient::new(server.channel().await);
    let questions = [
        MessageRequest::ListServices(String::new()),
        MessageRequest::FileContainingSymbol("inference.ModelInferRequest".into()),
        MessageRequest::FileContainingSymbol("tensorflow.serving.PredictRequest".into()),
        MessageRequest::FileContainingSymbol("tensorflow.TensorProto".into()),
    ];
    let questions = questions.map(|question| ServerReflectionRequest {
        host: String::new(),
        message_request: Some(question),
    });
    let answers = client.server_reflection_info(tokio_stream::iter(questions)).await.unwrap();
    let answers: Vec<ServerReflectionResponse> =
        answers.into_inner().collect::<Result<_, _>>().await.unwrap();
    let Some(MessageResponse::ListServicesResponse(services)) = &answers[0].message_response else {
        panic!("{answers:?}");
    };
    let names: Vec<_> = services.service.iter().map(|service| service.name.as_str()).collect();
    for name in [
        "inference.GRPCInferenceService",
        "tensorflow.serving.PredictionService",
        "tensorflow.serving.ModelService",
        "grpc.health.v1.Health",
    ] {
        assert!(names.contains(&name), "{names:?}");
    }
    assert_eq!(answers.len(), 4);
    for answer in &answers[1..] {
        assert!(matches!(
            &answer.message_response,
            Some(MessageResponse::FileDescriptorResponse(files)) if !files.file_descriptor_proto.is_empty()
        ));
    }
}
