//! From a written value to a setting: one rule each, and what to do where it is broken.

mod traffic;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use outhaul_monitor::logging::LogFormat;
use outhaul_repository::{Mode, Rule, Value, nearest};
use outhaul_types::{EngineChoice, ModelName};

use super::{Listen, StateChoice, mode_name};
pub(super) use traffic::{callers, header, redis, routes};

pub(super) fn paths(value: &Value) -> Result<Vec<PathBuf>, Rule> {
    let rule = || Rule::new("must be one path or several", "write models = [\"models\"]");
    let one = |value: &Value| {
        value.text().filter(|text| !text.is_empty()).map(PathBuf::from).ok_or_else(rule)
    };
    match value {
        Value::List(values) if values.is_empty() => Err(rule()),
        Value::List(values) => values.iter().map(one).collect(),
        value => Ok(vec![one(value)?]),
    }
}

pub(super) fn path(value: &Value) -> Result<Option<PathBuf>, Rule> {
    match value.text() {
        Some(text) if !text.is_empty() => Ok(Some(PathBuf::from(text))),
        _ => Err(Rule::new("must be a path", "leave it out to have the library searched for")),
    }
}

pub(super) fn engine(value: &Value) -> Result<EngineChoice, Rule> {
    let names = ["auto", "onnxruntime", "embedded"];
    match value.text() {
        Some("auto") => Ok(EngineChoice::Auto),
        Some("onnxruntime") => Ok(EngineChoice::OnnxRuntime),
        Some("embedded") => Ok(EngineChoice::Embedded),
        other => Err(Rule::new(
            "must be auto, onnxruntime or embedded",
            did_you_mean(other, &names, "leave it out for auto"),
        )),
    }
}

pub(super) fn mode(value: &Value) -> Result<Mode, Rule> {
    let modes = [Mode::Watch, Mode::Poll, Mode::Explicit, Mode::Once];
    let text = value.text();
    modes.into_iter().find(|mode| text == Some(mode_name(*mode))).ok_or_else(|| {
        let names = modes.map(mode_name);
        let remedy = did_you_mean(text, &names, "leave it out for watch");
        Rule::new("must be watch, poll, explicit or once", remedy)
    })
}

/// Names of models; several in one text are parted by commas.
pub(super) fn models(value: &Value) -> Result<BTreeSet<ModelName>, Rule> {
    let rule = || Rule::new("must be names of models", "write load = [\"iris\"]");
    let texts: Vec<&str> = match value {
        Value::List(values) => {
            values.iter().map(|value| value.text().ok_or_else(rule)).collect::<Result<_, _>>()?
        }
        value => vec![value.text().ok_or_else(rule)?],
    };
    let names = texts.into_iter().flat_map(|text| text.split(',')).map(str::trim);
    names.map(|name| ModelName::new(name).map_err(|_| rule())).collect()
}

/// The name of one model.
pub(super) fn model(value: &Value) -> Result<Option<ModelName>, Rule> {
    let name = value.text().and_then(|text| ModelName::new(text).ok());
    name.map(Some)
        .ok_or_else(|| Rule::new("must be a model's name", "leave it out for the only one"))
}

/// The most rows of a request.
pub(super) fn rows(value: &Value) -> Result<usize, Rule> {
    value.whole().filter(|most| (1..=100_000_000).contains(most)).ok_or_else(|| {
        Rule::new("must be a whole number from 1 to 100000000", "leave it out for 65536")
    })
}

/// A path of URLs.
pub(super) fn route(value: &Value) -> Result<Option<String>, Rule> {
    let plain = |text: &&str| {
        let ok = |byte: u8| byte.is_ascii_graphic() && !b"?#{}".contains(&byte);
        text.starts_with('/') && text.len() > 1 && text.bytes().all(ok)
    };
    match value.text().filter(plain) {
        Some(text) => Ok(Some(text.to_owned())),
        None => Err(Rule::new("must be a path that begins with /", "write it as in /predict")),
    }
}

/// The folder below which models are added while the server runs.
pub(super) fn models_dir(value: &Value) -> Result<Option<PathBuf>, Rule> {
    match value.text() {
        Some(text) if text.starts_with('/') => Ok(Some(PathBuf::from(text))),
        _ => Err(Rule::new("must be a whole path", "write it as in /opt/ml/models")),
    }
}

pub(super) fn interval(value: &Value) -> Result<Duration, Rule> {
    let allowed = Duration::from_millis(100)..=Duration::from_secs(24 * 60 * 60);
    value.duration().filter(|interval| allowed.contains(interval)).ok_or_else(|| {
        Rule::new("must be a duration from 100ms to 24h", "write a number with a unit, as in 30s")
    })
}

pub(super) fn residency(value: &Value) -> Result<Duration, Rule> {
    let longest = Duration::from_secs(24 * 60 * 60);
    value.duration().filter(|least| *least <= longest).ok_or_else(|| {
        Rule::new("must be a duration of at most 24h", "write a number with a unit, as in 10s")
    })
}

/// The memory that models may take.
pub(super) fn budget(value: &Value) -> Result<Option<u64>, Rule> {
    value.size().filter(|bytes| *bytes >= 1 << 20).map(|bytes| Some(bytes as u64)).ok_or_else(
        || Rule::new("must be a size of at least 1MiB", "write a number of bytes or one as 4GiB"),
    )
}

pub(super) fn folder(value: &Value) -> Result<Option<PathBuf>, Rule> {
    match value.text() {
        Some(text) if !text.is_empty() => Ok(Some(PathBuf::from(text))),
        _ => Err(Rule::new("must be a folder", "leave it out for the user's cache folder")),
    }
}

pub(super) fn state(value: &Value) -> Result<StateChoice, Rule> {
    match value.text() {
        Some("off") => Ok(StateChoice::Off),
        Some(text) if !text.is_empty() => Ok(StateChoice::Url(text.to_owned())),
        _ => Err(Rule::new(
            "must be the URL of a store",
            "write sqlite:state.db, postgres://user@host/database, or off",
        )),
    }
}

pub(super) fn listen(value: &Value) -> Result<Listen, Rule> {
    let rule = || {
        let remedy = "write 127.0.0.1:8080, a port alone for this machine only, or off";
        Rule::new("must be an IP address and a port", remedy)
    };
    let loopback = |port| Listen::On(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port));
    match value {
        Value::Whole(port) => u16::try_from(*port).map(loopback).map_err(|_| rule()),
        Value::Text(text) if text == "off" => Ok(Listen::Off),
        Value::Text(text) => match text.strip_prefix("localhost:") {
            Some(port) => port.parse().map(loopback).map_err(|_| rule()),
            None => text.parse().map(Listen::On).map_err(|_| rule()),
        },
        _ => Err(rule()),
    }
}

/// The largest body, or the largest tensor in one.
pub(super) fn body_size(value: &Value) -> Result<usize, Rule> {
    value.size().filter(|bytes| *bytes >= 1024).ok_or_else(|| {
        Rule::new("must be a size of at least 1KiB", "write a number of bytes or one as 64MiB")
    })
}

/// The longest head. HTTP is read into 8 KiB at least.
pub(super) fn head_size(value: &Value) -> Result<u32, Rule> {
    let allowed = |bytes: &u32| (8 << 10..=16 << 20).contains(bytes);
    value.size().and_then(|bytes| u32::try_from(bytes).ok()).filter(allowed).ok_or_else(|| {
        Rule::new("must be a size from 8KiB to 16MiB", "write a number of bytes or one as 64KiB")
    })
}

pub(super) fn connections(value: &Value) -> Result<usize, Rule> {
    value.whole().filter(|most| (1..=1_000_000).contains(most)).ok_or_else(|| {
        Rule::new("must be a whole number from 1 to 1000000", "leave it out for 4096")
    })
}

pub(super) fn drain_timeout(value: &Value) -> Result<Duration, Rule> {
    let longest = Duration::from_secs(60 * 60);
    value.duration().filter(|timeout| *timeout <= longest).ok_or_else(|| {
        Rule::new("must be a duration of at most 1h", "write a number with a unit, as in 30s")
    })
}

/// How long something may take.
pub(super) fn timeout(value: &Value) -> Result<Duration, Rule> {
    let allowed = Duration::from_millis(1)..=Duration::from_secs(24 * 60 * 60);
    value.duration().filter(|timeout| allowed.contains(timeout)).ok_or_else(|| {
        Rule::new("must be a duration from 1ms to 24h", "write a number with a unit, as in 30s")
    })
}

pub(super) fn optional_timeout(value: &Value) -> Result<Option<Duration>, Rule> {
    timeout(value).map(Some)
}

pub(super) fn truth(value: &Value) -> Result<bool, Rule> {
    value.boolean().ok_or_else(|| Rule::new("must be true or false", "write it without quotes"))
}

pub(super) fn log_format(value: &Value) -> Result<LogFormat, Rule> {
    value
        .text()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| Rule::new("must be text or json", "leave it out for text"))
}

pub(super) fn log_level(value: &Value) -> Result<String, Rule> {
    let levels = ["off", "error", "warn", "info", "debug", "trace"];
    // The last part of `target=level` pairs is a level; a lone target is nothing anybody wants.
    let is_level = |part: &str| {
        let level = part.rsplit('=').next().unwrap_or(part).trim();
        levels.iter().any(|known| known.eq_ignore_ascii_case(level))
    };
    match value.text() {
        Some(text) if text.split(',').all(is_level) => Ok(text.to_owned()),
        other => Err(Rule::new(
            "must be off, error, warn, info, debug or trace, or target=level pairs",
            did_you_mean(other, &levels, "leave it out for info"),
        )),
    }
}

pub(super) fn endpoint(value: &Value) -> Result<Option<String>, Rule> {
    let is_url = |text: &&str| {
        let host = text.strip_prefix("http://");
        host.is_some_and(|host| !host.is_empty())
    };
    match value.text().filter(is_url) {
        Some(url) => Ok(Some(url.to_owned())),
        None => Err(Rule::new(
            "must be a URL without TLS",
            "write it as in http://127.0.0.1:4317; a collector on this machine can speak TLS onwards",
        )),
    }
}

fn did_you_mean(text: Option<&str>, candidates: &[&str], otherwise: &str) -> String {
    match text.and_then(|text| nearest(text, candidates.iter().copied())) {
        Some(nearest) => format!("did you mean {nearest}?"),
        None => otherwise.to_owned(),
    }
}
