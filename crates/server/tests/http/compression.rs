//! Compressed bodies, both ways, as clients send and read them.

use std::io::Read;

use flate2::Compression;
use flate2::bufread::{GzDecoder, GzEncoder, ZlibEncoder};
use outhaul_server::http::HttpConfig;

use crate::client::PREDICTION;
use crate::fixture::Server;

const ECHO: &str = "/v2/models/echo/infer";

fn packed(coding: &str, body: &[u8]) -> Vec<u8> {
    let mut packed = Vec::new();
    let best = Compression::best();
    match coding {
        "gzip" => GzEncoder::new(body, best).read_to_end(&mut packed).map(drop),
        "deflate" => ZlibEncoder::new(body, best).read_to_end(&mut packed).map(drop),
        _ => zstd::stream::copy_encode(body, &mut packed, 3),
    }
    .unwrap();
    packed
}

#[tokio::test]
async fn packed_requests_are_read() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    // Enough blanks to leave the connection's thread, too.
    for blanks in [0, 1 << 20] {
        let body = " ".repeat(blanks) + PREDICTION;
        for coding in ["gzip", "deflate", "zstd"] {
            let header = format!("content-encoding: {coding}\r\n");
            let answer = client.post(ECHO, &header, packed(coding, body.as_bytes())).await;
            assert_eq!(answer.status, 200, "{coding} {answer:?}");
            assert_eq!(
                answer.json()["outputs"][0]["data"],
                serde_json::json!([1.0, 2.0, 3.0, 4.0])
            );
        }
    }
}

#[tokio::test]
async fn a_bomb_is_refused() {
    let server =
        Server::with(HttpConfig { max_body_bytes: 1 << 20, ..HttpConfig::default() }).await;
    let bomb = vec![b' '; 64 << 20];
    for coding in ["gzip", "deflate", "zstd"] {
        let mut client = server.connect().await;
        let packed = packed(coding, &bomb);
        assert!(packed.len() < 1 << 20, "{coding}");
        let answer = client.post(ECHO, &format!("content-encoding: {coding}\r\n"), packed).await;
        assert_eq!(answer.status, 413, "{coding}");
        assert_eq!(answer.error(), "the body is longer than the limit of 1048576 bytes");
    }
}

#[tokio::test]
async fn large_answers_are_packed_where_the_client_asks() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let wide = "/v2/models/wide/infer";
    let plain = client.post(wide, "", PREDICTION).await;
    assert_eq!(plain.header("content-encoding"), None);
    let outputs = &plain.json()["outputs"];
    assert_eq!(outputs[0]["data"].as_array().unwrap().len(), 1000);

    let gzip = client.post(wide, "accept-encoding: gzip, deflate\r\n", PREDICTION).await;
    assert_eq!(gzip.header("content-encoding"), Some("gzip"));
    assert!(gzip.body.len() < plain.body.len() / 4);
    let mut text = String::new();
    GzDecoder::new(&gzip.body[..]).read_to_string(&mut text).unwrap();
    let read: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(read["outputs"], *outputs);

    let zstd = client.post(wide, "accept-encoding: br, zstd\r\n", PREDICTION).await;
    assert_eq!(zstd.header("content-encoding"), Some("zstd"));
    let read: serde_json::Value =
        serde_json::from_slice(&zstd::stream::decode_all(&zstd.body[..]).unwrap()).unwrap();
    assert_eq!(read["outputs"], *outputs);

    let small = client.post(ECHO, "accept-encoding: gzip\r\n", PREDICTION).await;
    assert_eq!(small.header("content-encoding"), None, "not worth it");
    let metrics = client.get("/metrics", "accept-encoding: gzip\r\n").await;
    assert_eq!(metrics.header("content-encoding"), Some("gzip"));
    let mut text = String::new();
    GzDecoder::new(&metrics.body[..]).read_to_string(&mut text).unwrap();
    assert!(text.contains("outhaul_request_duration_seconds_count{model=\"wide\""), "{text}");
}

#[tokio::test]
async fn packed_binary_data_is_read_after_unpacking() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let json = r#"{"inputs":[{"name":"X","shape":[1,4],"datatype":"FP32","parameters":{"binary_data_size":16}}]}"#;
    let data: Vec<u8> = [1.5_f32, 2.0, 3.0, 4.0].iter().flat_map(|x| x.to_le_bytes()).collect();
    let body = packed("gzip", &[json.as_bytes(), &data].concat());
    let headers =
        format!("content-encoding: gzip\r\ninference-header-content-length: {}\r\n", json.len());
    let answer = client.post(ECHO, &headers, body).await;
    assert_eq!(answer.json()["outputs"][0]["data"][0], 1.5, "{answer:?}");
}
