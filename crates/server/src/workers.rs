//! Threads that serve connections, each with an event loop of its own.
//!
//! A small request costs some ten microseconds of work. On a work-stealing runtime a good part of
//! that again goes into waking the other threads and moving tasks between them; a connection that
//! stays on one thread costs none of it (docs/decisions/004-connections-stay-on-one-thread.md). So
//! each connection is given to the thread that has the fewest, and everything it does happens there.
//!
//! Invariant: what runs here never blocks for longer than a small model takes; heavy decoding and
//! encoding go to threads that may block, and all other models have threads of their own.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use tokio::runtime::{Builder, Handle};
use tokio_util::sync::CancellationToken;

/// The threads of one listener; dropping it ends them, with whatever they still hold.
pub(crate) struct Workers {
    workers: Vec<Worker>,
    stop: CancellationToken,
}

struct Worker {
    handle: Handle,
    connections: Arc<AtomicUsize>,
}

/// A connection's place on a thread; dropping it frees the place.
pub(crate) struct Seat {
    handle: Handle,
    connections: Arc<AtomicUsize>,
}

impl Workers {
    /// Starts as many threads as this process may use cores. Where the system refuses them, the
    /// caller's own runtime serves alone.
    pub(crate) fn start(name: &str) -> Self {
        let stop = CancellationToken::new();
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let mut workers = Vec::with_capacity(cores);
        for index in 0..cores {
            match start_one(format!("{name}-{index}"), stop.clone()) {
                Ok(handle) => workers.push(Worker::new(handle)),
                Err(error) => tracing::warn!(%error, "cannot start a thread for connections"),
            }
        }
        if workers.is_empty() {
            workers.push(Worker::new(Handle::current()));
        }
        Workers { workers, stop }
    }

    /// Returns a place on the thread with the fewest connections.
    pub(crate) fn seat(&self) -> Seat {
        let count = |worker: &&Worker| worker.connections.load(Ordering::Relaxed);
        let worker = self.workers.iter().min_by_key(count).expect("there is at least one");
        worker.connections.fetch_add(1, Ordering::Relaxed);
        Seat { handle: worker.handle.clone(), connections: Arc::clone(&worker.connections) }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Worker {
    fn new(handle: Handle) -> Self {
        Worker { handle, connections: Arc::default() }
    }
}

impl Seat {
    /// Returns the runtime to spawn the connection on.
    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

fn start_one(name: String, stop: CancellationToken) -> io::Result<Handle> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    thread::Builder::new().name(name).spawn(move || {
        runtime.block_on(stop.cancelled());
        // Work on threads that may block is not waited for: its connection is gone.
        runtime.shutdown_background();
    })?;
    Ok(handle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn connections_spread_and_run_on_other_threads() {
        let workers = Workers::start("test");
        let seats: Vec<Seat> = (0..2 * workers.workers.len()).map(|_| workers.seat()).collect();
        for worker in &workers.workers {
            assert_eq!(worker.connections.load(Ordering::Relaxed), 2);
        }
        let name = || thread::current().name().map(str::to_owned);
        let on = seats[0].handle().spawn(async move { name() }).await.unwrap();
        assert!(on.is_some_and(|name| name.starts_with("test-")));
        drop(seats);
        assert!(workers.workers.iter().all(|w| w.connections.load(Ordering::Relaxed) == 0));
    }
}
