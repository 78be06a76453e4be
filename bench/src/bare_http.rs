//! The reference HTTP server: what axum costs with no model server around it.
//!
//! The handler parses the same JSON into a typed struct and answers with a fixed body of as many
//! bytes as Outhaul's answer. It runs no model, on as many threads as Outhaul does.

use anyhow::Context;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::IntoResponse;
use axum::routing::post;
use axum::serve::ListenerExt;
use serde::Deserialize;
use tokio::net::TcpListener;

#[derive(Deserialize)]
struct Request {
    inputs: Vec<Input>,
}

#[derive(Deserialize)]
struct Input {
    name: String,
    shape: Vec<usize>,
    datatype: String,
    data: Vec<f32>,
}

impl Request {
    /// A handler that never looked at what it parsed could have its parsing optimised away.
    fn is_plausible(&self) -> bool {
        self.inputs.iter().all(|input| {
            input.shape.iter().product::<usize>() == input.data.len()
                && !input.name.is_empty()
                && input.datatype == "FP32"
        })
    }
}

async fn answer(State(body): State<Bytes>, request: Bytes) -> impl IntoResponse {
    let json = [(CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    match serde_json::from_slice::<Request>(&request) {
        Ok(request) if request.is_plausible() => (StatusCode::OK, json, body),
        _ => (StatusCode::BAD_REQUEST, json, Bytes::new()),
    }
}

/// Serves `body` to every plausible request for inference until the process ends.
pub(crate) async fn serve(address: &str, body: Bytes) -> anyhow::Result<()> {
    let listener = TcpListener::bind(address).await.context("the address is taken")?;
    let listener = listener.tap_io(|stream| {
        // Without it the kernel may hold back the answer; Outhaul sets it too.
        let _ = stream.set_nodelay(true);
    });
    let app = Router::new().route("/v2/models/iris/infer", post(answer)).with_state(body);
    axum::serve(listener, app).await.context("the bare server stopped")
}
