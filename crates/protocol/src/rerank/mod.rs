//! Reranking: how well each of some texts answers a query, best first.
//!
//! Two forms are in use. That of Cohere and Jina has `documents` and answers `{"results": [{"index",
//! "relevance_score"}]}`; that of text-embeddings-inference (TEI) has `texts` and answers a bare list of
//! `{"index", "score"}`. The field tells them apart. Errors of the first are OpenAI's
//! ([`crate::openai::error_body`]), of the second [`error_body`].
//!
//! Either becomes one request with the outer inputs `query` and `text` of a reranking model, both
//! `BYTES [batch]`; the query is held once, however many texts there are.

mod decode;
mod encode;

pub use decode::{DecodedRerank, RerankFormat, decode_rerank};
pub use encode::{encode_rerank, error_body};

use crate::openai::Outline;

/// The most texts of one call.
pub const MAX_TEXTS: usize = 10_000;

/// Whose form a call or an error has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `documents`, and an object with `results`.
    Documents,
    /// `texts`, and a bare list.
    Texts,
}

impl Form {
    /// Returns the form of a body; `None` where it has the fields of neither.
    pub fn of(outline: &Outline) -> Option<Self> {
        match (outline.has_documents, outline.has_texts) {
            (true, _) => Some(Form::Documents),
            (false, true) => Some(Form::Texts),
            (false, false) => None,
        }
    }
}

#[cfg(test)]
mod tests;
