//! The gRPC health protocol, answered from the router's own state, so that it cannot fall behind it.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, Stream};
use outhaul_protocol::grpc::pb::grpc_inference_service_server as inference;
use outhaul_protocol::tensorflow_grpc::pb::serving::{
    model_service_server as models, prediction_service_server as prediction,
};
use outhaul_types::{Classify, ErrorKind, VersionChoice};
use tokio::time::{Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::Health;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::App;

/// How often a watched state is looked at. Models change state seldom, and nobody watches closely.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Answers `Check` and `Watch`. The names that have a state are `""` (the server as a whole), the
/// services of predictions, and every model.
#[derive(Clone)]
pub(super) struct HealthService {
    pub(super) app: Arc<App>,
    pub(super) drain: CancellationToken,
}

impl HealthService {
    /// Returns the state of a name, or `None` where it has none.
    fn state(&self, name: &str) -> Option<ServingStatus> {
        let serving = match name {
            "" | inference::SERVICE_NAME | prediction::SERVICE_NAME | models::SERVICE_NAME => {
                self.app.is_ready()
            }
            model => match self.app.router().readiness(model, &VersionChoice::Latest) {
                Ok(_) => true,
                Err(error) if error.kind() == ErrorKind::NotFound => return None,
                Err(_) => false,
            },
        };
        let serving = serving && !self.app.is_draining();
        Some(if serving { ServingStatus::Serving } else { ServingStatus::NotServing })
    }
}

#[tonic::async_trait]
impl Health for HealthService {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        match self.state(&request.into_inner().service) {
            Some(status) => Ok(Response::new(HealthCheckResponse { status: status as i32 })),
            None => Err(Status::not_found("no service or model of this name")),
        }
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let name = request.into_inner().service;
        let watch = Watch { health: self.clone(), name, ticks, last: None, ended: false };
        Ok(Response::new(Box::pin(stream::unfold(watch, Watch::next))))
    }
}

/// One client that watches one name.
struct Watch {
    health: HealthService,
    name: String,
    ticks: Interval,
    last: Option<ServingStatus>,
    ended: bool,
}

impl Watch {
    /// Waits for a state that differs from the last one told. A shutdown is told at once and ends the
    /// stream, which would otherwise keep its connection open.
    async fn next(mut self) -> Option<(Result<HealthCheckResponse, Status>, Self)> {
        if self.ended {
            return None;
        }
        loop {
            tokio::select! {
                () = self.health.drain.cancelled() => self.ended = true,
                _ = self.ticks.tick() => {}
            }
            let status = self.health.state(&self.name).unwrap_or(ServingStatus::ServiceUnknown);
            if self.ended || self.last != Some(status) {
                self.last = Some(status);
                return Some((Ok(HealthCheckResponse { status: status as i32 }), self));
            }
        }
    }
}
