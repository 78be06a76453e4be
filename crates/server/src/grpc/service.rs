//! The methods of `inference.GRPCInferenceService`.

use std::future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::stream::{self, Stream, StreamExt};
use outhaul_protocol::describe as facts;
use outhaul_protocol::grpc::pb::grpc_inference_service_server::GrpcInferenceService;
use outhaul_protocol::grpc::pb::infer_parameter::ParameterChoice;
use outhaul_protocol::grpc::pb::*;
use outhaul_protocol::grpc::{self, encode_error};
use outhaul_protocol::{LoadRequest, ProtocolError};
use outhaul_router::{ModelDescription, Router, RouterError};
use outhaul_types::{Classify, ErrorKind, VersionChoice};
use tokio_util::sync::CancellationToken;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Request, Response, Status, Streaming};

use super::CONTRACT;
use super::answer::{infer, refuse};
use super::context::{Caller, REQUEST_ID};
use super::dispatch::Arrived;
use crate::App;
use crate::describe::{self, Index, SERVER};

/// Answers the methods.
pub(super) struct Inference {
    pub(super) app: Arc<App>,
    pub(super) max_stream_requests: usize,
    pub(super) request_timeout: Option<Duration>,
    /// Cancelled when the server shuts down: streams end then, after what they have received is
    /// answered.
    pub(super) drain: CancellationToken,
}

impl Inference {
    fn router(&self) -> &Router {
        self.app.router()
    }

    fn caller<T>(&self, request: &Request<T>) -> Result<(Caller, Instant), Status> {
        let arrived = request.extensions().get::<Arrived>();
        let arrived = arrived.map_or_else(Instant::now, |Arrived(instant)| *instant);
        let new_id = || self.app.next_request_id();
        let caller = Caller::read(request.metadata(), arrived, new_id)?;
        Ok((caller, arrived))
    }

    /// Describes a version, which is loaded where that takes a request.
    async fn describe(
        &self,
        name: &str,
        version: &VersionChoice,
        (caller, arrived): (Caller, Instant),
    ) -> Result<Arc<ModelDescription>, Status> {
        let caller = caller.within(self.request_timeout, arrived);
        let described = self.router().describe(name, version, caller.context.deadline).await;
        described.map_err(|error| refuse(&self.app, &error, &caller))
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
        let ready = self.app.is_ready();
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
        let caller = self.caller(&request)?;
        let ModelMetadataRequest { name, version } = request.into_inner();
        let version = version_choice(&version)?;
        let description = self.describe(&name, &version, caller).await?;
        let versions = describe::versions(self.router(), &description, &version);
        Ok(Response::new(grpc::model_metadata(&facts::ModelMetadata {
            name: description.name.as_str(),
            versions: &versions.map_err(told)?,
            platform: &describe::platform(&description),
            signature: &description.signature,
            properties: &describe::properties(&description),
        })))
    }

    async fn model_infer(
        &self,
        request: Request<ModelInferRequest>,
    ) -> Result<Response<ModelInferResponse>, Status> {
        let (caller, arrived) = self.caller(&request)?;
        let caller = caller.within(self.request_timeout, arrived);
        let route = "inference.GRPCInferenceService/ModelInfer";
        match infer(&self.app, request.into_inner(), &caller, route).await {
            Ok(message) => {
                let mut response = Response::new(message);
                if caller.gave_id {
                    name_request(response.metadata_mut(), &caller);
                }
                Ok(response)
            }
            Err(mut status) => {
                name_request(status.metadata_mut(), &caller);
                Err(status)
            }
        }
    }

    type ModelStreamInferStream =
        Pin<Box<dyn Stream<Item = Result<ModelStreamInferResponse, Status>> + Send>>;

    async fn model_stream_infer(
        &self,
        request: Request<Streaming<ModelInferRequest>>,
    ) -> Result<Response<Self::ModelStreamInferStream>, Status> {
        let (caller, _) = self.caller(&request)?;
        let (app, limit) = (Arc::clone(&self.app), self.request_timeout);
        let answers = request
            .into_inner()
            .take_until(self.drain.clone().cancelled_owned())
            .map(move |message| {
                let (app, caller) = (Arc::clone(&app), caller.clone());
                // The caller's deadline is that of the stream, the server's that of each message.
                let caller = caller.within(limit, Instant::now());
                async move {
                    match message {
                        Ok(message) => Ok(answer_in_stream(&app, message, &caller).await),
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
        let caller = self.caller(&request)?;
        let ModelConfigRequest { name, version } = request.into_inner();
        let description = self.describe(&name, &version_choice(&version)?, caller).await?;
        let platform = describe::platform(&description);
        let config = describe::config(&description, &platform);
        Ok(Response::new(grpc::model_config(&config, &describe::properties(&description))))
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
        let (caller, _) = self.caller(&request)?;
        let decoded = grpc::decode_load(request.into_inner());
        let (model, LoadRequest { version }) = decoded.map_err(wrong)?;
        let loaded = self.router().load(&model, version).await;
        loaded.map_err(|error| refuse(&self.app, &error, &caller))?;
        Ok(Response::new(RepositoryModelLoadResponse {}))
    }

    async fn repository_model_unload(
        &self,
        request: Request<RepositoryModelUnloadRequest>,
    ) -> Result<Response<RepositoryModelUnloadResponse>, Status> {
        let (caller, _) = self.caller(&request)?;
        let model = grpc::decode_unload(request.into_inner()).map_err(wrong)?;
        let unloaded = self.router().unload(&model).await;
        unloaded.map_err(|error| refuse(&self.app, &error, &caller))?;
        Ok(Response::new(RepositoryModelUnloadResponse {}))
    }
}

/// Answers one message of a stream. A failure is an answer too: it does not end the stream.
async fn answer_in_stream(
    app: &App,
    message: ModelInferRequest,
    caller: &Caller,
) -> ModelStreamInferResponse {
    let started = Instant::now();
    let (model, id) = (message.model_name.clone(), message.id.clone());
    let route = "inference.GRPCInferenceService/ModelStreamInfer";
    match infer(app, message, caller, route).await {
        Ok(mut response) => {
            // Triton's clients wait for this where a model may answer more than once.
            let last = InferParameter { parameter_choice: Some(ParameterChoice::BoolParam(true)) };
            response.parameters.insert("triton_final_response".to_owned(), last);
            let error_message = String::new();
            ModelStreamInferResponse { error_message, infer_response: Some(response) }
        }
        Err(status) => {
            let code = status.code() as u16;
            app.server_metrics().record_call(CONTRACT, code, started.elapsed(), 0, 0);
            encode_error(model, id, status.message().to_owned())
        }
    }
}

fn name_request(metadata: &mut MetadataMap, caller: &Caller) {
    // An id that came as a header is one; those made here are plain text.
    if let Ok(id) = MetadataValue::try_from(caller.context.id.as_str()) {
        metadata.insert(REQUEST_ID, id);
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
