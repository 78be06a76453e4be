//! Threads on which texts and pictures become tensors.
//!
//! There is one for each core, whatever the number of connections: a flood of pictures waits here, and
//! neither holds up other connections nor decodes more pictures at once than there are cores. A request
//! whose caller has gone away is dropped before it costs anything.
//!
//! What waits is ordered as in the queues behind: by level, then in turns of callers, by weight and rows
//! ([`Line`]). Where a version has as much waiting as it may, a newcomer takes the place of a caller that
//! holds more than its share. A caller that finds none to displace is refused without a look for a millisecond,
//! so that a flood does not keep others from the line.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use outhaul_scheduler::{Admission, Line, Refusals};
use rayon_core::{ThreadPool, ThreadPoolBuilder};
use tokio::sync::oneshot;

use crate::RouterError;

/// The threads; started when the first request needs them.
pub(crate) struct Preparing {
    pool: OnceLock<Option<ThreadPool>>,
    line: Arc<Mutex<Line<Job>>>,
    /// What the times of refusals count from.
    epoch: Instant,
}

impl Default for Preparing {
    fn default() -> Self {
        Preparing { pool: OnceLock::new(), line: Arc::default(), epoch: Instant::now() }
    }
}

/// One version's work there.
pub(crate) type InPreparation = Arc<OfVersion>;

#[derive(Default)]
pub(crate) struct OfVersion {
    /// How much waits or runs.
    count: AtomicUsize,
    refusals: Refusals,
}

/// Work that is to be done for a request.
pub(crate) struct Turn<'a> {
    /// What of its version's waits or runs.
    pub(crate) waiting: &'a InPreparation,
    /// How much may.
    pub(crate) capacity: usize,
    /// Whose it is and how urgent; the level is one that all models share.
    pub(crate) admission: Admission,
    /// How large it is.
    pub(crate) rows: usize,
}

/// Counts work while it waits or runs.
struct Waiting(InPreparation);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Work in the line.
struct Job {
    waiting: Waiting,
    work: Box<dyn FnOnce(Fate, Waiting) + Send>,
}

/// What becomes of a job.
enum Fate {
    Done,
    /// Its place went to another caller's, while so many waited.
    GaveWay(usize),
}

impl Preparing {
    /// Does `work` of one version on one of the threads, unless as much as may wait there does already. Dropping
    /// the future takes back what has not begun.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        turn: Turn<'_>,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, RouterError> {
        let before = turn.waiting.count.fetch_add(1, Ordering::Relaxed);
        let waiting = Waiting(Arc::clone(turn.waiting));
        if before >= turn.capacity && !self.make_room(&turn, before, self.epoch.elapsed()) {
            return Err(RouterError::PreparingFull { waiting: before });
        }
        let Some(pool) = self.pool.get_or_init(start) else {
            // The operating system gives no threads: slow is better than no answer.
            return Ok(work());
        };
        let (answer, answered) = oneshot::channel();
        let work = move |fate, place: Waiting| {
            if answer.is_closed() {
                return;
            }
            let done = match fate {
                Fate::Done => Ok(work()),
                Fate::GaveWay(waiting) => Err(RouterError::PreparingFull { waiting }),
            };
            // Whoever is answered finds the place free.
            drop(place);
            let _ = answer.send(done);
        };
        let job = Job { waiting, work: Box::new(work) };
        lock(&self.line).push(&turn.admission, turn.rows, job);
        let line = Arc::clone(&self.line);
        // Each job brings one turn, which goes to whoever is next by then.
        pool.spawn(move || {
            let job = lock(&line).pop();
            if let Some(Job { waiting, work }) = job {
                work(Fate::Done, waiting);
            }
        });
        // The sender is dropped unused only where `work` panicked.
        answered.await.map_err(|_| RouterError::PreparingPanicked)?
    }

    /// Refuses what is to give way to a newcomer; returns whether there was something.
    /// The lock is everybody's and the look is long: it is not made again right after it was in vain.
    fn make_room(&self, turn: &Turn<'_>, waiting: usize, now: Duration) -> bool {
        let (Admission { caller, level, .. }, refusals) = (turn.admission, &turn.waiting.refusals);
        if refusals.is_fresh(caller, level, now) {
            return false;
        }
        let of_version = |job: &Job| Arc::ptr_eq(&job.waiting.0, turn.waiting);
        let displaced = lock(&self.line).displace(&turn.admission, of_version);
        match displaced {
            Some(job) => (job.work)(Fate::GaveWay(waiting), job.waiting),
            None => {
                refusals.note(caller, level, now);
                return false;
            }
        }
        true
    }
}

fn lock(line: &Mutex<Line<Job>>) -> std::sync::MutexGuard<'_, Line<Job>> {
    line.lock().unwrap_or_else(PoisonError::into_inner)
}

fn start() -> Option<ThreadPool> {
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
    let builder = ThreadPoolBuilder::new().num_threads(threads);
    let pool = builder
        .thread_name(|index| format!("transform/{index}"))
        // Without this a panic would end the process; the message is on standard error already.
        .panic_handler(|_| tracing::error!("a transform panicked"))
        .build();
    pool.inspect_err(|error| tracing::warn!(%error, "no threads for transforms")).ok()
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::mpsc;

    use futures_util::poll;
    use outhaul_scheduler::CallerKey;
    use outhaul_types::{Classify, ErrorKind};

    use super::*;

    fn turn(waiting: &InPreparation, capacity: usize, caller: u64) -> Turn<'_> {
        let admission = Admission { caller: CallerKey(caller), ..Admission::default() };
        Turn { waiting, capacity, admission, rows: 1 }
    }

    #[tokio::test]
    async fn a_panic_fails_its_own_request() {
        let (preparing, waiting) = (Preparing::default(), InPreparation::default());
        let failed = preparing.run::<()>(turn(&waiting, 8, 0), || panic!("scripted")).await;
        assert_eq!(failed.unwrap_err().kind(), ErrorKind::Internal);
        assert_eq!(preparing.run(turn(&waiting, 8, 0), || 3).await.unwrap(), 3);
    }

    #[tokio::test]
    async fn what_is_beyond_the_capacity_is_refused() {
        let (preparing, waiting) = (Preparing::default(), InPreparation::default());
        let refused = preparing.run(turn(&waiting, 0, 0), || 3).await;
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::Overloaded);
        assert_eq!(waiting.count.load(Ordering::Relaxed), 0);
    }

    /// One thread that is held up by the first job while the others queue.
    #[tokio::test]
    async fn callers_take_turns_and_a_flood_gives_way() {
        let preparing = Preparing::default();
        let pool = ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        assert!(preparing.pool.set(Some(pool)).is_ok());
        let waiting = InPreparation::default();
        let (begun, has_begun) = mpsc::channel();
        let (go, may_go) = mpsc::channel::<()>();
        let (done, order) = mpsc::channel();
        let mut first = pin!(preparing.run(turn(&waiting, 5, 1), move || {
            begun.send(()).unwrap();
            may_go.recv().unwrap();
        }));
        assert!(poll!(&mut first).is_pending());
        has_begun.recv().unwrap();
        let job = |caller: u64, number: u32| {
            let done = done.clone();
            let turn = turn(&waiting, 5, caller);
            Box::pin(preparing.run(turn, move || done.send(number).unwrap()))
        };
        let mut flood: Vec<_> = (0..4).map(|number| job(1, number)).collect();
        for waits in &mut flood {
            assert!(poll!(waits).is_pending());
        }
        let mut other = job(2, 10);
        assert!(poll!(&mut other).is_pending(), "it is let in");
        let newest = flood.pop().unwrap().await.unwrap_err();
        assert_eq!(newest.kind(), ErrorKind::Overloaded);
        assert_eq!(job(1, 4).await.unwrap_err().kind(), ErrorKind::Overloaded);
        go.send(()).unwrap();
        first.await.unwrap();
        for waits in flood.into_iter().chain([other]) {
            waits.await.unwrap();
        }
        assert_eq!(order.try_iter().collect::<Vec<_>>(), [10, 0, 1, 2]);
        assert_eq!(waiting.count.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_refusal_holds_for_the_callers_next_requests_to_the_version() {
        let (preparing, one, other) =
            (Preparing::default(), InPreparation::default(), InPreparation::default());
        let add = |caller: u64, of: &InPreparation| {
            let job =
                Job { waiting: Waiting(Arc::clone(of)), work: Box::new(|_, place| drop(place)) };
            of.count.fetch_add(1, Ordering::Relaxed);
            lock(&preparing.line).push(&turn(of, 0, caller).admission, 1, job);
        };
        let refused_at = Duration::from_secs(1);
        let finds_room = |of: &InPreparation, after: Duration| {
            preparing.make_room(&turn(of, 0, 1), 0, refused_at + after)
        };
        assert!(!finds_room(&one, Duration::ZERO), "nothing is there to give way");
        (0..4).for_each(|_| add(2, &one));
        (0..4).for_each(|_| add(2, &other));
        assert!(!finds_room(&one, Duration::from_micros(999)), "it is not looked for");
        assert!(finds_room(&other, Duration::ZERO), "another version's");
        assert!(finds_room(&one, Duration::from_millis(1)));
        let counts = [&one, &other].map(|of| of.count.load(Ordering::Relaxed));
        assert_eq!(counts, [3, 3], "one of each gave way");
    }
}
