//! The methods of `inference.GRPCInferenceService`.

use std::future;
use std::pin::Pin;
use std::time::Instant;

use futures_util::stream::{self, Stream, StreamExt};
use outhaul_protocol::describe as facts;
use outhaul_protocol::grpc::pb::grpc_inference_service_server::GrpcInferenceService;
use outhaul_protocol::grpc::pb::infer_parameter::ParameterChoice;
use outhaul_protocol::grpc::pb::*;
use outhaul_protocol::grpc::{self, encode_error};
use outhaul_protocol::{LoadRequest, ProtocolError};
use outhaul_router::{Router, RouterError};
use outhaul_types::{Classify, ErrorKind, VersionChoice};
use prost::Message;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::answer::{Answer, Asked, Base, named};
use super::context::Caller;
use crate::answered::Answered;
use crate::describe::{self, Index, SERVER};

/// Answers the methods.
#[derive(Clone)]
pub(super) struct Inference {
    pub(super) base: Base,
    pub(super) max_stream_requests: usize,
    /// Cancelled when the server shuts down: streams end then, after what they have received is
    /// answered.
    pub(super) drain: CancellationToken,
}

impl Inference {
    fn router(&self) -> &Router {
        self.base.app.router()
    }

    /// Answers one message. `route` names the span.
    async fn infer(
        &self,
        message: ModelInferRequest,
        caller: &Caller,
        route: &'static str,
    ) -> Result<Answer<ModelInferResponse>, Status> {
        let request_bytes = message.encoded_len();
        // Kept only where it will be told.
        let model = match Answered::is_wanted(&self.base.app) {
            true => message.model_name.clone(),
            false => String::new(),
        };
        let asked = Asked { route, model: &model, request_bytes };
        let prediction = async {
            let request = grpc::decode_infer(message, &self.base.app.config().decode_limits)
                .map_err(|error| self.base.refuse(&error, caller))?;
            let response = self.router().infer(request, &caller.context).await;
            let response = response.map_err(|error| self.base.refuse(&error, caller))?;
            let told = Answer::of(&response, ());
            Ok(told.with(grpc::encode_infer(response)))
        };
        self.base.tell(asked, caller, prediction).await
    }

    /// Answers one message of a stream. A failure is an answer too: it does not end the stream.
    async fn infer_in_stream(
        &self,
        message: ModelInferRequest,
        caller: &Caller,
    ) -> ModelStreamInferResponse {
        let started = Instant::now();
        let (model, id) = (message.model_name.clone(), message.id.clone());
        let route = "inference.GRPCInferenceService/ModelStreamInfer";
        match self.infer(message, caller, route).await {
            Ok(Answer { message: mut response, .. }) => {
                // Triton's clients wait for this where a model may answer more than once.
                let last =
                    InferParameter { parameter_choice: Some(ParameterChoice::BoolParam(true)) };
                response.parameters.insert("triton_final_response".to_owned(), last);
                let error_message = String::new();
                ModelStreamInferResponse { error_message, infer_response: Some(response) }
            }
            Err(status) => {
                let code = status.code() as u16;
                let metrics = self.base.app.server_metrics();
                metrics.record_call(self.base.contract, code, started.elapsed(), 0, 0);
                encode_error(model, id, status.message().to_owned())
            }
        }
    }
}

#[tonic::async_trait]
impl GrpcInferenceService for Inference {
    async fn server_live(
        &self,
        _: Request<ServerLiveRequest>,
    ) -> Result<Response<ServerLiveResponse>, Status> {
        Ok(Response::new(ServerLiveResponse { live: true }))
    }

    async fn server_ready(
        &self,
        _: Request<ServerReadyRequest>,
    ) -> Result<Response<ServerReadyResponse>, Status> {
        let ready = self.base.app.is_ready();
        Ok(Response::new(ServerReadyResponse { ready }))
    }

    async fn model_ready(
        &self,
        request: Request<ModelReadyRequest>,
    ) -> Result<Response<ModelReadyResponse>, Status> {
        let ModelReadyRequest { name, version } = request.into_inner();
        let ready = match self.router().readiness(&name, &version_choice(&version)?) {
            Ok(_) => true,
            Err(error) => match error.kind() {
                ErrorKind::NotFound | ErrorKind::NotReady => false,
                _ => return Err(told(error)),
            },
        };
        Ok(Response::new(ModelReadyResponse { ready }))
    }

    async fn server_metadata(
        &self,
        _: Request<ServerMetadataRequest>,
    ) -> Result<Response<ServerMetadataResponse>, Status> {
        Ok(Response::new(grpc::server_metadata(&SERVER)))
    }

    async fn model_metadata(
        &self,
        request: Request<ModelMetadataRequest>,
    ) -> Result<Response<ModelMetadataResponse>, Status> {
        let caller = self.base.limited_caller(&request)?;
        let ModelMetadataRequest { name, version } = request.into_inner();
        let version = version_choice(&version)?;
        let description = self.base.describe(&name, &version, &caller).await?;
        let versions = describe::versions(self.router(), &description, &version);
        Ok(Response::new(grpc::model_metadata(&facts::ModelMetadata {
            name: description.name.as_str(),
            versions: &versions.map_err(told)?,
            platform: &describe::platform(&description),
            signature: &description.signature,
            properties: &describe::properties(&description),
            interface: &description.interface,
        })))
    }

    async fn model_infer(
        &self,
        request: Request<ModelInferRequest>,
    ) -> Result<Response<ModelInferResponse>, Status> {
        let caller = self.base.limited_caller(&request)?;
        let route = "inference.GRPCInferenceService/ModelInfer";
        named(self.infer(request.into_inner(), &caller, route).await, &caller)
    }

    type ModelStreamInferStream =
        Pin<Box<dyn Stream<Item = Result<ModelStreamInferResponse, Status>> + Send>>;

    async fn model_stream_infer(
        &self,
        request: Request<Streaming<ModelInferRequest>>,
    ) -> Result<Response<Self::ModelStreamInferStream>, Status> {
        let (caller, _) = self.base.caller(&request)?;
        let service = self.clone();
        let answers = request
            .into_inner()
            .take_until(self.drain.clone().cancelled_owned())
            .map(move |message| {
                let (service, caller) = (service.clone(), caller.clone());
                // The caller's deadline is that of the stream, the server's that of each message.
                let mut caller = caller.within(service.base.request_timeout, Instant::now());
                // Outcomes are joined to messages by their own ids, where they have any.
                if let Ok(message) = &message
                    && !message.id.is_empty()
                {
                    caller.context.id = message.id.as_str().into();
                }
                async move {
                    match message {
                        Ok(message) => Ok(service.infer_in_stream(message, &caller).await),
                        // The stream is broken; tonic ends it here.
                        Err(status) => Err(status),
                    }
                }
            })
            .buffered(self.max_stream_requests);
        let drain = self.drain.clone();
        let farewell = stream::once(async move {
            drain.is_cancelled().then(|| Err(Status::unavailable("the server is shutting down")))
        });
        let answers = answers.chain(farewell.filter_map(future::ready));
        Ok(Response::new(Box::pin(answers)))
    }

    async fn model_config(
        &self,
        request: Request<ModelConfigRequest>,
    ) -> Result<Response<ModelConfigResponse>, Status> {
        let caller = self.base.limited_caller(&request)?;
        let ModelConfigRequest { name, version } = request.into_inner();
        let version = version_choice(&version)?;
        let description = self.base.describe(&name, &version, &caller).await?;
        let platform = describe::platform(&description);
        let config = describe::config(&description, &platform);
        let inner = describe::inner_tensors(&description);
        let mut properties = describe::properties(&description);
        properties.extend(inner.iter().map(|(name, tensors)| (*name, tensors.as_str())));
        Ok(Response::new(grpc::model_config(&config, &properties)))
    }

    async fn model_statistics(
        &self,
        request: Request<ModelStatisticsRequest>,
    ) -> Result<Response<ModelStatisticsResponse>, Status> {
        let ModelStatisticsRequest { name, version } = request.into_inner();
        let model = (!name.is_empty()).then_some(name.as_str());
        let numbers = self.router().statistics(model, &version_choice(&version)?).map_err(told)?;
        let statistics = numbers
            .iter()
            .map(|(name, version, numbers)| describe::statistics(name, *version, numbers));
        Ok(Response::new(grpc::model_statistics(statistics)))
    }

    async fn repository_index(
        &self,
        request: Request<RepositoryIndexRequest>,
    ) -> Result<Response<RepositoryIndexResponse>, Status> {
        let RepositoryIndexRequest { repository_name, ready } = request.into_inner();
        if !repository_name.is_empty() {
            return Err(wrong(grpc::one_repository(&repository_name)));
        }
        let index = Index::of(self.router(), ready);
        Ok(Response::new(grpc::repository_index(index.entries())))
    }

    /// Takes as long as it takes: the server's own limits do not cut it, and a caller that leaves does
    /// not end the load.
    async fn repository_model_load(
        &self,
        request: Request<RepositoryModelLoadRequest>,
    ) -> Result<Response<RepositoryModelLoadResponse>, Status> {
        let (caller, _) = self.base.caller(&request)?;
        let decoded = grpc::decode_load(request.into_inner());
        let (model, LoadRequest { version }) = decoded.map_err(wrong)?;
        let loaded = self.router().load(&model, version).await;
        loaded.map_err(|error| self.base.refuse(&error, &caller))?;
        Ok(Response::new(RepositoryModelLoadResponse {}))
    }

    async fn repository_model_unload(
        &self,
        request: Request<RepositoryModelUnloadRequest>,
    ) -> Result<Response<RepositoryModelUnloadResponse>, Status> {
        let (caller, _) = self.base.caller(&request)?;
        let model = grpc::decode_unload(request.into_inner()).map_err(wrong)?;
        let unloaded = self.router().unload(&model).await;
        unloaded.map_err(|error| self.base.refuse(&error, &caller))?;
        Ok(Response::new(RepositoryModelUnloadResponse {}))
    }
}

fn version_choice(version: &str) -> Result<VersionChoice, Status> {
    version
        .parse()
        .map_err(|error: outhaul_types::InvalidVersion| Status::invalid_argument(error.to_string()))
}

fn told(error: RouterError) -> Status {
    grpc::status(&error, None)
}

fn wrong(error: ProtocolError) -> Status {
    grpc::status(&error, None)
}
