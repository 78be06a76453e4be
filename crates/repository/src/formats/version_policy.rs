//! Which versions are served, in the words that Triton took over from TensorFlow Serving.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;

use outhaul_types::{ModelVersion, VersionPolicy};

use super::textproto::Section;
use crate::Problem;

/// Reads a policy.
pub(super) fn version_policy(
    policy: &Section<'_>,
    problems: &mut Vec<Problem>,
) -> Option<VersionPolicy> {
    if policy.section("all").is_some() {
        return Some(VersionPolicy::All);
    }
    if let Some(specific) = policy.section("specific") {
        let numbers = specific.numbers("versions");
        let mut versions = BTreeSet::new();
        for number in &numbers {
            match u64::try_from(*number) {
                Ok(number) if number > 0 => drop(versions.insert(ModelVersion(number))),
                _ => {
                    let rule = format!("{number} is not a version: versions count from 1");
                    problems.push(specific.problem("versions", &rule, "correct the number"));
                }
            }
        }
        if numbers.is_empty() {
            let remedy = "list versions, or remove the policy to serve the newest";
            problems.push(policy.problem("specific", "no version would be served", remedy));
        }
        return (!versions.is_empty()).then_some(VersionPolicy::Specific(versions));
    }
    let latest = policy.section("latest")?;
    let number = usize::try_from(latest.number("num_versions")).ok();
    Some(VersionPolicy::Latest(number.and_then(NonZeroUsize::new).unwrap_or(NonZeroUsize::MIN)))
}
