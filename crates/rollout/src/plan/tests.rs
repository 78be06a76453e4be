//! Scripts of `tests/golden` are carried out and what the plan makes of them is compared with what is written there.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use outhaul_monitor::traffic::{ShadowCounts, VariantCounts};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::*;
use crate::samples::counts;

mod properties;

/// `OUTHAUL_BLESS=1` writes the files anew; the diff is reviewed.
#[test]
fn scripts_of_roll_outs() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut scripts: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    scripts.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
    scripts.sort();
    assert!(scripts.len() >= 10, "the scripts are there: {scripts:?}");
    let mut wrong = Vec::new();
    for path in scripts {
        let expected = std::fs::read_to_string(&path).unwrap();
        let found = Player::play(&expected);
        if found == expected {
            continue;
        }
        if std::env::var_os("OUTHAUL_BLESS").is_some() {
            std::fs::write(&path, found).unwrap();
        } else {
            wrong.push(format!("{}:\n{found}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "if this is meant, run with OUTHAUL_BLESS=1\n{}", wrong.join("\n"));
}

/// Carries out a script: lines with `>` are inputs, those with `#` say why, all others are what came of it.
struct Player {
    world: World,
    now: Timestamp,
    /// Of the shares, for each route.
    shown: BTreeMap<ModelName, String>,
}

impl Player {
    fn play(script: &str) -> String {
        let mut player =
            Player { world: World::default(), now: Timestamp(0), shown: BTreeMap::new() };
        let mut out = String::new();
        for line in script.lines() {
            if line.starts_with('#') || line.is_empty() {
                writeln!(out, "{line}").unwrap();
            } else if let Some(input) = line.strip_prefix("> ") {
                writeln!(out, "{line}").unwrap();
                player.step(input, &mut out);
            }
        }
        out
    }

    fn step(&mut self, line: &str, out: &mut String) {
        let input = self.read(line);
        let decided = decide(&self.world, &input, self.now);
        assert_eq!(decided, decide(&self.world, &input, self.now), "the same inputs: {line}");
        match decided {
            Err(refusal) => writeln!(out, "    refused, {}: {refusal}", refusal.kind()).unwrap(),
            Ok(None) => writeln!(out, "    nothing changes").unwrap(),
            Ok(Some(decision)) => {
                assert_eq!(decision.world.generation, self.world.generation + 1, "{line}");
                self.world = through_json(&decision.world);
                for entry in &decision.entries {
                    let entry: Entry = through_json(entry);
                    let minute = entry.at.0 / 60_000;
                    let (route, what, by) = (&entry.route, entry.what.as_str(), &entry.by);
                    writeln!(out, "    {minute}m {route} {what} by {by}: {}", entry.text).unwrap();
                }
                self.show(out);
            }
        }
    }

    /// Shows the routes that changed.
    fn show(&mut self, out: &mut String) {
        let show = |(name, record): (&ModelName, &RouteRecord)| {
            let shares = text::shares(&record.spec);
            let shadow = record.spec.shadow.as_ref();
            let shadow = shadow.map(|s| format!("; shadow {} {}", s.to, text::percent(s.share)));
            let rollout = self.world.rollouts.get(name);
            let rollout = rollout.map(|r| format!("; {} {:?}, step {}", r.id, r.phase, r.step + 1));
            let line = shares + &shadow.unwrap_or_default() + &rollout.unwrap_or_default();
            (name.clone(), line)
        };
        let shown: BTreeMap<_, _> = self.world.routes.iter().map(show).collect();
        for (name, line) in &shown {
            if self.shown.get(name) != Some(line) {
                writeln!(out, "    = {name}: {line}").unwrap();
            }
        }
        for name in self.shown.keys().filter(|name| !shown.contains_key(*name)) {
            writeln!(out, "    = {name}: no route").unwrap();
        }
        self.shown = shown;
    }

    fn read(&mut self, line: &str) -> Input {
        let (line, by) = line.rsplit_once(" by ").unwrap_or((line, "anna"));
        let (what, rest) = line.split_once(' ').unwrap();
        if what == "tick" {
            return through_json(&Input::Tick(self.read_tick(rest)));
        }
        let (route, rest) = rest.split_once(' ').unwrap_or((rest, ""));
        let command = match what {
            "declare" => json!({ "routes": serde_json::from_str::<Value>(rest).unwrap() }),
            "set" => {
                json!({ "route": route, "spec": serde_json::from_str::<Value>(rest).unwrap() })
            }
            "start" => read_start(route, rest),
            "reweigh" => {
                let (weights, reason) = rest.split_once(' ').unwrap();
                let weights: Vec<f64> = weights.split(',').map(|w| w.parse().unwrap()).collect();
                json!({ "route": route, "weights": weights, "reason": reason })
            }
            _ => json!({ "route": route }),
        };
        let kind = match what {
            "set" => "set_route",
            "remove" => "remove_route",
            other => other,
        };
        let mut command = command;
        command["kind"] = kind.into();
        Input::Command {
            command: serde_json::from_value(command).unwrap_or_else(|e| panic!("{line}: {e}")),
            by: by.to_owned(),
        }
    }

    /// As in `+10m reviews ready candidate=2000/3@20ms other=9000/20@20ms shadow=500/2`: answered, failed and p99;
    /// compared and disagreed.
    fn read_tick(&mut self, text: &str) -> Observed {
        let mut words = text.split(' ');
        let time = words.next().and_then(|time| time.strip_prefix('+')).unwrap();
        self.now.0 += humantime::parse_duration(time).unwrap().as_millis() as i64;
        let Some(route) = words.next() else { return Observed::default() };
        let mut seen = RolloutObserved { ready: Readiness::Ready, ..RolloutObserved::default() };
        for word in words {
            match word.split_once('=') {
                None if word == "ready" => {}
                None if word == "loading" => seen.ready = Readiness::Loading,
                Some(("failed", why)) => seen.ready = Readiness::Failed(why.replace('_', " ")),
                Some(("candidate", counted)) => seen.candidate = read_counts(counted),
                Some(("other", counted)) => seen.other = read_counts(counted),
                Some(("shadow", counted)) => {
                    let (compared, disagreed) = counted.split_once('/').unwrap();
                    seen.shadow = ShadowCounts {
                        compared: compared.parse().unwrap(),
                        disagreed: disagreed.parse().unwrap(),
                        ..ShadowCounts::default()
                    };
                }
                _ => panic!("'{word}' in '{text}'"),
            }
        }
        Observed { rollouts: [(ModelName::new(route).unwrap(), seen)].into() }
    }
}

fn read_start(route: &str, text: &str) -> Value {
    let (mut spec, mut in_service) = (serde_json::Map::new(), Value::Null);
    for (key, value) in text.split(' ').map(|word| word.split_once('=').unwrap()) {
        let number = || json!(value.parse::<f64>().unwrap());
        match key {
            "in_service" => in_service = value.into(),
            "steps" => {
                let steps = value.split(',').filter(|step| !step.is_empty());
                let steps: Vec<f64> = steps.map(|step| step.parse().unwrap()).collect();
                spec.insert("steps".to_owned(), steps.into());
            }
            "guard" => {
                let guards = spec.entry("guards").or_insert_with(|| json!([]));
                guards.as_array_mut().unwrap().push(value.into());
            }
            "false_alarm" | "mirror" => {
                spec.insert(key.to_owned(), number());
            }
            _ => {
                spec.insert(key.to_owned(), value.into());
            }
        }
    }
    json!({ "route": route, "spec": spec, "in_service": in_service })
}

fn read_counts(text: &str) -> VariantCounts {
    let (counted, p99) = text.split_once('@').unwrap_or((text, "20ms"));
    let (ok, failed) = counted.split_once('/').unwrap();
    let p99: Duration = humantime::parse_duration(p99).unwrap();
    counts(ok.parse().unwrap(), p99, failed.parse().unwrap())
}

/// What goes into the store, the journal and the API comes out again.
fn through_json<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(value: &T) -> T {
    let json = serde_json::to_string(value).unwrap();
    let read: T = serde_json::from_str(&json).unwrap_or_else(|e| panic!("{e}: {json}"));
    assert_eq!(read, *value);
    read
}
