//! What is made of the models' signatures and kept until they change: the GraphQL schema and the OpenAPI
//! document.
//!
//! Models that sleep are not woken for it: what was known of them when they were last in memory counts
//! until they are gone.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use outhaul_router::{ModelDescription, Standing, VersionStatus};

/// One description for each model: of the newest version that is known.
pub(in crate::http) type Known = Vec<Arc<ModelDescription>>;

/// Something made of the models, made anew when they are others.
pub(in crate::http) struct Kept<T> {
    last: ArcSwapOption<(Known, Arc<T>)>,
}

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Kept { last: ArcSwapOption::empty() }
    }
}

impl<T> Kept<T> {
    /// Returns it as it is for these versions, made by `make` where the models are others than before.
    /// Two requests at once may both make it; either will do.
    pub(in crate::http) fn of(
        &self,
        versions: &[VersionStatus],
        make: impl FnOnce(&Known) -> T,
    ) -> Arc<T> {
        let last = self.last.load_full();
        let before: &[Arc<ModelDescription>] = last.as_ref().map_or(&[], |last| &last.0);
        let known = known(versions, before);
        if let Some(last) = &last
            && same(&last.0, &known)
        {
            return Arc::clone(&last.1);
        }
        let made = Arc::new(make(&known));
        self.last.store(Some(Arc::new((known, Arc::clone(&made)))));
        made
    }
}

/// Chooses what to tell of each model. `versions` are in order of name and number.
fn known(versions: &[VersionStatus], before: &[Arc<ModelDescription>]) -> Known {
    let mut known = Known::new();
    for status in versions {
        let remembered = || {
            let same = |model: &&Arc<ModelDescription>| {
                model.name == status.name && model.version == status.version
            };
            before.iter().find(same).map(Arc::clone)
        };
        let model = match status.standing {
            Standing::Ready => status.ready.clone(),
            Standing::Loading | Standing::Dormant => remembered(),
            Standing::Failed | Standing::Unloaded => None,
        };
        let Some(model) = model else { continue };
        match known.last_mut() {
            Some(last) if last.name == model.name => *last = model,
            _ => known.push(model),
        }
    }
    known
}

fn same(left: &[Arc<ModelDescription>], right: &[Arc<ModelDescription>]) -> bool {
    let same = |(left, right): (&Arc<ModelDescription>, &Arc<ModelDescription>)| {
        Arc::ptr_eq(left, right)
            || (left.name == right.name
                && left.version == right.version
                && left.signature == right.signature
                && left.interface == right.interface)
    };
    left.len() == right.len() && left.iter().zip(right).all(same)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use outhaul_router::BatchMode;
    use outhaul_types::{Interface, ModelName, ModelSignature, ModelVersion};

    use super::*;

    fn status(name: &str, version: u64, standing: Standing) -> VersionStatus {
        let (name, version) = (ModelName::new(name).unwrap(), ModelVersion(version));
        let model = ModelDescription {
            name: name.clone(),
            version,
            signature: ModelSignature::default(),
            interface: Interface::default(),
            engine: "scripted",
            engine_reason: String::new(),
            batching: BatchMode::Exact,
            max_rows: 1,
            max_delay: Duration::ZERO,
            instances: 1,
            threads: 1,
        };
        VersionStatus {
            name,
            version,
            standing,
            labels: Vec::new(),
            ready: (standing == Standing::Ready).then(|| Arc::new(model)),
            reason: String::new(),
            memory: None,
            last_error: None,
            source: None,
        }
    }

    #[test]
    fn it_is_made_anew_only_when_the_models_are_others() {
        let (kept, mut made) = (Kept::default(), 0);
        use Standing::{Dormant, Failed, Loading, Ready, Unloaded};
        let mut asked = |versions: &[(&str, u64, Standing)]| {
            let status = |&(name, version, standing): &_| status(name, version, standing);
            let versions: Vec<_> = versions.iter().map(status).collect();
            let text = kept.of(&versions, |known| {
                made += 1;
                let each = known.iter().map(|model| format!("{}:{}", model.name, model.version));
                each.collect::<Vec<_>>().join(" ")
            });
            (text.to_string(), made)
        };
        let told = |text: &str, made| (text.to_owned(), made);
        assert_eq!(asked(&[]), told("", 1));
        assert_eq!(asked(&[]), told("", 1));
        assert_eq!(asked(&[("a", 1, Ready), ("a", 2, Ready), ("b", 1, Failed)]), told("a:2", 2));
        assert_eq!(asked(&[("a", 1, Ready), ("a", 2, Ready), ("b", 1, Ready)]), told("a:2 b:1", 3));
        assert_eq!(
            asked(&[("a", 1, Ready), ("a", 2, Dormant), ("b", 1, Loading)]),
            told("a:2 b:1", 3)
        );
        assert_eq!(
            asked(&[("a", 1, Ready), ("a", 2, Unloaded), ("b", 1, Ready)]),
            told("a:1 b:1", 4)
        );
        assert_eq!(
            asked(&[("a", 1, Dormant), ("c", 1, Dormant)]),
            told("a:1", 5),
            "c was never seen"
        );
    }
}
