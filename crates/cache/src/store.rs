//! Answers in Redis, for all replicas that serve the same content.
//!
//! Each call is bounded in time. Whether there is a connection is the business of [`Link`]: where there is
//! none, a call fails at once. What is stored is stored beside the requests, so many at once at most.

use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, RedisError};
use tokio::sync::Semaphore;

use crate::CacheKey;
use crate::link::{Advice, Failure, Link};

/// Begins every key there; the number is that of the form of keys and values.
const PREFIX: &str = "outhaul:cache:1:";

/// How long a request waits for an answer to be found.
const LOOK_UP: Duration = Duration::from_millis(20);

/// How long storing may take. No request waits for it.
const STORE: Duration = Duration::from_millis(500);

/// How long to look for Redis. No request waits for it.
const CONNECT: Duration = Duration::from_secs(2);

/// The largest answer that is stored. A larger one would hold up those behind it on the connection.
pub(crate) const LARGEST: usize = 1 << 20;

/// Answers that are being stored at once; more are not stored.
const STORING: usize = 64;

/// How long Redis keeps answers that are good for ever: nobody else tells it that their version is gone.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// A Redis that replicas share. One for the process; a clone is the same.
#[derive(Clone)]
pub struct SharedStore(Arc<Inner>);

struct Inner {
    client: Client,
    /// Host and port, for logs: the URL may hold a password.
    place: String,
    link: Mutex<Link<MultiplexedConnection>>,
    storing: Arc<Semaphore>,
}

/// Why a URL names no Redis.
#[derive(Debug, thiserror::Error)]
pub enum StoreUrlError {
    /// It asks for TLS.
    #[error(
        "this build speaks to Redis without TLS: write redis://, and let a tunnel or sidecar encrypt"
    )]
    Tls,
    /// It is no URL of Redis.
    #[error("expected redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE]")]
    Invalid(#[source] RedisError),
}

/// A call to Redis that gave nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Away;

impl fmt::Debug for SharedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SharedStore({})", self.0.place)
    }
}

impl SharedStore {
    /// Makes the store at a URL, `redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE]`. Nothing is called yet: a
    /// Redis that is away now may come.
    ///
    /// # Errors
    ///
    /// Fails where the URL names no Redis that can be spoken to.
    pub fn new(url: &str) -> Result<Self, StoreUrlError> {
        if url.starts_with("rediss://") {
            return Err(StoreUrlError::Tls);
        }
        let client = Client::open(url).map_err(StoreUrlError::Invalid)?;
        let place = client.get_connection_info().addr().to_string();
        let link = Mutex::new(Link::new(Instant::now()));
        let storing = Arc::new(Semaphore::new(STORING));
        Ok(SharedStore(Arc::new(Inner { client, place, link, storing })))
    }

    /// Looks for Redis, so that the first requests find it; returns whether it answers. Requests do the
    /// same where nobody did.
    pub async fn connect(&self) -> bool {
        let advice = self.link().advise(Instant::now());
        match advice {
            Advice::Call(..) => true,
            Advice::Rest => false,
            // Apart, so that it comes to its end whatever becomes of this future.
            Advice::Connect => {
                let store = self.clone();
                tokio::spawn(async move { store.look().await }).await.unwrap_or(false)
            }
        }
    }

    /// Returns the bytes under a key, and for how long they are good yet; `None` there where it was stored
    /// without a limit of its own.
    pub(crate) async fn get(
        &self,
        key: &CacheKey,
    ) -> Result<Option<(Bytes, Option<Duration>)>, Away> {
        let name = format!("{PREFIX}{key}");
        let mut both = redis::pipe();
        both.get(&name).pttl(&name);
        let call = |mut connection: MultiplexedConnection| async move {
            both.query_async::<(Option<Vec<u8>>, i64)>(&mut connection).await
        };
        let (value, left) = self.call(LOOK_UP, call).await?;
        let left = match left {
            // It has no limit.
            -1 => None,
            // It went between the two commands, or is there.
            millis => Some(Duration::from_millis(u64::try_from(millis).unwrap_or(0))),
        };
        Ok(value.map(|value| (value.into(), left)))
    }

    /// Stores bytes under a key for a time, beside the requests. `failed` is called where that fails.
    pub(crate) fn put(
        &self,
        key: &CacheKey,
        value: Vec<u8>,
        good_for: Option<Duration>,
        failed: impl FnOnce() + Send + 'static,
    ) {
        let Ok(place) = Arc::clone(&self.0.storing).try_acquire_owned() else { return failed() };
        let millis = good_for.unwrap_or(LONGEST).as_millis();
        let millis = u64::try_from(millis).unwrap_or(u64::MAX >> 1).max(1);
        let mut set = redis::cmd("SET");
        set.arg(format!("{PREFIX}{key}")).arg(value).arg("PX").arg(millis);
        let store = self.clone();
        tokio::spawn(async move {
            let call = |mut connection: MultiplexedConnection| async move {
                set.query_async::<()>(&mut connection).await
            };
            if store.call(STORE, call).await.is_err() {
                failed();
            }
            drop(place);
        });
    }

    /// Calls Redis, where it can be called, and notes how that ended.
    async fn call<T, F>(
        &self,
        limit: Duration,
        call: impl FnOnce(MultiplexedConnection) -> F,
    ) -> Result<T, Away>
    where
        F: Future<Output = Result<T, RedisError>>,
    {
        let advice = self.link().advise(Instant::now());
        let (connection, number) = match advice {
            Advice::Call(connection, number) => (connection, number),
            Advice::Rest => return Err(Away),
            Advice::Connect => {
                let store = self.clone();
                tokio::spawn(async move { store.look().await });
                return Err(Away);
            }
        };
        let (how, value) = match tokio::time::timeout(limit, call(connection)).await {
            Ok(Ok(value)) => (Ok(()), Ok(value)),
            Ok(Err(error)) if error.is_unrecoverable_error() => (Err(Failure::Broken), Err(Away)),
            Ok(Err(_)) | Err(_) => (Err(Failure::Unanswered), Err(Away)),
        };
        if self.link().ended(number, how, Instant::now()) {
            tracing::warn!(redis = self.0.place, "lost: answers are computed until it is back");
        }
        value
    }

    /// Looks for Redis and notes what came of it.
    async fn look(&self) -> bool {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT))
            // Each call has a limit of its own.
            .set_response_timeout(None);
        let connecting = async {
            let mut found =
                self.0.client.get_multiplexed_async_connection_with_config(&config).await?;
            redis::cmd("PING").query_async::<()>(&mut found).await?;
            Ok::<_, RedisError>(found)
        };
        match tokio::time::timeout(CONNECT, connecting).await {
            Ok(Ok(connection)) => {
                self.link().reached(connection);
                tracing::info!(redis = self.0.place, "connected: answers are shared");
                true
            }
            Ok(Err(error)) => {
                self.link().missed(Instant::now());
                tracing::debug!(redis = self.0.place, %error, "not reached");
                false
            }
            Err(_) => {
                self.link().missed(Instant::now());
                tracing::debug!(redis = self.0.place, "not reached in time");
                false
            }
        }
    }

    fn link(&self) -> MutexGuard<'_, Link<MultiplexedConnection>> {
        self.0.link.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_that_names_no_redis_is_refused() {
        for (url, expected) in [
            ("rediss://127.0.0.1", "without TLS"),
            ("http://127.0.0.1", "expected redis://"),
            ("", "expected redis://"),
        ] {
            let error = SharedStore::new(url).unwrap_err().to_string();
            assert!(error.contains(expected), "{url}: {error}");
        }
        let store = SharedStore::new("redis://user:secret@127.0.0.1:6379/2").unwrap();
        assert!(!format!("{store:?}").contains("secret"));
    }
}
