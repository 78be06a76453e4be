//! The embedded engine in the suite that every engine passes, and what it refuses, word by word.

use std::path::{Path, PathBuf};

use outhaul_engine::embedded::Embedded;
use outhaul_engine::testsuite::{self, Expectations, RefusedCase, RefusedModel};
use outhaul_engine::{Engine, LoadError, LoadOptions};

fn testdata() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata")
}

const EXPECTATIONS: Expectations = Expectations { refused_at_load: &[], refused_at_run: &[] };

#[test]
fn it_passes_the_suite() {
    testsuite::run(&Embedded, &testdata(), &EXPECTATIONS);
}
