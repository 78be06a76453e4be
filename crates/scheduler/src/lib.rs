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
//!    and, among equally urgent ones, is the next by rule 5, at most `max_rows` rows, and leaves enough
//!    behind that no other idle instance goes without work.
//! 2. It holds a batch open only while the batch has room, nothing else could run, and a further
//!    request is known to be on its way (its body is being read), and never beyond `max_delay` after
//!    the head arrived or the newest announcement was made.
//! 3. Requests whose shapes differ beyond the rows are never in one batch, and nothing is padded. A
//!    request whose inputs are not rows throughout ([`Share::Alone`]) is in no batch with others.
//! 4. No batch begins with a request while a more urgent one waits, and a batch takes requests of equal
//!    shape in order of their levels. Less urgent ones only fill the room that is left: the run is made in
//!    any case, and its cost per request is what batches save. No more urgent batch is held open (rule 2)
//!    while a less urgent one could run; it runs at once. The exception: where levels are not declared but
//!    the usual three, a level that waits while 15 batches in a row begin with others begins the next, so
//!    that of any 17 batches at least one begins with each level that waits (17, not 16, because two levels
//!    may be due at once). Declared levels are strict.
//! 5. Requests of one level run in the order of start tags (`fair`): of one caller in order of arrival, of
//!    several in turns, by the weights of the callers and the rows of their requests. While two callers
//!    wait, what each was served in rows over its weight differs by at most a request of each. A caller
//!    with nothing waiting goes before all that a flood has queued: it waits for the batch that runs.
//! 6. Where all places are taken, a newcomer gets the place of another caller's request, if that caller
//!    holds more for its weight than the newcomer's would then: the newest of its least urgent ones is
//!    refused instead. So of `P` places a caller of weight `w` is refused one only while it holds at least
//!    `P * w / W - 1`, where `W` are the weights of all callers that wait: a flood fills its own share. A
//!    newcomer may also take the place of a less urgent request of its own caller. Whoever is refused is
//!    refused without a look for a millisecond, unless a place is free.
//!
//! Invariants: submitting takes no lock and never blocks (a caller that finds the queue full tries one);
//! expired and abandoned requests are dropped before they cost compute; a panic or error in the engine
//! fails the batch that met it and nothing else; a request that shares a batch with a bad one still gets
//! its own answer.
//!
//! Choosing a version, caching and transforming are not done here.

mod error;
mod fair;
mod inline;
mod instance;
mod level;
mod line;
mod pending;
mod places;
mod queue;
mod run;

pub use error::QueueError;
pub use fair::CallerKey;
pub use level::{BadPriority, Level, Levels};
pub use line::Line;
pub use pending::Rule;
pub use places::Refusals;
pub use queue::{Admission, Arriving, ModelQueue, QueueConfig, Share};
pub use run::Answer;
