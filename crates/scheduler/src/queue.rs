//! The caller's side: submitting a request, waiting for its answer, giving up.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, TryLockError};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

use crossbeam_queue::SegQueue;
use outhaul_engine::LoadedModel;
use outhaul_monitor::ModelMetrics;
use outhaul_types::{BoundInputs, Deadline, Strings, Tensor};
use tokio::sync::oneshot;

use crate::fair::{CallerKey, Claim};
use crate::inline::{CostGauge, InlineSessions};
use crate::pending::{Observed, Pending, Queued, Rule};
use crate::places::{Place, Places, Refusals};
use crate::run::{Answer, run_guarded, timings_alone};
use crate::{Level, Levels, QueueError, instance};

/// How a model's requests are queued, batched and run.
#[derive(Clone, Debug)]
pub struct QueueConfig {
    /// Requests that may wait where no levels are declared; with one more, one is refused.
    pub capacity: usize,
    /// The levels of priority; declared ones have places of their own.
    pub levels: Levels,
    /// The limits of a batch. `max_rows` must be 1 for a model whose rows cannot share a run.
    pub rule: Rule,
    /// Threads that run the model.
    pub instances: usize,
    /// Whether a request may run on its caller's thread, once the model has proved cheap at its
    /// size. It must be false for a model whose cost does not follow from the size of its inputs.
    pub inline: bool,
}

/// How a request shares a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// It may be joined with others, to which it adds this many rows.
    Joined(usize),
    /// It runs by itself, since not all of its inputs are rows, and counts as this many.
    Alone(usize),
}

impl Share {
    /// Returns the rows.
    pub fn rows(self) -> usize {
        match self {
            Share::Joined(rows) | Share::Alone(rows) => rows,
        }
    }
}

/// How a request comes in: what it may wait for, before whom, and beside whom.
#[derive(Clone, Copy, Debug, Default)]
pub struct Admission {
    /// When its answer becomes worthless.
    pub deadline: Option<Deadline>,
    /// Its level of priority, from [`Levels::level`] of the same queue's levels.
    pub level: Level,
    /// Who asks. Requests of one caller are served in order, callers in turns.
    pub caller: CallerKey,
    /// The caller's part, in proportion to other callers'; 0 counts as 1.
    pub weight: u32,
}

impl Admission {
    pub(crate) fn claim(&self, rows: usize) -> Claim {
        let Admission { level, caller, weight, .. } = *self;
        Claim { level, caller, weight, rows }
    }
}

/// A request in the queue.
pub(crate) struct Work {
    pub(crate) inputs: BoundInputs,
    pub(crate) share: Share,
    pub(crate) admission: Admission,
    pub(crate) enqueued: Instant,
    /// When its level's time to wait is over.
    pub(crate) wait_until: Option<Instant>,
    pub(crate) answer: oneshot::Sender<Result<Answer, QueueError>>,
    /// The place in the queue, given back when the request leaves it to be run.
    pub(crate) place: Option<Place>,
}

impl Work {
    /// Returns whether nobody waits for the answer any more.
    pub(crate) fn is_dead(&self, now: Instant) -> bool {
        let deadline = self.admission.deadline;
        self.answer.is_closed() || deadline.is_some_and(|deadline| deadline.has_passed(now))
    }

    /// Returns whether it has waited longer than its level allows.
    fn is_late(&self, now: Instant) -> bool {
        self.wait_until.is_some_and(|until| now >= until)
    }

    /// Tells the caller that it has waited longer than its level allows.
    fn refuse(self, levels: &Levels) {
        let level = self.admission.level;
        let limit = levels.limits(level).and_then(|limits| limits.timeout).unwrap_or_default();
        let _ = self.answer.send(Err(QueueError::WaitedTooLong { level, limit }));
    }

    /// Gives the place to a newcomer and tells the caller that none is left.
    fn give_way(mut self, newcomer: Level, refusal: QueueError) -> Option<Place> {
        let place = self.place.take();
        let _ = self.answer.send(Err(refusal));
        place.map(|place| place.pass_on(newcomer))
    }

    /// Tells the caller that it is too late. The caller may be gone; then there is nobody to tell.
    pub(crate) fn bury(self) {
        let _ = self.answer.send(Err(QueueError::DeadlineExceeded));
    }
}

impl Queued for Work {
    fn claim(&self) -> Claim {
        self.admission.claim(self.share.rows())
    }

    fn enqueued(&self) -> Instant {
        self.enqueued
    }

    fn fits(&self, other: &Self) -> bool {
        let joined = [self, other].iter().all(|work| matches!(work.share, Share::Joined(_)));
        joined
            && self.inputs.iter().zip(&other.inputs).all(|pair| match pair {
                (Some(left), Some(right)) => left.shape().row_shape() == right.shape().row_shape(),
                (None, None) => true,
                _ => false,
            })
    }
}

/// One instance's mailbox: the thread to wake, and whether it sleeps.
#[derive(Default)]
pub(crate) struct Bell {
    pub(crate) asleep: AtomicBool,
    pub(crate) thread: OnceLock<Thread>,
}

/// What callers and instances of one version share.
pub(crate) struct Shared {
    pub(crate) model: Arc<dyn LoadedModel>,
    pub(crate) config: QueueConfig,
    pub(crate) metrics: Arc<ModelMetrics>,
    /// Where callers put requests, without a lock.
    pub(crate) intake: SegQueue<Work>,
    /// The sorted requests. Only instances take this lock, for as long as sorting and deciding last;
    /// a caller tries it where the queue is full or its time to wait is over, and never blocks on it.
    pub(crate) pending: Mutex<Pending<Work>>,
    pub(crate) bells: Box<[Bell]>,
    /// Instances that run a batch now.
    pub(crate) busy: AtomicUsize,
    pub(crate) places: Arc<Places>,
    refusals: Refusals,
    pub(crate) closed: AtomicBool,
    pub(crate) gauge: CostGauge,
    inline: InlineSessions,
    /// Requests on their way to this queue, and when the newest was announced, in nanoseconds since
    /// `epoch`.
    arriving: AtomicUsize,
    announced_ns: AtomicU64,
    epoch: Instant,
}

impl Shared {
    /// Wakes one sleeping instance, if one sleeps.
    pub(crate) fn wake_one(&self) {
        // Pairs with the fence in `instance::sleep`: either the sleeper sees the new request, or we
        // see that it sleeps.
        fence(Ordering::SeqCst);
        for bell in &self.bells {
            if bell.asleep.load(Ordering::Relaxed) && bell.asleep.swap(false, Ordering::Relaxed) {
                if let Some(thread) = bell.thread.get() {
                    thread.unpark();
                }
                return;
            }
        }
    }

    /// Returns the sorted requests, unless somebody else is at them.
    fn try_pending(&self) -> Option<MutexGuard<'_, Pending<Work>>> {
        match self.pending.try_lock() {
            Ok(pending) => Some(pending),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Returns what the batching rule needs to know of the instances and listeners.
    pub(crate) fn observe(&self) -> Observed {
        let busy = self.busy.load(Ordering::Relaxed);
        let announced = Duration::from_nanos(self.announced_ns.load(Ordering::Relaxed));
        Observed {
            idle: self.config.instances.saturating_sub(busy),
            announced: self.is_awaited().then(|| self.epoch + announced),
        }
    }

    /// Returns whether nothing waits or is waited for, and an instance sleeps.
    fn is_rested(&self) -> bool {
        self.places.taken() == 0
            && !self.is_awaited()
            && self.busy.load(Ordering::Relaxed) < self.config.instances
    }

    /// Returns whether a request is on its way.
    pub(crate) fn is_awaited(&self) -> bool {
        self.arriving.load(Ordering::Relaxed) > 0
    }

    /// Moves the intake into the groups and drops what nobody waits for any more.
    pub(crate) fn sort(&self, pending: &mut Pending<Work>, now: Instant) {
        while let Some(work) = self.intake.pop() {
            pending.push(work, &self.config.rule);
        }
        pending.remove(
            |work| work.is_dead(now) || work.is_late(now),
            |work| match work.is_dead(now) {
                true => work.bury(),
                false => work.refuse(&self.config.levels),
            },
        );
    }
}

/// A version's queue with its instances, to be shared behind an [`Arc`]. Whoever waits for an answer
/// borrows it, so when it is dropped nobody does; that ends the instances, and waits for what they
/// are running.
pub struct ModelQueue {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl ModelQueue {
    /// Starts the instances of a loaded model.
    ///
    /// # Errors
    ///
    /// Fails where the operating system refuses a thread.
    pub fn spawn(
        name: &str,
        model: Arc<dyn LoadedModel>,
        config: QueueConfig,
        metrics: Arc<ModelMetrics>,
    ) -> std::io::Result<ModelQueue> {
        let instances = config.instances.max(1);
        let config = QueueConfig { instances, ..config };
        let places = Places::new(config.capacity, &config.levels, Arc::clone(&metrics));
        let shared = Arc::new(Shared {
            model,
            metrics,
            places: Arc::new(places),
            intake: SegQueue::new(),
            pending: Mutex::new(Pending::new(config.levels.are_declared())),
            bells: (0..instances).map(|_| Bell::default()).collect(),
            busy: AtomicUsize::new(0),
            refusals: Refusals::default(),
            closed: AtomicBool::new(false),
            gauge: CostGauge::new(),
            inline: InlineSessions::new(instances),
            arriving: AtomicUsize::new(0),
            announced_ns: AtomicU64::new(0),
            epoch: Instant::now(),
            config,
        });
        let mut queue = ModelQueue { shared, threads: Vec::with_capacity(instances) };
        for index in 0..instances {
            queue.threads.push(instance::spawn(name, index, Arc::clone(&queue.shared))?);
        }
        Ok(queue)
    }

    /// Returns the number of requests that wait.
    pub fn waiting(&self) -> usize {
        self.shared.places.taken()
    }

    /// Returns the number of requests of one level that wait.
    pub fn waiting_at(&self, level: Level) -> usize {
        self.shared.places.taken_at(level)
    }

    /// Returns the levels of priority.
    pub fn levels(&self) -> &Levels {
        &self.shared.config.levels
    }

    /// Announces a request that is still being read, so that a batch with room may wait for it
    /// (at most `max_delay`). Dropping the value takes the announcement back.
    pub fn announce(self: &Arc<Self>) -> Arriving {
        let since = self.shared.epoch.elapsed().as_nanos();
        self.shared.announced_ns.store(u64::try_from(since).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.shared.arriving.fetch_add(1, Ordering::Relaxed);
        Arriving { queue: Arc::clone(self), has_arrived: false }
    }

    /// Runs a request and returns its answer.
    ///
    /// Dropping the future gives the request up: if it still waits, it is never run.
    ///
    /// # Errors
    ///
    /// See [`QueueError`].
    ///
    /// # Panics
    ///
    /// Panics outside of a Tokio runtime with its timers on, where there is a deadline or the level has
    /// a time limit.
    pub async fn infer(
        &self,
        inputs: BoundInputs,
        share: Share,
        admission: Admission,
    ) -> Result<Answer, QueueError> {
        let shared = &*self.shared;
        let inputs = match self.try_inline(inputs, share, admission.deadline) {
            Ok(result) => return result,
            Err(inputs) => inputs,
        };
        let rested = shared.is_rested();
        let place = match Places::take(&shared.places, admission.level) {
            Some(place) => Some(place),
            // Boxed, so that requests that find a place do not carry it.
            None => Some(Box::pin(self.make_room(admission)).await?),
        };
        let (answer, receive) = oneshot::channel();
        let enqueued = Instant::now();
        let wait_until = shared.config.levels.wait_until(admission.level, enqueued);
        shared.intake.push(Work { inputs, share, admission, enqueued, wait_until, answer, place });
        shared.wake_one();
        let answer = match wait_until {
            None => until_deadline(receive, admission.deadline).await?,
            // Boxed, so that requests without such a limit do not carry it.
            Some(until) => Box::pin(self.until_over(receive, until, admission.deadline)).await?,
        };
        if rested {
            // Nothing was in the way, so what was not computing was the way there and back.
            shared.gauge.observe_hop(enqueued.elapsed().saturating_sub(answer.timings.compute));
        }
        Ok(answer)
    }

    /// Runs the request on this thread where that is cheaper than the hop and nobody waits; gives
    /// the inputs back otherwise.
    fn try_inline(
        &self,
        inputs: BoundInputs,
        share: Share,
        deadline: Option<Deadline>,
    ) -> Result<Result<Answer, QueueError>, BoundInputs> {
        let shared = &*self.shared;
        let size = input_size(&inputs);
        let may = shared.config.inline && shared.gauge.is_cheap(size);
        if !may || shared.places.taken() > 0 {
            return Err(inputs);
        }
        let Some(mut slot) = shared.inline.try_acquire() else {
            return Err(inputs);
        };
        let started = Instant::now();
        if deadline.is_some_and(|deadline| deadline.has_passed(started)) {
            return Ok(Err(QueueError::DeadlineExceeded));
        }
        let result = run_guarded(shared.model.as_ref(), &mut slot, &inputs);
        let compute = started.elapsed();
        if result.is_ok() {
            shared.gauge.observe(size, compute);
            shared.metrics.record_batch(share.rows(), 1, compute);
        }
        let timings = timings_alone(Duration::ZERO, compute, share.rows());
        Ok(result.map(|outputs| Answer { outputs, timings }))
    }

    /// Waits for the answer. Where the request's time in the queue ends first, has it refused if it
    /// still waits: instances that compute for seconds look at nobody meanwhile.
    async fn until_over(
        &self,
        mut receive: oneshot::Receiver<Result<Answer, QueueError>>,
        wait_until: Instant,
        deadline: Option<Deadline>,
    ) -> Result<Answer, QueueError> {
        if let Ok(received) = tokio::time::timeout_at(wait_until.into(), &mut receive).await {
            return received.unwrap_or(Err(QueueError::Lost));
        }
        while !self.try_clear() {
            // An instance is deciding, which takes microseconds; it may have looked too early.
            tokio::task::yield_now().await;
        }
        until_deadline(receive, deadline).await
    }

    /// Finds a place where none was free: one that somebody gave up, or that of a caller that holds more
    /// than its share. What gives way is refused in the newcomer's place.
    async fn make_room(&self, admission: Admission) -> Result<Place, QueueError> {
        let Shared { refusals, epoch, .. } = &*self.shared;
        let Admission { caller, level, .. } = admission;
        if refusals.is_fresh(caller, level, epoch.elapsed()) {
            return Err(self.full(level));
        }
        loop {
            match self.try_make_room(admission) {
                Some(Some(place)) => return Ok(place),
                Some(None) => {
                    refusals.note(caller, level, epoch.elapsed());
                    return Err(self.full(level));
                }
                // Somebody is deciding, which takes microseconds. A flood must not cost others a place.
                None => tokio::task::yield_now().await,
            }
        }
    }

    /// Looks for a place that can be had, unless an instance is deciding.
    fn try_make_room(&self, admission: Admission) -> Option<Option<Place>> {
        let shared = &*self.shared;
        let mut pending = shared.try_pending()?;
        shared.sort(&mut pending, Instant::now());
        let place = Places::take(&shared.places, admission.level).or_else(|| {
            let level = admission.level;
            // Declared levels have their own places.
            let all = !shared.config.levels.are_declared();
            let may = |work: &Work| work.place.is_some() && (all || work.admission.level == level);
            let displaced = pending.displace(admission.claim(1), may)?;
            let refusal = self.full(displaced.admission.level);
            displaced.give_way(level, refusal)
        });
        drop(pending);
        // As in `try_clear`.
        shared.wake_one();
        Some(place)
    }

    /// The refusal of a request that finds no place.
    fn full(&self, level: Level) -> QueueError {
        let config = &self.shared.config;
        match config.levels.limits(level) {
            Some(limits) => QueueError::LevelFull { level, capacity: limits.capacity },
            None => QueueError::Full { capacity: config.capacity },
        }
    }

    /// Drops what is over from the queue, unless an instance is at it already; returns whether it
    /// was done.
    fn try_clear(&self) -> bool {
        let shared = &*self.shared;
        let Some(mut pending) = shared.try_pending() else { return false };
        shared.sort(&mut pending, Instant::now());
        drop(pending);
        // What was sorted is no longer in the intake, where an instance that is about to sleep
        // would have seen it.
        shared.wake_one();
        true
    }
}

impl Drop for ModelQueue {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::Relaxed);
        // Pairs with the fence in `instance::sleep`.
        fence(Ordering::SeqCst);
        for bell in &self.shared.bells {
            if let Some(thread) = bell.thread.get() {
                thread.unpark();
            }
        }
        for thread in self.threads.drain(..) {
            // An instance catches its panics; one that got through has already been printed.
            let _ = thread.join();
        }
    }
}

/// A request that is still being read; see [`ModelQueue::announce`].
pub struct Arriving {
    queue: Arc<ModelQueue>,
    has_arrived: bool,
}

impl Arriving {
    /// Takes the announcement back because the request is about to be submitted. Unlike a drop this
    /// wakes nobody: an instance that holds a batch open for the request is woken when it is there.
    pub fn arrived(mut self) {
        self.has_arrived = true;
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        let shared = &self.queue.shared;
        let was_last = shared.arriving.fetch_sub(1, Ordering::Relaxed) == 1;
        // An instance may be holding a batch open for this one, which is not coming.
        if was_last && !self.has_arrived && shared.places.taken() > 0 {
            shared.wake_one();
        }
    }
}

/// Waits for the answer, no longer than the deadline.
async fn until_deadline(
    receive: oneshot::Receiver<Result<Answer, QueueError>>,
    deadline: Option<Deadline>,
) -> Result<Answer, QueueError> {
    let received = match deadline {
        None => receive.await,
        Some(deadline) => tokio::time::timeout_at(deadline.0.into(), receive)
            .await
            .map_err(|_| QueueError::DeadlineExceeded)?,
    };
    received.unwrap_or(Err(QueueError::Lost))
}

/// The size of a request's inputs, by which its cost is judged: their bytes, one more for each string
/// (a million empty ones are no small request), and never 0, which stands for nothing proven.
pub(crate) fn input_size(inputs: &BoundInputs) -> usize {
    let size = |tensor: &Tensor| tensor.byte_size() + tensor.as_strings().map_or(0, Strings::len);
    1 + inputs.iter().flatten().map(size).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_request_is_of_no_size() {
        let inputs = |tensor| BoundInputs::from_iter([Some(tensor)]);
        assert_eq!(input_size(&BoundInputs::new()), 1);
        let empty = Tensor::from_vec([0, 4], Vec::<f32>::new()).expect("no rows");
        assert_eq!(input_size(&inputs(empty)), 1);
        let numbers = Tensor::from_vec([1, 4], vec![0_f32; 4]).expect("four");
        assert_eq!(input_size(&inputs(numbers)), 17);
        let texts = std::iter::repeat_n("", 1000).collect();
        let texts = Tensor::from_strings([1000], texts).expect("a thousand");
        assert_eq!(input_size(&inputs(texts)), 1001);
    }
}
