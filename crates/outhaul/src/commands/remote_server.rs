//! A running server that a command asks over HTTP.

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use hyper::{Method, Uri};
use outhaul::load::{Answer, HttpRequest, HttpTarget, LoadError, Target, ask};
use serde_json::Value;

/// Which server is asked, and the form of what is printed.
#[derive(Debug, Args)]
pub(super) struct Ask {
    /// The server's HTTP listener [default: http://127.0.0.1:8080] [variable: OUTHAUL_URL]
    #[arg(
        long,
        value_name = "URL",
        env = "OUTHAUL_URL",
        hide_env = true,
        default_value = "http://127.0.0.1:8080",
        hide_default_value = true
    )]
    pub(super) url: String,

    /// The form of what is printed
    #[arg(long, value_enum, default_value_t)]
    pub(super) output: Form,
}

/// The form of what is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Form {
    /// For people.
    #[default]
    #[value(alias = "text")]
    Table,
    /// For programs: one JSON value.
    Json,
}

/// A running server.
pub(super) struct Server {
    url: String,
    /// Host and port.
    address: String,
    /// The path in front of `/v1` and `/v2`.
    prefix: String,
}

impl Server {
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
        Ok(Server { url: url.to_owned(), address, prefix })
    }

    /// Returns the URL as it was given.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Asks, and returns whatever answer there is.
    pub(super) async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Answer> {
        let path = format!("{}{path}", self.prefix);
        let mut request = match body {
            Some(body) => HttpRequest::post_json(path, body.to_string()),
            None => HttpRequest::get(path),
        };
        request.method = method;
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

    /// Asks for JSON.
    ///
    /// # Errors
    ///
    /// Fails with the server's own words where it refuses.
    pub(super) async fn json(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value> {
        let answer = self.ask(method, path, body).await?;
        ensure!(answer.is_ok, "{}", reason(&answer));
        if answer.body.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(&answer.body)
            .with_context(|| format!("the answer of {} is no JSON", self.url))
    }
}

/// Why a server refused: its own words, or as much of its answer as reads well.
pub(super) fn reason(answer: &Answer) -> String {
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

/// Writes cells as columns as wide as their longest cell.
pub(super) fn columns(rows: &[Vec<String>]) -> String {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max()
    };
    let widths: Vec<usize> = (0..count).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}  "));
        text.push_str(cells.collect::<String>().trim_end());
        text.push('\n');
    }
    text
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
            let server = Server::new(url).unwrap();
            assert_eq!((&*server.address, &*server.prefix), (address, prefix), "{url}");
        }
        for url in ["", "https://a:1", "http://", "http://a:x", "a b", "http://me@a", "http://a?b"]
        {
            assert!(Server::new(url).is_err(), "{url}");
        }
    }

    #[test]
    fn the_reason_is_the_servers_own() {
        let answer =
            |body: &str| Answer { status: "404".into(), is_ok: false, body: body.to_owned() };
        assert_eq!(reason(&answer(r#"{"error":"no such model"}"#)), "no such model");
        assert_eq!(reason(&answer("<html>")), "status 404: <html>");
    }

    #[test]
    fn columns_are_as_wide_as_they_must() {
        let rows = [vec!["A".to_owned(), "B".to_owned()], vec!["long".to_owned(), "x".to_owned()]];
        assert_eq!(columns(&rows), "A     B\nlong  x\n");
    }
}
