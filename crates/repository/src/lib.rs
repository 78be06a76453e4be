//! Where model versions come from, what a user declares about them, and their state.
//!
//! Invariant: the contents of a version are opaque here. A [`Catalog`] holds whatever the router
//! serves, and a [`Scan`] is names, numbers and paths; no engine and no model file is opened.
//!
//! Start with [`scan`], which turns paths into models and problems, then [`Catalog`].

mod catalog;
mod declared;
pub mod formats;
mod handle;
mod journal;
mod keeper;
mod loading;
mod lookout;
mod manifest;
mod plan;
mod problem;
mod record;
mod resident;
mod scan;
pub mod source;

pub use catalog::{
    Catalog, Change, Draft, ModelEntry, ModelFacts, PipelineEntries, PipelineEntry, Snapshot,
    Unresolved, VersionEntry, VersionState,
};
pub use declared::{Declarations, Rule, Value, nearest};
pub use formats::pipeline::{PIPELINE_FILE, read_pipeline, write_pipeline};
pub use handle::{AskError, Handle};
pub use journal::Journal;
pub use keeper::{Mode, Parts, RepositoryConfig, start};
pub use loading::{LoadFailure, LoadOrder, Loaded, Loader};
pub use manifest::{MANIFEST_FILE, MANIFEST_KEYS, read_manifest, write_manifest};
pub use problem::{Problem, Severity};
pub use resident::Resident;
pub use scan::{
    Identity, MODEL_FILE, ModelFolder, PipelineFolder, Scan, VersionArtefact,
    artefact as artefact_of, artefact_files, scan,
};
pub use source::{AddError, Added, Cache, LocalFolder, Remote, Source, SourceError, is_url};
