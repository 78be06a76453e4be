//! Warm-up with a scripted engine that keeps what it is given.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use outhaul_types::{
    DataType, Dimension, Fill, ModelManifest, ModelSignature, Shape, ShapePattern, Tensor,
    TensorDeclaration, TensorSpec, WarmupInput, error_chain,
};

use super::*;

/// What a scripted session does with its inputs; the output is a column of the input's rows.
type Script = fn(&BoundInputs) -> Result<(), RunError>;

#[derive(Clone)]
struct Scripted {
    script: Script,
    given: Arc<Mutex<Vec<BoundInputs>>>,
}

impl Scripted {
    fn new(script: Script) -> Self {
        Scripted { script, given: Arc::default() }
    }

    fn given(&self) -> Vec<BoundInputs> {
        self.given.lock().unwrap().clone()
    }

    /// The only request, which must be the only one.
    fn only(&self) -> BoundInputs {
        let given = self.given();
        assert_eq!(given.len(), 1);
        given.into_iter().next().unwrap()
    }
}

impl LoadedModel for Scripted {
    fn engine(&self) -> &'static str {
        "scripted"
    }

    fn session(&self) -> Result<Box<dyn Session>, LoadError> {
        Ok(Box::new(self.clone()))
    }
}

impl Session for Scripted {
    fn run(&mut self, inputs: &BoundInputs) -> Result<Tensors, RunError> {
        self.given.lock().unwrap().push(inputs.clone());
        (self.script)(inputs)?;
        let rows = inputs[0].as_ref().and_then(|tensor| tensor.shape().rows()).unwrap_or(1);
        Ok([Tensor::from_vec([rows, 1], vec![0_f32; rows]).unwrap()].into_iter().collect())
    }
}

fn answers(_: &BoundInputs) -> Result<(), RunError> {
    Ok(())
}

fn refuses(_: &BoundInputs) -> Result<(), RunError> {
    Err(RunError::BadInput { reason: "a length of 0".to_owned() })
}

fn panics(_: &BoundInputs) -> Result<(), RunError> {
    panic!("scripted panic")
}

struct NoSession;

impl LoadedModel for NoSession {
    fn engine(&self) -> &'static str {
        "none"
    }

    fn session(&self) -> Result<Box<dyn Session>, LoadError> {
        Err(LoadError::Failed { engine: "none", reason: "no memory".to_owned() })
    }
}

/// `-1` is open.
fn pattern(sizes: &[i64]) -> ShapePattern {
    ShapePattern::ranked(sizes.iter().map(|&size| match usize::try_from(size) {
        Ok(size) => Dimension::Fixed(size),
        Err(_) => Dimension::Any,
    }))
}

fn spec(name: &str, data_type: DataType, sizes: &[i64]) -> TensorSpec {
    TensorSpec { name: name.into(), data_type, shape: pattern(sizes), optional: false }
}

/// Inputs `x`, `words` and, left out where not declared, `scale`.
fn signature() -> ModelSignature {
    let scale = TensorSpec { optional: true, ..spec("scale", DataType::Fp32, &[-1]) };
    ModelSignature {
        inputs: vec![
            spec("x", DataType::Fp32, &[-1, 2, -1]),
            spec("words", DataType::Bytes, &[-1]),
            scale,
        ],
        outputs: vec![spec("y", DataType::Fp32, &[-1, 1])],
    }
}

fn undeclared(signature: &ModelSignature) -> Declared {
    Declared::apply(signature, &ModelManifest::default()).unwrap()
}

fn request(name: &str, inputs: Vec<WarmupInput>) -> WarmupRequest {
    WarmupRequest { name: name.to_owned(), inputs, ..WarmupRequest::default() }
}

fn input(name: &str, shape: Option<&[usize]>, fill: Fill) -> WarmupInput {
    WarmupInput { name: name.into(), shape: shape.map(Shape::from), fill }
}

/// A file that goes when the test ends.
struct TempFile(PathBuf);

impl TempFile {
    fn new(name: &str, bytes: &[u8]) -> Self {
        let path = std::env::temp_dir().join(format!("outhaul-{}-{name}", std::process::id()));
        std::fs::write(&path, bytes).unwrap();
        TempFile(path)
    }

    fn fill(&self) -> Fill {
        Fill::File(self.0.clone())
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn one_row_of_zeros_is_made_up_where_nothing_is_declared() {
    let model = Scripted::new(answers);
    let done = warm_up(&model, &undeclared(&signature()), None).unwrap();
    assert_eq!((done.requests, done.note), (1, None));
    let given = model.only();
    let x = Tensor::from_vec([1, 2, 1], vec![0_f32; 2]).unwrap();
    let words = Tensor::from_strings([1], [""].iter().collect()).unwrap();
    assert_eq!(given.as_slice(), [Some(x), Some(words), None]);
}

#[test]
fn an_empty_list_asks_for_nothing() {
    let done = warm_up(&NoSession, &undeclared(&signature()), Some(&[])).unwrap();
    assert_eq!(done, WarmedUp::default());
}

#[test]
fn declared_requests_run_as_often_as_they_say() {
    let model = Scripted::new(answers);
    let three = NonZeroUsize::new(3).unwrap();
    let scale = input("scale", Some(&[4]), Fill::Zeros);
    let requests = [
        WarmupRequest { rows: three, count: three, ..request("three", vec![]) },
        request("scaled", vec![scale]),
    ];
    let done = warm_up(&model, &undeclared(&signature()), Some(&requests)).unwrap();
    assert_eq!(done.requests, 4);
    let shapes = |inputs: &BoundInputs| -> Vec<Option<Vec<usize>>> {
        inputs.iter().map(|input| input.as_ref().map(|tensor| tensor.shape().to_vec())).collect()
    };
    let given = model.given();
    assert_eq!(shapes(&given[2]), [Some(vec![3, 2, 1]), Some(vec![3]), None]);
    assert_eq!(shapes(&given[3]), [Some(vec![1, 2, 1]), Some(vec![1]), Some(vec![4])]);
}

#[test]
fn a_failure_on_what_was_made_up_is_a_note_and_on_what_was_declared_an_error() {
    let declared = undeclared(&signature());
    let done = warm_up(&Scripted::new(refuses), &declared, None).unwrap();
    assert_eq!((done.requests, done.note.as_deref()), (0, Some("a length of 0")));
    let requests = [request("first", vec![])];
    let error = warm_up(&Scripted::new(refuses), &declared, Some(&requests)).unwrap_err();
    assert_eq!(error_chain(&error), "warm-up request 'first' has no answer: a length of 0");
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

#[test]
fn a_crash_is_an_error_whatever_was_asked() {
    let declared = undeclared(&signature());
    let error = warm_up(&Scripted::new(panics), &declared, None).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the engine crashed in warm-up request 'generated': scripted panic"
    );
    let error = warm_up(&NoSession, &declared, None).unwrap_err();
    assert_eq!(
        error_chain(&error),
        "no session could be opened for warm-up: engine 'none' failed to load the model: no memory"
    );
}

#[test]
fn random_inputs_are_small_and_always_the_same() {
    for data_type in DataType::ALL {
        let signature = ModelSignature {
            inputs: vec![spec("x", data_type, &[-1, 100])],
            outputs: vec![spec("y", DataType::Fp32, &[-1, 1])],
        };
        let requests = [request("random", vec![input("x", None, Fill::Random)])];
        let run = || {
            let model = Scripted::new(answers);
            warm_up(&model, &undeclared(&signature), Some(&requests)).unwrap();
            model.only()[0].clone().unwrap()
        };
        let tensor = run();
        assert_eq!(tensor, run(), "{data_type}");
        assert_eq!(tensor.shape(), &Shape::from([1, 100]));
        if let Some(numbers) = tensor.as_strings() {
            assert!(numbers.iter().all(|text| text.len() == 1 && text[0].is_ascii_digit()));
        }
        if let Some(numbers) = tensor.elements_of::<f32>() {
            assert!(numbers.iter().all(|number| (0.0..1.0).contains(number)));
            assert!(numbers.iter().any(|number| *number != numbers[0]));
        }
        if let Some(numbers) = tensor.elements_of::<half::bf16>() {
            assert!(numbers.iter().all(|number| (0.0..=1.0).contains(&number.to_f32())));
        }
        if let Some(numbers) = tensor.elements_of::<i64>() {
            assert!(numbers.iter().all(|number| (0..10).contains(number)));
        }
    }
}

#[test]
fn files_are_read_as_they_lie() {
    let floats: Vec<u8> = [1.5_f32, -2.0].iter().flat_map(|value| value.to_le_bytes()).collect();
    let floats = TempFile::new("floats", &floats);
    let words = TempFile::new("words", b"\x02\0\0\0ab\0\0\0\0\x01\0\0\0\xff");
    let requests = [request(
        "sample",
        vec![input("x", None, floats.fill()), input("words", Some(&[3]), words.fill())],
    )];
    let model = Scripted::new(answers);
    warm_up(&model, &undeclared(&signature()), Some(&requests)).unwrap();
    let given = model.only();
    let x = given[0].as_ref().unwrap();
    assert_eq!(x.elements_of::<f32>().as_deref(), Some(&[1.5, -2.0][..]));
    let words: Vec<&[u8]> = given[1].as_ref().unwrap().as_strings().unwrap().iter().collect();
    assert_eq!(words, [&b"ab"[..], b"", b"\xff"]);
}

#[test]
fn what_cannot_be_made_is_named() {
    struct Case {
        input: WarmupInput,
        error: &'static str,
    }
    let short = TempFile::new("short", &[0; 4]);
    let long = TempFile::new("long", &[0; 12]);
    let cut = TempFile::new("cut", b"\x09\0\0\0ab");
    let stub = TempFile::new("stub", b"\x09\0");
    let case = |input, error| Case { input, error };
    let cases = [
        case(
            input("z", None, Fill::Zeros),
            "unknown input 'z'; the model takes 'x', 'words', 'scale'",
        ),
        case(
            input("x", Some(&[1, 3, 1]), Fill::Zeros),
            "input 'x' has shape [1,3,1], expected [-1,2,-1]",
        ),
        case(
            input("x", Some(&[1, 2, 1 << 40]), Fill::Zeros),
            "is larger than the 1073741824 bytes",
        ),
        case(input("x", None, short.fill()), "shape [1,2,1] of FP32 needs 8 bytes, got 4"),
        case(input("x", None, long.fill()), "is larger than the 8 bytes of shape [1,2,1]"),
        case(input("words", None, cut.fill()), "a length that leaves the file"),
        case(input("words", None, stub.fill()), "a length that leaves the file"),
        case(
            input("words", None, Fill::File(Path::new("no/such/file").to_owned())),
            "the file no/such/file of input 'words' cannot be read: ",
        ),
    ];
    for Case { input, error } in cases {
        let requests = [request("sample", vec![input])];
        let told = warm_up(&Scripted::new(answers), &undeclared(&signature()), Some(&requests));
        let told = error_chain(&told.unwrap_err());
        assert!(told.starts_with("warm-up request 'sample' has no answer: "), "{told}");
        assert!(told.contains(error), "{told}, expected {error}");
    }
    let twice = vec![input("x", None, Fill::Zeros), input("x", None, Fill::Random)];
    let told = warm_up(
        &Scripted::new(answers),
        &undeclared(&signature()),
        Some(&[request("sample", twice)]),
    );
    assert!(error_chain(&told.unwrap_err()).ends_with("input 'x' is given twice"));
}

/// A file may fix any size: nothing is taken for it, and nobody else is stopped.
#[test]
fn a_model_of_absurd_size_is_not_warmed_up() {
    let inner = ModelSignature {
        inputs: vec![spec("x", DataType::Fp64, &[-1, i64::MAX, i64::MAX])],
        outputs: vec![],
    };
    let done = warm_up(&Scripted::new(answers), &undeclared(&inner), None).unwrap();
    assert!(done.note.is_some_and(|note| note.contains("is larger than")));
}

#[test]
fn requests_take_the_shapes_of_callers() {
    let inner = ModelSignature {
        inputs: vec![spec("x", DataType::Fp32, &[-1, 2, 2])],
        outputs: vec![spec("y", DataType::Fp32, &[-1, 1])],
    };
    let declare = |name: &str, shape: &[i64], reshape: &[i64]| TensorDeclaration {
        name: name.into(),
        data_type: None,
        shape: Some(pattern(shape)),
        reshape: Some(pattern(reshape)),
    };
    let manifest = |output: &[i64]| ModelManifest {
        inputs: vec![declare("x", &[-1, 4], &[-1, 2, 2])],
        outputs: vec![declare("y", output, &[-1, 1])],
        ..ModelManifest::default()
    };
    let requests = [request("callers", vec![input("x", Some(&[3, 4]), Fill::Zeros)])];
    let model = Scripted::new(answers);
    let declared = Declared::apply(&inner, &manifest(&[-1])).unwrap();
    assert_eq!(warm_up(&model, &declared, Some(&requests)).unwrap().requests, 1);
    assert_eq!(model.only()[0].as_ref().unwrap().shape(), &Shape::from([3, 2, 2]));
    let wrong = Declared::apply(&inner, &manifest(&[2, -1])).unwrap();
    let error = warm_up(&model, &wrong, Some(&requests)).unwrap_err();
    assert!(error_chain(&error).contains("output 'y' of shape [3,1], which is declared as [2,-1]"));
}
