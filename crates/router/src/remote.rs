//! Models of other servers, asked by the Open Inference Protocol over HTTP.
//!
//! A remote has a circuit, its latest latencies and a budget of hedged requests. Its address is one that
//! somebody configured; requests go straight to that host: no redirects, no proxies of the environment. What it
//! answers is foreign input: bounded while it is read, and decoded as strictly as a request.
//!
//! A request takes its deadline, its id, its place in a trace and how often it was passed on along, so that the
//! other server gives up when this one does and a circle of servers comes to an end.
//!
//! Invariant: whatever the other side does, the request ends no later than its deadline, and how it ended is
//! counted once, in the circuit and in the metrics.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

use outhaul_monitor::Monitor;
use outhaul_monitor::traffic::{RemoteMetrics, is_callers};
use outhaul_protocol::oip::{self, EncodedRequest};
use outhaul_types::{
    CacheStatus, Deadline, ErrorKind, InferRequest, InferResponse, LimitsSpec, Name,
    RequestContext, Timings,
};

use crate::RouterError;
use crate::circuit::{Breaker, Fared, now};
use address::Address;
use exchange::{Failure, Headers};
use hedge::{Budget, Observed, Winner};
use latency::Recent;

mod address;
mod exchange;
mod hedge;
mod latency;

/// All models of other servers that were asked so far. They share one pool of connections.
#[derive(Default)]
pub(crate) struct Remotes {
    client: Arc<OnceLock<Result<reqwest::Client, String>>>,
    known: RwLock<HashMap<Name, Arc<Remote>>>,
}

/// One of them.
struct Remote {
    address: Address,
    breaker: Arc<Breaker>,
    metrics: Arc<RemoteMetrics>,
    pace: Mutex<Pace>,
}

/// What hedging goes by.
#[derive(Default)]
struct Pace {
    recent: Recent,
    budget: Budget,
}

impl Remote {
    fn pace<T>(&self, act: impl FnOnce(&mut Pace) -> T) -> T {
        act(&mut self.pace.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Remotes {
    /// Asks the model at a configured address.
    pub(crate) async fn ask(
        &self,
        url: &Name,
        request: InferRequest,
        context: &RequestContext,
        monitor: &Monitor,
    ) -> Result<InferResponse, RouterError> {
        let error = |failure: Failure| {
            let Failure { kind, message } = failure;
            RouterError::Remote { url: url.clone(), kind, message }
        };
        let remote = self.remote(url, monitor).map_err(error)?;
        let sent = now();
        let end = end_of(context.deadline, sent);
        let client = match end <= sent {
            true => Err(Failure::late()),
            false => self.client(end).await,
        };
        let client = client.map_err(error)?;
        let Some(passed) = remote.breaker.pass() else {
            return Err(RouterError::OpenCircuit { destination: url.to_string() });
        };
        let answer = remote.answer(&client, &request, context, (sent, end)).await;
        let elapsed = now().saturating_duration_since(sent);
        let outcome = answer.as_ref().map(drop).map_err(|failure| failure.kind);
        passed.ended(Fared::of(outcome, elapsed));
        match outcome {
            Ok(()) => {
                remote.metrics.latency.record(elapsed);
                remote.pace(|pace| pace.recent.record(elapsed));
            }
            Err(kind) if is_callers(kind) => {}
            Err(_) => remote.metrics.failed.increment(),
        }
        answer.map_err(error)
    }

    fn remote(&self, url: &Name, monitor: &Monitor) -> Result<Arc<Remote>, Failure> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(remote) = known.get(url) {
            return Ok(Arc::clone(remote));
        }
        drop(known);
        let address = Address::parse(url)?;
        let remote = Remote {
            address,
            breaker: Arc::new(Breaker::new()),
            metrics: monitor.traffic().remote(url),
            pace: Mutex::default(),
        };
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        Ok(Arc::clone(known.entry(url.clone()).or_insert_with(|| Arc::new(remote))))
    }

    /// Returns what connections are made with. It reads the system's certificates the first time, which is
    /// no work for a thread that answers requests.
    async fn client(&self, end: Instant) -> Result<reqwest::Client, Failure> {
        if self.client.get().is_none() {
            let cell = Arc::clone(&self.client);
            let make = || exchange::client().map_err(|error| outhaul_types::error_chain(&error));
            let made = tokio::task::spawn_blocking(move || {
                cell.get_or_init(make);
            });
            // It goes on without us, for the next one.
            let made = tokio::time::timeout_at(end.into(), made).await;
            drop(made.map_err(|_| Failure::late())?);
        }
        match self.client.get() {
            Some(Ok(client)) => Ok(client.clone()),
            Some(Err(reason)) => Err(Failure::unconnected(reason)),
            None => Err(Failure::unconnected("the process is ending")),
        }
    }
}

/// When a request must have ended, whatever happens.
fn end_of(deadline: Option<Deadline>, sent: Instant) -> Instant {
    let own = sent + LimitsSpec::default().timeout;
    deadline.map_or(own, |Deadline(at)| at.min(own))
}

impl Remote {
    /// Sends a request, and once more where the answer is late.
    async fn answer(
        &self,
        client: &reqwest::Client,
        request: &InferRequest,
        context: &RequestContext,
        (sent, end): (Instant, Instant),
    ) -> Result<InferResponse, Failure> {
        if !oip::is_sendable(request) {
            return Err(Failure {
                kind: ErrorKind::InvalidInput,
                message: "an input holds more text than can be sent on".to_owned(),
            });
        }
        let body = oip::encode_request(request);
        let headers = Headers::of(context);
        let left = end - sent;
        let after = self.pace(|pace| {
            pace.budget.earn();
            let (p95, is_paid) = (pace.recent.p95(), pace.budget.pays());
            hedge::decide(Observed { p95, is_closed: self.breaker.is_closed(), is_paid, left })
        });
        self.metrics.sent.increment();
        let send = || self.exchange(client, &body, &headers, end);
        let answer = match after {
            None => settled(send().await),
            Some(after) => {
                let (answer, winner) = hedge::race(async { settled(send().await) }, after, || {
                    let again = async { settled(send().await) };
                    self.hedge().then_some(again)
                })
                .await;
                if winner == Winner::Second {
                    self.metrics.hedges_won.increment();
                }
                answer
            }
        };
        let answered = answer.and_then(|settled| settled)?;
        self.response(request, answered)
    }

    /// Whether a second request may be sent now: the budget may have gone to another meanwhile.
    fn hedge(&self) -> bool {
        let may = self.breaker.is_closed() && self.pace(|pace| pace.budget.take());
        if may {
            self.metrics.hedged.increment();
        }
        may
    }

    async fn exchange(
        &self,
        client: &reqwest::Client,
        body: &EncodedRequest,
        headers: &Headers,
        end: Instant,
    ) -> Result<oip::DecodedAnswer, Failure> {
        let exchange = exchange::exchange(client, self.address.infer(), body, headers, end);
        match tokio::time::timeout_at(end.into(), exchange).await {
            Ok(answer) => answer,
            Err(_) => Err(Failure::late()),
        }
    }

    /// Makes the answer ours: the outputs that were asked for, in their order.
    fn response(
        &self,
        request: &InferRequest,
        mut answer: oip::DecodedAnswer,
    ) -> Result<InferResponse, Failure> {
        if !request.outputs.is_empty() {
            let chosen = request.outputs.iter().map(|wanted| {
                let found = answer.outputs.iter().find(|output| output.name == wanted.name);
                found.cloned().ok_or_else(|| Failure {
                    kind: ErrorKind::EngineFailed,
                    message: format!("its answer has no output '{}'", wanted.name),
                })
            });
            answer.outputs = chosen.collect::<Result<_, _>>()?;
        }
        let (model, version) = self.address.named(answer.model, answer.version);
        Ok(InferResponse {
            id: request.id.clone(),
            model,
            version,
            outputs: answer.outputs,
            timings: Timings::default(),
            tokens: None,
            cache: CacheStatus::Off,
            via: None,
        })
    }
}

/// An answer that a second request would not better: what the caller did wrong is wrong twice.
type Settled = Result<oip::DecodedAnswer, Failure>;

fn settled(answer: Result<oip::DecodedAnswer, Failure>) -> Result<Settled, Failure> {
    match answer {
        Err(failure) if !is_callers(failure.kind) => Err(failure),
        settled => Ok(settled),
    }
}

/// Connecting takes no longer, or the host is away.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
