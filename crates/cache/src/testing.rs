//! Answers for tests.

use std::time::Duration;

use outhaul_types::{NamedTensor, Tensor};

use crate::Kept;

/// Makes an answer of one row of numbers.
pub(crate) fn kept_of(values: Vec<f32>) -> Kept {
    let tensor = Tensor::from_vec([1, values.len()], values).unwrap();
    let output = NamedTensor { name: "y".into(), tensor };
    Kept {
        outputs: std::iter::once(output).collect(),
        rows: 1,
        tokens: None,
        cost: Duration::from_micros(5),
    }
}

/// Makes an answer of four numbers.
pub(crate) fn kept(value: f32) -> Kept {
    kept_of(vec![value; 4])
}
