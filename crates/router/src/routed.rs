//! The way of a request through its route: choose a variant, ask it, count, shadow, remember.

use std::sync::Arc;
use std::time::Instant;

use outhaul_types::{
    Classify, Destination, InferRequest, InferResponse, ModelName, Name, RequestContext,
};

use crate::routes::{Choice, Route};
use crate::{Router, RouterError};

/// A prediction that a route with `feedback` made, so that an outcome can be joined to it.
#[derive(Clone, Debug)]
pub struct Predicted {
    /// The request's id, as logs and the answer carry it.
    pub request_id: Name,
    /// The route.
    pub route: ModelName,
    /// The variant that answered.
    pub variant: Name,
    /// The answer, for whoever wants to know what was predicted. A clone shares its tensors.
    pub answer: InferResponse,
}

/// Who is told of predictions on routes with `feedback`. Called on the request's path: it must not wait.
pub type OnPredicted = Box<dyn Fn(Predicted) + Send + Sync>;

impl Router {
    /// Answers a request to a route.
    pub(crate) async fn infer_routed(
        &self,
        route: Arc<Route>,
        request: InferRequest,
        context: &RequestContext,
        started: Instant,
    ) -> Result<InferResponse, RouterError> {
        match route.choose(&request, context)? {
            Choice::Fixed(destination) => {
                let answer = self.infer_at(destination, request, context, started).await;
                answer.map(|response| via(response, &route, destination.to_string().into()))
            }
            Choice::Dealt(chosen) => {
                self.infer_dealt(&route, chosen, request, context, started).await
            }
        }
    }

    #[allow(clippy::too_many_arguments, reason = "five and self; a struct would only rename them")]
    async fn infer_dealt(
        &self,
        route: &Arc<Route>,
        chosen: usize,
        request: InferRequest,
        context: &RequestContext,
        started: Instant,
    ) -> Result<InferResponse, RouterError> {
        let variant = &route.variants()[chosen];
        let answer = self.infer_at(&variant.to, request, context, started).await;
        let outcome = answer.as_ref().map(drop).map_err(Classify::kind);
        variant.metrics.record(outcome, started.elapsed());
        let response = via(answer?, route, variant.name.clone());
        if route.spec().feedback
            && let Some(tell) = self.on_predicted.get()
        {
            tell(Predicted {
                request_id: context.id.clone(),
                route: route.name().clone(),
                variant: variant.name.clone(),
                answer: response.clone(),
            });
        }
        Ok(response)
    }

    /// Answers a request at one destination, whatever routes say of its name.
    pub(crate) async fn infer_at(
        &self,
        destination: &Destination,
        mut request: InferRequest,
        context: &RequestContext,
        started: Instant,
    ) -> Result<InferResponse, RouterError> {
        match destination {
            Destination::Model { name, version } => {
                if request.model != name.as_str() {
                    request.model = name.as_str().into();
                }
                request.version = version.clone();
                self.infer_model(request, context, started).await
            }
            Destination::Remote(url) => Err(RouterError::NoRemotes { url: url.to_string() }),
        }
    }
}

/// Notes on an answer which route and variant it came by.
fn via(mut response: InferResponse, route: &Route, variant: Name) -> InferResponse {
    let via = response.via.get_or_insert_default();
    via.route = Some(route.name().as_str().into());
    via.variant = Some(variant);
    response
}
