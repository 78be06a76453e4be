//! The one door to routes and roll-outs: takes commands, keeps replicas in agreement, steps roll-outs.
//!
//! What to do is decided by [`decide`](crate::plan::decide) and `sync.rs`; this carries it out. A change
//! is decided on the store's newest world, written together with its journal entries if that world is still
//! the newest, and then put in place here: the route table is swapped and the repository told which versions
//! routes lead to. A loop reads the store's world at short intervals and puts newer ones in place.
//!
//! Invariants: a change is in effect on this replica when [`Traffic::command`] returns; every change that a
//! replica made is journalled exactly once; requests never wait for any of this. What takes a roll-out back (a breach,
//! `abort`, `rollback`) is in effect here before the store is asked, and is written when the store is there. So
//! replicas that took the same roll-out back while they could not talk have each an entry of their own.
//!
//! Read next: `traffic/agree.rs` for the way a change takes, `traffic/rounds.rs` for the loop.

mod agree;
mod books;
mod lag;
mod past;
mod rounds;
mod watch;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use outhaul_router::{RouteTable, Router};
use outhaul_state::Store;
use outhaul_types::{
    Classify, Destination, ErrorKind, ModelName, ModelVersion, RouteSpec, VersionChoice,
};
use serde::Serialize;
use tokio::sync::watch as signal;
use tokio::task::JoinHandle;

use crate::plan::{Command, Entry, Refusal};
use crate::sync::{self, Pending, Pulse, Target};
use crate::world::{Timestamp, World};
use agree::Known;
use books::{Books, Memory};
use lag::Lag;
use watch::Watch;
pub use watch::{Point, RolloutStatus};

/// Tells the time. Tests pass their own.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Somebody who weighs variants by what was learnt. Only one replica at a time asks.
pub trait Advisor: Send + Sync {
    /// Returns what ought to change now.
    fn advise(&self, world: &World, now: Timestamp) -> Vec<Command>;

    /// Returns its name, for the journal.
    fn name(&self) -> &str {
        "advisor"
    }
}

/// How traffic is looked after.
pub struct TrafficConfig {
    /// Names this process among all that ever share the store, earlier runs of this one included.
    pub replica: String,
    /// The routes of `outhaul.toml`.
    pub declared: BTreeMap<ModelName, RouteSpec>,
    /// How often the store is asked for a newer world. Default: 250 ms. Longer spares the store, and lets
    /// replicas differ for longer.
    pub interval: Duration,
    /// How often counts are exchanged and roll-outs judged. Default: 1 s. A replica that has not been heard of
    /// for five times as long does not count as there.
    pub observe: Duration,
    /// How often advisors are asked. Default: 10 s.
    pub advise: Duration,
    /// How long one call to the store may take before it counts as away. Default: 2 s.
    pub patience: Duration,
    /// How long a route that is set waits for the versions that it names: the command here, and requests by the
    /// route as it was on the other replicas. Default: 10 s.
    pub warm: Duration,
    /// How long a version stays in memory when no route leads to it any more: requests that were dealt before
    /// may still be on their way. Default: 30 s.
    pub linger: Duration,
    /// How many entries the journal keeps in the store, about. Default: 10,000.
    pub journal: usize,
    /// Tells the time.
    pub clock: Clock,
    /// Who weighs variants.
    pub advisors: Vec<Box<dyn Advisor>>,
}

impl TrafficConfig {
    /// Makes the usual one. `replica` must be new for each process.
    pub fn new(replica: impl Into<String>) -> Self {
        TrafficConfig {
            replica: replica.into(),
            declared: BTreeMap::new(),
            interval: Duration::from_millis(250),
            observe: Duration::from_secs(1),
            advise: Duration::from_secs(10),
            patience: Duration::from_secs(2),
            warm: Duration::from_secs(10),
            linger: Duration::from_secs(30),
            journal: 10_000,
            clock: Arc::new(Timestamp::now),
            advisors: Vec::new(),
        }
    }

    /// How long a replica may be silent.
    fn silence(&self) -> Duration {
        self.observe * 5
    }
}

/// What a command came to.
#[derive(Clone, Debug, Serialize)]
pub struct Applied {
    /// The world from now on.
    #[serde(skip)]
    pub world: Arc<World>,
    /// What was written down; empty where nothing had to change.
    pub entries: Vec<Entry>,
    /// Whether the store has it. If not it is in effect here, and will be written when the store is back.
    pub kept: bool,
}

/// Why a command was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum TrafficError {
    /// The plan refuses it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The store cannot be asked.
    #[error(
        "the state store is away, so routes stay as they are: try again when it is back; `abort` and \
         `rollback` work without it"
    )]
    Unavailable {
        /// What the store says, for operators.
        reason: String,
    },
    /// Others changed the routes over and over.
    #[error("other replicas kept changing the routes: try again")]
    Contended,
    /// The store holds what this release does not understand.
    #[error(
        "the state store holds routes that this release does not understand: update this replica"
    )]
    NotUnderstood {
        /// What is wrong with them, for operators.
        reason: String,
    },
    /// The targets of a route cannot answer each other's callers.
    #[error("{reason}; so the route stays as it is")]
    Misfit {
        /// What would break whom.
        reason: String,
    },
    /// A route would lead to what does not answer.
    #[error("'{to}' does not answer, so the route stays as it is: {reason}")]
    NotReady {
        /// Where it would lead.
        to: Destination,
        /// Why it does not.
        reason: String,
    },
}

impl Classify for TrafficError {
    fn kind(&self) -> ErrorKind {
        match self {
            TrafficError::Refused(refusal) => refusal.kind(),
            TrafficError::Unavailable { .. } => ErrorKind::Unavailable,
            TrafficError::Contended
            | TrafficError::NotUnderstood { .. }
            | TrafficError::NotReady { .. }
            | TrafficError::Misfit { .. } => ErrorKind::Conflict,
        }
    }
}

/// Routes and roll-outs of this process, in agreement with all that share its store.
pub struct Traffic {
    config: TrafficConfig,
    router: Arc<Router>,
    books: Box<dyn Books>,
    state: Mutex<State>,
    /// Held by whoever speaks with the store, so that what was read last is what is newest.
    talk: tokio::sync::Mutex<Talk>,
    stopping: signal::Sender<bool>,
    looping: Mutex<Option<JoinHandle<()>>>,
}

/// What this replica goes by.
#[derive(Default)]
struct State {
    known: Known,
    /// What could not wait for the store, oldest first.
    pending: Vec<Pending>,
    /// The store's world and what is pending.
    world: Arc<World>,
    /// What routes that are about to be set lead to.
    warming: Vec<(ModelName, ModelVersion)>,
    /// What routes led to before, and when it may go.
    lingering: BTreeMap<(ModelName, ModelVersion), Instant>,
    /// Routes whose versions are not in memory here yet.
    lagging: BTreeMap<ModelName, Lag>,
    watches: BTreeMap<ModelName, Watch>,
    /// When it was first known what there is to load.
    looked_at: Option<Instant>,
}

/// What is remembered from one conversation to the next.
#[derive(Default)]
struct Talk {
    is_away: bool,
    lease: Pulse,
    is_holder: bool,
    observed_at: Option<Instant>,
    advised_at: Option<Instant>,
    trimmed_at: Option<Instant>,
    /// The generation at which the journal had next to nothing to remove.
    trimmed: Option<u64>,
}

impl Traffic {
    /// Puts the store's routes in place, takes over what is declared, and starts to look after both. Without a
    /// store everything ends with the process. A store on Postgres has to be of this runtime.
    ///
    /// # Errors
    ///
    /// Fails where the store cannot be read, or what is declared is wrong.
    pub async fn start(
        config: TrafficConfig,
        router: Arc<Router>,
        store: Option<Store>,
    ) -> Result<Arc<Traffic>, TrafficError> {
        let books: Box<dyn Books> = match store {
            Some(store) => Box::new(store),
            None => Box::new(Memory::default()),
        };
        Traffic::start_over(config, router, books).await
    }

    async fn start_over(
        config: TrafficConfig,
        router: Arc<Router>,
        books: Box<dyn Books>,
    ) -> Result<Arc<Traffic>, TrafficError> {
        let (stopping, stopped) = signal::channel(false);
        let traffic = Arc::new(Traffic {
            config,
            router,
            books,
            state: Mutex::default(),
            talk: tokio::sync::Mutex::default(),
            stopping,
            looping: Mutex::default(),
        });
        let declare = Command::Declare { routes: traffic.config.declared.clone() };
        traffic.change(&command_of(declare, "outhaul.toml"), None).await?;
        let looping = tokio::spawn(rounds::run(Arc::downgrade(&traffic), stopped));
        *lock(&traffic.looping) = Some(looping);
        Ok(traffic)
    }

    /// Carries out what `by` asks for. It is in effect here when this returns, and within a second on every
    /// other replica, but where versions have to be loaded there first: so long that route stays as it was.
    ///
    /// # Errors
    ///
    /// See [`TrafficError`]; nothing has changed then. `abort` and `rollback` do not fail for want of a store.
    pub async fn command(&self, command: Command, by: &str) -> Result<Applied, TrafficError> {
        let command = self.filled_in(command);
        let taken_back = sync::takes_back(&command).cloned();
        let warming = self.warm(&command).await?;
        let input = command_of(command, by);
        let applied = match taken_back {
            Some(route) => self.change_at_once(input, &route).await,
            None => self.change(&input, None).await,
        };
        drop(warming);
        applied
    }

    /// Returns the routes and roll-outs as they are in effect here.
    pub fn world(&self) -> Arc<World> {
        Arc::clone(&self.state().world)
    }

    /// Returns each route's newest roll-out with what is known of it, in order of the routes.
    pub fn status(&self) -> Vec<RolloutStatus> {
        let state = self.state();
        let status = |(route, rollout)| Some(state.watches.get(route)?.status(rollout));
        state.world.rollouts.iter().filter_map(status).collect()
    }

    /// Ends the loop and lets another replica step roll-outs. Routes stay as they are.
    pub async fn stop(&self) {
        self.stopping.send_replace(true);
        let looping = lock(&self.looping).take();
        if let Some(looping) = looping {
            // It has nothing to say: a panic in it was told where it happened.
            let _ = looping.await;
        }
        self.give_back_lease().await;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn now(&self) -> Timestamp {
        (self.config.clock)()
    }

    /// A roll-out of a route that is not there yet begins from the version that answers.
    fn filled_in(&self, command: Command) -> Command {
        match command {
            Command::Start { route, spec, in_service: None } => {
                let versions = self.router.versions(route.as_str()).unwrap_or_default();
                let in_service = versions.last().map(|version| Destination::Model {
                    name: route.clone(),
                    version: VersionChoice::Exact(*version),
                });
                Command::Start { route, spec, in_service }
            }
            other => other,
        }
    }

    /// Puts what is in `state` in place: versions are held before a route leads to them, and for a while after.
    /// A route may have to wait for them: see [`lag`].
    fn put_in_place(&self, state: &mut State) {
        let world = Arc::new(sync::overlay(&state.known.world, &state.pending));
        let may_go = instant() + self.config.linger;
        let kept: Vec<_> = state.lagging.values().flat_map(|lag| lag.kept.clone()).collect();
        let before = sync::held(&state.world).into_iter().chain(kept);
        state.lingering.extend(before.map(|version| (version, may_go)));
        state.world = Arc::clone(&world);
        let routes = self.routes_here(state, &world);
        self.hold(state);
        let metrics = self.router.monitor().traffic();
        let earlier = self.router.routes();
        let table = RouteTable::build(world.generation, &routes, &earlier, metrics);
        self.router.set_routes(Arc::new(table));
        state.watches.retain(|route, _| world.rollouts.contains_key(route));
        for (route, rollout) in &world.rollouts {
            let Some(target) = Target::in_world(&world, route) else { continue };
            let earlier = state.watches.remove(route);
            let watch = match earlier {
                Some(watch) if watch.target == target => watch,
                earlier => Watch::begin((&world, target, rollout), earlier, metrics, instant()),
            };
            state.watches.insert(route.clone(), watch);
        }
    }

    /// Tells the repository what has to be in memory.
    fn hold(&self, state: &State) {
        if let Some(repository) = self.router.repository() {
            let mut held = sync::held(&state.world);
            held.extend(state.warming.iter().cloned());
            held.extend(state.lingering.keys().cloned());
            held.extend(state.lagging.values().flat_map(|lag| lag.kept.iter().cloned()));
            repository.hold(held);
        }
    }

    /// Lets go what no request can be on its way to any more.
    fn let_go(&self) {
        let (mut state, now) = (self.state(), instant());
        let before = state.lingering.len();
        state.lingering.retain(|_, may_go| *may_go > now);
        if state.lingering.len() != before {
            self.hold(&state);
        }
    }
}

fn command_of(command: Command, by: &str) -> crate::plan::Input {
    crate::plan::Input::Command { command, by: by.to_owned() }
}

/// Now, by a clock that tests can hold.
fn instant() -> Instant {
    tokio::time::Instant::now().into_std()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
