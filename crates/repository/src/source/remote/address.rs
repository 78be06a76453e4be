//! From a URL to the store behind it, with credentials from the environment.
//!
//! Invariant: a URL that may hold credentials is refused before it is kept or shown anywhere.

use std::env;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::http::HttpBuilder;
use object_store::list::PaginatedListStore;
use object_store::path::Path;
use object_store::{
    BackoffConfig, ClientConfigKey, ClientOptions, ObjectStore, ObjectStoreScheme, RetryConfig,
};
use url::{Position, Url};

use super::SourceError;

/// How long a connection may take to be made.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// How long a store may send nothing, whether an answer's head or more of its body.
const SILENCE_LIMIT: Duration = Duration::from_secs(30);

/// How often a request that failed is sent again, and a body that broke off taken up.
const RETRIES: usize = 3;

/// Beyond this a request is not sent again. Signatures of stores are good for five minutes.
const RETRY_LIMIT: Duration = Duration::from_secs(240);

/// Where objects are, and how to reach them.
pub(super) struct Address {
    /// The URL, without a slash at its end.
    pub(super) place: String,
    pub(super) store: Arc<dyn ObjectStore>,
    /// The same store where it lists page by page: there one name that no path can hold does not
    /// hide the others.
    pub(super) pages: Option<Arc<dyn PaginatedListStore>>,
    /// Where the models are in the store, or the one model's file.
    pub(super) path: Path,
    pub(super) is_file: bool,
    /// What to do where access is refused.
    pub(super) remedy: &'static str,
    /// Whether the store answers a listing of what is not there as if it were empty.
    pub(super) hides_absence: bool,
}

/// Returns whether a user means a URL and not a path.
pub fn is_url(text: &str) -> bool {
    let scheme = text.split_once("://").map(|(scheme, _)| scheme);
    scheme.is_some_and(|scheme| {
        scheme.len() > 1 && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric())
    })
}

impl Address {
    /// Reads a URL and makes the store's client. Nothing is sent yet.
    pub(super) fn parse(text: &str) -> Result<Self, SourceError> {
        let url = checked(text)?;
        let place = url.as_str().trim_end_matches('/').to_owned();
        if !SCHEMES.contains(&url.scheme()) {
            return Err(refused(&place, NO_SCHEME.to_owned()));
        }
        let parsed = ObjectStoreScheme::parse(&url);
        let (scheme, path) = parsed.map_err(|error| refused(&place, error.to_string()))?;
        let address = Address::of_scheme(&scheme, &url).map_err(|(error, remedy)| {
            let text = error.to_string();
            refused(&place, format!("{text}; {remedy}"))
        })?;
        let is_file = path.filename().is_some_and(|name| name.ends_with(".onnx"));
        Ok(Address { place, path, is_file, ..address })
    }

    fn of_scheme(
        scheme: &ObjectStoreScheme,
        url: &Url,
    ) -> Result<Self, (object_store::Error, &'static str)> {
        Ok(match scheme {
            ObjectStoreScheme::AmazonS3 => {
                let builder = AmazonS3Builder::from_env().with_url(url.as_str());
                let builder = builder.with_client_options(client_options("aws_"));
                let store = builder.with_retry(retries()).build().map_err(|error| (error, AWS))?;
                Address::paged(Arc::new(store), AWS)
            }
            ObjectStoreScheme::GoogleCloudStorage => {
                let builder = GoogleCloudStorageBuilder::from_env().with_url(url.as_str());
                let builder = builder.with_client_options(client_options("google_"));
                let store =
                    builder.with_retry(retries()).build().map_err(|error| (error, GOOGLE))?;
                Address::paged(Arc::new(store), GOOGLE)
            }
            ObjectStoreScheme::MicrosoftAzure => {
                let builder = MicrosoftAzureBuilder::from_env().with_url(url.as_str());
                let builder = builder.with_client_options(client_options("azure_"));
                let store =
                    builder.with_retry(retries()).build().map_err(|error| (error, AZURE))?;
                Address::paged(Arc::new(store), AZURE)
            }
            _ => {
                let options = limits().with_allow_http(url.scheme() == "http");
                let builder = HttpBuilder::new().with_url(&url[..Position::BeforePath]);
                let builder = builder.with_client_options(options).with_retry(retries());
                let store = builder.build().map_err(|error| (error, HTTP))?;
                let address = Address::over(Arc::new(store), HTTP);
                Address { hides_absence: true, ..address }
            }
        })
    }

    /// As [`Address::over`], for a store that lists page by page.
    pub(super) fn paged<S: ObjectStore + PaginatedListStore>(
        store: Arc<S>,
        remedy: &'static str,
    ) -> Self {
        let pages: Arc<dyn PaginatedListStore> = Arc::<S>::clone(&store);
        Address { pages: Some(pages), ..Address::over(store, remedy) }
    }

    /// Names everything in a store.
    pub(super) fn over(store: Arc<dyn ObjectStore>, remedy: &'static str) -> Self {
        Address {
            place: String::new(),
            store,
            pages: None,
            path: Path::ROOT,
            is_file: false,
            remedy,
            hides_absence: false,
        }
    }
}

const SCHEMES: [&str; 10] =
    ["s3", "s3a", "gs", "az", "adl", "azure", "abfs", "abfss", "https", "http"];
const NO_SCHEME: &str = "a URL of models starts with s3://, gs://, az://, abfs://, https:// or \
    http://; give a folder of this machine by its path";
const AWS: &str = "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION and AWS_ENDPOINT_URL, or \
    the role of this machine; for a public bucket set AWS_SKIP_SIGNATURE=true";
const GOOGLE: &str = "check GOOGLE_APPLICATION_CREDENTIALS or GOOGLE_SERVICE_ACCOUNT; for a public \
    bucket set GOOGLE_SKIP_SIGNATURE=true";
const AZURE: &str = "check AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY, or \
    AZURE_CLIENT_ID, AZURE_CLIENT_SECRET and AZURE_TENANT_ID; for a public container set \
    AZURE_SKIP_SIGNATURE=true";
const HTTP: &str = "the server has to give the files without credentials";

fn checked(text: &str) -> Result<Url, SourceError> {
    // What comes before the last `@`, and after `?` or `#`, is not repeated.
    let shown = || {
        let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
        let rest = rest.split(['?', '#']).next().unwrap_or_default();
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        format!("{scheme}://{}/{path}", host.rsplit('@').next().unwrap_or_default())
    };
    let url = Url::parse(text)
        .map_err(|error| refused(&shown(), format!("this is not a URL: {error}")))?;
    // Azure's own form is abfss://CONTAINER@ACCOUNT.HOST/PATH.
    let may_have_user = matches!(url.scheme(), "az" | "abfs" | "abfss");
    if url.password().is_some() || !url.username().is_empty() && !may_have_user {
        let reason = "credentials in a URL end up in logs; give them by the environment";
        return Err(refused(&shown(), reason.to_owned()));
    }
    if url.query().is_some() || url.fragment().is_some() {
        let reason = "a URL of models has no '?' or '#': what follows may be a credential, which \
            ends up in logs; give credentials by the environment";
        return Err(refused(&shown(), reason.to_owned()));
    }
    Ok(url)
}

fn refused(place: &str, reason: String) -> SourceError {
    SourceError { place: place.to_owned(), reason, passing: false }
}

fn limits() -> ClientOptions {
    ClientOptions::new()
        .with_connect_timeout(CONNECT_LIMIT)
        .with_read_timeout(SILENCE_LIMIT)
        // A model may take as long as it is large; silence is what ends it.
        .with_timeout_disabled()
        .with_config(ClientConfigKey::UserAgent, concat!("outhaul/", env!("CARGO_PKG_VERSION")))
}

/// Returns our limits, and what the environment says instead, such as `AWS_READ_TIMEOUT`.
fn client_options(prefix: &str) -> ClientOptions {
    env::vars_os().fold(limits(), |options, (name, value)| {
        let (Some(name), Some(value)) = (name.to_str(), value.to_str()) else { return options };
        let name = name.to_ascii_lowercase();
        match name.strip_prefix(prefix).and_then(|key| key.parse().ok()) {
            Some(key) => options.with_config(key, value),
            None => options,
        }
    })
}

fn retries() -> RetryConfig {
    let backoff = BackoffConfig {
        init_backoff: Duration::from_millis(100),
        max_backoff: Duration::from_secs(5),
        base: 2.0,
    };
    RetryConfig { backoff, max_retries: RETRIES, retry_timeout: RETRY_LIMIT }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_says_which_store_and_where() {
        struct Case {
            url: &'static str,
            place: &'static str,
            path: &'static str,
            is_file: bool,
        }
        let cases = [
            Case { url: "s3://b/models/", place: "s3://b/models", path: "models", is_file: false },
            Case { url: "s3://b", place: "s3://b", path: "", is_file: false },
            Case {
                url: "https://example.test:8443/a%20b/iris.onnx",
                place: "https://example.test:8443/a%20b/iris.onnx",
                path: "a b/iris.onnx",
                is_file: true,
            },
            Case {
                url: "http://h/models",
                place: "http://h/models",
                path: "models",
                is_file: false,
            },
        ];
        for case in cases {
            let address = Address::parse(case.url).unwrap();
            let found = (address.place.as_str(), address.path.as_ref(), address.is_file);
            assert_eq!(found, (case.place, case.path, case.is_file), "{}", case.url);
        }
    }

    #[test]
    fn what_may_be_a_credential_is_refused_and_not_repeated() {
        let urls = [
            "s3://key:SECRET@bucket/models",
            "s3://SECRET@bucket/models",
            "https://user:SECRET@host/models",
            "https://host/models?sig=SECRET",
            "https://host/models#SECRET",
            "abfss://container:SECRET@account.dfs.core.windows.net/models",
            "http://us@er:SECRET@ho st/x",
        ];
        for url in urls {
            let Err(error) = Address::parse(url) else { panic!("{url} was taken") };
            assert!(!error.to_string().contains("SECRET"), "{error}");
            assert!(!error.passing, "{error}");
        }
    }

    #[test]
    fn other_schemes_are_refused_with_those_that_there_are() {
        for url in ["ftp://host/models", "file:///models", "memory:///models", "://"] {
            let Err(error) = Address::parse(url) else { panic!("{url} was taken") };
            let error = error.to_string();
            assert!(error.contains("s3://") || error.contains("not a URL"), "{error}");
        }
    }

    #[test]
    fn urls_are_told_from_paths() {
        for url in ["s3://bucket", "https://host/x.onnx", "nonsense://x"] {
            assert!(is_url(url), "{url}");
        }
        for path in ["models", "/srv/models", "./s3:/x", "a b://c", "C://models"] {
            assert!(!is_url(path), "{path}");
        }
    }
}
