//! Keys that say which versions are served and when: `versions`, `labels`, `loading`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use outhaul_types::{Label, ModelManifest, ModelVersion, VersionPolicy};

use super::rules::{boolean, duration_within, within};
use crate::declared::{Faults, Fields};
use crate::{Declarations, Rule, Value};

const LONGEST_RESIDENCY: Duration = Duration::from_secs(30 * 24 * 60 * 60);

pub(super) fn take(declared: &mut Declarations, manifest: &mut ModelManifest) {
    if let Some(versions) = declared.take_nested("versions", versions) {
        manifest.versions = versions;
    }
    if let Some(labels) = declared.take_nested("labels", labels) {
        manifest.labels = labels;
    }
    let loading = &mut manifest.loading;
    if let Some(pin) = declared.take("loading.pin", boolean) {
        loading.pin = pin;
    }
    loading.min_residency = declared.take("loading.min_residency", |value| {
        duration_within(value, LONGEST_RESIDENCY, "30days", "10m")
    });
    if let Some(allow) = declared.take("loading.allow_breaking", boolean) {
        loading.allow_breaking = allow;
    }
}

fn versions(value: &Value, faults: &mut Faults) -> Option<VersionPolicy> {
    let rule = || {
        Rule::new(
            "must be \"latest\", \"all\", a table or a list of version numbers",
            "write as in { latest = 2 } or [3, 5]",
        )
    };
    match value {
        Value::Text(text) if text == "latest" => Some(VersionPolicy::default()),
        Value::Text(text) if text == "all" => Some(VersionPolicy::All),
        Value::Table(_) => {
            let before = faults.count();
            let fields = Fields::open(value, &["latest"], faults)?;
            let latest = fields.take("latest", faults, |value| {
                within(value, 1..=1_000_000, "write \"all\" to serve every version")
            });
            if latest.is_none() && faults.count() == before {
                faults.add(value, rule());
            }
            latest.map(VersionPolicy::Latest)
        }
        Value::List(items) if !items.is_empty() => {
            let numbers = faults
                .items(value, rule(), |_, item, faults| faults.check(item, version_number))?;
            let distinct: BTreeSet<ModelVersion> = numbers.iter().copied().collect();
            if distinct.len() < numbers.len() {
                faults.add(value, Rule::new("names a version twice", "name each version once"));
            }
            Some(VersionPolicy::Specific(distinct))
        }
        _ => {
            faults.add(value, rule());
            None
        }
    }
}

fn version_number(value: &Value) -> Result<ModelVersion, Rule> {
    let number = match value {
        Value::Whole(number) => u64::try_from(*number).ok(),
        // TOML's numbers end earlier than ours.
        Value::Other(digits) => digits.parse().ok(),
        _ => None,
    };
    number.filter(|number| *number > 0).map(ModelVersion).ok_or_else(|| {
        Rule::new("must be the number of a version", "write the name of the version's folder")
    })
}

fn labels(value: &Value, faults: &mut Faults) -> Option<BTreeMap<Label, ModelVersion>> {
    let rule = Rule::new("must be a table", "write as in { stable = 3, canary = 4 }");
    let labels = faults.named(value, rule, |name, number, faults| {
        let label = Label::new(name).map_err(|_| {
            let rule = Rule::new(
                "is not a label: use 1 to 64 letters, digits, '-', '_' or '.', beginning with a \
                 letter",
                "rename it",
            );
            faults.add(number, rule);
        });
        let version = faults.check(number, version_number);
        Some((label.ok()?, version?))
    })?;
    Some(labels.into_iter().collect())
}
