//! Somebody else's small service: a flower shop that answers predictions in its own process.
//!
//! No socket lies between the handler and the model; `Router::infer` is the door that Outhaul's own
//! server uses. Run it with `cargo run -p outhaul-example-embed`, then:
//!
//! ```text
//! curl 'http://127.0.0.1:8090/flower?sepal=5.1,3.5&petal=1.4,0.2'
//! ```

use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::routing::get;
use outhaul::types::{Classify, InferRequest, NamedTensor, RequestContext, Tensor};
use outhaul::{OpenOptions, Router};

const SPECIES: [&str; 3] = ["setosa", "versicolor", "virginica"];

#[derive(serde::Deserialize)]
struct Flower {
    sepal: String,
    petal: String,
}

type Answer = Result<&'static str, (StatusCode, String)>;

async fn flower(State(models): State<Arc<Router>>, Query(flower): Query<Flower>) -> Answer {
    let bad = |reason: String| (StatusCode::BAD_REQUEST, reason);
    let numbers = [flower.sepal, flower.petal].join(",");
    let features: Result<Vec<f32>, _> = numbers.split(',').map(str::parse).collect();
    let features = features.map_err(|_| bad("?sepal=5.1,3.5&petal=1.4,0.2".to_owned()))?;
    let tensor = Tensor::from_vec([1, features.len()], features).map_err(|e| bad(e.to_string()))?;
    let request = InferRequest::new("iris", [NamedTensor { name: "X".into(), tensor }]);
    let answer = models.infer(request, &RequestContext::default()).await;
    let answer = answer.map_err(|error| bad(error.client_message()))?;
    let label = answer.output("label").and_then(|label| label.as_slice::<i64>()?.first().copied());
    let species = label.and_then(|label| SPECIES.get(usize::try_from(label).ok()?));
    species.copied().ok_or((StatusCode::INTERNAL_SERVER_ERROR, "no label".to_owned()))
}

fn app(models: Arc<Router>) -> axum::Router {
    axum::Router::new().route("/flower", get(flower)).with_state(models)
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let models = outhaul::open(&OpenOptions::path("examples/models"))?.router;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:8090").await?;
    Ok(axum::serve(listener, app(models)).await?)
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::Request;
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    use super::*;

    async fn ask(app: &axum::Router, query: &str) -> (StatusCode, String) {
        let request = Request::get(format!("/flower?{query}")).body(Body::empty()).unwrap();
        let answer = app.clone().oneshot(request).await.unwrap();
        let status = answer.status();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn flowers_are_named_and_mistakes_are_told() {
        let models = concat!(env!("CARGO_MANIFEST_DIR"), "/../models");
        let app = app(outhaul::open(&OpenOptions::path(models)).unwrap().router);
        let setosa = ask(&app, "sepal=5.1,3.5&petal=1.4,0.2").await;
        assert_eq!(setosa, (StatusCode::OK, "setosa".to_owned()));
        let virginica = ask(&app, "sepal=6.7,3.0&petal=5.2,2.3").await;
        assert_eq!(virginica, (StatusCode::OK, "virginica".to_owned()));
        let (status, reason) = ask(&app, "sepal=5.1&petal=1.4,0.2").await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert_eq!(reason, "input 'X' has shape [1,3], expected [batch,4]");
    }
}
