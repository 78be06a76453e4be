//! A request as the model will see it: parts that each run by themselves.

use std::num::NonZeroUsize;

use outhaul_types::BoundInputs;
use tokenizers::Encoding;

/// How the rows of a request may share a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grouping {
    /// Each row runs by itself: the model mixes the rows of a run.
    Alone,
    /// Rows of equal shape share a part of at most so many; nothing is padded.
    Equal(NonZeroUsize),
    /// All rows in one part, texts padded to the longest: the caller asks for tensors of the whole
    /// request. Where all rows have one shape anyway this is `Equal` without a bound.
    Together,
}

/// Rows that go to the model in one piece.
#[derive(Clone, Debug)]
pub struct Part {
    /// The model's inputs, in the order of its signature.
    pub inputs: BoundInputs,
    /// Which rows of the request these are, in order.
    pub rows: Vec<usize>,
    /// What the tokenizer said of each row, where the output side needs it; else empty.
    pub encodings: Vec<Encoding>,
}

/// A request as the model will see it.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// The parts. Each row of the request is in exactly one.
    pub parts: Vec<Part>,
    /// The rows of the request.
    pub rows: usize,
    /// The tokens that texts were turned into, padding left out; `None` where there were no texts.
    pub tokens: Option<usize>,
}

impl Prepared {
    /// Makes one part of a whole request.
    pub fn whole(inputs: BoundInputs, rows: usize) -> Self {
        let part = Part { inputs, rows: (0..rows).collect(), encodings: Vec::new() };
        Prepared { parts: vec![part], rows, tokens: None }
    }
}
