//! Threads on which texts and pictures become tensors.
//!
//! There is one for each core, whatever the number of connections: a flood of pictures waits here, in
//! order, and neither holds up other connections nor decodes more pictures at once than there are
//! cores. A request whose caller has gone away is dropped before it costs anything.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use rayon_core::{ThreadPool, ThreadPoolBuilder};
use tokio::sync::oneshot;

use crate::RouterError;

/// The threads; started when the first request needs them.
#[derive(Default)]
pub(crate) struct Preparing {
    pool: OnceLock<Option<ThreadPool>>,
}

/// How much of one version's work waits or runs there.
pub(crate) type InPreparation = Arc<AtomicUsize>;

/// Counts work while it waits or runs.
struct Waiting(Arc<AtomicUsize>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Preparing {
    /// Does `work` of one version on one of the threads, unless `capacity` pieces of its work wait there
    /// already. Dropping the future takes back what has not begun.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        waiting: &InPreparation,
        capacity: usize,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, RouterError> {
        let before = waiting.fetch_add(1, Ordering::Relaxed);
        let waiting = Waiting(Arc::clone(waiting));
        if before >= capacity {
            return Err(RouterError::PreparingFull { waiting: before });
        }
        let Some(pool) = self.pool.get_or_init(start) else {
            // The operating system gives no threads: slow is better than no answer.
            return Ok(work());
        };
        let (answer, answered) = oneshot::channel();
        pool.spawn(move || {
            let _waiting = waiting;
            if !answer.is_closed() {
                let _ = answer.send(work());
            }
        });
        // The sender is dropped unused only where `work` panicked.
        answered.await.map_err(|_| RouterError::PreparingPanicked)
    }
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
    use outhaul_types::{Classify, ErrorKind};

    use super::*;

    #[tokio::test]
    async fn a_panic_fails_its_own_request() {
        let (preparing, waiting) = (Preparing::default(), InPreparation::default());
        let failed = preparing.run::<()>(&waiting, 8, || panic!("scripted")).await;
        assert_eq!(failed.unwrap_err().kind(), ErrorKind::Internal);
        assert_eq!(preparing.run(&waiting, 8, || 3).await.unwrap(), 3);
    }

    #[tokio::test]
    async fn what_is_beyond_the_capacity_is_refused() {
        let (preparing, waiting) = (Preparing::default(), InPreparation::default());
        let refused = preparing.run(&waiting, 0, || 3).await;
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::Overloaded);
        assert_eq!(waiting.load(Ordering::Relaxed), 0);
    }
}
