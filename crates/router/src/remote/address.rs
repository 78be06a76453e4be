//! Where a model of another server lies: `http(s)://HOST[:PORT][/PREFIX]/v2/models/NAME[/versions/VERSION]`.

use outhaul_types::{ErrorKind, ModelName, ModelVersion, Name};
use reqwest::Url;

use super::exchange::Failure;

/// The address of one model.
#[derive(Debug)]
pub(super) struct Address {
    infer: Url,
    model: ModelName,
}

impl Address {
    pub(super) fn parse(url: &str) -> Result<Self, Failure> {
        let wrong = |message: &str| Failure {
            kind: ErrorKind::Unavailable,
            message: format!("this is no address of a model: {message}"),
        };
        let mut infer = Url::parse(url).map_err(|error| wrong(&error.to_string()))?;
        if !infer.username().is_empty() || infer.password().is_some() {
            // It would stand in logs, metrics and answers.
            return Err(wrong("it must not hold a password"));
        }
        let form = "write http://HOST/v2/models/NAME, or .../NAME/versions/VERSION";
        let path = infer.path().trim_end_matches('/').to_owned();
        let (_, named) = path.split_once("/v2/models/").ok_or_else(|| wrong(form))?;
        let (name, version) = named.split_once("/versions/").unwrap_or((named, "1"));
        if version.is_empty() || version.contains('/') {
            return Err(wrong(form));
        }
        let model = ModelName::new(name).map_err(|_| wrong(form))?;
        infer.set_path(&format!("{path}/infer"));
        Ok(Address { infer, model })
    }

    /// Returns where requests are sent.
    pub(super) fn infer(&self) -> &Url {
        &self.infer
    }

    /// Returns who answered, by what the answer says of itself: the name by the address where it is none of
    /// ours, and 0 for a version that is no number.
    pub(super) fn named(
        &self,
        model: Option<Name>,
        version: Option<Name>,
    ) -> (ModelName, ModelVersion) {
        let model = model.and_then(|name| ModelName::new(&name).ok());
        let version = version.and_then(|version| version.parse().ok()).unwrap_or(0);
        (model.unwrap_or_else(|| self.model.clone()), ModelVersion(version))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_lead_to_where_requests_are_sent() {
        for (url, infer) in [
            ("http://h/v2/models/a", "http://h/v2/models/a/infer"),
            ("https://h:8/x/y/v2/models/a.b/", "https://h:8/x/y/v2/models/a.b/infer"),
            (
                "http://[::1]:1/v2/models/a/versions/3",
                "http://[::1]:1/v2/models/a/versions/3/infer",
            ),
        ] {
            let address = Address::parse(url).unwrap();
            assert_eq!(address.infer().as_str(), infer);
        }
        for url in [
            "http://h",
            "http:///v2/models/",
            "http://u:p@h/v2/models/a",
            "http://h:99999/v2/models/a",
            "http://h/v2/models/a/infer",
            "http://h/v2/models/a/versions/3/infer",
            "http://h/v2/models/a b",
        ] {
            assert!(Address::parse(url).is_err(), "{url}");
        }
    }

    #[test]
    fn who_answered_is_a_name_of_ours() {
        let address = Address::parse("http://h/v2/models/a").unwrap();
        let named = |model: &str, version: &str| {
            let (model, version) = address.named(Some(model.into()), Some(version.into()));
            (model.as_str().to_owned(), version.0)
        };
        assert_eq!(named("b", "7"), ("b".to_owned(), 7));
        assert_eq!(named("b c", "v7"), ("a".to_owned(), 0));
        assert_eq!(address.named(None, None).1, ModelVersion(0));
    }
}
