//! The loop of one instance: sort, decide, run, answer.

use std::sync::atomic::{Ordering, fence};
use std::sync::{Arc, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Instant;

use outhaul_engine::Session;
use outhaul_types::{BoundInputs, Tensors, Timings};

use crate::QueueError;
use crate::pending::Decision;
use crate::queue::{Shared, Work, input_size};
use crate::run::{Answer, BatchRun, part, run_guarded, run_together, timings_alone};

/// Starts the thread of instance `index`.
pub(crate) fn spawn(
    name: &str,
    index: usize,
    shared: Arc<Shared>,
) -> std::io::Result<JoinHandle<()>> {
    Builder::new().name(format!("{name}/{index}")).spawn(move || {
        let _ = shared.bells[index].thread.set(std::thread::current());
        work(&shared, index);
    })
}

/// What the instance does next, with the requests to do it with.
enum Next {
    Run(Vec<Work>),
    Wait(Option<Instant>),
}

fn work(shared: &Shared, index: usize) {
    let mut session: Option<Box<dyn Session>> = None;
    loop {
        match next(shared) {
            Next::Run(batch) => {
                run_batch(shared, &mut session, batch);
                shared.busy.fetch_sub(1, Ordering::Relaxed);
            }
            Next::Wait(None) if shared.closed.load(Ordering::Relaxed) => return,
            Next::Wait(until) => sleep(shared, index, until),
        }
    }
}

/// Decides and, where there is something to run, takes it. Marks the instance busy before the lock
/// is released, so that the next one to decide knows.
fn next(shared: &Shared) -> Next {
    let now = Instant::now();
    let mut pending = shared.pending.lock().unwrap_or_else(PoisonError::into_inner);
    shared.sort(&mut pending, now);
    match pending.decide(&shared.config.rule, &shared.observe(), now) {
        Decision::Run { group, requests } => {
            let mut batch = pending.take(group, requests);
            batch.iter_mut().for_each(|work| work.place = None);
            shared.busy.fetch_add(1, Ordering::Relaxed);
            let more = !pending.is_empty();
            drop(pending);
            if more {
                // Whoever submitted the rest may have woken only us.
                shared.wake_one();
            }
            Next::Run(batch)
        }
        Decision::WaitUntil(until) => Next::Wait(Some(until)),
        Decision::Sleep => {
            if shared.busy.load(Ordering::Relaxed) == 0 {
                pending.rest();
            }
            Next::Wait(None)
        }
    }
}

/// Sleeps until woken or `until`. A wake-up without cause is harmless: the loop decides anew.
fn sleep(shared: &Shared, index: usize, until: Option<Instant>) {
    let bell = &shared.bells[index];
    bell.asleep.store(true, Ordering::Relaxed);
    // Pairs with the fence in `Shared::wake_one`.
    fence(Ordering::SeqCst);
    // Where a batch is held open, there must still be somebody to hold it for.
    let nothing_new = shared.intake.is_empty()
        && !shared.closed.load(Ordering::Relaxed)
        && match until {
            Some(_) => shared.is_awaited(),
            // A caller that found the queue full may have sorted the intake since we decided.
            None => shared.pending.try_lock().is_ok_and(|pending| pending.is_empty()),
        };
    match until {
        _ if !nothing_new => {}
        None => std::thread::park(),
        Some(until) => std::thread::park_timeout(until.saturating_duration_since(Instant::now())),
    }
    bell.asleep.store(false, Ordering::Relaxed);
}

/// Runs a batch and answers its callers.
fn run_batch(shared: &Shared, session: &mut Option<Box<dyn Session>>, batch: Vec<Work>) {
    if batch.len() == 1 {
        batch.into_iter().for_each(|work| run_alone(shared, session, work));
        return;
    }
    let started = Instant::now();
    let rows: Vec<usize> = batch.iter().map(|work| work.share.rows()).collect();
    let inputs: Vec<&BoundInputs> = batch.iter().map(|work| &work.inputs).collect();
    let run = run_together(shared.model.as_ref(), session, &inputs);
    let parted = run.and_then(|run| part(&run.outputs, &rows).map(|parts| (run, parts)));
    match parted {
        Ok((run, parts)) => answer_all(shared, started, batch, (run, parts)),
        Err(error @ (QueueError::Panicked { .. } | QueueError::NoSession { .. })) => {
            tracing::error!(requests = batch.len(), %error, "a batch crashed");
            for work in batch {
                let _ = work.answer.send(Err(error.clone()));
            }
        }
        // One request's values spoil the whole run: each gets the answer that is its own.
        Err(_) => batch.into_iter().for_each(|work| run_alone(shared, session, work)),
    }
}

fn answer_all(shared: &Shared, started: Instant, batch: Vec<Work>, done: (BatchRun, Vec<Tensors>)) {
    let (run, parts) = done;
    let split = started.elapsed().saturating_sub(run.assemble + run.compute);
    let batch_rows = batch.iter().map(|work| work.share.rows()).sum();
    shared.metrics.record_batch(batch_rows, batch.len(), run.compute);
    // One request alone would have taken no longer than all of them together.
    shared.gauge.observe_at_most(batch.iter().map(|work| input_size(&work.inputs)), run.compute);
    for (work, outputs) in batch.into_iter().zip(parts) {
        let queue = started.saturating_duration_since(work.enqueued);
        let (assemble, compute) = (run.assemble, run.compute);
        let timings = Timings { queue, assemble, compute, split, batch_rows, ..Timings::default() };
        let _ = work.answer.send(Ok(Answer { outputs, timings }));
    }
}

fn run_alone(shared: &Shared, session: &mut Option<Box<dyn Session>>, work: Work) {
    let started = Instant::now();
    // It may have been in a batch that failed, and have waited for others to run alone before it.
    if work.is_dead(started) {
        work.bury();
        return;
    }
    let result = run_guarded(shared.model.as_ref(), session, &work.inputs);
    let compute = started.elapsed();
    let rows = work.share.rows();
    match &result {
        Ok(_) => {
            shared.gauge.observe(input_size(&work.inputs), compute);
            shared.metrics.record_batch(rows, 1, compute);
        }
        Err(error @ (QueueError::Panicked { .. } | QueueError::NoSession { .. })) => {
            tracing::error!(%error, "a request crashed the engine");
        }
        Err(_) => {}
    }
    let timings = timings_alone(started.saturating_duration_since(work.enqueued), compute, rows);
    let _ = work.answer.send(result.map(|outputs| Answer { outputs, timings }));
}
