//! Where model versions come from, what a user declares about them, and their state.
//!
//! Invariant: the contents of a version are opaque here. A [`Catalog`] holds whatever the router
//! serves, and a [`Scan`] is names, numbers and paths; no engine and no model file is opened.
//!
//! Start with [`scan`], which turns paths into models and problems, then [`Catalog`].

mod declared;
mod manifest;
mod problem;
mod scan;
mod state;

pub use declared::{Declarations, Rule, Value, nearest};
pub use manifest::{MANIFEST_FILE, MANIFEST_KEYS, read_manifest};
pub use problem::Problem;
pub use scan::{MODEL_FILE, ModelFolder, Scan, VersionArtefact, scan};
pub use state::{Catalog, Change, ModelEntry, Snapshot, Unresolved, VersionState};
