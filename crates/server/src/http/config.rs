//! The limits of the HTTP listener.

use std::time::Duration;

use outhaul_types::Name;

/// How the HTTP listener behaves.
///
/// A head holds at most 100 header fields over HTTP/1.1; that is hyper's own limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpConfig {
    /// Connections of this listener that may be open at once. Default: 4096. Further ones wait in the
    /// kernel's backlog, unanswered. Raising it costs memory for each connection that is open.
    pub max_connections: usize,
    /// The most bytes of a request's head. Default: 64 KiB, at least 8 KiB. Beyond it the answer is
    /// 431. Raising it raises what one connection may make the server hold.
    pub max_head_bytes: usize,
    /// The most bytes of a request's body, before and after decompression. Default: 64 MiB. Beyond
    /// it the answer is 413. Raising it raises what one request may make the server hold.
    pub max_body_bytes: usize,
    /// The longest that a client may take to send the head of a request, once it has begun. Default:
    /// 10 s. Then the connection is closed without an answer.
    pub head_timeout: Duration,
    /// The time that a client has for the body. Default: 30 s, and one second more for every
    /// [`min_body_rate`](Self::min_body_rate) bytes that came. Then the answer is 408.
    pub body_timeout: Duration,
    /// The bytes a second that a client must bring on average to send a body for longer than
    /// [`body_timeout`](Self::body_timeout). Default: 64 KiB.
    pub min_body_rate: u64,
    /// The longest that a connection may stay open without a request, or without its client reading
    /// the answer. Default: 75 s. Raising it saves clients new connections and costs open ones.
    /// HTTP/2's signs of life do not count.
    pub idle_timeout: Duration,
    /// The longest that requests may take to finish once the server is leaving. Default: 30 s. Then
    /// their connections are closed. A request whose head is not whole by then gets a second at most.
    pub drain_timeout: Duration,
    /// The most requests at once on one HTTP/2 connection. Default: 256.
    pub max_streams: u32,
    /// The longest that a request may take from its head to its answer. Default: none; each model
    /// has its own limit. Callers can shorten either with the header `x-request-timeout-ms`.
    pub request_timeout: Option<Duration>,
    /// Answers from this size on are compressed where the client accepts it. Default: 1 KiB.
    /// Lowering it costs processor time, raising it bandwidth.
    pub min_compressed_bytes: usize,
    /// The model of calls that name none: `/invocations`, `/score` and the like. Default: the only
    /// model, where there is one only.
    pub default_model: Option<Name>,
    /// The paths of Vertex AI's contract. Default: none, the contract is not served.
    pub vertex: Option<VertexRoutes>,
}

/// The paths that Vertex AI asks, as the platform says them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VertexRoutes {
    /// `POST` to it is a prediction of the default model: `AIP_PREDICT_ROUTE`.
    pub predict: String,
    /// `GET` of it tells whether the server is ready: `AIP_HEALTH_ROUTE`.
    pub health: String,
}

impl Default for HttpConfig {
    fn default() -> Self {
        HttpConfig {
            max_connections: 4096,
            max_head_bytes: 64 << 10,
            max_body_bytes: 64 << 20,
            head_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            min_body_rate: 64 << 10,
            idle_timeout: Duration::from_secs(75),
            drain_timeout: Duration::from_secs(30),
            max_streams: 256,
            request_timeout: None,
            min_compressed_bytes: 1 << 10,
            default_model: None,
            vertex: None,
        }
    }
}

/// The smallest buffer that hyper reads a head into.
const SMALLEST_HEAD: usize = 8 << 10;

impl HttpConfig {
    /// Checks that the listener can keep these limits.
    ///
    /// # Errors
    ///
    /// Names the first one that it cannot.
    pub fn validate(&self) -> Result<(), InvalidConfig> {
        let positive = |key, value: u64| match value {
            0 => Err(InvalidConfig { key, must: "be at least 1" }),
            _ => Ok(()),
        };
        positive("max_connections", self.max_connections as u64)?;
        positive("max_body_bytes", self.max_body_bytes as u64)?;
        positive("min_body_rate", self.min_body_rate)?;
        positive("max_streams", self.max_streams.into())?;
        for (key, timeout) in [
            ("head_timeout", self.head_timeout),
            ("body_timeout", self.body_timeout),
            ("idle_timeout", self.idle_timeout),
            ("request_timeout", self.request_timeout.unwrap_or(Duration::MAX)),
        ] {
            if timeout < Duration::from_millis(1) {
                return Err(InvalidConfig { key, must: "be at least 1 ms" });
            }
        }
        if let Some(VertexRoutes { predict, health }) = &self.vertex {
            for (key, route) in [("vertex.predict", predict), ("vertex.health", health)] {
                check_route(key, route)?;
            }
        }
        match self.max_head_bytes {
            0..SMALLEST_HEAD => {
                Err(InvalidConfig { key: "max_head_bytes", must: "be at least 8192" })
            }
            _ if u32::try_from(self.max_head_bytes).is_err() => {
                Err(InvalidConfig { key: "max_head_bytes", must: "be below 4 GiB" })
            }
            _ => Ok(()),
        }
    }
}

/// Checks that a path can be asked for.
fn check_route(key: &'static str, route: &str) -> Result<(), InvalidConfig> {
    let is_path = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#');
    match route {
        _ if !route.starts_with('/') => Err(InvalidConfig { key, must: "begin with '/'" }),
        _ if !route.bytes().all(is_path) => {
            Err(InvalidConfig { key, must: "be a path without blanks, '?' and '#'" })
        }
        // Predictions there never reach the routes.
        _ if route.starts_with("/v2/models/") => {
            Err(InvalidConfig { key, must: "not be a path of the Open Inference Protocol" })
        }
        _ => Ok(()),
    }
}

/// A limit that the listener cannot keep.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{key}' must {must}")]
pub struct InvalidConfig {
    /// The field of [`HttpConfig`].
    pub key: &'static str,
    /// What it must do.
    pub must: &'static str,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_that_cannot_be_kept_are_named() {
        assert_eq!(HttpConfig::default().validate(), Ok(()));
        let small = HttpConfig { max_head_bytes: 100, ..HttpConfig::default() };
        let error = small.validate().unwrap_err();
        assert_eq!(error.to_string(), "'max_head_bytes' must be at least 8192");
        let never = HttpConfig { idle_timeout: Duration::ZERO, ..HttpConfig::default() };
        assert_eq!(never.validate().unwrap_err().key, "idle_timeout");
        for (predict, health, expected) in [
            ("/predict", "/", None),
            ("predict", "/health", Some("'vertex.predict' must begin with '/'")),
            ("/p", "/h?x", Some("'vertex.health' must be a path without blanks, '?' and '#'")),
            ("/v2/models/m/infer", "/h", {
                Some("'vertex.predict' must not be a path of the Open Inference Protocol")
            }),
        ] {
            let routes = VertexRoutes { predict: predict.to_owned(), health: health.to_owned() };
            let config = HttpConfig { vertex: Some(routes), ..HttpConfig::default() };
            let error = config.validate().err().map(|error| error.to_string());
            assert_eq!(error.as_deref(), expected);
        }
    }
}
