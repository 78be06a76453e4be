use std::cell::RefCell;
use std::collections::BTreeMap;
use std::num::NonZeroUsize;

use outhaul_types::{
    EmbeddingOutput, InputTransform, NamedTensor, Pooling, RerankOutput, TokenClassificationOutput,
    TransformSpec, Truncation,
};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::reference_tests::{FAMILIES, encoder, tokenizer_of};
use super::*;
use crate::{Part, Transform};

fn text_input() -> TextInput {
    TextInput {
        tokenizer: tokenizer_of("wordpiece"),
        max_tokens: None,
        truncation: Truncation::End,
        pairs: false,
        prefix: String::new(),
    }
}

fn spec(name: &str, data_type: DataType, dimensions: &[Option<usize>]) -> TensorSpec {
    let size = |size: &Option<usize>| size.map_or(Dimension::Any, Dimension::Fixed);
    let shape = ShapePattern::ranked(dimensions.iter().map(size));
    TensorSpec { name: name.into(), data_type, shape, optional: false }
}

fn signature_of(inputs: Vec<TensorSpec>) -> ModelSignature {
    let hidden = spec("last_hidden_state", DataType::Fp32, &[None, None, Some(3)]);
    ModelSignature { inputs, outputs: vec![hidden] }
}

/// A model that takes these, INT64 `[batch, tokens]`.
fn model(names: &[&str], tokens: Option<usize>) -> ModelSignature {
    let input = |name: &&str| spec(name, DataType::Int64, &[None, tokens]);
    signature_of(names.iter().map(input).collect())
}

fn bert() -> ModelSignature {
    model(&["input_ids", "attention_mask", "token_type_ids"], None)
}

fn build(
    input: &TextInput,
    output: Option<OutputTransform>,
    inner: &ModelSignature,
) -> Result<Transform, BuildError> {
    let input = Some(InputTransform::Text(input.clone()));
    Transform::build(&TransformSpec { input, output }, inner).map(Option::unwrap)
}

fn bind(transform: &Transform, inputs: &[(&str, &[&str])]) -> BoundInputs {
    let named = inputs.iter().map(|(name, texts)| NamedTensor {
        name: (*name).into(),
        tensor: Tensor::from_strings([texts.len()], texts.iter().collect::<Strings>()).unwrap(),
    });
    transform.outer().bind(named).unwrap()
}

/// A model's input of a part, as lists a row.
fn lists(part: &Part, input: usize) -> Vec<Vec<i64>> {
    let tensor = part.inputs[input].as_ref().unwrap();
    let numbers = tensor.elements_of::<i64>().unwrap().into_owned();
    numbers.chunks(tensor.shape()[1]).map(<[i64]>::to_vec).collect()
}

#[test]
fn what_does_not_fit_the_model_is_told_at_load() {
    struct Case {
        name: &'static str,
        change: fn(&mut TextInput, &mut ModelSignature, &mut Option<OutputTransform>),
        expected: &'static str,
    }
    let case = |name, change, expected| Case { name, change, expected };
    let entities = OutputTransform::TokenClassification(TokenClassificationOutput::default());
    fn set_entities(output: &mut Option<OutputTransform>) {
        let entities = TokenClassificationOutput::default();
        *output = Some(OutputTransform::TokenClassification(entities));
    }
    let cases = [
        case("it fits", |_, _, _| {}, ""),
        case(
            "no token ids",
            |_, inner, _| inner.inputs[0].name = "pixels".into(),
            "transform.input needs an input 'input_ids' of the model, which has 'pixels', \
             'attention_mask', 'token_type_ids'",
        ),
        case(
            "an input that nobody fills",
            |_, inner, _| inner.inputs.push(spec("position_ids", DataType::Int64, &[None, None])),
            "transform.input: 'position_ids' is INT64 [-1,-1] in the model's file, which a \
             tokenizer cannot fill",
        ),
        case(
            "such an input with a default",
            |_, inner, _| {
                inner.inputs.push(spec("position_ids", DataType::Int64, &[None, None]));
                inner.inputs[3].optional = true;
            },
            "",
        ),
        case(
            "a mask of floats",
            |_, inner, _| inner.inputs[1].data_type = DataType::Fp32,
            "transform.input: 'attention_mask' is FP32 [-1,-1] in the model's file, which must be \
             INT64 or INT32 to take tokens",
        ),
        case(
            "ids of another rank",
            |_, inner, _| inner.inputs[0] = spec("input_ids", DataType::Int32, &[None]),
            "transform.input: 'input_ids' is INT32 [-1] in the model's file, which must be [batch, \
             tokens] to take tokens",
        ),
        case(
            "lengths that differ",
            |_, inner, _| {
                inner.inputs[0] = spec("input_ids", DataType::Int64, &[None, Some(16)]);
                inner.inputs[1] = spec("attention_mask", DataType::Int64, &[None, Some(32)]);
            },
            "transform.input: 'attention_mask' is INT64 [-1,32] in the model's file, which must \
             have 16 tokens, as 'input_ids'",
        ),
        case(
            "no room for a text",
            |input, _, _| input.max_tokens = NonZeroUsize::new(2),
            "transform.input.max_tokens leaves 2 tokens, of which the tokenizer's special tokens \
             take 2: none are left for the text",
        ),
        case(
            "no room for a pair",
            |input, _, _| {
                input.max_tokens = NonZeroUsize::new(3);
                input.pairs = true;
            },
            "transform.input.max_tokens leaves 3 tokens, of which the tokenizer's special tokens \
             take 3: none are left for the text",
        ),
        case(
            "places behind a prefix",
            |input, _, output| {
                input.prefix = "query: ".to_owned();
                set_entities(output);
            },
            "transform.input.prefix cannot be combined with an output that gives places in a text",
        ),
        case(
            "places in two texts",
            |input, _, output| {
                input.pairs = true;
                set_entities(output);
            },
            "transform.input.pairs cannot be combined with an output that gives places in a text",
        ),
    ];
    for Case { name, change, expected } in cases {
        let (mut input, mut inner, mut output) = (text_input(), bert(), None);
        change(&mut input, &mut inner, &mut output);
        let built = build(&input, output, &inner);
        assert_eq!(
            built.err().map_or(String::new(), |error| error.to_string()),
            expected,
            "{name}"
        );
    }
    assert!(build(&text_input(), Some(entities), &bert()).is_ok());
}

#[test]
fn a_file_that_is_no_tokenizer_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vocab.txt");
    let mut input = text_input();
    input.tokenizer = path.clone();
    let missing = build(&input, None, &bert()).err().unwrap();
    assert_eq!(missing.to_string(), format!("transform: {} cannot be read", path.display()));
    for content in ["[PAD]\n[UNK]\nthe\n", "", "{}", "{\"version\": \"1.0\"}"] {
        std::fs::write(&path, content).unwrap();
        let error = build(&input, None, &bert()).err().unwrap().to_string();
        let start =
            format!("transform: {} is not a tokenizer.json of Hugging Face: ", path.display());
        assert!(error.starts_with(&start), "{error}");
    }
}

#[test]
fn callers_see_texts() {
    let names = |transform: &Transform| {
        let inputs = transform.outer().inputs.iter();
        let name = |input: &TensorSpec| {
            assert_eq!(input.data_type, DataType::Bytes);
            assert_eq!(input.shape.to_string(), "[-1]");
            format!("{}{}", input.name, if input.optional { "?" } else { "" })
        };
        assert!(transform.interface().inputs.iter().all(|field| field.content == Content::Text));
        inputs.map(name).collect::<Vec<_>>().join(" ")
    };
    let single = build(&text_input(), None, &bert()).unwrap();
    assert_eq!(names(&single), "text");
    let pairs = TextInput { pairs: true, ..text_input() };
    assert_eq!(names(&build(&pairs, None, &bert()).unwrap()), "text text_pair?");
    let mut scores = bert();
    scores.outputs = vec![spec("logits", DataType::Fp32, &[None, Some(1)])];
    let rerank = || Some(OutputTransform::Rerank(RerankOutput::default()));
    let reranker = build(&text_input(), rerank(), &scores).unwrap();
    assert_eq!(names(&reranker), "query text");
    // The query comes first, and the second text is told from it.
    let bound =
        bind(&reranker, &[("text", &["Paris is the capital."]), ("query", &["Where is it?"])]);
    let prepared = reranker.prepare(&bound, Grouping::Alone).unwrap();
    let types = lists(&prepared.parts[0], 2).concat();
    let together = bind(
        &pairs_transform(),
        &[("text", &["Where is it?"]), ("text_pair", &["Paris is the capital."])],
    );
    let expected = pairs_transform().prepare(&together, Grouping::Alone).unwrap();
    assert_eq!(lists(&prepared.parts[0], 0), lists(&expected.parts[0], 0));
    assert!(types.is_sorted() && types.contains(&0) && types.contains(&1), "{types:?}");
}

fn pairs_transform() -> Transform {
    build(&TextInput { pairs: true, ..text_input() }, None, &bert()).unwrap()
}

#[test]
fn a_row_that_cannot_be_taken_is_named() {
    let mut input = text_input();
    input.pairs = true;
    input.max_tokens = NonZeroUsize::new(8);
    input.truncation = Truncation::Refuse;
    let transform = build(&input, None, &bert()).unwrap();
    let prepare = |inputs: &[(&str, &[&[u8]])]| {
        let named = inputs.iter().map(|(name, texts)| NamedTensor {
            name: (*name).into(),
            tensor: Tensor::from_strings([texts.len()], texts.iter().collect::<Strings>()).unwrap(),
        });
        let bound = transform.outer().bind(named).unwrap();
        transform.prepare(&bound, Grouping::Alone).map_err(|error| error.to_string())
    };
    let long = vec![b'a'; MAX_TEXT_BYTES + 1];
    struct Case<'a>(&'a [(&'a str, &'a [&'a [u8]])], &'a str);
    let cases = [
        Case(&[("text", &[])], "the request has no rows"),
        Case(
            &[("text", &[b"fine", b"caf\xe9"])],
            "row 1: 'text' is not valid UTF-8: byte 3 is wrong",
        ),
        Case(
            &[("text", &[b"fine"]), ("text_pair", &[b"\xff"])],
            "row 0: 'text_pair' is not valid UTF-8: byte 0 is wrong",
        ),
        Case(
            &[("text", &[b"fine"]), ("text_pair", &[b"a", b"b"])],
            "input 'text_pair' has 2 rows where input 'text' has 1",
        ),
        Case(&[("text", &[b"", &long])], "row 1: 'text' has 262145 bytes, and 262144 are allowed"),
        Case(&[("text", &[b"a b c d e f g"])], "row 0: 'text' has 9 tokens, and 8 are allowed"),
        Case(
            &[("text", &[b"a b c"]), ("text_pair", &[b"d e f"])],
            "row 0: 'text' has 9 tokens together with 'text_pair', and 8 are allowed",
        ),
    ];
    for Case(inputs, expected) in cases {
        assert_eq!(prepare(inputs).unwrap_err(), expected);
    }
    assert_eq!(prepare(&[("text", &[b"a b c d e f"])]).unwrap().tokens, Some(8));
    assert_eq!(prepare(&[("text", &[b"", b"a"])]).unwrap().tokens, Some(5), "an empty text");
}

#[test]
fn a_tokenizer_without_special_tokens_makes_nothing_of_an_empty_text() {
    let folder = tempfile::tempdir().unwrap();
    let mut input = text_input();
    input.tokenizer = folder.path().join("tokenizer.json");
    let content = r#"{"version": "1.0", "added_tokens": [], "normalizer": null,
        "pre_tokenizer": {"type": "Whitespace"}, "post_processor": null, "decoder": null,
        "model": {"type": "WordLevel", "vocab": {"a": 7, "<unk>": 3}, "unk_token": "<unk>"}}"#;
    std::fs::write(&input.tokenizer, content).unwrap();
    input.pairs = true;
    let transform = build(&input, None, &bert()).unwrap();
    let error = transform.prepare(&bind(&transform, &[("text", &["a", " "])]), Grouping::Alone);
    assert_eq!(error.unwrap_err().to_string(), "row 1: 'text' has no tokens");
    // The second text of a pair is still told from the first.
    let bound = bind(&transform, &[("text", &["a a"]), ("text_pair", &["b a a"])]);
    let prepared = transform.prepare(&bound, Grouping::Alone).unwrap();
    assert_eq!(lists(&prepared.parts[0], 0), [[7, 7, 3, 7, 7]]);
    assert_eq!(lists(&prepared.parts[0], 2), [[0, 0, 1, 1, 1]]);
}

#[test]
fn a_length_that_the_file_fixes_is_filled_up_and_never_passed() {
    let inner = model(&["input_ids", "attention_mask"], Some(6));
    let transform = build(&text_input(), None, &inner).unwrap();
    let bound = bind(&transform, &[("text", &["the boat", "a b c d e f g h i j"])]);
    for grouping in [Grouping::Equal(NonZeroUsize::new(8).unwrap()), Grouping::Together] {
        let prepared = transform.prepare(&bound, grouping).unwrap();
        assert_eq!(prepared.parts.len(), 1, "filled up, all rows have one shape");
        assert_eq!(lists(&prepared.parts[0], 1), [[1, 1, 1, 1, 0, 0], [1; 6]]);
        assert_eq!(lists(&prepared.parts[0], 0)[0][4..], [0, 0], "[PAD] is 0 in this tokenizer");
        assert_eq!(prepared.tokens, Some(10));
    }
}

#[test]
fn rows_are_padded_only_where_the_model_can_tell() {
    let transform = build(&text_input(), None, &model(&["input_ids"], None)).unwrap();
    let bound = bind(&transform, &[("text", &["the boat", "the", "a boat"])]);
    let error = transform.prepare(&bound, Grouping::Together).unwrap_err();
    assert_eq!(
        error.to_string(),
        "'text' has rows of 3 and of 4 tokens, and the model takes no 'attention_mask' that would \
         tell padding from tokens: send them apart"
    );
    let prepared = transform.prepare(&bound, Grouping::Alone).unwrap();
    assert_eq!(prepared.parts.len(), 3);
}

#[test]
fn the_models_own_inputs_are_completed() {
    let mut inner = bert();
    inner.inputs[2].data_type = DataType::Int32;
    let transform = build(&text_input(), None, &inner).unwrap();
    assert_eq!([0, 1, 2, 3].map(|index| transform.fills_in(index)), [false, true, true, false]);
    let ids = Tensor::from_vec([2, 2], vec![2_i64, 5, 7, 3]).unwrap();
    let ones = Tensor::from_vec([2, 2], vec![1_i64; 4]).unwrap();
    let zeros = Tensor::from_vec([2, 2], vec![0_i32; 4]).unwrap();
    let inputs: BoundInputs = [Some(ids.clone()), None, None].into_iter().collect();
    let completed = transform.adopt(inputs).unwrap();
    assert_eq!(completed.as_slice(), [Some(ids.clone()), Some(ones), Some(zeros.clone())]);
    // What the caller gave stays.
    let mask = Tensor::from_vec([2, 2], vec![1_i64, 0, 1, 1]).unwrap();
    let inputs: BoundInputs = [Some(ids.clone()), Some(mask.clone()), None].into_iter().collect();
    let completed = transform.adopt(inputs).unwrap();
    assert_eq!(completed.as_slice(), [Some(ids), Some(mask), Some(zeros)]);
    let nothing: BoundInputs = [None, None, None].into_iter().collect();
    assert_eq!(transform.adopt(nothing.clone()).unwrap(), nothing);
}

#[test]
fn a_prefix_stands_before_every_text() {
    let prefixed = TextInput { prefix: "the ".to_owned(), pairs: true, ..text_input() };
    let prefixed = build(&prefixed, None, &bert()).unwrap();
    let plain = pairs_transform();
    let ids = |transform: &Transform, text: &str, pair: &str| {
        let bound = bind(transform, &[("text", &[text]), ("text_pair", &[pair])]);
        lists(&transform.prepare(&bound, Grouping::Alone).unwrap().parts[0], 0)
    };
    assert_eq!(ids(&prefixed, "boat", "sail"), ids(&plain, "the boat", "the sail"));
    assert_ne!(ids(&prefixed, "boat", "sail"), ids(&plain, "boat", "sail"));
}

/// What a model that treats each token by itself would give: `[rows, tokens, 3]`, and noise where
/// there is padding.
fn hidden(part: &Part) -> Tensor {
    let ids = lists(part, 0);
    let mask = lists(part, 1);
    let numbers = ids.iter().zip(&mask).flat_map(|(ids, mask)| {
        ids.iter().zip(mask).enumerate().flat_map(|(place, (&id, &is_token))| {
            let (id, place) = (id as f32, place as f32);
            if is_token == 1 { [id.sin(), place.cos(), id * 0.01] } else { [1e6, -1e6, f32::NAN] }
        })
    });
    let numbers: Vec<f32> = numbers.collect();
    Tensor::from_vec([ids.len(), ids[0].len(), 3], numbers).unwrap()
}

/// Each row's embedding by whatever grouping.
fn embeddings(transform: &Transform, bound: &BoundInputs, grouping: Grouping) -> Vec<Vec<f32>> {
    let prepared = transform.prepare(bound, grouping).unwrap();
    let mut embeddings = BTreeMap::new();
    for part in &prepared.parts {
        let answer = transform.finish(part, &[hidden(part)]).unwrap();
        let vectors = answer[0].elements_of::<f32>().unwrap();
        for (&row, vector) in part.rows.iter().zip(vectors.chunks(3)) {
            assert!(embeddings.insert(row, vector.to_vec()).is_none(), "row {row} comes twice");
        }
    }
    assert!(embeddings.keys().copied().eq(0..prepared.rows));
    embeddings.into_values().collect()
}

/// Texts of words, signs, spaces of all kinds and special tokens.
fn any_text() -> impl Strategy<Value = String> {
    let spaces = "[\t\n\r \u{0}\u{7f}\u{a0}\u{2003}\u{301}\u{6771}\u{df}\u{c9}\u{1f389}]{1,4}";
    let special = prop::sample::select(vec!["[MASK]", "[SEP]x", "[mask]", "e\u{301}"]);
    let piece =
        prop_oneof!["[A-Za-z0-9]{1,9}", "[ -~]{0,6}", spaces, special.prop_map(str::to_owned)];
    let separator = prop::sample::select(vec!["", " ", "\n", "  "]);
    (prop::collection::vec(piece, 0..24), separator).prop_map(|(words, with)| words.join(with))
}

#[test]
fn short_cuts_change_no_token() {
    let (short, mut whole) = (encoder("wordpiece"), encoder("wordpiece"));
    assert!(short.bert.is_some());
    assert!(["bpe", "unigram"].iter().all(|family| encoder(family).bert.is_none()));
    whole.bert = None;
    let encoders = RefCell::new([short, whole]);
    let choices = (any_text(), prop::option::of(any_text()), 4_usize..20, any::<[bool; 2]>());
    let mut runner = TestRunner::new(ProptestConfig::with_cases(400));
    let outcome = runner.run(&choices, |(text, pair, max_tokens, [is_end, keeps_places])| {
        let mut encoders = encoders.borrow_mut();
        for encoder in encoders.iter_mut() {
            encoder.max_tokens = max_tokens;
            encoder.truncation = if is_end { Truncation::End } else { Truncation::Beginning };
            encoder.keeps_places = keeps_places;
        }
        let [short, whole] = &*encoders;
        let pair = pair.as_deref();
        prop_assert_eq!(short.encode(&text, pair), whole.encode(&text, pair));
        Ok(())
    });
    outcome.unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn rows_do_not_depend_on_how_they_are_grouped(
        texts in prop::collection::vec("[a-z ,\u{e9}\u{6771}\u{1f389}]{0,24}", 1..9),
        family in 0..FAMILIES.len(),
        most in 1_usize..5,
        pooling in prop::sample::select(vec![Pooling::Mean, Pooling::Cls, Pooling::Max]),
        normalize: bool,
    ) {
        let input = TextInput { tokenizer: tokenizer_of(FAMILIES[family]), ..text_input() };
        let output = EmbeddingOutput { pooling, normalize, ..EmbeddingOutput::default() };
        let transform =
            build(&input, Some(OutputTransform::Embedding(output)), &bert()).unwrap();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let bound = bind(&transform, &[("text", &texts)]);
        let most = NonZeroUsize::new(most).unwrap();

        let alone = embeddings(&transform, &bound, Grouping::Alone);
        prop_assert_eq!(&embeddings(&transform, &bound, Grouping::Equal(most)), &alone);
        prop_assert_eq!(&embeddings(&transform, &bound, Grouping::Together), &alone);

        let equal = transform.prepare(&bound, Grouping::Equal(most)).unwrap();
        for part in &equal.parts {
            prop_assert!(lists(part, 1).concat().iter().all(|&is_token| is_token == 1));
            prop_assert!(part.rows.len() <= most.get());
        }
        // Padded rows are the same rows, filled up.
        let single = transform.prepare(&bound, Grouping::Alone).unwrap();
        let together = transform.prepare(&bound, Grouping::Together).unwrap();
        let padded = &together.parts[0];
        let mut tokens = 0;
        for (row, part) in single.parts.iter().enumerate() {
            let own = lists(part, 0).concat();
            tokens += own.len();
            prop_assert_eq!(&lists(padded, 0)[row][..own.len()], own.as_slice());
            let mut mask = vec![1; own.len()];
            mask.resize(lists(padded, 1)[row].len(), 0);
            prop_assert_eq!(&lists(padded, 1)[row], &mask);
        }
        prop_assert_eq!(together.tokens, Some(tokens));
        prop_assert_eq!(equal.tokens, Some(tokens));
    }
}
