//! `max_batch_size` and `dynamic_batching`: what shares a run, and how requests wait.

use std::num::NonZeroUsize;
use std::time::Duration;

use outhaul_types::{LevelSpec, LimitsSpec};

use super::super::textproto::Section;
use super::Target;

const MOST_ROWS: usize = 65_536;
const MOST_LEVELS: usize = 1000;
const MOST_WAITING: usize = 1_000_000;
const LONGEST_DELAY: Duration = Duration::from_secs(10);
const LONGEST_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);

pub(super) fn map(config: &Section<'_>, target: &mut Target) {
    max_batch_size(config, target);
    let Some(batching) = config.section("dynamic_batching") else { return };
    delay(&batching, target);
    let levels = levels(&batching, target);
    limits(levels, target);
}

fn max_batch_size(config: &Section<'_>, target: &mut Target) {
    let field = "max_batch_size";
    let tensors = ["input", "output"].into_iter().flat_map(|field| config.sections(field));
    let declares_shapes = tensors.into_iter().any(|tensor| !tensor.numbers("dims").is_empty());
    match usize::try_from(config.number(field)) {
        // Where nothing is declared, Triton too goes by what the model's file allows.
        Ok(0) if !config.is_written(field) && !declares_shapes => {}
        Ok(rows) if rows <= MOST_ROWS => {
            let rows = NonZeroUsize::new(rows);
            target.manifest.batching.max_rows = rows.unwrap_or(NonZeroUsize::MIN);
            // Triton refuses a request that is larger than a batch may be.
            target.manifest.batching.max_request_rows = rows;
        }
        _ => {
            let rule = format!("must be a whole number from 0 to {MOST_ROWS}");
            let remedy = "write 0 for a model without a batch dimension";
            target.problems.push(config.problem(field, &rule, remedy));
        }
    }
}

fn delay(batching: &Section<'_>, target: &mut Target) {
    let field = "max_queue_delay_microseconds";
    if !batching.is_written(field) {
        return;
    }
    let delay = microseconds(batching, field);
    if delay > LONGEST_DELAY {
        let rule = "a batch is held open for 10 seconds at most";
        target.problems.push(batching.problem(field, rule, "write 10000000 or less").warning());
    }
    target.manifest.batching.max_delay = delay.min(LONGEST_DELAY);
}

fn microseconds(section: &Section<'_>, field: &str) -> Duration {
    Duration::from_micros(u64::try_from(section.number(field)).unwrap_or(u64::MAX))
}

/// Reads the levels. A queue policy without levels is one level: its timeout bounds the wait alone,
/// which a queue's own does not.
fn levels(batching: &Section<'_>, target: &mut Target) -> Vec<LevelSpec> {
    let whole = batching.section("default_queue_policy");
    let shared = whole.map(|policy| level(&policy, target)).unwrap_or_default();
    let count = usize::try_from(batching.number("priority_levels")).unwrap_or(usize::MAX);
    if count > MOST_LEVELS {
        let rule = format!("must be a whole number from 0 to {MOST_LEVELS}");
        target.problems.push(batching.problem("priority_levels", &rule, "write fewer levels"));
        return Vec::new();
    }
    default_level(batching, count, target);
    let mut levels = vec![shared.clone(); count];
    for (key, policy) in batching.sections_by_key("priority_queue_policy") {
        let own = level(&policy, target);
        let index = key.parse::<usize>().ok().and_then(|number| number.checked_sub(1));
        match index.and_then(|index| levels.get_mut(index)) {
            Some(level) => *level = own,
            None => {
                let rule = format!("there is no level {key}: priority_levels is {count}");
                let remedy = "remove the policy or raise priority_levels";
                target.problems.push(policy.problem("", &rule, remedy));
            }
        }
    }
    if count == 0 && shared != LevelSpec::default() {
        levels.push(shared);
    }
    levels
}

fn default_level(batching: &Section<'_>, count: usize, target: &mut Target) {
    let field = "default_priority_level";
    let level = usize::try_from(batching.number(field)).ok().and_then(NonZeroUsize::new);
    match level {
        None if count == 0 => {}
        Some(level) if level.get() <= count => target.manifest.queue.default_level = level,
        _ if count == 0 => {
            let rule = "has no effect without priority_levels";
            target.problems.push(batching.problem(field, rule, "remove it").warning());
        }
        _ => {
            let rule = format!("must be a level from 1 to {count}");
            let remedy = "write the level of requests that name none";
            target.problems.push(batching.problem(field, &rule, remedy));
        }
    }
}

fn level(policy: &Section<'_>, target: &mut Target) -> LevelSpec {
    let timeout = microseconds(policy, "default_timeout_microseconds");
    if timeout > LONGEST_TIMEOUT {
        let rule = "a request waits for 24 hours at most";
        let problem =
            policy.problem("default_timeout_microseconds", rule, "write 0 for no timeout");
        target.problems.push(problem.warning());
    }
    let capacity = usize::try_from(policy.number("max_queue_size")).unwrap_or(usize::MAX);
    if capacity > MOST_WAITING || capacity == 0 && policy.is_written("max_queue_size") {
        let rule = "no more than 1000000 requests may wait";
        let remedy = "write the number that callers can bear to wait behind";
        target.problems.push(policy.problem("max_queue_size", rule, remedy).warning());
    }
    let capacity = match capacity {
        0 if policy.is_written("max_queue_size") => MOST_WAITING,
        capacity => capacity.min(MOST_WAITING),
    };
    LevelSpec {
        capacity: NonZeroUsize::new(capacity),
        timeout: (!timeout.is_zero()).then_some(timeout.min(LONGEST_TIMEOUT)),
        allow_override: Some(policy.truth("allow_timeout_override")),
    }
}

/// Sets the bounds of the whole queue so that no level's own is cut by them.
fn limits(levels: Vec<LevelSpec>, target: &mut Target) {
    let queue = &mut target.manifest.queue;
    let default = LimitsSpec::default();
    let capacities: Vec<usize> =
        levels.iter().filter_map(|level| level.capacity.map(NonZeroUsize::get)).collect();
    let sum = capacities.iter().fold(0, |sum: usize, capacity| sum.saturating_add(*capacity));
    let all_bounded = capacities.len() == levels.len();
    let capacity = if all_bounded { sum } else { sum.max(default.capacity.get()) };
    if let Some(capacity) = NonZeroUsize::new(capacity.min(MOST_WAITING)) {
        queue.capacity = capacity;
    }
    let longest = levels.iter().filter_map(|level| level.timeout).max().unwrap_or_default();
    if !longest.is_zero() {
        // A level's timeout bounds the wait, the queue's the wait and the run.
        queue.timeout = (longest + default.timeout).min(LONGEST_TIMEOUT);
    }
    queue.levels = levels;
}
