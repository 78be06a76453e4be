//! Answers kept for equal requests.
//!
//! An [`AnswerCache`] belongs to one version of a model. It keeps answers in memory, in Redis, or in both,
//! and computes what several callers ask for at once a single time. It knows tensors, and neither models
//! nor routers: what an answer is computed from is summed up in a [`CacheKey`] by whoever asks.
//!
//! Invariants:
//!
//! - An answer is found under the key that it was computed for, within its time, or not at all. What Redis
//!   holds is checked to be the whole answer to this key; anything else is a miss.
//! - An error is told to everybody who waits for it, and never kept.
//! - A computation lives as long as somebody waits for it. It belongs to nobody: whoever came first may leave,
//!   and each who waits has a deadline of its own.
//! - A hit in memory waits for nothing: no lock, no thread, no timer.
//! - Redis may be slow, away or wrong, which costs misses: each call is bounded, and after failures
//!   nobody calls until it has been reached again. See [`SharedStore`].
//!
//! Answers are copied when they are kept: a tensor may be a slice of a far larger buffer (a batch's output, a
//! request's body), which would stay in memory with it.

mod answers;
mod codec;
mod in_flight;
mod kept;
mod key;
mod link;
mod memory;
mod store;
#[cfg(test)]
mod testing;

pub use answers::{AnswerCache, Ask, Found, Missed};
pub use kept::Kept;
pub use key::{CacheKey, KeyBuilder};
pub use store::{SharedStore, StoreUrlError};
