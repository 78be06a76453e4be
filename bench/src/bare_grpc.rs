//! The reference gRPC server: tonic decodes the same message and answers with a fixed one.

use anyhow::Context;
use outhaul_protocol::grpc::pb;
use outhaul_protocol::grpc::pb::grpc_inference_service_server::{
    GrpcInferenceService, GrpcInferenceServiceServer,
};
use tonic::{Request, Response, Status, Streaming};

type Answered<T> = Result<Response<T>, Status>;

/// One method, one answer, no model.
struct Bare {
    answer: pb::ModelInferResponse,
}

fn absent<T>() -> Answered<T> {
    Err(Status::unimplemented("the reference server only answers ModelInfer"))
}

#[tonic::async_trait]
impl GrpcInferenceService for Bare {
    type ModelStreamInferStream = std::pin::Pin<
        Box<
            dyn tonic::codegen::tokio_stream::Stream<
                    Item = Result<pb::ModelStreamInferResponse, Status>,
                > + Send,
        >,
    >;

    async fn model_infer(
        &self,
        request: Request<pb::ModelInferRequest>,
    ) -> Answered<pb::ModelInferResponse> {
        let request = request.into_inner();
        // A handler that never looked at its request could have the decoding optimised away.
        if request.inputs.is_empty() {
            return Err(Status::invalid_argument("no inputs"));
        }
        Ok(Response::new(self.answer.clone()))
    }

    async fn server_live(
        &self,
        _: Request<pb::ServerLiveRequest>,
    ) -> Answered<pb::ServerLiveResponse> {
        absent()
    }

    async fn server_ready(
        &self,
        _: Request<pb::ServerReadyRequest>,
    ) -> Answered<pb::ServerReadyResponse> {
        absent()
    }

    async fn model_ready(
        &self,
        _: Request<pb::ModelReadyRequest>,
    ) -> Answered<pb::ModelReadyResponse> {
        absent()
    }

    async fn server_metadata(
        &self,
        _: Request<pb::ServerMetadataRequest>,
    ) -> Answered<pb::ServerMetadataResponse> {
        absent()
    }

    async fn model_metadata(
        &self,
        _: Request<pb::ModelMetadataRequest>,
    ) -> Answered<pb::ModelMetadataResponse> {
        absent()
    }

    async fn model_stream_infer(
        &self,
        _: Request<Streaming<pb::ModelInferRequest>>,
    ) -> Answered<Self::ModelStreamInferStream> {
        absent()
    }

    async fn model_config(
        &self,
        _: Request<pb::ModelConfigRequest>,
    ) -> Answered<pb::ModelConfigResponse> {
        absent()
    }

    async fn model_statistics(
        &self,
        _: Request<pb::ModelStatisticsRequest>,
    ) -> Answered<pb::ModelStatisticsResponse> {
        absent()
    }

    async fn repository_index(
        &self,
        _: Request<pb::RepositoryIndexRequest>,
    ) -> Answered<pb::RepositoryIndexResponse> {
        absent()
    }

    async fn repository_model_load(
        &self,
        _: Request<pb::RepositoryModelLoadRequest>,
    ) -> Answered<pb::RepositoryModelLoadResponse> {
        absent()
    }

    async fn repository_model_unload(
        &self,
        _: Request<pb::RepositoryModelUnloadRequest>,
    ) -> Answered<pb::RepositoryModelUnloadResponse> {
        absent()
    }
}

/// Serves the answer that iris gives to every request until the process ends.
pub(crate) async fn serve(address: &str) -> anyhow::Result<()> {
    let output =
        |name: &str, datatype: &str, shape: Vec<i64>| pb::model_infer_response::InferOutputTensor {
            name: name.to_owned(),
            datatype: datatype.to_owned(),
            shape,
            ..Default::default()
        };
    let answer = pb::ModelInferResponse {
        model_name: "iris".to_owned(),
        model_version: "1".to_owned(),
        outputs: vec![
            output("label", "INT64", vec![1]),
            output("probabilities", "FP32", vec![1, 3]),
        ],
        raw_output_contents: vec![vec![0; 8].into(), vec![0; 12].into()],
        ..Default::default()
    };
    tonic::transport::Server::builder()
        .tcp_nodelay(true)
        .add_service(GrpcInferenceServiceServer::new(Bare { answer }))
        .serve(address.parse().context("not an address")?)
        .await
        .context("the bare server stopped")
}
