use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use outhaul_types::DataType;

use super::*;

/// Answers every request of every connection with what `answer` makes of its number, counted over
/// all connections from zero. `None` closes the connection.
fn server(answer: impl Fn(usize) -> Option<&'static str> + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let answer = Arc::new(answer);
    let number = Arc::new(AtomicUsize::new(0));
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (answer, number) = (Arc::clone(&answer), Arc::clone(&number));
            let stream = stream.unwrap();
            thread::spawn(move || {
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                while read_request(&mut reader) {
                    let Some(text) = answer(number.fetch_add(1, Ordering::SeqCst)) else { return };
                    write_answer(&stream, text);
                }
            });
        }
    });
    address
}

fn read_request(reader: &mut BufReader<TcpStream>) -> bool {
    let mut length = 0;
    loop {
        let mut line = String::new();
        if !reader.read_line(&mut line).is_ok_and(|read| read > 0) {
            return false;
        }
        if let Some(value) = line.strip_prefix("content-length: ") {
            length = value.trim().parse().unwrap();
        }
        if line == "\r\n" {
            return reader.read_exact(&mut vec![0; length]).is_ok();
        }
    }
}

fn write_answer(mut stream: &TcpStream, text: &str) {
    let (status, body) = text.split_once(' ').unwrap();
    let head = format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    // A client that is gone wants no answer.
    let _ = stream.write_all(head.as_bytes());
}

fn plan(address: SocketAddr, pace: Pace) -> LoadPlan {
    let number = |number| NonZeroUsize::new(number).unwrap();
    let requests = vec![HttpRequest::post_json("/v2/models/iris/infer", "{}")];
    LoadPlan {
        target: Target::Http(HttpTarget { address: address.to_string(), requests }),
        pace,
        connections: number(3),
        threads: number(2),
        warm_up: Duration::from_millis(20),
        duration: Duration::from_millis(200),
    }
}

#[test]
fn a_closed_loop_counts_answers_and_refusals() {
    let address = server(|number| Some(if number % 4 == 0 { "503 {}" } else { "200 {}" }));
    let report = run(&plan(address, Pace::Closed)).unwrap();
    let refused = report.errors["status 503"];
    assert_eq!(report.errors.len(), 1, "{report:?}");
    assert!(report.requests > 4 && refused < report.requests / 2, "{report:?}");
    assert!(report.answers_per_second > 0.0, "{report:?}");
    assert!(report.latency_us.p50 <= report.latency_us.max, "{report:?}");
    assert_eq!((report.unsent, report.send_delay_us), (0, None));
}

#[test]
fn an_open_loop_starts_every_request_and_shows_every_one_that_a_stall_delays() {
    let stall = Duration::from_millis(150);
    let address = server(move |number| {
        if number == 0 {
            let end = Instant::now() + stall;
            while let Some(left) = end.checked_duration_since(Instant::now()) {
                thread::park_timeout(left);
            }
        }
        Some("200 {}")
    });
    let mut plan = plan(address, Pace::Open { rate: 500.0 });
    plan.connections = NonZeroUsize::MIN;
    plan.warm_up = Duration::ZERO;
    let report = run(&plan).unwrap();
    assert_eq!(report.requests + report.unsent, 100, "{report:?}");
    assert_eq!(report.failed(), 0, "{report:?}");
    // 75 requests were due during the stall; a closed loop would have shown one of them.
    let half_of_it = stall.as_micros() as f64 / 3.0;
    assert!(report.latency_us.p50 > half_of_it, "{report:?}");
    assert!(report.latency_us.max >= stall.as_micros() as f64 * 0.99, "{report:?}");
    assert!(report.send_delay_us.unwrap().max > half_of_it);
}

#[test]
fn a_connection_that_breaks_is_opened_again() {
    let address = server(|number| (number != 2).then_some("200 {}"));
    let mut plan = plan(address, Pace::Closed);
    plan.warm_up = Duration::ZERO;
    let report = run(&plan).unwrap();
    assert_eq!(report.errors["the server closed the connection"], 1, "{report:?}");
    assert!(report.requests > 10, "{report:?}");
}

#[test]
fn what_cannot_be_measured_is_an_error() {
    // A port that was free a moment ago, and that nobody listens on.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = run(&plan(address, Pace::Closed)).unwrap_err();
    assert_eq!(error.to_string(), format!("no connection to {address}"));
    for rate in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let error = run(&plan(address, Pace::Open { rate })).unwrap_err();
        assert!(matches!(error, LoadError::BadPlan(_)), "{rate}: {error}");
    }
    let mut plan = plan(address, Pace::Closed);
    plan.target = Target::Http(HttpTarget { address: address.to_string(), requests: Vec::new() });
    assert!(matches!(run(&plan), Err(LoadError::BadPlan(_))));
}

#[tokio::test]
async fn one_request_can_be_asked_for_its_whole_answer() {
    let address = server(|_| Some("404 {\"error\":\"no\"}"));
    let target = plan(address, Pace::Closed).target;
    let answer = ask(&target).await.unwrap();
    let expected =
        Answer { status: "404".to_owned(), is_ok: false, body: "{\"error\":\"no\"}".to_owned() };
    assert_eq!(answer, expected);
}

fn inputs(sizes: &SampleSizes) -> Result<Vec<SampleInput>, SampleError> {
    let declared = [
        ("ids".to_owned(), "INT64".to_owned(), vec![-1, -1]),
        ("image".to_owned(), "FP32".to_owned(), vec![-1, 1, 2]),
    ];
    SampleInput::from_metadata("m", declared, sizes)
}

#[test]
fn requests_are_made_up_from_metadata() {
    let shapes = vec![("ids".to_owned(), vec![2, 3])];
    let sampled = inputs(&SampleSizes { rows: 2, shapes }).unwrap();
    assert_eq!(sampled[0].shape, [2, 3]);
    assert_eq!(sampled[1].shape, [2, 1, 2]);
    let body: serde_json::Value = serde_json::from_slice(&json_body(&sampled)).unwrap();
    assert_eq!(body["inputs"][0]["data"], serde_json::json!([0, 1, 0, 1, 0, 1]));
    assert_eq!(body["inputs"][1]["shape"], serde_json::json!([2, 1, 2]));
    let message = grpc_message("m", &sampled);
    assert_eq!(message.raw_input_contents[0].len(), 6 * 8);
    assert_eq!(message.raw_input_contents[1].len(), 4 * 4);
}

#[test]
fn json_and_raw_bytes_hold_the_same_elements() {
    for data_type in DataType::ALL {
        let input = SampleInput { name: "x".to_owned(), data_type, shape: vec![3] };
        let message = grpc_message("m", std::slice::from_ref(&input));
        let decoded = outhaul_protocol::grpc::decode_infer(message, &Default::default()).unwrap();
        let tensor = &decoded.inputs[0].tensor;
        assert_eq!((tensor.data_type(), tensor.len()), (data_type, 3));
        let body: serde_json::Value = serde_json::from_slice(&json_body(&[input])).unwrap();
        let element = &body["inputs"][0]["data"][1];
        match data_type {
            DataType::Fp32 => {
                assert_eq!(element.as_f64(), Some(tensor.as_slice::<f32>().unwrap()[1].into()));
            }
            DataType::Int16 => assert_eq!(tensor.as_slice::<i16>(), Some(&[0, 1, 0][..])),
            DataType::Bytes => assert_eq!(element.as_str(), Some("text 1")),
            _ => {}
        }
    }
}

#[test]
fn sizes_that_do_not_fit_are_named() {
    let with = |name: &str, shape: &[usize]| SampleSizes {
        rows: 1,
        shapes: vec![(name.to_owned(), shape.to_vec())],
    };
    struct Case(SampleSizes, &'static str);
    let cases = [
        Case(with("idz", &[1]), "the model has no input 'idz'; it takes ids, image"),
        Case(with("image", &[1, 2, 2]), "input 'image' cannot have the shape [1, 2, 2]"),
        Case(with("ids", &[1]), "input 'ids' cannot have the shape [1], expected [-1, -1]"),
        Case(with("ids", &[1 << 20, 1 << 20]), "input 'ids' would have more than 2^28 elements"),
    ];
    for Case(sizes, expected) in cases {
        let error = inputs(&sizes).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
    }
}
