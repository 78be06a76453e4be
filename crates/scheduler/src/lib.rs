//! Per model version: a bounded queue, a batcher, and instances on threads of their own.
//!
//! The way of a request: [`ModelQueue::infer`] runs it at once on the calling thread where the model
//! is cheaper than the hop to another thread (`inline`); else it goes into a lock-free intake and
//! wakes an idle instance. An instance sorts the intake into groups of equal shape (`pending`), asks
//! the pure batching rule what to run, runs it, and parts the answer.
//!
//! The batching rule, in full (`pending::Pending::decide`):
//!
//! 1. An idle instance runs what is queued at once. It takes the group whose head is the most urgent
//!    and, among equally urgent ones, has waited longest, at most `max_rows` rows, and leaves enough behind that no other idle instance goes
//!    without work.
//! 2. It holds a batch open only while the batch has room, nothing else could run, and a further
//!    request is known to be on its way (its body is being read), and never beyond `max_delay` after
//!    the head arrived or the newest announcement was made.
//! 3. Requests whose shapes differ beyond the rows are never in one batch, and nothing is padded. A
//!    request whose inputs are not rows throughout ([`Share::Alone`]) is in no batch with others.
//! 4. Levels of priority are strict: no batch begins with a request while a more urgent one waits, and
//!    a batch takes requests of equal shape in order of their levels. Less urgent ones only fill the
//!    room that is left: the run is made in any case, and its cost per request is what batches save.
//!    No more urgent batch is held open (rule 2) while a less urgent one could run; it runs at once.
//!
//! Invariants: submitting takes no lock and never blocks; expired and abandoned requests are dropped
//! before they cost compute; a panic or error in the engine fails the batch that met it and nothing
//! else; a request that shares a batch with a bad one still gets its own answer.
//!
//! Choosing a version, caching and transforming are not done here.

mod error;
mod inline;
mod instance;
mod level;
mod pending;
mod places;
mod queue;
mod run;

pub use error::QueueError;
pub use level::{BadPriority, Level, Levels};
pub use pending::Rule;
pub use queue::{Admission, Arriving, ModelQueue, QueueConfig, Share};
pub use run::Answer;
