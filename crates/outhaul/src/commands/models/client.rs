//! What a server is asked, and its answers.

use std::num::NonZeroU64;

use anyhow::{Context, Result, bail};
use hyper::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::commands::remote_server::{Server, reason};

/// A running server.
pub(super) struct Client(Server);

/// What a server said to a load or an unload.
pub(super) enum Reply {
    Done,
    /// With this reason.
    Refused(String),
}

/// One version, as the server's index tells of it.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) version: String,
    /// One word: that of the index's `standing`, or its `state` for a server that is not Outhaul.
    pub(super) state: String,
    pub(super) labels: Vec<String>,
    pub(super) engine: Option<String>,
    pub(super) memory_bytes: Option<u64>,
    pub(super) reason: String,
    pub(super) last_error: Option<String>,
    pub(super) source: Option<String>,
}

/// One version in the index. The extension's own keys are all that other servers tell, and of a model
/// that is not loaded, Triton tells no more than the name.
#[derive(Deserialize)]
struct Indexed {
    name: String,
    #[serde(default)]
    version: String,
    #[serde(default)]
    state: String,
    #[serde(default)]
    reason: String,
    standing: Option<String>,
    #[serde(default)]
    labels: Vec<String>,
    engine: Option<String>,
    memory_bytes: Option<u64>,
    last_error: Option<String>,
    source: Option<String>,
}

impl From<Indexed> for Entry {
    fn from(indexed: Indexed) -> Self {
        let state = indexed.standing.unwrap_or_else(|| match indexed.state.as_str() {
            "" => "unloaded".to_owned(),
            "UNAVAILABLE" if indexed.reason == "unloaded" => "unloaded".to_owned(),
            "UNAVAILABLE" => "failed".to_owned(),
            state => state.to_lowercase(),
        });
        Entry {
            name: indexed.name,
            version: indexed.version,
            state,
            labels: indexed.labels,
            engine: indexed.engine,
            memory_bytes: indexed.memory_bytes,
            reason: indexed.reason,
            last_error: indexed.last_error,
            source: indexed.source,
        }
    }
}

impl Client {
    /// Names a server by its URL.
    pub(super) fn new(url: &str) -> Result<Self> {
        Server::new(url).map(Client)
    }

    /// Asks for all versions, in order of name and number.
    pub(super) async fn index(&self) -> Result<Vec<Entry>> {
        let answer = self.0.ask(Method::POST, "/v2/repository/index", Some(&json!({}))).await?;
        if !answer.is_ok {
            bail!("{} does not list its models: {}", self.0.url(), reason(&answer));
        }
        let indexed: Vec<Indexed> = serde_json::from_str(&answer.body)
            .with_context(|| format!("the answer of {} is not a list of models", self.0.url()))?;
        let mut entries: Vec<Entry> = indexed.into_iter().map(Entry::from).collect();
        let number = |entry: &Entry| entry.version.parse::<u64>().unwrap_or(0);
        entries.sort_by(|left, right| {
            left.name.cmp(&right.name).then_with(|| number(left).cmp(&number(right)))
        });
        Ok(entries)
    }

    /// Has a model loaded; returns when it answers or has failed.
    pub(super) async fn load(&self, model: &str, version: Option<NonZeroU64>) -> Result<Reply> {
        let body = match version {
            None => json!({}),
            Some(version) => json!({ "parameters": { "version": version } }),
        };
        self.control(&format!("/v2/repository/models/{model}/load"), &body).await
    }

    /// Has a model unloaded.
    pub(super) async fn unload(&self, model: &str) -> Result<Reply> {
        self.control(&format!("/v2/repository/models/{model}/unload"), &json!({})).await
    }

    async fn control(&self, path: &str, body: &Value) -> Result<Reply> {
        let answer = self.0.ask(Method::POST, path, Some(body)).await?;
        Ok(if answer.is_ok { Reply::Done } else { Reply::Refused(reason(&answer)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_servers_are_understood() {
        let entries: Vec<Indexed> = serde_json::from_value(json!([
            { "name": "a" },
            { "name": "b", "version": "1", "state": "READY", "reason": "" },
            { "name": "c", "version": "1", "state": "UNAVAILABLE", "reason": "unloaded" },
            { "name": "d", "version": "1", "state": "UNAVAILABLE", "reason": "no such file" },
            { "name": "e", "version": "1", "state": "READY", "standing": "dormant" },
        ]))
        .unwrap();
        let states: Vec<_> = entries.into_iter().map(|entry| Entry::from(entry).state).collect();
        assert_eq!(states, ["unloaded", "ready", "unloaded", "failed", "dormant"]);
    }
}
