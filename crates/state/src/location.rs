//! From a URL to where the records are, and to the URL as it may be shown.
//!
//! Invariant: no text that leaves this module holds a password, whatever was typed. The URL may be
//! malformed, so what is hidden is found without parsing it: rather too much than too little.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use sqlx::postgres::PgConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;
use url::Url;

use crate::StateError;

/// Where records are kept.
#[derive(Debug)]
pub(crate) enum Location {
    /// In a file, named absolutely: a path that begins with `file:` would mean something else to SQLite.
    SqliteFile(PathBuf),
    /// In memory, until the last handle is dropped.
    SqliteMemory,
    /// On a Postgres server.
    Postgres(Box<PgConnectOptions>),
}

/// What a Postgres URL may have after `?`. The driver would pass over any other in silence.
const POSTGRES_PARAMETERS: &[&str] = &[
    "application_name",
    "dbname",
    "host",
    "hostaddr",
    "options",
    "password",
    "port",
    "sslcert",
    "sslkey",
    "sslmode",
    "sslrootcert",
    "statement-cache-capacity",
    "user",
];

/// Returns where a URL points, and the URL without password.
pub(crate) fn parse(url: &str) -> Result<(Location, String), StateError> {
    let shown = redacted(url);
    let location = match scheme(url) {
        Some("sqlite") => sqlite(url, &shown)?,
        Some("postgres" | "postgresql") => postgres(url, &shown)?,
        None if Path::new(url).extension().is_some_and(|end| end == "db") => {
            file(Path::new(url), &shown)?
        }
        _ => return Err(StateError::UnknownScheme { url: shown }),
    };
    Ok((location, shown))
}

/// Returns what stands before the first colon, unless it is a path or the letter of a Windows drive.
fn scheme(url: &str) -> Option<&str> {
    let (scheme, _) = url.split_once(':')?;
    let scheme_like = scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
    (scheme.len() > 1 && scheme_like).then_some(scheme)
}

fn sqlite(url: &str, shown: &str) -> Result<Location, StateError> {
    if url.contains(['?', '#']) {
        let rule = "a SQLite URL takes no parameters; write '?' and '#' of a path as %3F and %23";
        return Err(invalid(shown, rule));
    }
    let options = SqliteConnectOptions::from_str(url)
        .map_err(|error| invalid(shown, &format!("the path cannot be read ({error})")))?;
    let rest = url.trim_start_matches("sqlite:").trim_start_matches("//");
    if rest == ":memory:" {
        return Ok(Location::SqliteMemory);
    }
    file(options.get_filename(), shown)
}

pub(crate) fn file(path: &Path, shown: &str) -> Result<Location, StateError> {
    if path.to_str().is_none() {
        return Err(invalid(shown, "SQLite opens only files whose path is UTF-8"));
    }
    // `absolute` fails for an empty path and where there is no current folder.
    let path = std::path::absolute(path)
        .map_err(|error| invalid(shown, &format!("it has no usable path ({error})")))?;
    Ok(Location::SqliteFile(path))
}

fn postgres(url: &str, shown: &str) -> Result<Location, StateError> {
    let parsed = Url::parse(url).map_err(|error| {
        let rule = format!(
            "expected postgres://USER:PASSWORD@HOST:PORT/DATABASE, with '/', '?', '#' and '@' of a \
             password written as %2F, %3F, %23 and %40 ({error})"
        );
        invalid(shown, &rule)
    })?;
    for (key, _) in parsed.query_pairs() {
        if !POSTGRES_PARAMETERS.contains(&&*key) && !key.starts_with("options[") {
            let known = POSTGRES_PARAMETERS.join(", ");
            return Err(invalid(shown, &format!("'{key}' is none of its parameters: {known}")));
        }
    }
    let options = PgConnectOptions::from_str(url)
        .map_err(|error| invalid(shown, &format!("a part of it cannot be read ({error})")))?;
    Ok(Location::Postgres(Box::new(options)))
}

fn invalid(shown: &str, rule: &str) -> StateError {
    StateError::InvalidUrl { url: shown.to_owned(), rule: rule.to_owned() }
}

/// Returns a URL with `***` for passwords: all between the first colon after `://` and the last `@`, and
/// a parameter `password`.
fn redacted(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let rest = match rest.rsplit_once('@') {
        Some((who, place)) => match who.split_once(':') {
            Some((user, _)) => Cow::Owned(format!("{user}:***@{place}")),
            None => Cow::Borrowed(rest),
        },
        None => Cow::Borrowed(rest),
    };
    let Some((place, query)) = rest.split_once('?') else { return format!("{scheme}://{rest}") };
    let hide = |parameter: &str| match parameter.split_once('=') {
        Some((key, _)) if key.to_ascii_lowercase().contains("pass") => format!("{key}=***"),
        _ => parameter.to_owned(),
    };
    let query: Vec<_> = query.split('&').map(hide).collect();
    format!("{scheme}://{place}?{}", query.join("&"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_says_where_the_records_are() {
        let here = std::path::absolute("state.db").unwrap();
        struct Case<'a> {
            url: &'a str,
            path: &'a Path,
        }
        let cases = [
            Case {
                url: "sqlite:///var/lib/outhaul/state.db",
                path: "/var/lib/outhaul/state.db".as_ref(),
            },
            Case { url: "sqlite:/var/state", path: "/var/state".as_ref() },
            Case { url: "sqlite:///a%20b/c%3F.db", path: "/a b/c?.db".as_ref() },
            Case { url: "/a%20b/state.db", path: "/a%20b/state.db".as_ref() },
            Case { url: "sqlite:state.db", path: &here },
            Case { url: "sqlite://state.db", path: &here },
            Case { url: "state.db", path: &here },
        ];
        for Case { url, path } in cases {
            match parse(url) {
                Ok((Location::SqliteFile(found), shown)) => {
                    assert_eq!((found.as_path(), shown.as_str()), (path, url));
                }
                other => panic!("{url}: {other:?}"),
            }
        }
        for url in ["sqlite::memory:", "sqlite://:memory:"] {
            assert!(matches!(parse(url), Ok((Location::SqliteMemory, _))), "{url}");
        }
        for url in ["postgres://ann@db:5433/test", "postgresql://db/test?options=-csearch_path%3Da"]
        {
            assert!(matches!(parse(url), Ok((Location::Postgres(_), _))), "{url}");
        }
    }

    #[test]
    fn what_is_not_a_store_is_refused_with_what_would_be() {
        for (url, expected) in [
            ("", "use 'sqlite:PATH'"),
            ("redis://cache", "'postgres://USER@HOST/DATABASE'"),
            ("mysql://ann:secret@db/test", "'mysql://ann:***@db/test' names no state store"),
            ("mysql:state.db", "names no state store"),
            ("state.sqlite", "a path that ends in '.db'"),
            ("sqlite:", "no usable path"),
            ("sqlite:state.db?mode=ro", "takes no parameters"),
            ("postgres://ann:secret@db:none/test", "expected postgres://USER:PASSWORD@HOST"),
            ("postgres://db/test?sslmod=require", "'sslmod' is none of its parameters"),
            ("postgres://db/test?sslmode=perhaps", "cannot be read"),
        ] {
            let error = parse(url).unwrap_err().to_string();
            assert!(error.contains(expected), "{url}: {error}");
            assert!(!error.contains("secret"), "{error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn no_password_is_shown() {
        for (url, expected) in [
            ("postgres://ann:secret@db/test", "postgres://ann:***@db/test"),
            ("postgres://ann@db:5432/test", "postgres://ann@db:5432/test"),
            ("postgres://db:5432/test", "postgres://db:5432/test"),
            ("postgres://:secret@db/test", "postgres://:***@db/test"),
            ("postgres://ann:se/cr@et?#@db/test", "postgres://ann:***@db/test"),
            ("postgres://db/test?user=a&password=secret", "postgres://db/test?user=a&password=***"),
            ("postgres://db?sslpassword=secret", "postgres://db?sslpassword=***"),
            ("sqlite:state.db", "sqlite:state.db"),
        ] {
            assert_eq!(redacted(url), expected);
        }
    }
}
