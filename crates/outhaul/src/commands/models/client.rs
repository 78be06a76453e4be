//! What a server is asked, and its answers.

use std::num::NonZeroU64;

use anyhow::{Context, Result, bail, ensure};
use hyper::Uri;
use outhaul::load::{Answer, HttpRequest, HttpTarget, LoadError, Target, ask};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// A running server.
pub(super) struct Client {
    url: String,
    /// Host and port.
    address: String,
    /// The path in front of `/v2`.
    prefix: String,
}

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
    /// Takes a URL apart.
    pub(super) fn new(url: &str) -> Result<Self> {
        let whole = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
        let wrong = || format!("'{url}' is not a URL such as http://127.0.0.1:8080");
        let uri: Uri = whole.parse().with_context(wrong)?;
        ensure!(
            uri.scheme_str() == Some("http"),
            "'{url}' is not an http URL; for https, ask behind the proxy that ends it"
        );
        let authority = uri.authority().with_context(wrong)?;
        // A port that is no number is let through by the parser, and so are names before an `@`.
        let has_port = authority.port_u16().is_some();
        ensure!(has_port || authority.as_str() == authority.host(), wrong());
        ensure!(uri.query().is_none() && !authority.as_str().contains('@'), wrong());
        let address = format!("{}:{}", authority.host(), authority.port_u16().unwrap_or(80));
        let prefix = uri.path().trim_end_matches('/').to_owned();
        Ok(Client { url: url.to_owned(), address, prefix })
    }

    /// Asks for all versions, in order of name and number.
    pub(super) async fn index(&self) -> Result<Vec<Entry>> {
        let answer = self.ask("/v2/repository/index", "{}").await?;
        if !answer.is_ok {
            bail!("{} does not list its models: {}", self.url, reason(&answer));
        }
        let indexed: Vec<Indexed> = serde_json::from_str(&answer.body)
            .with_context(|| format!("the answer of {} is not a list of models", self.url))?;
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
        let answer = self.ask(path, &body.to_string()).await?;
        Ok(if answer.is_ok { Reply::Done } else { Reply::Refused(reason(&answer)) })
    }

    async fn ask(&self, path: &str, body: &str) -> Result<Answer> {
        let request = HttpRequest::post_json(format!("{}{path}", self.prefix), body.to_owned());
        let (address, requests) = (self.address.clone(), vec![request]);
        ask(&Target::Http(HttpTarget { address, requests })).await.map_err(|error| {
            let unreachable = matches!(error, LoadError::Unreachable { .. });
            let error = anyhow::Error::new(error);
            if unreachable {
                return error.context(format!(
                    "nobody answers at {}; start a server with `outhaul serve`, or name another \
                     with --url",
                    self.url
                ));
            }
            error.context(format!("{} gave no answer", self.url))
        })
    }
}

/// Why a server refused: its own words, or as much of its answer as reads well.
fn reason(answer: &Answer) -> String {
    let said = serde_json::from_str::<Value>(&answer.body).ok();
    let error = said.as_ref().and_then(|said| said["error"].as_str());
    match error {
        Some(error) => error.to_owned(),
        None => {
            let start: String = answer.body.chars().take(200).collect();
            format!("status {}: {start}", answer.status)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        for (url, address, prefix) in [
            ("http://127.0.0.1:8080", "127.0.0.1:8080", ""),
            ("http://127.0.0.1:8080/", "127.0.0.1:8080", ""),
            ("localhost:9000", "localhost:9000", ""),
            ("http://models.example", "models.example:80", ""),
            ("http://[::1]:8080/team/a/", "[::1]:8080", "/team/a"),
        ] {
            let client = Client::new(url).unwrap();
            assert_eq!((&*client.address, &*client.prefix), (address, prefix), "{url}");
        }
        for url in ["", "https://a:1", "http://", "http://a:x", "a b", "http://me@a", "http://a?b"]
        {
            assert!(Client::new(url).is_err(), "{url}");
        }
    }

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

    #[test]
    fn the_reason_is_the_servers_own() {
        let answer =
            |body: &str| Answer { status: "404".into(), is_ok: false, body: body.to_owned() };
        assert_eq!(reason(&answer(r#"{"error":"no such model"}"#)), "no such model");
        assert_eq!(reason(&answer("<html>")), "status 404: <html>");
    }
}
