//! Damaged, hostile and unservable files are errors, never crashes and never answers.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use super::Suite;
use crate::{Engine, LoadError, LoadOptions};

/// A file that must be refused, and words that the refusal must hold.
struct Damaged {
    name: &'static str,
    names: &'static [&'static str],
}

const DAMAGED: &[Damaged] = &[
    Damaged { name: "unknown_operator", names: &["com.example", "Frobnicate"] },
    Damaged { name: "sequence_output", names: &[] },
    Damaged { name: "truncated", names: &[] },
    Damaged { name: "not_onnx", names: &[] },
    Damaged { name: "zero_bytes", names: &[] },
    Damaged { name: "negative_dim", names: &[] },
    Damaged { name: "initializer_lies", names: &[] },
    Damaged { name: "initializer_overflow", names: &[] },
    Damaged { name: "initializer_huge", names: &[] },
    Damaged { name: "external_missing", names: &[] },
    Damaged { name: "external_escape", names: &[] },
    Damaged { name: "external_absolute", names: &[] },
    Damaged { name: "cycle", names: &[] },
    Damaged { name: "undefined_value", names: &[] },
    Damaged { name: "deep_nesting", names: &[] },
];

impl Suite<'_> {
    /// Every damaged file is refused, by the reader or by the engine.
    pub(super) fn damaged_files(&mut self) {
        for damaged in DAMAGED {
            let path = self.model_path(damaged.name);
            let engine = self.engine;
            let refused = catch_unwind(AssertUnwindSafe(|| refusal(engine, &path)));
            let outcome = match refused {
                Err(_) => Err("panics".to_owned()),
                Ok(Err(reason)) => Err(reason),
                Ok(Ok(refusal)) => {
                    match damaged.names.iter().find(|name| !refusal.contains(**name)) {
                        None => Ok(()),
                        Some(name) => Err(format!("is refused without naming '{name}': {refusal}")),
                    }
                }
            };
            self.check(damaged.name, outcome);
        }
    }
}

/// Returns what the refusal says, or why there was none.
fn refusal(engine: &dyn Engine, path: &Path) -> Result<String, String> {
    if !path.exists() {
        return Err(format!("{} is missing", path.display()));
    }
    let model = match outhaul_onnx::read(path) {
        Ok(model) => model,
        Err(error) => return Ok(error.to_string()),
    };
    match engine.load(&model, &LoadOptions::default()) {
        Ok(_) => Err("loads".to_owned()),
        Err(LoadError::Unavailable { reason, .. }) => Err(format!("the engine is away: {reason}")),
        Err(error) => Ok(error.to_string()),
    }
}
