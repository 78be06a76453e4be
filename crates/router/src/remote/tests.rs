//! Against a server on loopback that does as the test says: nothing here waits for time to pass.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Response, StatusCode};
use axum::routing::post;
use outhaul_protocol::DecodeLimits;
use outhaul_protocol::oip::{OutputFormat, Target, decode_infer, encode_infer};
use outhaul_types::{
    Classify, ModelName, ModelVersion, NamedTensor, RequestedOutput, Tensor, VersionChoice,
};
use tokio::sync::Notify;

use super::*;

/// What the server does with a request.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Does {
    /// Gives the inputs back as outputs.
    Echoes,
    /// Answers only once another request has come.
    WaitsForAnother,
    /// Never answers.
    Hangs,
    Says(u16, &'static str),
    /// Promises more than it sends.
    Cuts,
}

struct Script {
    does: Mutex<Does>,
    came: AtomicUsize,
    another: Notify,
    headers: Mutex<HeaderMap>,
}

impl Script {
    fn tell(&self, does: Does) {
        *self.does.lock().unwrap() = does;
    }
}

/// A server, the remotes of a router that asks it, and its URL.
struct Fixture {
    script: Arc<Script>,
    remotes: Remotes,
    monitor: Monitor,
    url: Name,
}

impl Fixture {
    async fn new(does: Does) -> Self {
        let script = Arc::new(Script {
            does: Mutex::new(does),
            came: AtomicUsize::new(0),
            another: Notify::new(),
            headers: Mutex::default(),
        });
        let address = serve(Arc::clone(&script), "127.0.0.1:0").await.0;
        let url = format!("http://{address}/x/v2/models/small").into();
        Fixture { script, remotes: Remotes::default(), monitor: Monitor::new(), url }
    }

    async fn ask(&self, request: InferRequest) -> Result<InferResponse, RouterError> {
        self.ask_as(request, &RequestContext::default()).await
    }

    async fn ask_as(
        &self,
        request: InferRequest,
        context: &RequestContext,
    ) -> Result<InferResponse, RouterError> {
        self.remotes.ask(&self.url, request, context, &self.monitor).await
    }

    /// Asks and returns the kind of the error.
    async fn fails(&self) -> (ErrorKind, String) {
        let error = self.ask(request()).await.expect_err("it must fail");
        (error.kind(), error.to_string())
    }

    fn metrics(&self) -> Arc<RemoteMetrics> {
        self.monitor.traffic().remote(&self.url)
    }

    fn came(&self) -> usize {
        self.script.came.load(Ordering::SeqCst)
    }
}

async fn serve(script: Arc<Script>, at: &str) -> (SocketAddr, tokio::task::JoinHandle<()>) {
    let listener = tokio::net::TcpListener::bind(at).await.unwrap();
    let address = listener.local_addr().unwrap();
    let app =
        axum::Router::new().route("/x/v2/models/small/infer", post(answer)).with_state(script);
    let served = async move { axum::serve(listener, app).await.unwrap() };
    (address, tokio::spawn(served))
}

async fn answer(
    State(script): State<Arc<Script>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    let does = *script.does.lock().unwrap();
    let before = script.came.fetch_add(1, Ordering::SeqCst);
    *script.headers.lock().unwrap() = headers.clone();
    match does {
        Does::Echoes => {}
        Does::WaitsForAnother if before % 2 == 1 => script.another.notify_one(),
        Does::WaitsForAnother => script.another.notified().await,
        Does::Hangs => std::future::pending().await,
        Does::Says(status, text) => {
            let body = Body::from(text);
            return Response::builder().status(status).body(body).unwrap();
        }
        Does::Cuts => {
            let headers = Response::builder().header("content-length", "1000");
            let short = futures_util::stream::iter([Ok("{"), Err(std::io::Error::other("cut"))]);
            return headers.body(Body::from_stream(short)).unwrap();
        }
    }
    let length = headers["inference-header-content-length"].to_str().unwrap().parse().ok();
    let target = Target { model: "small".into(), version: VersionChoice::Latest };
    let decoded = decode_infer(body, length, target, &DecodeLimits::default()).unwrap();
    let response = InferResponse {
        id: decoded.request.id,
        model: ModelName::new("small").unwrap(),
        version: ModelVersion(7),
        outputs: decoded.request.inputs,
        timings: Timings::default(),
        tokens: None,
        cache: CacheStatus::Off,
        via: None,
    };
    let format: OutputFormat = decoded.format;
    let encoded = encode_infer(&response, &format).unwrap();
    let mut answer = Response::builder().status(StatusCode::OK);
    if let Some(length) = encoded.json_length {
        answer = answer.header("inference-header-content-length", length);
    }
    answer.body(Body::from(encoded.body)).unwrap()
}

fn tensor(name: &str, elements: &[f32]) -> NamedTensor {
    let tensor = Tensor::from_vec([elements.len()], elements.to_vec()).unwrap();
    NamedTensor { name: name.into(), tensor }
}

fn request() -> InferRequest {
    InferRequest::new("here", [tensor("x", &[1.5, -2.0]), tensor("y", &[3.0])])
}

fn within(ms: u64) -> RequestContext {
    let deadline = Deadline::after(now(), Duration::from_millis(ms));
    RequestContext { deadline, id: "r1".into(), depth: 1, ..RequestContext::default() }
}

#[tokio::test]
async fn a_request_goes_out_and_its_answer_comes_back() {
    let fixture = Fixture::new(Does::Echoes).await;
    let mut request = request();
    request.id = Some("mine".into());
    let answer = fixture.ask_as(request.clone(), &within(60_000)).await.unwrap();
    assert_eq!((answer.model.as_str(), answer.version), ("small", ModelVersion(7)));
    assert_eq!((answer.id.as_deref(), &answer.outputs), (Some("mine"), &request.inputs));
    let headers = fixture.script.headers.lock().unwrap().clone();
    assert_eq!(headers["x-request-id"], "r1");
    assert_eq!(headers["x-outhaul-depth"], "2");
    let left: u64 = headers["x-request-timeout-ms"].to_str().unwrap().parse().unwrap();
    assert!((1..=60_000).contains(&left), "{left}");
    let wanted = |name: &str| RequestedOutput { name: name.into(), classification: None };
    request.outputs = vec![wanted("y")];
    let answer = fixture.ask(request.clone()).await.unwrap();
    assert_eq!(answer.outputs[..], [tensor("y", &[3.0])], "only what was asked for");
    request.outputs = vec![wanted("z")];
    let error = fixture.ask(request).await.unwrap_err();
    assert!(error.to_string().contains("its answer has no output 'z'"), "{error}");
    assert_eq!((fixture.metrics().sent.get(), fixture.metrics().failed.get()), (3, 1));
    assert_eq!(fixture.metrics().latency.counts().total(), 2);
}

#[tokio::test]
async fn what_goes_wrong_has_its_kind() {
    let fixture = Fixture::new(Does::Hangs).await;
    let error = fixture.ask_as(request(), &within(20)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DeadlineExceeded);
    let error = fixture.ask_as(request(), &within(0)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DeadlineExceeded);
    assert!(fixture.metrics().sent.get() <= 1, "it was too late to ask");
    use ErrorKind::{EngineFailed, InvalidInput, Overloaded, Unavailable};
    for (does, kind, message) in [
        (Does::Says(400, "{\"error\":\"no x\"}"), InvalidInput, "no x"),
        (Does::Says(429, ""), Overloaded, "status 429"),
        (Does::Says(302, ""), Unavailable, "status 302"),
        (Does::Says(200, "<html>"), EngineFailed, "its answer cannot be read: malformed JSON"),
        (Does::Says(200, "{\"outputs\":[]}"), EngineFailed, ""),
        (Does::Cuts, Unavailable, ""),
    ] {
        fixture.script.tell(does);
        let asked = InferRequest {
            outputs: vec![RequestedOutput { name: "x".into(), classification: None }],
            ..request()
        };
        let error = fixture.ask(asked).await.expect_err("it must fail");
        assert_eq!(error.kind(), kind, "{does:?}: {error}");
        assert!(error.to_string().contains(message), "{does:?}: {error}");
        assert!(!error.client_message().contains("127.0.0.1"), "{does:?} tells where it lies");
    }
}

#[tokio::test]
async fn addresses_that_lead_nowhere_are_told() {
    let monitor = Monitor::new();
    let remotes = Remotes::default();
    let context = RequestContext::default();
    let ask = |url: &str| {
        let url = Name::from(url);
        let (remotes, monitor, context) = (&remotes, &monitor, &context);
        async move { remotes.ask(&url, request(), context, monitor).await.unwrap_err() }
    };
    let error = ask("http://h:99999/v2/models/a").await;
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    // A port that was just free.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let error = ask(&format!("http://{address}/v2/models/a")).await;
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
}

#[tokio::test]
async fn a_remote_that_goes_away_is_left_in_peace_and_comes_back() {
    let fixture = Fixture::new(Does::Echoes).await;
    assert!(fixture.ask(request()).await.is_ok());
    fixture.script.tell(Does::Says(500, ""));
    for number in 0..19 {
        assert_eq!(fixture.fails().await.0, ErrorKind::EngineFailed, "request {number}");
    }
    let came = fixture.came();
    let error = fixture.ask(request()).await.unwrap_err();
    assert!(matches!(error, RouterError::OpenCircuit { .. }), "{error}");
    assert_eq!(fixture.came(), came, "it is not asked");
    fixture.script.tell(Does::Echoes);
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(5)).await;
    tokio::time::resume();
    for number in 0..3 {
        let answer = fixture.ask(request()).await;
        assert!(answer.is_ok(), "request {number} after the pause: {answer:?}");
    }
}

#[tokio::test]
async fn callers_mistakes_and_callers_that_go_open_no_circuit() {
    let fixture = Fixture::new(Does::Says(400, "")).await;
    for _ in 0..30 {
        assert_eq!(fixture.fails().await.0, ErrorKind::InvalidInput);
    }
    assert_eq!(fixture.metrics().failed.get(), 0);
    fixture.script.tell(Does::Hangs);
    for _ in 0..30 {
        let came = fixture.came();
        let ask = fixture.ask(request());
        let gone = async {
            while fixture.came() == came {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            answer = ask => panic!("{answer:?}"),
            () = gone => {}
        }
    }
    fixture.script.tell(Does::Echoes);
    assert!(fixture.ask(request()).await.is_ok());
}

#[tokio::test]
async fn a_late_answer_is_asked_for_once_more() {
    let fixture = Fixture::new(Does::Echoes).await;
    for _ in 0..100 {
        fixture.ask(request()).await.unwrap();
    }
    let metrics = fixture.metrics();
    let hedged_before = metrics.hedged.get();
    assert!(hedged_before * 20 <= 100);
    // The first that comes now waits for the second, which only a hedge sends.
    fixture.script.came.store(0, Ordering::SeqCst);
    fixture.script.tell(Does::WaitsForAnother);
    let answer = fixture.ask(request()).await.unwrap();
    assert_eq!(answer.outputs, request().inputs);
    assert_eq!((fixture.came(), metrics.hedged.get()), (2, hedged_before + 1));
    assert_eq!(metrics.sent.get(), 101, "one request, however often it was sent");
    // Without means there is no second one.
    let remote = fixture.remotes.remote(&fixture.url, &fixture.monitor).unwrap();
    remote.pace(|pace| while pace.budget.take() {});
    fixture.script.tell(Does::Hangs);
    let error = fixture.ask_as(request(), &within(100)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DeadlineExceeded);
    assert_eq!(metrics.hedged.get(), hedged_before + 1);
}
