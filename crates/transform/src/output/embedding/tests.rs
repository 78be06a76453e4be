use std::path::Path;

use outhaul_types::ModelSignature;
use serde_json::Value;

use super::*;

fn signature(dimensions: &[Option<usize>]) -> ModelSignature {
    let size = |size: &Option<usize>| size.map_or(Dimension::Any, Dimension::Fixed);
    let spec = |name: &str, data_type, dimensions: &[Option<usize>]| TensorSpec {
        name: name.into(),
        data_type,
        shape: ShapePattern::ranked(dimensions.iter().map(size)),
        optional: false,
    };
    ModelSignature {
        inputs: vec![spec("attention_mask", DataType::Int64, &[None, None])],
        outputs: vec![spec("token_embeddings", DataType::Fp32, dimensions)],
    }
}

fn built(
    spec: EmbeddingOutput,
    dimensions: &[Option<usize>],
) -> Result<Built<dyn OutputSide>, BuildError> {
    let inner = signature(dimensions);
    build(&spec, &Context { inner: &inner, tokenizer: None })
}

fn part(mask: Option<Tensor>, rows: usize) -> Part {
    Part { inputs: [mask].into_iter().collect(), rows: (0..rows).collect(), encodings: Vec::new() }
}

/// The formula of `testdata/make_text_answers.py`.
fn logit(position: usize, index: usize) -> f32 {
    ((position * 131 + index * 7919) % 1009) as f32 / 100.0
}

fn floats_of(list: &Value) -> Vec<f32> {
    let rows = list.as_array().unwrap().iter();
    let numbers = rows.flat_map(|row| row.as_array().unwrap());
    numbers.map(|number| number.as_f64().unwrap() as f32).collect()
}

#[test]
fn pooling_is_that_of_sentence_transformers() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = path.join("../../testdata/transform/text/pooling.json");
    let answers: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let size = |index: usize| answers["shape"][index].as_u64().unwrap() as usize;
    let shape @ [rows, tokens, hidden] = [size(0), size(1), size(2)];
    let numbers: Vec<f32> = (0..rows * tokens)
        .flat_map(|token| (0..hidden).map(move |index| logit(token, index) - 5.0))
        .collect();
    let tensor = Tensor::from_vec(shape, numbers).unwrap();
    let mask = floats_of(&answers["mask"]);
    let wide: Vec<i64> = mask.iter().map(|&weight| weight as i64).collect();
    let narrow: Vec<i32> = mask.iter().map(|&weight| weight as i32).collect();
    let masks = [
        Tensor::from_vec([rows, tokens], wide).unwrap(),
        Tensor::from_vec([rows, tokens], narrow).unwrap(),
        Tensor::from_vec([rows, tokens], mask.clone()).unwrap(),
        Tensor::from_bools([rows, tokens], mask.iter().map(|&weight| weight == 1.0)).unwrap(),
    ];
    let cases = answers["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 12);
    for case in cases {
        let dimensions = case["dimensions"].as_u64().map(|kept| kept as usize);
        let spec = EmbeddingOutput {
            output: None,
            pooling: match case["pooling"].as_str().unwrap() {
                "mean" => Pooling::Mean,
                "cls" => Pooling::Cls,
                _ => Pooling::Max,
            },
            normalize: case["normalize"].as_bool().unwrap(),
            dimensions: dimensions.and_then(std::num::NonZeroUsize::new),
        };
        let built = built(spec, &[None, None, Some(hidden)]).unwrap();
        let width = dimensions.unwrap_or(hidden);
        assert_eq!(built.specs[0].shape.to_string(), format!("[-1,{width}]"));
        let expected = floats_of(&case["embedding"]);
        for mask in &masks {
            let part = part(Some(mask.clone()), rows);
            let answer = built.side.finish(&part, std::slice::from_ref(&tensor)).unwrap();
            assert_eq!(answer[0].shape().as_ref(), [rows, width]);
            let own = answer[0].elements_of::<f32>().unwrap();
            // Four additions of numbers below 10 in FP32.
            let far = |(own, expected): (&f32, &f32)| (own - expected).abs() > 2e-6;
            assert!(!own.iter().zip(&expected).any(far), "{case}: {own:?}");
        }
    }
}

#[test]
fn what_is_pooled_already_is_kept() {
    let spec = || EmbeddingOutput { normalize: true, ..EmbeddingOutput::default() };
    let pooled = Tensor::from_vec([2, 2], vec![3.0_f32, 4.0, 0.0, 0.0]).unwrap();
    // Whether the file tells the rank or not.
    for dimensions in [&[None, Some(2)][..], &[None, None]] {
        let built = built(spec(), dimensions).unwrap();
        let answer = built.side.finish(&part(None, 2), std::slice::from_ref(&pooled)).unwrap();
        assert_eq!(answer[0].as_slice::<f32>(), Some(&[0.6, 0.8, 0.0, 0.0][..]), "zeros stay");
    }
    let kept = EmbeddingOutput { dimensions: std::num::NonZeroUsize::new(1), ..spec() };
    let answer = built(kept, &[None, Some(2)]).unwrap().side.finish(&part(None, 2), &[pooled]);
    assert_eq!(answer.unwrap()[0].as_slice::<f32>(), Some(&[1.0, 0.0][..]));
}

#[test]
fn without_a_mask_all_tokens_count() {
    let built = built(EmbeddingOutput::default(), &[None, None, None]).unwrap();
    let numbers = Tensor::from_vec([1, 2, 2], vec![1.0_f32, 2.0, 3.0, 6.0]).unwrap();
    let answer = built.side.finish(&part(None, 1), &[numbers]).unwrap();
    assert_eq!(answer[0].as_slice::<f32>(), Some(&[2.0, 4.0][..]));
}

#[test]
fn what_cannot_be_pooled_is_refused() {
    let wide = EmbeddingOutput {
        dimensions: std::num::NonZeroUsize::new(9),
        ..EmbeddingOutput::default()
    };
    let at_load = [
        (EmbeddingOutput::default(), &[None][..], "which is not one with 2 or 3 dimensions"),
        (EmbeddingOutput::default(), &[None; 4], "which is not one with 2 or 3 dimensions"),
        (wide.clone(), &[None, Some(8)], "output.dimensions is 9, but 'token_embeddings' has 8"),
    ];
    for (spec, dimensions, expected) in at_load {
        let error = built(spec, dimensions).err().unwrap().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let tensor =
        |shape: [usize; 3]| Tensor::from_vec(shape, vec![0.0_f32; shape.iter().product()]).unwrap();
    let open = |spec| built(spec, &[None, None, None]).unwrap().side;
    let mask = || Tensor::from_vec([1, 3], vec![1_i64; 3]).ok();
    let at_run = [
        (open(wide), None, tensor([1, 2, 8]), "has vectors of 8, of which 9 are to be kept"),
        (
            open(EmbeddingOutput::default()),
            mask(),
            tensor([1, 2, 8]),
            "'attention_mask' has shape [1,3], where 'token_embeddings' has 1 rows of 2 tokens",
        ),
        (open(EmbeddingOutput::default()), None, tensor([2, 2, 8]), "has shape [2,2,8] for 1 rows"),
    ];
    for (side, mask, tensor, expected) in at_run {
        let error = side.finish(&part(mask, 1), &[tensor]).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}
