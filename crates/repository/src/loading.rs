//! Bringing versions into memory: what the repository asks of its [`Loader`], and the threads that
//! carry it out.
//!
//! What nobody waits for is loaded on threads that run below the rest of the process, where the system
//! allows it: a load may take a core for seconds, and requests come first. A thread passes its
//! priority on to those that it starts and cannot raise it again, so a version's own threads are
//! started elsewhere ([`Loader::start`]).

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use outhaul_types::{ModelManifest, ModelName, ModelVersion};

use crate::plan::Id;
use crate::record::Edition;
use crate::{Source, VersionArtefact};

/// Makes versions out of files. The repository knows when; this knows how.
pub trait Loader: Send + Sync + 'static {
    /// What callers of a version rely on, kept after the version has left memory.
    type Contract: Send + Sync + 'static;
    /// A version in memory, before it has threads.
    type Prepared: Send + 'static;
    /// A version that answers.
    type Served: Send + Sync + 'static;

    /// Loads a version and warms it up. Several threads may load at once; a panic fails this load
    /// alone.
    ///
    /// # Errors
    ///
    /// Fails where the files are no model that can be served, or where the version would break
    /// callers of the one in service.
    fn load(
        &self,
        order: &LoadOrder<Self::Contract>,
    ) -> Result<Loaded<Self::Prepared>, LoadFailure>;

    /// Starts what lets a version answer. Called on the repository's own thread, which must not be
    /// held up.
    ///
    /// # Errors
    ///
    /// Fails where the operating system refuses a thread.
    fn start(&self, prepared: Self::Prepared) -> Result<Self::Served, LoadFailure>;

    /// Returns what callers of a version rely on.
    fn contract(&self, served: &Self::Served) -> Self::Contract;

    /// Forgets what is kept of a version that exists no more.
    fn forget(&self, model: &ModelName, version: ModelVersion);
}

/// A version to load.
pub struct LoadOrder<C> {
    /// Its model.
    pub name: ModelName,
    /// Its number.
    pub version: ModelVersion,
    /// What the user declares.
    pub manifest: Arc<ModelManifest>,
    /// Its model file, on this machine.
    pub path: PathBuf,
    /// What the callers rely on that this version would take over.
    pub in_service: Option<Arc<C>>,
    /// Whether others may write to its files; if not, they are the source's own copy.
    pub is_shared: bool,
    /// Whether a request asks for it: then it may be loaded and let go many times an hour, and is not
    /// worth a line in the log each time.
    pub on_demand: bool,
}

/// A version in memory.
pub struct Loaded<P> {
    /// What can be started.
    pub prepared: P,
    /// The bytes that it was measured to take.
    pub memory: u64,
}

/// Why a version is not in memory.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoadFailure {
    /// It could not be loaded. Trying again may help.
    #[error("{0}")]
    Failed(String),
    /// It could be loaded, and would break callers.
    #[error("{0}")]
    Refused(String),
}

/// One load to carry out.
pub(crate) struct Order<C> {
    pub(crate) edition: Edition,
    pub(crate) artefact: VersionArtefact,
    pub(crate) source: Arc<dyn Source>,
    pub(crate) name: ModelName,
    pub(crate) in_service: Option<Arc<C>>,
    pub(crate) on_demand: bool,
}

/// How a load ended.
pub(crate) enum Outcome<P> {
    Loaded(Loaded<P>),
    Failed(LoadFailure),
    /// The files changed meanwhile: what was loaded is no version at all.
    Changed,
}

/// A load that has ended.
pub(crate) struct Ended<P> {
    pub(crate) id: Id,
    pub(crate) edition: Edition,
    pub(crate) outcome: Outcome<P>,
    pub(crate) took: Duration,
}

/// Where orders go: to threads of usual priority where somebody waits for the version, else to those
/// below.
pub(crate) struct Orders<C> {
    awaited: Sender<Order<C>>,
    background: Sender<Order<C>>,
}

impl<C> Orders<C> {
    pub(crate) fn send(&self, order: Order<C>, is_awaited: bool) {
        let threads = if is_awaited { &self.awaited } else { &self.background };
        // The threads live as long as the sender.
        let _ = threads.send(order);
    }
}

/// Starts the threads that load, so many of either kind. They end where the orders are dropped.
pub(crate) fn spawn<L: Loader>(
    threads: usize,
    loader: &Arc<L>,
    ended: impl Fn(Ended<L::Prepared>) + Send + Sync + Clone + 'static,
) -> io::Result<Orders<L::Contract>> {
    let awaited = spawn_pool("loading", threads, loader, (ended.clone(), || {}))?;
    let background = spawn_pool("preparing", threads, loader, (ended, run_below_requests))?;
    Ok(Orders { awaited, background })
}

fn spawn_pool<L: Loader>(
    name: &str,
    threads: usize,
    loader: &Arc<L>,
    (ended, begin): (impl Fn(Ended<L::Prepared>) + Send + Sync + Clone + 'static, fn()),
) -> io::Result<Sender<Order<L::Contract>>> {
    let (send, orders) = channel();
    let orders = Arc::new(Mutex::new(orders));
    for index in 0..threads.max(1) {
        let (loader, orders, ended) = (Arc::clone(loader), Arc::clone(&orders), ended.clone());
        std::thread::Builder::new().name(format!("{name}/{index}")).spawn(move || {
            begin();
            while let Some(order) = next(&orders) {
                ended(carry_out(&*loader, order));
            }
        })?;
    }
    Ok(send)
}

fn next<C>(orders: &Mutex<Receiver<Order<C>>>) -> Option<Order<C>> {
    orders.lock().unwrap_or_else(PoisonError::into_inner).recv().ok()
}

/// Requests come first; where the system does not let us say so, loading goes on all the same.
fn run_below_requests() {
    #[cfg(target_os = "linux")]
    {
        use thread_priority::{ThreadPriority, ThreadPriorityValue};
        // On Linux the middle of this scale is the usual niceness; lower is nicer.
        if let Ok(value) = ThreadPriorityValue::try_from(30_u8) {
            let _ =
                thread_priority::set_current_thread_priority(ThreadPriority::Crossplatform(value));
        }
    }
}

fn carry_out<L: Loader>(loader: &L, order: Order<L::Contract>) -> Ended<L::Prepared> {
    let started = Instant::now();
    let Order { edition, artefact, source, name, in_service, on_demand } = order;
    let id = (name.clone(), artefact.version);
    let outcome = match source.fetch(&artefact) {
        Err(_) if !source.is_unchanged(&artefact) => Outcome::Changed,
        Err(error) => Outcome::Failed(LoadFailure::Failed(error.to_string())),
        Ok(path) => {
            let (version, manifest) = (artefact.version, Arc::clone(&edition.manifest));
            let is_shared = source.folder().is_some();
            let order =
                LoadOrder { name, version, manifest, path, in_service, is_shared, on_demand };
            // A file that trips over a mistake of ours must not take the other models with it.
            let loaded = catch_unwind(AssertUnwindSafe(|| loader.load(&order)));
            let loaded = loaded.unwrap_or_else(|_| {
                Err(LoadFailure::Failed("loading it panicked; see the log".to_owned()))
            });
            match loaded {
                // Half a file may well be a model: one without its last layers.
                _ if !source.is_unchanged(&artefact) => Outcome::Changed,
                Ok(loaded) => Outcome::Loaded(loaded),
                Err(failure) => Outcome::Failed(failure),
            }
        }
    };
    Ended { id, edition, outcome, took: started.elapsed() }
}
