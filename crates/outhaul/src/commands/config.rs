//! `outhaul config show`: the settings that hold, and who set them.

use std::io::Write;

use anyhow::Result;
use clap::{Parser, Subcommand};
use serde_json::{Map, Value as Json, json};

use super::server_flags::ServerFlags;
use super::{Output, write_json};
use crate::config::Config as Settings;

/// Shows the settings that a server would run with.
#[derive(Debug, Parser)]
pub(super) struct Config {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    Show(Show),
}

/// Prints every setting, with the flags of `outhaul serve` applied.
///
/// What is printed can be used as `outhaul.toml`.
#[derive(Debug, Parser)]
#[command(after_help = "Examples:
  outhaul config show                           what holds here
  outhaul config show --origin                  and who says so
  outhaul config show --http 9000 --origin      as `outhaul serve --http 9000` would see it")]
struct Show {
    /// Also print where each value comes from
    #[arg(long)]
    origin: bool,

    /// The form of what is printed
    #[arg(long, value_enum, default_value_t)]
    output: Output,

    #[command(flatten)]
    flags: ServerFlags,
}

impl Config {
    pub(super) fn run(&self, out: &mut impl Write) -> Result<()> {
        let Action::Show(show) = &self.action;
        let (config, notes) = show.flags.resolve()?;
        for note in notes {
            writeln!(std::io::stderr(), "note: {note}")?;
        }
        match show.output {
            Output::Text => out.write_all(text(&config, show.origin).as_bytes())?,
            Output::Json => write_json(out, &json(&config, show.origin))?,
        }
        Ok(())
    }
}

fn text(config: &Settings, origins: bool) -> String {
    let lines: Vec<(Option<&str>, String, String)> = config
        .rows()
        .into_iter()
        .map(|(key, value, origin)| {
            let (section, name) = match key.split_once('.') {
                Some((section, name)) => (Some(section), name),
                None => (None, key),
            };
            let line = match value {
                Some(value) => format!("{name} = {}", toml(&value)),
                None => format!("# {name} is not set"),
            };
            (section, line, origin.to_string())
        })
        .collect();
    let width = lines.iter().map(|(_, line, _)| line.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    let mut current = None;
    for (section, line, origin) in lines {
        if section != current {
            current = section;
            text.push_str(&format!("\n[{}]\n", section.unwrap_or_default()));
        }
        match origins {
            true => text.push_str(&format!("{line:width$}  # {origin}\n")),
            false => text.push_str(&format!("{line}\n")),
        }
    }
    text
}

/// Writes a value as TOML on one line. Strings, numbers and lists are as in JSON.
fn toml(value: &Json) -> String {
    let joined = |parts: Vec<String>| parts.join(", ");
    match value {
        Json::Array(items) => format!("[{}]", joined(items.iter().map(toml).collect())),
        Json::Object(entries) => {
            let entry =
                |(key, value): (&String, &Json)| format!("{} = {}", json!(key), toml(value));
            format!("{{ {} }}", joined(entries.iter().map(entry).collect()))
        }
        value => value.to_string(),
    }
}

fn json(config: &Settings, origins: bool) -> Json {
    let entry = |value: Option<Json>, origin: String| match origins {
        true => json!({ "value": value, "origin": origin }),
        false => json!(value),
    };
    let rows = config.rows().into_iter();
    let entries: Map<String, Json> = rows
        .map(|(key, value, origin)| (key.to_owned(), entry(value, origin.to_string())))
        .collect();
    Json::Object(entries)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::config::Sources;

    fn config() -> Settings {
        let flags = BTreeMap::from([("listen.grpc", vec!["off".to_owned()])]);
        Settings::resolve(Sources::new(None, Vec::new(), flags)).unwrap()
    }

    #[test]
    fn the_settings_are_printed_as_a_file() {
        let expected = r#"models = ["models"]
engine = "auto"
# onnxruntime is not set
# state is not set
# default_model is not set
# routes is not set
# callers is not set

[repository]
mode = "watch"
# load is not set
poll_interval = "30s"
settle = "1s"
# memory_budget is not set
min_residency = "100ms"
# cache_dir is not set
# cache_capacity is not set

[listen]
http = "127.0.0.1:8080"
grpc = "off"

[limits]
max_body_bytes = 67108864
max_head_bytes = 65536
max_tensor_bytes = 1073741824
max_rows = 65536
max_connections = 4096
head_timeout = "10s"
body_timeout = "30s"
idle_timeout = "1m 15s"
# request_timeout is not set
drain_timeout = "30s"
caller_header = "x-outhaul-caller"

[cache]
# redis is not set

[vertex]
# predict_route is not set
# health_route is not set

[sagemaker]
# models_dir is not set

[log]
format = "text"
level = "info"
requests = false

[trace]
# otlp_endpoint is not set
"#;
        assert_eq!(text(&config(), false), expected);
        let keys: Vec<&'static str> =
            crate::config::SETTINGS.iter().map(|setting| setting.key).collect();
        let path = std::path::Path::new("outhaul.toml");
        let read = outhaul_repository::Declarations::parse(path, expected, &keys);
        let sources = Sources::new(Some((path.to_owned(), read)), Vec::new(), BTreeMap::new());
        let again = Settings::resolve(sources).unwrap();
        assert_eq!(text(&again, false), expected, "the file means what was printed");
    }

    #[test]
    fn origins_are_told() {
        let text = text(&config(), true);
        let line = text.lines().find(|line| line.starts_with("grpc")).unwrap();
        assert!(line.ends_with("  # flag --grpc"), "{line}");
        let json = json(&config(), true);
        assert_eq!(json["listen.http"]["origin"], "default");
        assert_eq!(json["listen.grpc"]["value"], "off");
    }
}
