//! Logs: lines of text for people, lines of JSON for machines, always on standard error, so that
//! standard output stays free for what a command was asked for.
//!
//! Events carry what happened as fields (`request_id`, `model`, ...), never inside the message.

use std::fmt;
use std::io::{self, IsTerminal};
use std::str::FromStr;

use tracing::Subscriber;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry};

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Lines for people, in colour where standard error is a terminal and `NO_COLOR` is not set.
    #[default]
    Text,
    /// One JSON object a line, the event's fields at its top level.
    Json,
}

impl FromStr for LogFormat {
    type Err = LogError;

    fn from_str(text: &str) -> Result<Self, LogError> {
        match text {
            "text" => Ok(LogFormat::Text),
            "json" => Ok(LogFormat::Json),
            _ => Err(LogError::UnknownFormat(text.to_owned())),
        }
    }
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        })
    }
}

/// How to log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// How lines look. Default: text.
    pub format: LogFormat,
    /// What is logged, in the syntax of `tracing`'s `EnvFilter`: a level, or `target=level` pairs
    /// separated by commas. Default: `info`. Lower levels log more and cost more.
    pub filter: String,
}

impl Default for LogConfig {
    fn default() -> Self {
        LogConfig { format: LogFormat::Text, filter: "info".to_owned() }
    }
}

/// Why logging cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter is not one.
    #[error("the log filter '{filter}' is not valid")]
    BadFilter {
        /// As configured.
        filter: String,
        /// What is wrong with it.
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    /// Something in this process logs already.
    #[error("logging is set up already")]
    AlreadySet(#[source] tracing_subscriber::util::TryInitError),
    /// No such format.
    #[error("'{0}' is not a log format: use 'text' or 'json'")]
    UnknownFormat(String),
}

/// Begins to log, for the whole process.
///
/// # Errors
///
/// Fails where the filter is not valid or logging was set up before.
pub fn init(config: &LogConfig) -> Result<(), LogError> {
    let colour = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    subscriber(config, colour, io::stderr)?.try_init().map_err(LogError::AlreadySet)
}

fn subscriber<W>(
    config: &LogConfig,
    colour: bool,
    writer: W,
) -> Result<impl Subscriber + Send + Sync, LogError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = EnvFilter::try_new(&config.filter)
        .map_err(|source| LogError::BadFilter { filter: config.filter.clone(), source })?;
    let lines = tracing_subscriber::fmt::layer().with_writer(writer);
    let lines: Box<dyn Layer<Registry> + Send + Sync> = match config.format {
        LogFormat::Text => Box::new(lines.with_ansi(colour).with_target(false)),
        LogFormat::Json => Box::new(
            lines.json().flatten_event(true).with_current_span(false).with_span_list(false),
        ),
    };
    Ok(tracing_subscriber::registry().with(lines.with_filter(filter)))
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(config: &LogConfig, colour: bool) -> String {
        let lines = Lines::default();
        let sink = lines.clone();
        let subscriber = subscriber(config, colour, move || sink.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(request_id = "r-1", status = 200, "answered \"it\"");
            tracing::debug!("not at this level");
        });
        let bytes = lines.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn json_lines_hold_the_fields_at_the_top() {
        let config = LogConfig { format: LogFormat::Json, ..LogConfig::default() };
        let text = logged(&config, true);
        assert_eq!(text.lines().count(), 1, "{text}");
        for part in [
            r#""level":"INFO""#,
            r#""message":"answered \"it\"""#,
            r#""request_id":"r-1""#,
            r#""status":200"#,
            r#""timestamp":""#,
        ] {
            assert!(text.contains(part), "{part} is missing from {text}");
        }
    }

    #[test]
    fn text_is_plain_where_there_is_no_terminal() {
        let text = logged(&LogConfig::default(), false);
        assert!(text.contains("INFO") && text.contains("request_id=\"r-1\""), "{text}");
        assert!(!text.contains('\u{1b}'), "{text:?}");
        assert!(logged(&LogConfig::default(), true).contains('\u{1b}'));
    }

    #[test]
    fn a_wrong_filter_or_format_is_named() {
        let config = LogConfig { filter: "info,a=b=c".to_owned(), ..LogConfig::default() };
        let Err(error) = subscriber(&config, false, io::sink) else {
            panic!("the filter is not valid");
        };
        assert_eq!(error.to_string(), "the log filter 'info,a=b=c' is not valid");
        assert!("xml".parse::<LogFormat>().is_err());
        for format in [LogFormat::Text, LogFormat::Json] {
            assert_eq!(format.to_string().parse::<LogFormat>().unwrap(), format);
        }
    }
}
