//! A load generator: how many answers a second, and how late the worst of them.
//!
//! **Closed loop** ([`Pace::Closed`]): every connection sends its next request when the last one is
//! answered. It finds the most that a server answers, and hides how long callers would have waited.
//!
//! **Open loop** ([`Pace::Open`]): requests start at a fixed rate whatever the server does, and a
//! latency counts from the instant at which its request *should* have started. A stall therefore
//! shows in every request that it delayed, not in one per connection (no coordinated omission).
//!
//! Invariant: what is reported covers every request that started within the measured time, answered
//! or not, the slowest included. The generator shares its machine with the server, so it does little:
//! requests are encoded once, each thread drives its own connections, and of answers over HTTP nothing
//! is decoded but the status. How late the generator itself was is part of the report.

mod grpc;
mod http;
mod report;
mod sample;
mod schedule;

use std::num::NonZeroUsize;
use std::sync::{Arc, Barrier, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

pub use grpc::GrpcTarget;
pub use http::{HttpRequest, HttpTarget};
pub use report::{Latencies, Report};
pub use sample::{
    SampleError, SampleInput, SampleSizes, grpc_message, inputs_over_grpc, inputs_over_http,
    json_body,
};

use tokio::runtime::Runtime;

use self::report::Recorder;
use self::schedule::Schedule;

/// How long requests that are on their way at the end may take to be answered.
const LONGEST_ANSWER: Duration = Duration::from_secs(30);

/// Whom to ask, and what.
#[derive(Clone, Debug)]
pub enum Target {
    /// HTTP/1.1, one request at a time on each connection.
    Http(HttpTarget),
    /// The gRPC inference service, one request at a time on each connection.
    Grpc(GrpcTarget),
}

/// When requests start.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// Each connection's next one when its last one is answered.
    Closed,
    /// This many a second, evenly, over all connections.
    Open {
        /// Requests a second, above zero.
        rate: f64,
    },
}

/// One measurement.
#[derive(Clone, Debug)]
pub struct LoadPlan {
    /// Whom to ask, and what.
    pub target: Target,
    /// When requests start.
    pub pace: Pace,
    /// Connections, each with at most one request on its way.
    pub connections: NonZeroUsize,
    /// Threads that drive the connections. One drives about 50,000 requests a second.
    pub threads: NonZeroUsize,
    /// Time before the measurement, under the same load.
    pub warm_up: Duration,
    /// Time measured.
    pub duration: Duration,
}

/// What the server said to one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// `200`, or the name or number of what it was instead.
    pub status: String,
    /// Whether that is success.
    pub is_ok: bool,
    /// The body, or for gRPC a description of the message.
    pub body: String,
}

/// Why there is no measurement.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Nobody answers at this address.
    #[error("no connection to {address}")]
    Unreachable {
        /// As it was given.
        address: String,
        /// What the system or the transport said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The connection broke.
    #[error("the connection to {address} broke: {reason}")]
    Broken {
        /// As it was given.
        address: String,
        /// What happened.
        reason: String,
    },
    /// The server answered, but not with what was asked for.
    #[error("the server refuses {what}: status {status}: {message}")]
    Refused {
        /// What was asked for.
        what: String,
        /// The answer's status.
        status: String,
        /// The answer's text.
        message: String,
    },
    /// No request can be made up for the model.
    #[error("no request can be made up")]
    Sample(#[from] SampleError),
    /// The plan makes no sense.
    #[error("{0}")]
    BadPlan(String),
    /// The generator cannot start a thread.
    #[error("cannot start the load generator")]
    Thread(#[source] std::io::Error),
}

/// How one request ended.
enum Outcome {
    Answered,
    /// With this status, which is no success.
    Refused(String),
    /// The connection is of no further use.
    Broken(String),
}

enum Connection {
    Http(http::Connection),
    Grpc(grpc::Connection),
}

impl Connection {
    async fn open(target: &Target) -> Result<Self, LoadError> {
        Ok(match target {
            Target::Http(target) => Connection::Http(http::Connection::open(target).await?),
            Target::Grpc(target) => Connection::Grpc(grpc::Connection::open(target).await?),
        })
    }

    /// Sends the request of this number, counted round and round.
    async fn send(&mut self, number: usize) -> Outcome {
        match self {
            Connection::Http(connection) => connection.send(number).await,
            Connection::Grpc(connection) => connection.send(number).await,
        }
    }
}

/// Sends one request and returns the whole answer, to see whether it is worth measuring.
///
/// # Errors
///
/// Fails where there is no answer at all.
pub async fn ask(target: &Target) -> Result<Answer, LoadError> {
    match target {
        Target::Http(target) => http::Connection::open(target).await?.ask(0).await,
        Target::Grpc(target) => grpc::Connection::open(target).await?.ask(0).await,
    }
}

/// Runs a measurement on threads of its own, and waits for its end.
///
/// # Errors
///
/// Fails where a connection cannot be opened. Requests that fail are counted in the report.
pub fn run(plan: &LoadPlan) -> Result<Report, LoadError> {
    let schedule = match plan.pace {
        Pace::Closed => None,
        Pace::Open { rate } if rate.is_finite() && rate > 0.0 => {
            Some(Arc::new(Schedule::default()))
        }
        Pace::Open { rate } => {
            return Err(LoadError::BadPlan(format!("a rate of {rate} requests a second")));
        }
    };
    let threads = plan.threads.min(plan.connections).get();
    let shared = Arc::new(Shared {
        plan: plan.clone(),
        schedule,
        connected: Barrier::new(threads),
        failure: Mutex::new(None),
        start: OnceLock::new(),
    });
    let mut handles = Vec::new();
    for thread in 0..threads {
        let all = plan.connections.get();
        let connections = all / threads + usize::from(thread < all % threads);
        let shared = Arc::clone(&shared);
        let handle = std::thread::Builder::new()
            .name(format!("load-{thread}"))
            .spawn(move || drive(&shared, connections, thread == 0))
            .map_err(LoadError::Thread)?;
        handles.push(handle);
    }
    let mut total = Recorder::new();
    for handle in handles {
        match handle.join() {
            Ok(recorder) => total.add(&recorder),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
    let failure = shared.failure.lock().unwrap_or_else(PoisonError::into_inner).take();
    match failure {
        Some(failure) => Err(failure),
        None => {
            let unsent = shared.schedule.as_ref().map_or(0, |schedule| schedule.unsent());
            Ok(total.report(plan, unsent))
        }
    }
}

/// What the threads of one run share.
struct Shared {
    plan: LoadPlan,
    schedule: Option<Arc<Schedule>>,
    /// Everybody waits here until all connections are open.
    connected: Barrier,
    failure: Mutex<Option<LoadError>>,
    start: OnceLock<Instant>,
}

/// One thread: opens its connections, waits for the others, sends until the end.
fn drive(shared: &Arc<Shared>, connections: usize, leads: bool) -> Recorder {
    let opened = open(shared, connections);
    // Also after a failure, since the others wait.
    shared.connected.wait();
    let failed = shared.failure.lock().unwrap_or_else(PoisonError::into_inner).is_some();
    let (Ok((runtime, connections)), false) = (opened, failed) else { return Recorder::new() };

    let start = *shared.start.get_or_init(Instant::now);
    let measured = start + shared.plan.warm_up;
    let end = measured + shared.plan.duration;
    let pacer = match (&shared.schedule, shared.plan.pace) {
        (Some(schedule), Pace::Open { rate }) if leads => {
            let schedule = Arc::clone(schedule);
            Some(std::thread::spawn(move || schedule.announce(rate, start, measured, end)))
        }
        _ => None,
    };
    let recorder = Arc::new(Mutex::new(Recorder::new()));
    let workers = connections.into_iter().enumerate().map(|(index, connection)| Worker {
        shared: Arc::clone(shared),
        recorder: Arc::clone(&recorder),
        connection,
        // Connections start at different requests, so that those of a kind do not meet.
        number: index,
        measured,
        end,
    });
    runtime.block_on(async {
        let running: Vec<_> = workers.map(|worker| tokio::spawn(worker.run())).collect();
        for worker in running {
            if let Err(error) = worker.await
                && error.is_panic()
            {
                std::panic::resume_unwind(error.into_panic());
            }
        }
    });
    if let Some(Err(panic)) = pacer.map(std::thread::JoinHandle::join) {
        std::panic::resume_unwind(panic);
    }
    let mut recorder = recorder.lock().unwrap_or_else(PoisonError::into_inner);
    std::mem::replace(&mut *recorder, Recorder::new())
}

/// Opens a thread's connections. A failure is noted for everybody.
fn open(shared: &Shared, connections: usize) -> Result<(Runtime, Vec<Connection>), ()> {
    let open = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(LoadError::Thread)?;
        let opened = (0..connections)
            .map(|_| runtime.block_on(Connection::open(&shared.plan.target)))
            .collect::<Result<_, _>>()?;
        Ok((runtime, opened))
    };
    open().map_err(|failure| {
        let mut first = shared.failure.lock().unwrap_or_else(PoisonError::into_inner);
        first.get_or_insert(failure);
    })
}

/// One connection at work.
struct Worker {
    shared: Arc<Shared>,
    recorder: Arc<Mutex<Recorder>>,
    connection: Connection,
    number: usize,
    measured: Instant,
    end: Instant,
}

impl Worker {
    async fn run(mut self) {
        loop {
            let intended = match &self.shared.schedule {
                None => Instant::now(),
                Some(schedule) => match schedule.next().await {
                    Some(intended) => intended,
                    None => return,
                },
            };
            if intended >= self.end {
                return;
            }
            let sent = Instant::now();
            let limit = tokio::time::Instant::from_std(self.end + LONGEST_ANSWER);
            let outcome = tokio::time::timeout_at(limit, self.connection.send(self.number)).await;
            let done = Instant::now();
            self.number = self.number.wrapping_add(1);
            let outcome = outcome.unwrap_or_else(|_| Outcome::Broken("no answer".to_owned()));
            if intended >= self.measured {
                let mut recorder = self.recorder.lock().unwrap_or_else(PoisonError::into_inner);
                recorder.record(&outcome, done <= self.end, done - intended, sent - intended);
            }
            if matches!(outcome, Outcome::Broken(_)) && !self.reconnect().await {
                return;
            }
        }
    }

    /// Opens the connection anew, or gives up where nobody answers any more.
    async fn reconnect(&mut self) -> bool {
        match Connection::open(&self.shared.plan.target).await {
            Ok(connection) => {
                self.connection = connection;
                true
            }
            Err(error) => {
                let mut recorder = self.recorder.lock().unwrap_or_else(PoisonError::into_inner);
                recorder.lost_connection(&error.to_string());
                false
            }
        }
    }
}

#[cfg(test)]
mod tests;
