//! The repository of the built `outhaul`, under whatever goes wrong around it: killed at any moment,
//! given files that are no models, folders that vanish, and new versions under load.
//!
//! Each test has its own folder and server, on the embedded engine, so that no library is needed.
//! Every model here tells which content it was loaded from, and whether it was loaded from a whole
//! one: see `model`.

// Pipes, links and signals are made, and `/proc` is read.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "everything here is a test")]

mod bucket;
mod changes;
mod files;
mod kill;
mod model;
mod names;
mod server;
mod swaps;
