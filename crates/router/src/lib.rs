//! The server without sockets: from a request to the version that answers it.
//!
//! [`Router::infer`] is the one door for every caller: the HTTP and gRPC servers, the commands, batch
//! jobs, tests, and other people's programs. It resolves the version in one immutable snapshot, checks
//! the request against that version's signature, hands it to the version's queue, and selects and
//! names the outputs.
//!
//! Invariant: what the caller did wrong is found here, before anything is queued, and said precisely;
//! a request that was let in is answered by exactly one version, which the answer names.
//!
//! Bytes and sockets are not known here, nor are engines: see `protocol`, `server` and `engine`.

mod cached;
mod callers;
mod circuit;
mod classify;
mod declared;
mod default_answer;
mod describe;
mod error;
mod fallback;
mod infer;
mod look;
mod pipeline;
mod preparing;
mod remote;
mod routed;
mod routes;
mod served;
mod shadow;
mod transformed;
mod warmup;

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock, Weak};

use arc_swap::ArcSwap;
use outhaul_monitor::Monitor;
use outhaul_repository::{Catalog, Handle, Resident};
use outhaul_scheduler::Arriving;

pub use cached::CacheSupport;
pub use callers::{ANONYMOUS, Callers, MOST_UNNAMED, Terms};
pub use declared::{Declared, DeclaredError};
pub use default_answer::{DefaultError, check_default};
pub use describe::{BatchMode, ModelDescription, Standing, VersionStatus};
pub use error::RouterError;
pub use outhaul_repository::{AddError, Added, AskError};
pub use pipeline::PipelineError;
pub use routed::{OnPredicted, Predicted};
pub use routes::{Route, RouteTable, Variant};
pub use served::{ServedVersion, StartError, VersionPlan};
pub use shadow::{Compared, Machine, ShadowExample, ShadowReport, Shadowing, compare};
pub use warmup::{InputError, WarmedUp, WarmupError, warm_up};

/// A version in memory, as the catalog holds it.
pub type Served = Resident<ServedVersion>;

/// A request whose body is still being read; see [`Router::announce`]. Dropping it takes the
/// announcement back.
pub struct Announced {
    arriving: Arriving,
    /// Held until the other is dropped: the queue must not be ended by a connection's thread.
    _served: Arc<Served>,
}

impl Announced {
    /// Tells that the request is about to be submitted.
    pub fn arrived(self) {
        self.arriving.arrived();
    }
}

/// Answers predictions in this process. Share it behind an [`Arc`].
pub struct Router {
    catalog: Arc<Catalog<Served>>,
    monitor: Arc<Monitor>,
    /// Loads and unloads; `None` where the catalog is filled by other means.
    repository: Option<Handle>,
    /// The source that callers may add models to; `None` where they may not.
    added: Option<Arc<Added>>,
    /// Whether everything was loaded once. Models that come later do not take it back.
    was_ready: AtomicBool,
    /// Where texts, pictures and rows become tensors.
    preparing: Arc<preparing::Preparing>,
    /// What callers may do.
    callers: Callers,
    /// Where requests go that leave the version open.
    routes: ArcSwap<RouteTable>,
    /// The pipelines that the catalog knows of, held against their models.
    pipelines: pipeline::Pipelines,
    /// Who is told of predictions on routes with feedback.
    on_predicted: OnceLock<OnPredicted>,
    /// What copies of requests to shadows share.
    shadows: shadow::Shadows,
    /// The circuits of models here that have a fallback.
    circuits: circuit::Circuits,
    /// Models of other servers.
    remotes: remote::Remotes,
    /// Itself, for work that goes on after an answer; dangling where nobody shared it.
    me: Weak<Router>,
}

impl Router {
    /// Makes a router over the versions that `catalog` publishes.
    pub fn new(catalog: Arc<Catalog<Served>>, monitor: Arc<Monitor>) -> Self {
        Router {
            catalog,
            monitor,
            repository: None,
            added: None,
            was_ready: AtomicBool::new(false),
            preparing: Arc::default(),
            callers: Callers::default(),
            routes: ArcSwap::default(),
            pipelines: pipeline::Pipelines::default(),
            on_predicted: OnceLock::new(),
            shadows: shadow::Shadows::new(Machine::this()),
            circuits: circuit::Circuits::default(),
            remotes: remote::Remotes::default(),
            me: Weak::new(),
        }
    }

    /// Returns the router with the repository that fills its catalog: it can load what sleeps.
    pub fn with_repository(self, repository: Handle) -> Self {
        Router { repository: Some(repository), ..self }
    }

    /// Returns the router with the source that callers may add models to: one of the repository's.
    pub fn with_added(self, added: Arc<Added>) -> Self {
        Router { added: Some(added), ..self }
    }

    /// Returns the router with another machine, whose free cores shadows may use.
    pub fn with_machine(self, machine: Machine) -> Self {
        Router { shadows: shadow::Shadows::new(machine), ..self }
    }

    /// Returns the router with what its callers may do.
    pub fn with_callers(self, callers: Callers) -> Self {
        Router { callers, ..self }
    }

    /// Shares the router, which can then do work after an answer: shadows need it.
    pub fn shared(self) -> Arc<Self> {
        Arc::new_cyclic(|me| Router { me: me.clone(), ..self })
    }

    /// Returns the routes.
    pub fn routes(&self) -> Arc<RouteTable> {
        self.routes.load_full()
    }

    /// Looks at the routes; cheaper than taking them along.
    pub fn with_routes<T>(&self, look: impl FnOnce(&RouteTable) -> T) -> T {
        look(&self.routes.load())
    }

    /// Replaces the routes. Requests that were dealt before go on by the old ones.
    pub fn set_routes(&self, table: Arc<RouteTable>) {
        self.shadows.expect(table.routes().iter().any(|route| route.shadow().is_some()));
        self.routes.store(table);
    }

    /// Tells `tell` of each prediction on a route with feedback. Only the first call counts; returns whether it
    /// was this one.
    pub fn on_predicted(&self, tell: OnPredicted) -> bool {
        self.on_predicted.set(tell).is_ok()
    }

    /// Returns the source that callers may add models to.
    pub fn added(&self) -> Option<&Arc<Added>> {
        self.added.as_ref()
    }

    /// Returns the repository that fills the catalog.
    pub fn repository(&self) -> Option<&Handle> {
        self.repository.as_ref()
    }

    /// Returns the process's metrics.
    pub fn monitor(&self) -> &Arc<Monitor> {
        &self.monitor
    }
}
