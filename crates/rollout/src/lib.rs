//! Roll-outs and experiments: what to change of the routes, decided purely and carried out plainly.

pub mod guard;
pub mod world;
