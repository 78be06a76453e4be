//! What `outhaul serve` prints once its models are loaded.

use std::collections::BTreeMap;

use outhaul::{ModelDescription, Problem, VersionStatus};
use outhaul_router::{BatchMode, Standing};

/// More models than this are not listed one by one.
const MOST_ROWS: usize = 40;

/// Tells what is in memory, and what waits to be asked for.
pub(super) fn models(models: &[VersionStatus], memory_budget: Option<u64>) -> String {
    let ready: Vec<_> = models.iter().filter_map(|model| model.ready.as_deref()).collect();
    let mut told = String::new();
    if !ready.is_empty() {
        let shown = &ready[..ready.len().min(MOST_ROWS)];
        told.push_str(&format!("\n{}\n", models_table(shown)));
        if ready.len() > shown.len() {
            let more = ready.len() - shown.len();
            told.push_str(&format!("  and {more} more: see outhaul models list\n"));
        }
        told.push('\n');
        told.push_str(&engine_reasons(&ready));
    }
    let count = |standing| models.iter().filter(|model| model.standing == standing).count();
    let (dormant, unloaded) = (count(Standing::Dormant), count(Standing::Unloaded));
    if let (true, Some(budget)) = (dormant > 0, memory_budget) {
        let budget = budget as f64 / f64::from(1 << 20);
        told.push_str(&format!(
            "\n  {dormant} versions are loaded on request; the memory budget is {budget:.0} MiB\n"
        ));
    }
    if unloaded > 0 {
        told.push_str(&format!(
            "\n  {unloaded} versions are not loaded: ask for them with outhaul models load NAME\n"
        ));
    }
    told
}

/// Tells what is wrong; nothing where nothing is.
pub(super) fn problems(problems: &[Problem]) -> String {
    let lines = problems.iter().map(|problem| format!("  {problem}\n"));
    let lines: String = lines.collect();
    if lines.is_empty() { lines } else { format!("\nProblems\n{lines}") }
}

fn models_table(models: &[&ModelDescription]) -> String {
    let mut table = comfy_table::Table::new();
    table.load_preset(comfy_table::presets::NOTHING);
    table.set_header(["MODEL", "VERSION", "ENGINE", "INSTANCES", "BATCHING"]);
    for model in models {
        let batching = match &model.batching {
            BatchMode::Exact => format!("exact, up to {} rows", model.max_rows),
            BatchMode::Inexact(reason) => {
                format!("inexact, up to {} rows: {reason}", model.max_rows)
            }
            BatchMode::Off(reason) => format!("off: {reason}"),
        };
        let instances = match model.threads {
            1 => model.instances.to_string(),
            threads => format!("{} of {threads} threads", model.instances),
        };
        table.add_row([
            model.name.to_string(),
            model.version.to_string(),
            model.engine.to_owned(),
            instances,
            batching,
        ]);
    }
    let table = table.to_string();
    let lines = table.lines().map(|line| format!(" {}", line.trim_end()));
    lines.collect::<Vec<_>>().join("\n")
}

/// Says why each engine was chosen, and for which models where not all have the same reason.
fn engine_reasons(models: &[&ModelDescription]) -> String {
    let mut reasons: BTreeMap<(&str, &str), Vec<String>> = BTreeMap::new();
    for model in models {
        let of = format!("{} {}", model.name, model.version);
        reasons.entry((model.engine, &model.engine_reason)).or_default().push(of);
    }
    let is_one = reasons.len() == 1;
    let line = |((engine, reason), of): (&(&str, &str), &Vec<String>)| match is_one {
        true => format!("  {engine}: {reason}\n"),
        false => format!("  {engine} for {}: {reason}\n", of.join(", ")),
    };
    reasons.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_models_and_their_engines_are_told() {
        let model = |name: &str, engine, reason: &str, batching| ModelDescription {
            name: outhaul::types::ModelName::new(name).unwrap(),
            version: outhaul::types::ModelVersion(1),
            signature: outhaul::types::ModelSignature::default(),
            interface: outhaul::types::Interface::default(),
            engine,
            engine_reason: reason.to_owned(),
            batching,
            max_rows: 32,
            max_delay: std::time::Duration::ZERO,
            instances: 2,
            threads: if engine == "embedded" { 4 } else { 1 },
        };
        let found = "its library was found";
        let iris = model("iris", "onnxruntime", found, BatchMode::Exact);
        let int8 = BatchMode::Off("rows mix".to_owned());
        let int8 = model("int8", "onnxruntime", found, int8);
        let inexact = BatchMode::Inexact("rows mix".to_owned());
        let other = model("other", "embedded", "the manifest asks for it", inexact);
        let rows: Vec<Vec<String>> = models_table(&[&iris, &int8, &other])
            .lines()
            .map(|line| line.split_whitespace().map(str::to_owned).collect())
            .collect();
        let joined: Vec<String> = rows.iter().map(|row| row.join(" ")).collect();
        assert_eq!(
            joined,
            [
                "MODEL VERSION ENGINE INSTANCES BATCHING",
                "iris 1 onnxruntime 2 exact, up to 32 rows",
                "int8 1 onnxruntime 2 off: rows mix",
                "other 1 embedded 2 of 4 threads inexact, up to 32 rows: rows mix",
            ]
        );
        assert_eq!(engine_reasons(&[&iris, &int8]), "  onnxruntime: its library was found\n");
        assert_eq!(
            engine_reasons(&[&iris, &int8, &other]),
            "  embedded for other 1: the manifest asks for it\n  onnxruntime for iris 1, int8 1: \
             its library was found\n"
        );
    }

    #[test]
    fn what_waits_is_counted() {
        let version = |standing| VersionStatus {
            name: outhaul::types::ModelName::new("iris").unwrap(),
            version: outhaul::types::ModelVersion(1),
            standing,
            labels: Vec::new(),
            ready: None,
            reason: String::new(),
            memory: None,
            last_error: None,
            source: None,
        };
        let asleep = [version(Standing::Dormant), version(Standing::Dormant)];
        assert_eq!(
            models(&asleep, Some(4 << 20)),
            "\n  2 versions are loaded on request; the memory budget is 4 MiB\n"
        );
        assert_eq!(
            models(&[version(Standing::Unloaded)], None),
            "\n  1 versions are not loaded: ask for them with outhaul models load NAME\n"
        );
    }
}
