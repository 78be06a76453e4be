//! The queue with a scripted engine: every run waits until the test lets it go on, so nothing here
//! depends on timing.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use outhaul_engine::{LoadError, LoadedModel, RunError, Session};
use outhaul_monitor::ModelMetrics;
use outhaul_scheduler::{
    Admission, Answer, CallerKey, Levels, ModelQueue, QueueConfig, QueueError, Rule, Share,
};
use outhaul_types::{
    BoundInputs, Classify, Deadline, ErrorKind, LevelSpec, LimitsSpec, Tensor, Tensors,
};

/// What a scripted run does with its inputs.
type Script = fn(&[f32]) -> Result<Vec<f32>, RunError>;

/// A model whose runs report their rows and then wait for a permit.
struct Scripted {
    script: Script,
    started: Sender<usize>,
    permits: Arc<Mutex<Receiver<()>>>,
}

struct ScriptedSession {
    script: Script,
    started: Sender<usize>,
    permits: Arc<Mutex<Receiver<()>>>,
}

impl LoadedModel for Scripted {
    fn engine(&self) -> &'static str {
        "scripted"
    }

    fn session(&self) -> Result<Box<dyn Session>, LoadError> {
        Ok(Box::new(ScriptedSession {
            script: self.script,
            started: self.started.clone(),
            permits: Arc::clone(&self.permits),
        }))
    }
}

impl Session for ScriptedSession {
    fn run(&mut self, inputs: &BoundInputs) -> Result<Tensors, RunError> {
        let input = inputs[0].as_ref().expect("the input is given");
        let rows = input.shape().rows().expect("the input has rows");
        self.started.send(rows).expect("the test listens");
        let permit = self.permits.lock().expect("no test panics with the lock").recv();
        permit.expect("the test gives permits");
        let elements = input.elements_of::<f32>().expect("FP32");
        let outputs = (self.script)(&elements)?;
        let shape = [outputs.len(), 1];
        Ok([Tensor::from_vec(shape, outputs).expect("one column")].into_iter().collect())
    }
}

/// A model that panics when its first session is opened.
struct OpensSecondTime {
    tried: AtomicBool,
    model: Scripted,
}

impl LoadedModel for OpensSecondTime {
    fn engine(&self) -> &'static str {
        self.model.engine()
    }

    fn session(&self) -> Result<Box<dyn Session>, LoadError> {
        assert!(self.tried.swap(true, Ordering::Relaxed), "scripted panic");
        self.model.session()
    }
}

struct Rig {
    queue: Arc<ModelQueue>,
    started: Receiver<usize>,
    permits: Sender<()>,
}

impl Rig {
    fn new(script: Script, config: QueueConfig) -> Self {
        Rig::with(script, config, |model| Arc::new(model))
    }

    fn with(
        script: Script,
        config: QueueConfig,
        loaded: impl FnOnce(Scripted) -> Arc<dyn LoadedModel>,
    ) -> Self {
        let (started, started_here) = channel();
        let (permits_here, permits) = channel();
        let permits = Arc::new(Mutex::new(permits));
        let model = loaded(Scripted { script, started, permits });
        let metrics = Arc::<ModelMetrics>::default();
        let queue = ModelQueue::spawn("scripted", model, config, metrics).unwrap();
        Rig { queue: Arc::new(queue), started: started_here, permits: permits_here }
    }

    /// Submits a request and returns once it is queued.
    fn submit(&self, elements: &[f32]) -> tokio::task::JoinHandle<Result<Answer, QueueError>> {
        self.submit_as(elements, Share::Joined(elements.len()), Admission::default())
    }

    fn submit_as(
        &self,
        elements: &[f32],
        share: Share,
        admission: Admission,
    ) -> tokio::task::JoinHandle<Result<Answer, QueueError>> {
        let queue = Arc::clone(&self.queue);
        let inputs = inputs(elements);
        tokio::spawn(async move { queue.infer(inputs, share, admission).await })
    }

    /// The rows of the next run that starts.
    async fn next_run(&self) -> usize {
        loop {
            match self.started.try_recv() {
                Ok(rows) => return rows,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    }

    /// Waits until this many requests wait in the queue.
    async fn until_waiting(&self, count: usize) {
        while self.queue.waiting() != count {
            tokio::task::yield_now().await;
        }
    }
}

fn inputs(elements: &[f32]) -> BoundInputs {
    let tensor = Tensor::from_vec([elements.len(), 1], elements.to_vec()).unwrap();
    [Some(tensor)].into_iter().collect()
}

fn config(instances: usize) -> QueueConfig {
    let rule = Rule { max_rows: 8, max_delay: Duration::from_millis(2) };
    QueueConfig { capacity: 16, levels: Levels::default(), rule, instances, inline: true }
}

fn double(elements: &[f32]) -> Result<Vec<f32>, RunError> {
    Ok(elements.iter().map(|element| element * 2.0).collect())
}

fn elements(answer: &Answer) -> Vec<f32> {
    answer.outputs[0].elements_of::<f32>().unwrap().into_owned()
}

#[tokio::test]
async fn what_waits_runs_together_and_each_gets_its_own_answer() {
    let rig = Rig::new(double, config(1));
    let first = rig.submit(&[1.0]);
    assert_eq!(rig.next_run().await, 1, "an idle instance runs the first at once");
    let second = rig.submit(&[2.0, 3.0]);
    rig.until_waiting(1).await;
    let third = rig.submit(&[4.0]);
    rig.until_waiting(2).await;
    rig.permits.send(()).unwrap();
    assert_eq!(rig.next_run().await, 3, "what came meanwhile is one batch");
    rig.permits.send(()).unwrap();
    assert_eq!(elements(&first.await.unwrap().unwrap()), [2.0]);
    let second = second.await.unwrap().unwrap();
    assert_eq!(elements(&second), [4.0, 6.0]);
    assert_eq!(second.timings.batch_rows, 3);
    assert_eq!(elements(&third.await.unwrap().unwrap()), [8.0]);
}

#[tokio::test]
async fn two_idle_instances_both_work() {
    let rig = Rig::new(double, config(2));
    let first = rig.submit(&[1.0]);
    assert_eq!(rig.next_run().await, 1);
    let second = rig.submit(&[2.0]);
    assert_eq!(rig.next_run().await, 1, "the second instance does not wait for the first");
    rig.permits.send(()).unwrap();
    rig.permits.send(()).unwrap();
    assert!(first.await.unwrap().is_ok() && second.await.unwrap().is_ok());
}

#[tokio::test]
async fn a_full_queue_refuses_at_once() {
    let rig = Rig::new(double, QueueConfig { capacity: 2, ..config(1) });
    let running = rig.submit(&[1.0]);
    rig.next_run().await;
    let waiting = [rig.submit(&[2.0]), rig.submit(&[3.0])];
    rig.until_waiting(2).await;
    let refused = rig.submit(&[4.0]).await.unwrap().unwrap_err();
    assert!(matches!(refused, QueueError::Full { capacity: 2 }));
    assert_eq!(refused.kind(), ErrorKind::Overloaded);
    rig.permits.send(()).unwrap();
    rig.next_run().await;
    rig.permits.send(()).unwrap();
    assert!(running.await.unwrap().is_ok());
    for answer in waiting {
        assert!(answer.await.unwrap().is_ok());
    }
}

#[tokio::test]
async fn a_caller_that_leaves_is_not_run_and_frees_its_place() {
    let rig = Rig::new(double, QueueConfig { capacity: 1, ..config(1) });
    let running = rig.submit(&[1.0]);
    rig.next_run().await;
    let leaving = rig.submit(&[2.0]);
    rig.until_waiting(1).await;
    leaving.abort();
    assert!(leaving.await.unwrap_err().is_cancelled());
    let staying = rig.submit(&[3.0, 4.0]);
    rig.until_waiting(1).await;
    rig.permits.send(()).unwrap();
    assert_eq!(rig.next_run().await, 2, "the next run is the one that stayed");
    rig.permits.send(()).unwrap();
    assert!(running.await.unwrap().is_ok());
    assert_eq!(elements(&staying.await.unwrap().unwrap()), [6.0, 8.0]);
}

#[tokio::test]
async fn expired_work_is_dropped_before_compute() {
    let rig = Rig::new(double, config(1));
    let running = rig.submit(&[1.0]);
    rig.next_run().await;
    let past = Admission { deadline: Some(Deadline(Instant::now())), ..Admission::default() };
    let expired = rig.submit_as(&[2.0], Share::Joined(1), past);
    let error = expired.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DeadlineExceeded);
    let later = rig.submit(&[3.0, 4.0]);
    rig.until_waiting(2).await;
    rig.permits.send(()).unwrap();
    assert_eq!(rig.next_run().await, 2, "the expired request is not in the batch");
    rig.permits.send(()).unwrap();
    assert!(running.await.unwrap().is_ok() && later.await.unwrap().is_ok());
}

fn fails_on_nan(elements: &[f32]) -> Result<Vec<f32>, RunError> {
    match elements.iter().any(|element| element.is_nan()) {
        true => Err(RunError::BadInput { reason: "NaN".to_owned() }),
        false => double(elements),
    }
}

#[tokio::test]
async fn one_bad_request_does_not_spoil_its_batch() {
    let rig = Rig::new(fails_on_nan, config(1));
    let running = rig.submit(&[1.0]);
    rig.next_run().await;
    let bad = rig.submit(&[f32::NAN]);
    rig.until_waiting(1).await;
    let good = rig.submit(&[5.0]);
    rig.until_waiting(2).await;
    for _ in 0..4 {
        rig.permits.send(()).unwrap();
    }
    assert!(running.await.unwrap().is_ok());
    assert_eq!(bad.await.unwrap().unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!(elements(&good.await.unwrap().unwrap()), [10.0]);
}

#[tokio::test]
async fn who_left_meanwhile_is_not_run_when_a_batch_is_run_one_by_one() {
    let rig = Rig::new(fails_on_nan, config(1));
    let running = rig.submit(&[1.0]);
    rig.next_run().await;
    let bad = rig.submit(&[f32::NAN]);
    rig.until_waiting(1).await;
    let leaving = rig.submit(&[5.0]);
    rig.until_waiting(2).await;
    rig.permits.send(()).unwrap();
    assert_eq!(rig.next_run().await, 2, "both run together");
    leaving.abort();
    assert!(leaving.await.unwrap_err().is_cancelled());
    let later = rig.submit(&[6.0, 7.0, 8.0]);
    rig.permits.send(()).unwrap();
    assert_eq!(rig.next_run().await, 1, "the bad one alone");
    rig.permits.send(()).unwrap();
    assert_eq!(rig.next_run().await, 3, "the next is the one that came later");
    rig.permits.send(()).unwrap();
    assert!(running.await.unwrap().is_ok() && later.await.unwrap().is_ok());
    assert!(bad.await.unwrap().is_err());
}

#[tokio::test]
async fn a_request_that_shares_with_nobody_runs_alone() {
    let rig = Rig::new(double, config(1));
    let running = rig.submit(&[1.0]);
    rig.next_run().await;
    let alone = |value: &f32| rig.submit_as(&[*value], Share::Alone(1), Admission::default());
    let waiting: Vec<_> = [2.0, 3.0].iter().map(alone).collect();
    rig.until_waiting(2).await;
    rig.permits.send(()).unwrap();
    for answer in waiting {
        assert_eq!(rig.next_run().await, 1);
        rig.permits.send(()).unwrap();
        assert_eq!(answer.await.unwrap().unwrap().timings.batch_rows, 1);
    }
    assert!(running.await.unwrap().is_ok());
}

/// However close the end of the announcement and the decision to wait for it come together.
#[tokio::test]
async fn an_announcement_that_comes_to_nothing_ends_the_wait() {
    let held = Rule { max_rows: 8, max_delay: Duration::from_secs(60) };
    let rig = Rig::new(double, QueueConfig { rule: held, inline: false, ..config(1) });
    let began = Instant::now();
    for _ in 0..200 {
        rig.permits.send(()).unwrap();
        let arriving = rig.queue.announce();
        let answer = rig.submit(&[1.0]);
        rig.until_waiting(1).await;
        drop(arriving);
        assert!(answer.await.unwrap().is_ok());
        assert_eq!(rig.next_run().await, 1);
    }
    assert!(began.elapsed() < held.max_delay, "the whole delay was waited for");
}

fn panics_on_nan(elements: &[f32]) -> Result<Vec<f32>, RunError> {
    assert!(!elements.iter().any(|element| element.is_nan()), "scripted panic");
    double(elements)
}

#[tokio::test]
async fn a_panic_fails_its_own_batch_and_the_instance_lives_on() {
    let rig = Rig::new(panics_on_nan, config(1));
    for _ in 0..2 {
        rig.permits.send(()).unwrap();
        let error = rig.submit(&[f32::NAN]).await.unwrap().unwrap_err();
        assert!(matches!(&error, QueueError::Panicked { message } if message == "scripted panic"));
        assert_eq!(error.kind(), ErrorKind::EngineFailed);
        assert!(!error.client_message().contains("scripted"), "internals stay inside");
        rig.permits.send(()).unwrap();
        assert_eq!(elements(&rig.submit(&[1.0]).await.unwrap().unwrap()), [2.0]);
    }
}

#[tokio::test]
async fn a_panic_while_a_session_is_opened_is_a_failed_request() {
    let rig = Rig::with(double, config(1), |model| {
        Arc::new(OpensSecondTime { tried: AtomicBool::new(false), model })
    });
    let error = rig.submit(&[1.0]).await.unwrap().unwrap_err();
    assert!(matches!(&error, QueueError::Panicked { .. }), "{error}");
    rig.permits.send(()).unwrap();
    assert_eq!(elements(&rig.submit(&[1.0]).await.unwrap().unwrap()), [2.0]);
}

fn drops_a_row(elements: &[f32]) -> Result<Vec<f32>, RunError> {
    Ok(elements[..elements.len().min(1)].to_vec())
}

#[tokio::test]
async fn a_batch_that_cannot_be_parted_is_run_one_by_one() {
    let rig = Rig::new(drops_a_row, config(1));
    let running = rig.submit(&[1.0]);
    rig.next_run().await;
    let waiting = [rig.submit(&[2.0]), rig.submit(&[3.0])];
    rig.until_waiting(2).await;
    for _ in 0..4 {
        rig.permits.send(()).unwrap();
    }
    assert!(running.await.unwrap().is_ok());
    let mut answers = Vec::new();
    for answer in waiting {
        answers.extend(elements(&answer.await.unwrap().unwrap()));
    }
    assert_eq!(answers, [2.0, 3.0]);
}

#[tokio::test]
async fn a_cheap_model_skips_the_hop_once_it_has_proved_cheap() {
    let rig = Rig::new(double, config(1));
    let mut inline = false;
    for _ in 0..1000 {
        rig.permits.send(()).unwrap();
        let timings = rig.submit(&[1.0]).await.unwrap().unwrap().timings;
        inline |= timings.queue.is_zero();
    }
    assert!(inline, "a model of a microsecond never skipped the hop in 1000 runs");
}

/// A failure is often quick: nothing may be concluded from it for an answer of the same size.
#[tokio::test]
async fn failures_do_not_prove_a_model_cheap() {
    let rig = Rig::new(fails_on_nan, config(1));
    for _ in 0..200 {
        rig.permits.send(()).unwrap();
        assert!(rig.submit(&[f32::NAN]).await.unwrap().is_err());
    }
    rig.permits.send(()).unwrap();
    let timings = rig.submit(&[1.0]).await.unwrap().unwrap().timings;
    assert!(!timings.queue.is_zero(), "the first answer was not computed by an instance");
}

#[tokio::test]
async fn a_model_whose_cost_its_size_does_not_tell_never_skips_the_hop() {
    let rig = Rig::new(double, QueueConfig { inline: false, ..config(1) });
    for _ in 0..1000 {
        rig.permits.send(()).unwrap();
        let timings = rig.submit(&[1.0]).await.unwrap().unwrap().timings;
        assert!(!timings.queue.is_zero());
    }
}

/// Two levels of two places each; requests of the first wait for so long at most.
fn two_levels(limit: Option<Duration>) -> QueueConfig {
    let two = NonZeroUsize::new(2);
    let first = LevelSpec { capacity: two, timeout: limit, ..LevelSpec::default() };
    let second = LevelSpec { capacity: two, ..LevelSpec::default() };
    let levels = Levels::declared(&LimitsSpec {
        levels: vec![first, second],
        default_level: NonZeroUsize::new(2).unwrap(),
        ..LimitsSpec::default()
    });
    QueueConfig { levels, ..config(1) }
}

impl Rig {
    fn submit_at(
        &self,
        priority: u64,
        elements: &[f32],
    ) -> tokio::task::JoinHandle<Result<Answer, QueueError>> {
        let level = self.queue.levels().level(Some(priority)).unwrap();
        let admission = Admission { level, ..Admission::default() };
        self.submit_as(elements, Share::Joined(elements.len()), admission)
    }
}

#[tokio::test]
async fn the_urgent_run_first_and_fill_up_with_others() {
    let mut three_rows = two_levels(None);
    three_rows.rule.max_rows = 3;
    let rig = Rig::new(double, three_rows);
    let running = rig.submit_at(2, &[1.0]);
    rig.next_run().await;
    let later = [rig.submit_at(2, &[2.0, 3.0]), rig.submit_at(0, &[4.0])];
    rig.until_waiting(2).await;
    let urgent = rig.submit_at(1, &[5.0]);
    rig.until_waiting(3).await;
    rig.permits.send(()).unwrap();
    assert_eq!(rig.next_run().await, 3);
    rig.permits.send(()).unwrap();
    assert_eq!(elements(&urgent.await.unwrap().unwrap()), [10.0]);
    assert_eq!(rig.next_run().await, 1, "there was no room for the last");
    rig.permits.send(()).unwrap();
    let [first, last] = later;
    assert_eq!(first.await.unwrap().unwrap().timings.batch_rows, 3);
    assert_eq!(elements(&last.await.unwrap().unwrap()), [8.0]);
    assert!(running.await.unwrap().is_ok());
}

#[tokio::test]
async fn each_level_has_its_own_places() {
    let rig = Rig::new(double, two_levels(None));
    let running = rig.submit_at(2, &[1.0]);
    rig.next_run().await;
    let waiting = [rig.submit_at(2, &[2.0]), rig.submit_at(2, &[3.0])];
    rig.until_waiting(2).await;
    let refused = rig.submit_at(2, &[4.0]).await.unwrap().unwrap_err();
    assert_eq!(refused.to_string(), "the queue of priority 2 is full: 2 requests are waiting");
    assert_eq!(refused.kind(), ErrorKind::Overloaded);
    let urgent = rig.submit_at(1, &[5.0]);
    rig.until_waiting(3).await;
    let depths = rig.queue.levels().iter().map(|level| rig.queue.waiting_at(level));
    assert_eq!(depths.collect::<Vec<_>>(), [1, 2]);
    rig.permits.send(()).unwrap();
    assert_eq!(rig.next_run().await, 3);
    rig.permits.send(()).unwrap();
    for answer in waiting.into_iter().chain([running, urgent]) {
        assert!(answer.await.unwrap().is_ok());
    }
    rig.until_waiting(0).await;
    assert!(rig.queue.levels().iter().all(|level| rig.queue.waiting_at(level) == 0));
}

/// The only instance computes all the while: nobody but the caller can notice.
#[tokio::test]
async fn a_request_waits_no_longer_than_its_level_allows() {
    let rig = Rig::new(double, two_levels(Some(Duration::from_millis(1))));
    let running = rig.submit_at(2, &[1.0]);
    rig.next_run().await;
    let patient = rig.submit_at(2, &[2.0]);
    rig.until_waiting(1).await;
    let error = rig.submit_at(1, &[3.0]).await.unwrap().unwrap_err();
    assert_eq!(
        error.to_string(),
        "the request waited longer than the 1ms that requests of priority 1 may"
    );
    assert_eq!(error.kind(), ErrorKind::DeadlineExceeded);
    rig.until_waiting(1).await;
    rig.permits.send(()).unwrap();
    assert_eq!(rig.next_run().await, 1, "what was refused is not run");
    rig.permits.send(()).unwrap();
    assert!(running.await.unwrap().is_ok() && patient.await.unwrap().is_ok());
}

/// The limit is on waiting: a run that has begun is not cut short.
#[tokio::test]
async fn a_run_may_take_longer_than_its_level_may_wait() {
    let limit = Duration::from_millis(10);
    let rig = Rig::new(double, two_levels(Some(limit)));
    let mut submitted = Instant::now();
    let mut running = rig.submit_at(1, &[1.0]);
    while rig.started.try_recv().is_err() {
        tokio::task::yield_now().await;
        if running.is_finished() {
            // On a busy machine the instance may come too late.
            submitted = Instant::now();
            running = rig.submit_at(1, &[1.0]);
        }
    }
    while submitted.elapsed() < 2 * limit {
        tokio::task::yield_now().await;
    }
    rig.permits.send(()).unwrap();
    assert_eq!(elements(&running.await.unwrap().unwrap()), [2.0]);
}

impl Rig {
    fn submit_by(&self, caller: u64) -> tokio::task::JoinHandle<Result<Answer, QueueError>> {
        let admission = Admission { caller: CallerKey(caller), ..Admission::default() };
        self.submit_as(&[caller as f32], Share::Joined(1), admission)
    }
}

#[tokio::test]
async fn a_flood_fills_its_own_share_of_the_places() {
    let rig = Rig::new(double, QueueConfig { capacity: 4, ..config(1) });
    let running = rig.submit_by(1);
    rig.next_run().await;
    let mut flood = Vec::new();
    for waiting in 1..=4 {
        flood.push(rig.submit_by(1));
        rig.until_waiting(waiting).await;
    }
    assert!(matches!(rig.submit_by(1).await.unwrap(), Err(QueueError::Full { capacity: 4 })));
    let mut others = Vec::new();
    for _ in 0..2 {
        others.push(rig.submit_by(2));
        let newest = flood.pop().unwrap().await.unwrap();
        assert!(matches!(newest, Err(QueueError::Full { capacity: 4 })), "{newest:?}");
        assert_eq!(rig.queue.waiting(), 4);
    }
    assert!(rig.submit_by(2).await.unwrap().is_err(), "it holds as much as the flood");
    let leaving = others.pop().unwrap();
    leaving.abort();
    assert!(leaving.await.unwrap_err().is_cancelled());
    let third = rig.submit_by(3);
    // It is queued before this goes on: the runtime has one thread.
    tokio::task::yield_now().await;
    rig.permits.send(()).unwrap();
    assert_eq!(rig.next_run().await, 4, "who left has made room, and nobody was refused");
    rig.permits.send(()).unwrap();
    for answer in flood.into_iter().chain(others).chain([running, third]) {
        assert!(answer.await.unwrap().is_ok());
    }
    rig.until_waiting(0).await;
}

#[tokio::test]
async fn dropping_the_queue_ends_its_instances() {
    let rig = Rig::new(double, config(2));
    let running = rig.submit(&[1.0]);
    rig.next_run().await;
    running.abort();
    assert!(running.await.unwrap_err().is_cancelled());
    let Rig { queue, started, permits } = rig;
    permits.send(()).unwrap();
    let queue = Arc::into_inner(queue).expect("nobody else holds it");
    tokio::task::spawn_blocking(move || drop(queue)).await.unwrap();
    assert!(started.recv().is_err(), "the model and its sessions are gone");
}
