//! The embedded engine in the suite that every engine passes, and what it refuses, word by word.

use std::fs;
use std::path::{Path, PathBuf};

use outhaul_engine::embedded::Embedded;
use outhaul_engine::testsuite::{self, Expectations, RefusedCase, RefusedModel};
use outhaul_engine::{Engine, LoadError, LoadOptions};

fn testdata() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata")
}

const fn refused(model: &'static str, names: &'static [&'static str]) -> RefusedModel {
    RefusedModel { model, names }
}

const fn refused_case(model: &'static str, case: &'static str) -> RefusedCase {
    RefusedCase { model, case }
}

const EXPECTATIONS: Expectations = Expectations {
    refused_at_load: &[
        refused("breast_cancer", &["node 'TreeEnsembleClassifier'", "ai.onnx.ml"]),
        refused("fp64_math", &["input 'x' of FP64"]),
        refused("identity_bf16", &["input 'x' of BF16"]),
        refused("identity_bytes", &["input 'x' of BYTES"]),
        refused("identity_fp16", &["input 'x' of FP16"]),
        refused("identity_fp64", &["input 'x' of FP64"]),
        refused("identity_int16", &["input 'x' of INT16"]),
        refused("identity_uint16", &["input 'x' of UINT16"]),
        refused("identity_uint32", &["input 'x' of UINT32"]),
        refused("identity_uint64", &["input 'x' of UINT64"]),
        refused("int64_arithmetic", &["the node that makes 'y' (Mul)", "INT64"]),
        refused("int64_constant_big", &["the node that makes 'y' (Add)", "constant 'big'"]),
        refused("iris_words", &["input 'words' of BYTES"]),
        refused("string_upper", &["input 'x' of BYTES"]),
    ],
    // Both hold the ends of the 64-bit range.
    refused_at_run: &[
        refused_case("identity_int64", "two rows"),
        refused_case("identity_int64", "one value"),
    ],
};

#[test]
fn it_passes_the_suite() {
    testsuite::run(&Embedded, &testdata(), &EXPECTATIONS);
}

#[test]
fn a_refusal_says_what_and_who_can_instead() {
    struct Case(&'static str, &'static str);
    let cases = [
        Case(
            "../examples/models/breast_cancer/1/model.onnx",
            "engine 'embedded' does not run node 'TreeEnsembleClassifier' \
             (ai.onnx.ml.TreeEnsembleClassifier); engine 'onnxruntime' does",
        ),
        Case(
            "models/int64_arithmetic.onnx",
            "engine 'embedded' does not run the node that makes 'y' (Mul): on INT64 whose results \
             may not fit the 32 bits that this engine has; engine 'onnxruntime' does",
        ),
        Case(
            "models/unknown_operator.onnx",
            "engine 'embedded' does not run node 'the_odd_one' (com.example.Frobnicate); engine \
             'onnxruntime' does",
        ),
    ];
    for Case(path, expected) in cases {
        let model = outhaul_onnx::read(&testdata().join(path)).expect(path);
        match Embedded.load(&model, &LoadOptions::default()) {
            Err(error @ LoadError::Unsupported { .. }) => assert_eq!(error.to_string(), expected),
            Err(other) => panic!("{path} is refused otherwise: {other}"),
            Ok(_) => panic!("{path} is taken"),
        }
    }
}

#[test]
fn it_says_the_version_that_it_is_built_with() {
    let lock = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../Cargo.lock");
    let lock = fs::read_to_string(lock).expect("the workspace has a lock file");
    let entry = format!("name = \"rten\"\nversion = \"{}\"\n", Embedded.version());
    assert!(lock.contains(&entry), "Cargo.lock has another rten than {}", Embedded.version());
}

#[test]
fn what_the_engines_own_threads_allocate_is_counted() {
    // Each look at a thread finds ten bytes more: one for the loading thread and one for each of
    // those that re-pack weights.
    fn ten_more() -> i64 {
        thread_local! {
            static LOOKS: std::cell::Cell<i64> = const { std::cell::Cell::new(0) };
        }
        LOOKS.set(LOOKS.get() + 1);
        LOOKS.get() * 10
    }
    let path = testdata().join("models/add_row.onnx");
    let model = outhaul_onnx::read(&path).unwrap();
    let bytes_elsewhere = |thread_bytes| {
        let options = LoadOptions { thread_bytes, ..LoadOptions::default() };
        Embedded.load(&model, &options).unwrap().bytes_elsewhere()
    };
    assert_eq!(bytes_elsewhere(None), 0);
    let packers = rten::thread_pool().run(rayon_core::current_num_threads);
    assert_eq!(bytes_elsewhere(Some(ten_more)), 10 * (1 + packers as i64));
}
