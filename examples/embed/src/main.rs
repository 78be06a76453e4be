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
use axum::routing::get;
use outhaul::types::{InferRequest, NamedTensor, RequestContext, Tensor};
use outhaul::{OpenOptions, Router};

#[derive(serde::Deserialize)]
struct Flower {
    sepal: String,
    petal: String,
}

async fn flower(
    State(models): State<Arc<Router>>,
    Query(flower): Query<Flower>,
) -> Result<String, String> {
    let numbers = [flower.sepal, flower.petal].join(",");
    let features: Result<Vec<f32>, _> = numbers.split(',').map(str::parse).collect();
    let features = features.map_err(|_| "write four numbers: ?sepal=5.1,3.5&petal=1.4,0.2")?;
    let tensor = Tensor::from_vec([1, features.len()], features).map_err(|e| e.to_string())?;
    let request = InferRequest::new("iris", [NamedTensor { name: "X".into(), tensor }]);
    let answer = models.infer(request, &RequestContext::default()).await;
    let answer = answer.map_err(|error| error.to_string())?;
    let label = answer.output("label").and_then(|label| label.as_slice::<i64>()?.first());
    Ok(["setosa", "versicolor", "virginica"][*label.unwrap_or(&0) as usize].to_owned())
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let models = outhaul::open(&OpenOptions::path("examples/models"))?.router;
    let app = axum::Router::new().route("/flower", get(flower)).with_state(models);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:8090").await?;
    Ok(axum::serve(listener, app).await?)
}
