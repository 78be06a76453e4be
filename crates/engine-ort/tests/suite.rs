//! The behaviour suite that every engine passes, against ONNX Runtime.

mod library;

use std::path::Path;

use outhaul_engine::testsuite::{self, Expectations};

/// ONNX Runtime refuses none of the reference models.
const EXPECTATIONS: Expectations = Expectations { refused_at_load: &[], refused_at_run: &[] };

#[test]
fn behaves_as_every_engine_does() {
    let testdata = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata");
    testsuite::run(&*library::open(), &testdata, &EXPECTATIONS);
}
