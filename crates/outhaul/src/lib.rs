//! Outhaul as a library: open models and answer predictions in your own process, no socket between.
//!
//! [`open`] finds models, chooses an engine for each, and returns a [`Router`] that answers. It is
//! the same door that the server uses. `examples/embed` is a small service built on it.
//!
//! This crate is also the binary `outhaul`; it is the only one that names concrete engines. It holds
//! wiring and commands, no logic of its own.

mod digest;
mod engines;
pub mod load;
mod loader;
mod memory;
mod model_file;
mod open;
mod private;

pub use engines::{Engines, NamedEngine, NoEngine};
pub use loader::try_to_load;
pub use memory::MemoryMeter;
pub use model_file::{ModelFile, NoModelFile, describe_conversion, is_weights};
pub use open::{
    Keeping, OpenError, OpenOptions, Opened, Place, cache_folder, loaded, open, prepare, state_file,
};
pub use outhaul_repository::{Mode, Problem, RepositoryConfig, Severity};
pub use outhaul_router::{ModelDescription, Router, RouterError, VersionStatus};
pub use outhaul_types as types;
