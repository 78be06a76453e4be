//! gRPC connections: one call on its way at a time on a channel of its own.

use std::sync::Arc;
use std::time::Duration;

use outhaul_protocol::grpc::pb::grpc_inference_service_client::GrpcInferenceServiceClient;
use outhaul_protocol::grpc::pb::{ModelInferRequest, ModelMetadataRequest, ModelMetadataResponse};
use tonic::transport::{Channel, Endpoint};

use super::{Answer, LoadError, Outcome};

/// The largest answer that is taken.
const LARGEST_ANSWER: usize = 256 << 20;

/// A server, and the requests that it is sent in turn.
#[derive(Clone, Debug)]
pub struct GrpcTarget {
    /// Host and port, such as `127.0.0.1:8081`.
    pub address: String,
    /// At least one.
    pub requests: Vec<ModelInferRequest>,
}

pub(super) struct Connection {
    address: String,
    requests: Arc<[ModelInferRequest]>,
    client: GrpcInferenceServiceClient<Channel>,
}

async fn client(address: &str) -> Result<GrpcInferenceServiceClient<Channel>, LoadError> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|_| LoadError::BadPlan(format!("'{address}' is not a host and port")))?
        .connect_timeout(Duration::from_secs(5));
    let channel = endpoint.connect().await.map_err(|source| LoadError::Unreachable {
        address: address.to_owned(),
        source: source.into(),
    })?;
    Ok(GrpcInferenceServiceClient::new(channel).max_decoding_message_size(LARGEST_ANSWER))
}

/// Asks a server what a model takes and gives.
///
/// # Errors
///
/// Fails where there is no answer, or no such model.
pub(super) async fn metadata(
    address: &str,
    model: &str,
) -> Result<ModelMetadataResponse, LoadError> {
    let request = ModelMetadataRequest { name: model.to_owned(), version: String::new() };
    let answer = client(address).await?.model_metadata(request).await;
    answer.map(tonic::Response::into_inner).map_err(|status| LoadError::Refused {
        what: format!("the metadata of '{model}'"),
        status: format!("{:?}", status.code()),
        message: status.message().to_owned(),
    })
}

impl Connection {
    pub(super) async fn open(target: &GrpcTarget) -> Result<Self, LoadError> {
        if target.requests.is_empty() {
            return Err(LoadError::BadPlan("there is no request to send".to_owned()));
        }
        Ok(Connection {
            address: target.address.clone(),
            requests: target.requests.clone().into(),
            client: client(&target.address).await?,
        })
    }

    pub(super) async fn send(&mut self, number: usize) -> Outcome {
        let request = self.requests[number % self.requests.len()].clone();
        match self.client.model_infer(request).await {
            Ok(_) => Outcome::Answered,
            Err(status) if is_broken(&status) => {
                Outcome::Broken("the server closed the connection".to_owned())
            }
            Err(status) => Outcome::Refused(format!("status {:?}", status.code())),
        }
    }

    pub(super) async fn ask(&mut self, number: usize) -> Result<Answer, LoadError> {
        let request = self.requests[number % self.requests.len()].clone();
        match self.client.model_infer(request).await {
            Ok(response) => {
                let response = response.into_inner();
                let outputs: Vec<String> = response
                    .outputs
                    .iter()
                    .map(|output| format!("{} {} {:?}", output.name, output.datatype, output.shape))
                    .collect();
                let body = outputs.join(", ");
                Ok(Answer { status: "Ok".to_owned(), is_ok: !outputs.is_empty(), body })
            }
            Err(status) if is_broken(&status) => Err(LoadError::Broken {
                address: self.address.clone(),
                reason: outhaul_types::error_chain(&status),
            }),
            Err(status) => Ok(Answer {
                status: format!("{:?}", status.code()),
                is_ok: false,
                body: status.message().to_owned(),
            }),
        }
    }
}

/// Whether the transport made this status, rather than the server.
fn is_broken(status: &tonic::Status) -> bool {
    std::error::Error::source(status).is_some()
}
