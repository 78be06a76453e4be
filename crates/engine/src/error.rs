//! What can go wrong in an engine.

use outhaul_types::{Classify, ErrorKind};

/// Why a model cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file is not a model, or a damaged one.
    #[error("the model file cannot be read: {reason}")]
    BadFile {
        /// What is wrong with it.
        reason: String,
    },
    /// The model is sound, but this engine would not run it exactly.
    #[error("engine '{engine}' does not run {what}{}", alternative(.instead))]
    Unsupported {
        /// The engine that refuses.
        engine: &'static str,
        /// What it refuses, with node and operator: `operator 'Frobnicate' of node 'n1'`.
        what: String,
        /// The engine that can, where one is known.
        instead: Option<&'static str>,
    },
    /// The engine's library cannot be used.
    #[error("engine '{engine}' is not available: {reason}")]
    Unavailable {
        /// The engine.
        engine: &'static str,
        /// Why, and what to do about it.
        reason: String,
    },
    /// The engine failed for a reason of its own.
    #[error("engine '{engine}' failed to load the model: {reason}")]
    Failed {
        /// The engine.
        engine: &'static str,
        /// What it said.
        reason: String,
    },
}

fn alternative(instead: &Option<&'static str>) -> String {
    instead.map(|engine| format!("; engine '{engine}' does")).unwrap_or_default()
}

impl Classify for LoadError {
    fn kind(&self) -> ErrorKind {
        match self {
            LoadError::BadFile { .. } => ErrorKind::InvalidInput,
            LoadError::Unsupported { .. } => ErrorKind::Unsupported,
            LoadError::Unavailable { .. } => ErrorKind::Unavailable,
            LoadError::Failed { .. } => ErrorKind::EngineFailed,
        }
    }
}

fn able(instead: &Option<&'static str>) -> String {
    instead.map(|engine| format!("; engine '{engine}' can")).unwrap_or_default()
}

/// Why one run failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RunError {
    /// The values or shapes of this request do not work with the model: the caller's mistake.
    #[error("{reason}")]
    BadInput {
        /// Which input, and why.
        reason: String,
    },
    /// A sound request that this engine would not answer exactly: only its values told.
    #[error("engine '{engine}' cannot answer this request exactly: {reason}{}", able(.instead))]
    Unsupported {
        /// The engine that refuses.
        engine: &'static str,
        /// Which value, and why.
        reason: String,
        /// The engine that can, where one is known.
        instead: Option<&'static str>,
    },
    /// The engine failed.
    #[error("engine '{engine}' failed to run the model: {reason}")]
    Failed {
        /// The engine.
        engine: &'static str,
        /// What it said.
        reason: String,
    },
}

impl Classify for RunError {
    fn kind(&self) -> ErrorKind {
        match self {
            RunError::BadInput { .. } => ErrorKind::InvalidInput,
            RunError::Unsupported { .. } => ErrorKind::Unsupported,
            RunError::Failed { .. } => ErrorKind::EngineFailed,
        }
    }
}
