//! `outhaul route`: where a running server sends the requests for a name.
//!
//! All of it is asked of the server's admin API (`/v1/routes`). Nothing is decided here.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use hyper::Method;
use outhaul::types::{Destination, ModelName, RouteSpec, StickyKey, TargetSpec};
use serde_json::{Value, json};

use super::remote_server::{Ask, Form, Server, columns};
use super::write_json;

/// Lists and changes the routes of a running server.
#[derive(Debug, Parser)]
#[command(after_help = "Examples:
  outhaul route list                                     every route, its variants and how they do
  outhaul route set reviews reviews@2                    all requests to version 2
  outhaul route set reviews reviews@2=90 reviews@3=10    split
  outhaul route set reviews reviews@2=1 reviews@3=1 --sticky header:x-user --feedback
  outhaul route show reviews --output json
  outhaul route report reviews                           which variant is better, by the feedback
  outhaul route delete reviews")]
pub(super) struct Route {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    List(List),
    Show(Show),
    Set(Set),
    Report(Report),
    Delete(Delete),
}

/// Lists every route with its variants, their shares and what became of their requests.
#[derive(Debug, Parser)]
#[command(after_help = "Examples:
  outhaul route list
  outhaul route list --output json | jq '.routes[].variants[].p99_ms'")]
struct List {
    #[command(flatten)]
    ask: Ask,
}

/// Shows one route: what is declared, its variants, its shadow.
#[derive(Debug, Parser)]
#[command(after_help = "Examples:
  outhaul route show reviews
  outhaul route show reviews --output json | jq .shadow.report")]
struct Show {
    /// The route
    #[arg(value_name = "NAME", value_parser = model_name)]
    route: ModelName,

    #[command(flatten)]
    ask: Ask,
}

/// Makes a route, or changes where it leads; what is not mentioned stays as it is.
///
/// A target is a destination (VERSION, NAME, NAME@VERSION, NAME@LABEL or the URL of a model
/// elsewhere) and, after =, its weight; without weights all targets get the same share. What a route can do beside
/// that (shadow, fallback, pinned callers, policies) is told in a file.
#[derive(Debug, Parser)]
#[command(after_help = "Examples:
  outhaul route set reviews reviews@2
  outhaul route set reviews reviews@2=90 reviews@3=10 --sticky cookie:uid
  outhaul route set reviews --file route.json")]
struct Set {
    /// The route
    #[arg(value_name = "NAME", value_parser = model_name)]
    route: ModelName,

    /// Where its requests go
    #[arg(value_name = "TARGET[=WEIGHT]", required_unless_present = "file")]
    targets: Vec<String>,

    /// What ties a caller to one variant: caller, header:NAME, cookie:NAME or field:NAME
    #[arg(long, value_name = "KEY")]
    sticky: Option<StickyKey>,

    /// Remembers predictions, so that outcomes can be joined to them
    #[arg(long)]
    feedback: bool,

    /// The whole route, as TOML or JSON
    #[arg(long, value_name = "FILE", conflicts_with_all = ["targets", "sticky", "feedback"])]
    file: Option<PathBuf>,

    #[command(flatten)]
    ask: Ask,
}

/// Reports on the variants of a route by the outcomes that were sent back.
#[derive(Debug, Parser)]
#[command(after_help = "Examples:
  outhaul route report reviews
  outhaul route report reviews --output json | jq .verdict")]
struct Report {
    /// The route
    #[arg(value_name = "NAME", value_parser = model_name)]
    route: ModelName,

    #[command(flatten)]
    ask: Ask,
}

/// Takes a route away: requests for its name go to the model of that name again.
#[derive(Debug, Parser)]
#[command(after_help = "Examples:
  outhaul route delete reviews")]
struct Delete {
    /// The route
    #[arg(value_name = "NAME", value_parser = model_name)]
    route: ModelName,

    #[command(flatten)]
    ask: Ask,
}

/// Reads a destination: a version of the route's own model, or a whole destination.
pub(super) fn destination(route: &ModelName, text: &str) -> Result<Destination> {
    let is_version = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let of_route = format!("{route}@{text}");
    Ok(if is_version { of_route.parse()? } else { text.parse()? })
}

pub(super) fn model_name(text: &str) -> Result<ModelName, String> {
    ModelName::new(text).map_err(|error| error.to_string())
}

/// Reads a target; a bare number is a version of the route's own model.
fn target(route: &ModelName, text: &str) -> Result<TargetSpec> {
    // A URL may hold '=' in no place that is allowed, so the last one parts the weight.
    let (to, weight) = match text.rsplit_once('=') {
        None => (text, 1.0),
        Some((to, weight)) => {
            let number = weight.trim_end_matches('%').parse::<f64>();
            (to, number.with_context(|| format!("'{weight}' is no weight"))?)
        }
    };
    Ok(TargetSpec { to: destination(route, to)?, weight })
}

impl Route {
    pub(super) fn run(&self, out: &mut impl Write) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            match &self.action {
                Action::List(list) => list.run(out).await,
                Action::Show(show) => show.run(out).await,
                Action::Set(set) => set.run(out).await,
                Action::Report(report) => report.run(out).await,
                Action::Delete(delete) => delete.run(out).await,
            }
        })
    }
}

impl List {
    async fn run(&self, out: &mut impl Write) -> Result<()> {
        let routes = Server::new(&self.ask.url)?.json(Method::GET, "/v1/routes", None).await?;
        match self.ask.output {
            Form::Json => write_json(out, &routes),
            Form::Table => Ok(out.write_all(table(&routes["routes"]).as_bytes())?),
        }
    }
}

impl Show {
    async fn run(&self, out: &mut impl Write) -> Result<()> {
        let path = format!("/v1/routes/{}", self.route);
        let route = Server::new(&self.ask.url)?.json(Method::GET, &path, None).await?;
        match self.ask.output {
            Form::Json => write_json(out, &route),
            Form::Table => {
                out.write_all(table(&json!([route])).as_bytes())?;
                writeln!(out, "\nDeclared")?;
                write_json(out, &route["spec"])
            }
        }
    }
}

impl Set {
    async fn run(&self, out: &mut impl Write) -> Result<()> {
        let server = Server::new(&self.ask.url)?;
        let path = format!("/v1/routes/{}", self.route);
        let spec = match &self.file {
            Some(file) => read_declaration(file)?,
            None => self.changed(present(&server, &path).await?)?,
        };
        let body = serde_json::to_value(spec)?;
        let set = server.json(Method::PUT, &path, Some(&body)).await?;
        tell(out, &self.ask, &set)
    }

    /// Makes the route of the flags out of what it is now; what they do not mention stays.
    fn changed(&self, present: Option<RouteSpec>) -> Result<RouteSpec> {
        let targets: Vec<TargetSpec> =
            self.targets.iter().map(|text| target(&self.route, text)).collect::<Result<_>>()?;
        let first = targets.first().map(|target| target.to.clone());
        let present = match (present, first) {
            (Some(present), _) => present,
            (None, Some(first)) => RouteSpec::to(first),
            (None, None) => bail!("a route needs a target"),
        };
        let sticky = self.sticky.clone().or(present.sticky);
        let feedback = self.feedback || present.feedback;
        Ok(RouteSpec { targets, sticky, feedback, ..present })
    }
}

/// Returns a route as it is now, where there is one.
async fn present(server: &Server, path: &str) -> Result<Option<RouteSpec>> {
    let answer = server.ask(Method::GET, path, None).await?;
    if !answer.is_ok {
        return Ok(None);
    }
    let mut route: Value = serde_json::from_str(&answer.body).context("the answer is no JSON")?;
    serde_json::from_value(route["spec"].take()).map(Some).context("the answer is no route")
}

/// Reads a declaration from a file: JSON where its name says so, else TOML.
pub(super) fn read_declaration<T: serde::de::DeserializeOwned>(
    file: &std::path::Path,
) -> Result<T> {
    let name = file.display();
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {name}"))?;
    match file.extension().is_some_and(|ending| ending == "json") {
        true => serde_json::from_str(&text).with_context(|| format!("{name} is not right")),
        false => toml::from_str(&text).with_context(|| format!("{name} is not right")),
    }
}

impl Report {
    async fn run(&self, out: &mut impl Write) -> Result<()> {
        let path = format!("/v1/routes/{}/report", self.route);
        let report = Server::new(&self.ask.url)?.json(Method::GET, &path, None).await?;
        match self.ask.output {
            Form::Json => write_json(out, &report),
            Form::Table => Ok(out.write_all(report_text(&report).as_bytes())?),
        }
    }
}

impl Delete {
    async fn run(&self, out: &mut impl Write) -> Result<()> {
        let path = format!("/v1/routes/{}", self.route);
        let done = Server::new(&self.ask.url)?.json(Method::DELETE, &path, None).await?;
        tell(out, &self.ask, &done)
    }
}

/// Prints what a change did: the entries of the journal, and what to look at.
pub(super) fn tell(out: &mut impl Write, ask: &Ask, applied: &Value) -> Result<()> {
    if ask.output == Form::Json {
        return write_json(out, applied);
    }
    let entries = applied["entries"].as_array().map(Vec::as_slice).unwrap_or_default();
    if entries.is_empty() {
        writeln!(out, "nothing changed")?;
    }
    for entry in entries {
        writeln!(out, "{}", entry["text"].as_str().unwrap_or_default())?;
    }
    for warning in applied["warnings"].as_array().into_iter().flatten() {
        writeln!(out, "warning: {}", warning.as_str().unwrap_or_default())?;
    }
    Ok(())
}

fn table(routes: &Value) -> String {
    let routes = routes.as_array().map(Vec::as_slice).unwrap_or_default();
    if routes.is_empty() {
        return "no routes: requests for a name go to the model of that name\n".to_owned();
    }
    let header = ["ROUTE", "VARIANT", "SHARE", "ANSWERED", "FAILED", "P50", "P99"];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    for route in routes {
        let name = route["name"].as_str().unwrap_or_default();
        for variant in route["variants"].as_array().into_iter().flatten() {
            rows.push(vec![
                name.to_owned(),
                variant["name"].as_str().unwrap_or_default().to_owned(),
                percent(&variant["share"]),
                variant["answered"].to_string(),
                variant["failed"].to_string(),
                milliseconds(&variant["p50_ms"]),
                milliseconds(&variant["p99_ms"]),
            ]);
        }
        if let Some(shadow) = route["shadow"].as_object() {
            rows.push(vec![
                name.to_owned(),
                format!("shadow {}", shadow["to"].as_str().unwrap_or_default()),
                percent(&shadow["share"]),
                format!("{} compared", shadow["compared"]),
                format!("{} disagreed", shadow["disagreed"]),
                format!("{} shed", shadow["shed"]),
            ]);
        }
    }
    columns(&rows)
}

pub(super) fn percent(share: &Value) -> String {
    share.as_f64().map_or_else(
        || "-".to_owned(),
        |share| {
            let percent = (share * 1e4).round() / 1e2;
            format!("{percent}%")
        },
    )
}

fn milliseconds(ms: &Value) -> String {
    ms.as_f64().map_or_else(|| "-".to_owned(), |ms| format!("{ms:.2} ms"))
}

fn report_text(report: &Value) -> String {
    let header = ["VARIANT", "SHARE", "PREDICTIONS", "OUTCOMES", "MEAN REWARD", "INTERVAL"];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    for variant in report["variants"].as_array().into_iter().flatten() {
        let number = |value: &Value| value.as_f64().map(|n| format!("{n:.4}"));
        let interval = match (number(&variant["interval"][0]), number(&variant["interval"][1])) {
            (Some(low), Some(high)) => format!("{low} to {high}"),
            _ => "-".to_owned(),
        };
        rows.push(vec![
            variant["variant"].as_str().unwrap_or_default().to_owned(),
            percent(&variant["share"]),
            variant["predictions"].to_string(),
            variant["outcomes"].to_string(),
            number(&variant["mean"]).unwrap_or_else(|| "-".to_owned()),
            interval,
        ]);
    }
    format!("{}\n{}\n", columns(&rows), report["text"].as_str().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read() {
        let reviews = ModelName::new("reviews").unwrap();
        let target = |text: &str| target(&reviews, text);
        let read = |text: &str| {
            let target = target(text).unwrap();
            (target.to.to_string(), target.weight)
        };
        assert_eq!(read("reviews@3"), ("reviews@3".to_owned(), 1.0));
        assert_eq!(read("3=12.5"), ("reviews@3".to_owned(), 12.5));
        assert_eq!(read("reviews=90%"), ("reviews".to_owned(), 90.0));
        let url = "http://other:8080/v2/models/reviews";
        assert_eq!(read(&format!("{url}=2")), (url.to_owned(), 2.0));
        for text in ["", "=1", "reviews=", "reviews=much", "a b=1"] {
            assert!(target(text).is_err(), "{text}");
        }
    }

    #[test]
    fn routes_are_shown_as_a_table() {
        let routes = json!([{
            "name": "reviews",
            "variants": [
                {"name": "reviews@2", "share": 0.9, "answered": 90, "failed": 1, "p50_ms": 1.0, "p99_ms": 2.345},
                {"name": "reviews@3", "share": 0.1, "answered": 0, "failed": 0, "p50_ms": null, "p99_ms": null},
            ],
            "shadow": {"to": "reviews@4", "share": 1.0, "compared": 5, "disagreed": 1, "shed": 0},
        }]);
        let expected = "\
ROUTE    VARIANT           SHARE  ANSWERED    FAILED       P50      P99
reviews  reviews@2         90%    90          1            1.00 ms  2.35 ms
reviews  reviews@3         10%    0           0            -        -
reviews  shadow reviews@4  100%   5 compared  1 disagreed  0 shed
";
        assert_eq!(table(&routes), expected);
    }
}
