//! The way of a request through its route: choose a variant, ask it, count, shadow, remember.

use std::sync::Arc;
use std::time::Instant;

use outhaul_types::{
    Deadline, Destination, InferRequest, InferResponse, ModelName, Name, RequestContext,
    VersionChoice,
};

use crate::fallback::Chosen;
use crate::routes::{Choice, Route, Variant};
use crate::{ModelDescription, Router, RouterError};

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
            Choice::Dealt(variant) => {
                let way = Chosen { route: &route, variant };
                self.infer_dealt(way, request, context, started).await
            }
        }
    }

    async fn infer_dealt(
        &self,
        way: Chosen<'_>,
        request: InferRequest,
        context: &RequestContext,
        started: Instant,
    ) -> Result<InferResponse, RouterError> {
        let (route, variant) = (way.route, way.variant());
        let draft = self.draft(route, variant, &request, context);
        let answer = self.infer_chosen(way, request, context, started).await;
        let took = started.elapsed();
        let response = via(answer?, route, variant.name.clone());
        let Some(variant) = answered_by(&response, route, variant) else {
            return Ok(response);
        };
        if route.spec().feedback
            && !context.shadow
            && let Some(tell) = self.on_predicted.get()
        {
            tell(Predicted {
                request_id: context.id.clone(),
                route: route.name().clone(),
                variant: variant.name.clone(),
                answer: response.clone(),
            });
        }
        if let Some(draft) = draft.filter(|_| !is_fallback(&response)) {
            self.shadow(draft, &response, context, took);
        }
        Ok(response)
    }

    /// Returns the route of a request that leaves the version open.
    pub(crate) fn route_of(&self, model: &str, version: &VersionChoice) -> Option<Arc<Route>> {
        match version {
            VersionChoice::Latest => self.routes.load().route(model).map(Arc::clone),
            VersionChoice::Exact(_) | VersionChoice::Label(_) => None,
        }
    }

    /// Describes what a route leads to: the variant with the largest share that can be described, else what answers
    /// in its place.
    pub(crate) async fn describe_route(
        &self,
        route: &Route,
        deadline: Option<Deadline>,
    ) -> Result<Arc<ModelDescription>, RouterError> {
        let mut first_error = None;
        for to in in_turn(route) {
            match self.describe_destination(to, deadline).await {
                Ok(description) => return Ok(description),
                Err(error) => drop(first_error.get_or_insert(error)),
            }
        }
        Err(first_error
            .unwrap_or_else(|| RouterError::UnknownModel { model: route.name().as_str().into() }))
    }

    /// Describes what answers at a destination, whatever routes say of its name.
    pub(crate) async fn describe_destination(
        &self,
        destination: &Destination,
        deadline: Option<Deadline>,
    ) -> Result<Arc<ModelDescription>, RouterError> {
        match destination {
            Destination::Model { name, version } => {
                self.describe_model(name.as_str(), version, deadline).await
            }
            Destination::Remote(url) => Err(RouterError::NotDescribed { url: url.to_string() }),
        }
    }

    /// Returns the route's name where one of its variants would answer.
    pub(crate) fn route_readiness(&self, route: &Route) -> Result<ModelName, RouterError> {
        let mut first_error = None;
        for to in in_turn(route) {
            match self.destination_readiness(to) {
                Ok(()) => return Ok(route.name().clone()),
                Err(error) => drop(first_error.get_or_insert(error)),
            }
        }
        Err(first_error
            .unwrap_or_else(|| RouterError::UnknownModel { model: route.name().as_str().into() }))
    }

    /// Returns why callers of one destination could not be answered by another, as far as both are in memory; `None`
    /// where they could, or nothing is known of one of them.
    pub fn breaks(&self, old: &Destination, new: &Destination) -> Option<String> {
        let (before, after) = (self.in_memory(old)?, self.in_memory(new)?);
        let breaks = before.signature.breaks(&after.signature);
        let told = || format!("'{new}' would break callers of '{old}': {}", breaks.join(", "));
        (!breaks.is_empty()).then(told)
    }

    /// Describes what answers at a destination, if it is in memory.
    pub(crate) fn in_memory(&self, of: &Destination) -> Option<Arc<ModelDescription>> {
        let Destination::Model { name, version } = of else { return None };
        match self.catalog.resolve(name.as_str(), version) {
            Ok(served) => Some(Arc::clone(served.description())),
            Err(_) => self.pipeline_description(name.as_str(), version),
        }
    }

    /// Tells whether a destination would answer now, or once it is loaded for a request. Of a model elsewhere
    /// nothing is known before it is asked.
    ///
    /// # Errors
    ///
    /// Fails with the reason why it would not.
    pub fn destination_readiness(&self, destination: &Destination) -> Result<(), RouterError> {
        match destination {
            Destination::Model { name, version } => {
                self.model_readiness(name.as_str(), version).map(drop)
            }
            Destination::Remote(_) => Ok(()),
        }
    }

    /// Answers a request at one destination, whatever routes say of its name.
    pub(crate) async fn infer_at(
        &self,
        destination: &Destination,
        request: InferRequest,
        context: &RequestContext,
        started: Instant,
    ) -> Result<InferResponse, RouterError> {
        match addressed(request, destination) {
            Ok(request) => self.infer_or_fall(request, context, started).await,
            Err((request, url)) => {
                Box::pin(self.remotes.ask(url, request, context, &self.monitor)).await
            }
        }
    }

    /// The same without what is declared beside the model for when it gives no answer.
    pub(crate) async fn infer_alone(
        &self,
        destination: &Destination,
        request: InferRequest,
        context: &RequestContext,
        started: Instant,
    ) -> Result<InferResponse, RouterError> {
        match addressed(request, destination) {
            Ok(request) => self.infer_model(request, context, started).await,
            Err((request, url)) => {
                Box::pin(self.remotes.ask(url, request, context, &self.monitor)).await
            }
        }
    }
}

/// Puts a destination's model and version into a request; gives it back with the address of one elsewhere.
fn addressed(
    mut request: InferRequest,
    to: &Destination,
) -> Result<InferRequest, (InferRequest, &Name)> {
    match to {
        Destination::Remote(url) => Err((request, url)),
        Destination::Model { name, version } => {
            if request.model != name.as_str() {
                request.model = name.as_str().into();
            }
            request.version = version.clone();
            Ok(request)
        }
    }
}

/// The variant that gave an answer; `None` where no variant did.
fn answered_by<'r>(
    response: &InferResponse,
    route: &'r Route,
    chosen: &'r Variant,
) -> Option<&'r Variant> {
    match response.via.as_ref().and_then(|via| via.fallback.as_ref()) {
        None => Some(chosen),
        Some(fallback) => route.variants().iter().find(|variant| variant.name == *fallback),
    }
}

fn is_fallback(response: &InferResponse) -> bool {
    response.via.as_ref().is_some_and(|via| via.fallback.is_some())
}

/// Where a route's requests may be answered: its variants by falling share, then its fallbacks.
fn in_turn(route: &Route) -> impl Iterator<Item = &Destination> {
    let variants = route.by_share().into_iter().map(|index| &route.variants()[index].to);
    variants.chain(route.spec().fallback.iter().flat_map(|fallback| &fallback.to))
}

/// Notes on an answer which route and variant it came by.
fn via(mut response: InferResponse, route: &Route, variant: Name) -> InferResponse {
    let via = response.via.get_or_insert_default();
    via.route = Some(route.name().as_str().into());
    via.variant = Some(variant);
    response
}
