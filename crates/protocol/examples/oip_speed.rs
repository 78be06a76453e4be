//! Times the REST codec on the smallest useful request and on a large one.
//!
//! `cargo run --release -p outhaul-protocol --example oip_speed`

use std::hint::black_box;
use std::time::{Duration, Instant};

use bytes::Bytes;
use outhaul_protocol::DecodeLimits;
use outhaul_protocol::oip::{OutputFormat, Target, decode_infer, encode_infer};
use outhaul_types::{
    InferResponse, ModelName, ModelVersion, NamedTensor, Tensor, Timings, VersionChoice,
};

const IRIS: &str =
    r#"{"inputs":[{"name":"X","shape":[1,4],"datatype":"FP32","data":[5.1,3.5,1.4,0.2]}]}"#;

fn main() {
    let model = ModelName::new("iris").expect("a valid name");
    let limits = DecodeLimits::default();
    let decode = |body: &Bytes| {
        let target = Target { model: model.as_str().into(), version: VersionChoice::Latest };
        decode_infer(body.clone(), None, target, &limits).expect("a valid request")
    };

    let iris = Bytes::from_static(IRIS.as_bytes());
    report("decode iris", 200_000, || drop(black_box(decode(black_box(&iris)))));

    let tensor = |name: &str, tensor| NamedTensor { name: name.into(), tensor };
    let label = Tensor::from_vec([1], vec![0_i64]).expect("one element");
    let probabilities = vec![0.981_523_6_f32, 0.018_476_32, 1.449_25e-8];
    let probabilities = Tensor::from_vec([1, 3], probabilities).expect("three elements");
    let response = InferResponse {
        id: None,
        model: model.clone(),
        version: ModelVersion(1),
        outputs: [tensor("label", label), tensor("probabilities", probabilities)]
            .into_iter()
            .collect(),
        tokens: None,
        cache: outhaul_types::CacheStatus::Off,
        via: None,
        timings: Timings {
            load: Duration::ZERO,
            transform: Duration::ZERO,
            queue: Duration::from_nanos(1_234),
            assemble: Duration::from_nanos(210),
            compute: Duration::from_nanos(6_120),
            split: Duration::from_nanos(180),
            batch_rows: 1,
        },
    };
    let format = OutputFormat::default();
    report("encode iris", 200_000, || {
        drop(black_box(encode_infer(black_box(&response), &format).expect("all text")));
    });

    let numbers: Vec<String> = (0..100_000).map(|n| format!("{}", f64::from(n) * 0.37)).collect();
    let large = Bytes::from(format!(
        r#"{{"inputs":[{{"name":"X","shape":[100000],"datatype":"FP32","data":[{}]}}]}}"#,
        numbers.join(",")
    ));
    report("decode 100,000 FP32", 40, || drop(black_box(decode(black_box(&large)))));
    let mut response = response;
    response.outputs = decode(&large).request.inputs;
    report("encode 100,000 FP32", 40, || {
        drop(black_box(encode_infer(black_box(&response), &format).expect("numbers")));
    });
}

/// Prints the best of several runs: what the code costs where nothing else wants the core.
fn report(what: &str, times: u32, run: impl Fn()) {
    let mut best = Duration::MAX;
    for _ in 0..15 {
        let start = Instant::now();
        for _ in 0..times {
            run();
        }
        best = best.min(start.elapsed() / times);
    }
    println!("{what:22} {best:>10.1?}");
}
