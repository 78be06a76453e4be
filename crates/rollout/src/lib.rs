//! Roll-outs and experiments: what to change of the routes, decided purely and carried out plainly.

pub mod evidence;
pub mod experiment;
pub mod guard;
mod journal;
pub mod judge;
pub mod plan;
#[cfg(test)]
mod samples;
#[cfg(test)]
mod simulation;
mod sync;
pub mod traffic;
pub mod world;
