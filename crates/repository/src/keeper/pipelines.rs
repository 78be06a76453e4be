//! Pipelines on their way from the sources to the catalog. Nothing of them is loaded here: the router holds them
//! against their models.
//!
//! Invariant: where several sources hold something of one name, the first source's is taken, be it a model or a
//! pipeline. What is declared wrong takes nothing away that was right before.

use std::collections::BTreeMap;
use std::sync::Arc;

use outhaul_types::ModelName;

use super::{Keeper, SourceRecord};
use crate::loading::Loader;
use crate::{PIPELINE_FILE, PipelineEntries, PipelineEntry, PipelineFolder};

impl<L: Loader> Keeper<L> {
    /// Notes the pipelines that a look at a source found. Returns the names of these and of those that were there
    /// before.
    pub(super) fn note_pipelines(
        &mut self,
        source: usize,
        found: Vec<PipelineFolder>,
    ) -> Vec<ModelName> {
        let known = &mut self.sources[source];
        let found = found.into_iter().map(|pipeline| (pipeline.name.clone(), pipeline)).collect();
        let before: BTreeMap<_, _> = std::mem::replace(&mut known.pipelines, found);
        self.pipelines_changed = true;
        before.into_keys().chain(known.pipelines.keys().cloned()).collect()
    }

    /// Returns the pipelines to publish, where something may have changed.
    pub(super) fn changed_pipelines(&mut self) -> Option<Arc<PipelineEntries>> {
        if !std::mem::take(&mut self.pipelines_changed) {
            return None;
        }
        let before = Arc::clone(self.catalog.snapshot().pipelines());
        let mut pipelines = PipelineEntries::new();
        for (index, known) in self.sources.iter().enumerate() {
            let earlier = &self.sources[..index];
            // What a source holds that was not looked at yet may come before.
            if earlier.iter().any(|known| known.seen.is_none()) {
                break;
            }
            for (name, folder) in &known.pipelines {
                if !earlier.iter().any(|earlier| earlier.holds(name)) {
                    pipelines.insert(name.clone(), entry(known, folder, before.get(name)));
                }
            }
        }
        Some(Arc::new(pipelines))
    }
}

/// Keeps what was published where it says the same, so that whoever compares by pointer sees no change.
fn entry(
    known: &SourceRecord,
    folder: &PipelineFolder,
    before: Option<&PipelineEntry>,
) -> PipelineEntry {
    let source: Arc<str> = known.source.place().into();
    let sound = before.and_then(|before| before.outline.as_ref().ok());
    let (outline, last_error) = match (&folder.outline, sound) {
        (Ok(outline), Some(before)) if before.spec() == outline.spec() => {
            (Ok(Arc::clone(before)), None)
        }
        (Err(reason), Some(before)) => (Ok(Arc::clone(before)), Some(Arc::clone(reason))),
        (outline, _) => (outline.clone(), None),
    };
    let place = match known.source.folder() {
        Some(_) => folder.path.display().to_string(),
        // What lies here is a copy.
        None => format!("{source}/{}/{PIPELINE_FILE}", folder.name),
    };
    PipelineEntry { outline, last_error, source, place: place.into() }
}
