//! The repository extension: loading and unloading by call, and versions by their labels.

use outhaul_protocol::grpc::pb::model_repository_parameter::ParameterChoice;
use outhaul_protocol::grpc::pb::repository_index_response::ModelIndex;
use outhaul_protocol::grpc::pb::*;
use outhaul_server::grpc::GrpcConfig;
use tonic::Code;

use crate::fixture::{Client, Server, request};
use crate::shelf;

fn load(model: &str, parameters: &[(&str, ParameterChoice)]) -> RepositoryModelLoadRequest {
    let parameter = |(name, choice): &(&str, ParameterChoice)| {
        let parameter_choice = Some(choice.clone());
        ((*name).to_owned(), ModelRepositoryParameter { parameter_choice })
    };
    RepositoryModelLoadRequest {
        model_name: model.into(),
        parameters: parameters.iter().map(parameter).collect(),
        ..Default::default()
    }
}

fn unload(model: &str) -> RepositoryModelUnloadRequest {
    RepositoryModelUnloadRequest { model_name: model.into(), ..Default::default() }
}

async fn indexed(client: &mut Client, name: &str, version: &str) -> ModelIndex {
    let index = client.repository_index(RepositoryIndexRequest::default()).await.unwrap();
    let mut lines = index.into_inner().models.into_iter();
    lines.find(|line| line.name == name && line.version == version).unwrap()
}

async fn version_of(client: &mut Client, version: &str) -> Result<String, Code> {
    let mut message = request("echo", [1.0; 2]);
    message.model_version = version.into();
    message.inputs[0].shape = vec![1, 4];
    message.raw_input_contents = vec![vec![0; 16].into()];
    let answer = client.model_infer(message).await;
    answer.map(|answer| answer.into_inner().model_version).map_err(|status| status.code())
}

#[tokio::test]
async fn a_model_is_loaded_called_by_its_label_and_unloaded() {
    let server = Server::over(shelf::app, GrpcConfig::default()).await;
    let mut client = server.client().await;
    assert!(version_of(&mut client, "").await.is_err());
    client.repository_model_load(load("echo", &[])).await.unwrap();
    for (version, expected) in [
        ("", Ok("2")),
        ("stable", Ok("1")),
        ("2", Ok("2")),
        ("canary", Err(Code::NotFound)),
        ("1st", Err(Code::InvalidArgument)),
    ] {
        let found = version_of(&mut client, version).await;
        assert_eq!(found, expected.map(str::to_owned), "{version}");
    }
    let asked = ModelMetadataRequest { name: "echo".into(), version: "stable".into() };
    let metadata = client.model_metadata(asked).await.unwrap().into_inner();
    assert_eq!(metadata.versions, ["1"]);
    assert_eq!(indexed(&mut client, "echo", "2").await.state, "READY");
    client.repository_model_unload(unload("echo")).await.unwrap();
    assert!(version_of(&mut client, "").await.is_err());
    let line = indexed(&mut client, "echo", "2").await;
    assert_eq!((line.state.as_str(), line.reason.as_str()), ("UNAVAILABLE", "unloaded"));
    let asked = ModelReadyRequest { name: "echo".into(), version: String::new() };
    assert!(!client.model_ready(asked).await.unwrap().get_ref().ready);
}

#[tokio::test]
async fn what_cannot_be_done_is_told() {
    use ParameterChoice::{Int64Param, StringParam};
    let server = Server::over(shelf::app, GrpcConfig::default()).await;
    let mut client = server.client().await;
    let text = |text: &str| StringParam(text.into());
    for (message, code, said) in [
        (load("nobody", &[]), Code::NotFound, "'nobody' is not found"),
        (load("", &[]), Code::InvalidArgument, "'model_name' must not be empty"),
        (load("damaged", &[]), Code::FailedPrecondition, "its file is <damaged>"),
        (load("echo", &[("version", Int64Param(9))]), Code::NotFound, "version 9"),
        (load("echo", &[("config", text("{}"))]), Code::Unimplemented, "'config' of a load"),
        (load("echo", &[("file:1/m", text("x"))]), Code::Unimplemented, "'file:1/m' of a load"),
    ] {
        let status = client.repository_model_load(message).await.unwrap_err();
        assert_eq!(status.code(), code, "{status}");
        assert!(status.message().contains(said), "{status}");
    }
    let status = client.repository_model_unload(unload("nobody")).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound, "{status}");
    client.repository_model_load(load("echo", &[("version", text("1"))])).await.unwrap();
    assert_eq!(indexed(&mut client, "echo", "1").await.state, "READY");
}
