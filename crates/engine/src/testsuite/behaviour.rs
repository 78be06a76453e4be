//! What an engine does beyond single answers: concurrency, repetition, odd values, odd shapes.
//!
//! A behaviour is skipped for a model that the expectations list as refused, and only then.

use std::sync::Barrier;
use std::thread;

use bytes::Bytes;
use outhaul_types::{DataType, NamedTensor, Shape, Strings, Tensor, Tensors};

use super::reference::{Reference, Tolerance, read_references};
use super::{Opened, Suite, fits};
use crate::{LoadOptions, RunError, Session};

/// Threads that run one model at once.
const THREADS: usize = 4;
/// Runs of each thread.
const RUNS: usize = 50;

/// Models whose rows are independent of each other: a batch answers as its rows would alone.
const INDEPENDENT_ROWS: &[&str] =
    &["iris", "digits", "breast_cancer", "iris_words", "add_row", "two_inputs", "fp64_math"];

impl Suite<'_> {
    pub(super) fn behaviour(&mut self) {
        let references = read_references(&self.testdata).unwrap_or_default();
        for reference in &references {
            if let Some(mut opened) = self.open(&reference.name, &reference.path) {
                let name = &reference.name;
                self.check(
                    &format!("{name} / concurrent sessions"),
                    concurrent(reference, &opened),
                );
                self.check(&format!("{name} / repeated runs"), repeated(reference, &mut opened));
                self.check(&format!("{name} / outputs outlive it"), outlived(reference, opened));
                self.more_threads(reference);
            }
        }
        for name in INDEPENDENT_ROWS {
            let Some(reference) = references.iter().find(|reference| reference.name == *name)
            else {
                self.check(name, Err("no reference file of that name"));
                continue;
            };
            if let Some(mut opened) = self.open(name, &reference.path) {
                let outcome = batch_equals_rows(reference, &mut opened);
                self.check(&format!("{name} / batch equals its rows"), outcome);
            }
        }
        for data_type in DataType::ALL {
            let name = format!("identity_{}", data_type.name().to_lowercase());
            let path = self.model_path(&name);
            if let Some(mut opened) = self.open(&name, &path) {
                for (what, tensor) in odd_tensors(data_type) {
                    let outcome = returns_the_same(&mut opened, tensor);
                    self.check(&format!("{name} / {what}"), outcome);
                }
            }
        }
        self.failing_runs();
        self.odd_shapes();
    }

    /// More threads within one run give the same answers.
    fn more_threads(&mut self, reference: &Reference) {
        let threads = 2.try_into().expect("two is not zero");
        let outcome = Opened::new(
            self.engine,
            &reference.path,
            &LoadOptions { threads, ..LoadOptions::default() },
        )
        .and_then(|mut opened| {
            for case in answered(reference, &mut opened) {
                reference.tolerance.agree(&case.expected, &case.received)?;
            }
            Ok(())
        });
        self.check(&format!("{} / two threads", reference.name), outcome);
    }

    /// A run that fails is the caller's mistake, and leaves the session as good as before.
    fn failing_runs(&mut self) {
        struct Case {
            model: &'static str,
            bad: Vec<NamedTensor>,
            good: Vec<NamedTensor>,
        }
        let tokens = |token| vec![tensor("tokens", [1, 2], vec![token, 1_i64])];
        let pair = |rows: usize| {
            let elements = |rows: usize| vec![1_f32; rows * 3];
            vec![tensor("a", [2, 3], elements(2)), tensor("b", [rows, 3], elements(rows))]
        };
        let cases = [
            Case { model: "sequence", bad: tokens(99), good: tokens(3) },
            Case { model: "sequence", bad: tokens(i64::MIN), good: tokens(3) },
            Case { model: "two_inputs", bad: pair(5), good: pair(2) },
        ];
        for case in cases {
            let path = self.model_path(case.model);
            if let Some(mut opened) = self.open(case.model, &path) {
                let outcome = fails_and_recovers(&mut opened, case.bad, case.good);
                self.check(&format!("{} / a failing run", case.model), outcome);
            }
        }
    }

    /// No rows, no columns, no dimensions.
    fn odd_shapes(&mut self) {
        struct Case {
            model: &'static str,
            input: NamedTensor,
            output: NamedTensor,
        }
        let none = Vec::<f32>::new;
        let cases = [
            Case {
                model: "add_row",
                input: tensor("x", [0, 4], none()),
                output: tensor("y", [0, 4], none()),
            },
            Case {
                model: "scalar",
                input: tensor("x", [], vec![20.5_f32]),
                output: tensor("y", [], vec![42_f32]),
            },
            Case {
                model: "no_batch",
                input: tensor("x", [3], vec![1_f32, 2.0, 4.0]),
                output: tensor("y", [], vec![7_f32]),
            },
        ];
        for Case { model, input, output } in cases {
            let path = self.model_path(model);
            if let Some(mut opened) = self.open(model, &path) {
                let outcome = opened.run([input]).and_then(|outputs| {
                    Tolerance::exact("values are exactly representable")
                        .agree_tensor(&output.tensor, &outputs[0])
                });
                self.check(&format!("{model} / shape {}", output.tensor.shape()), outcome);
            }
        }
    }
}

fn tensor<T: outhaul_types::Element + Send>(
    name: &str,
    shape: impl Into<Shape>,
    elements: Vec<T>,
) -> NamedTensor {
    let tensor = Tensor::from_vec(shape, elements).expect("the suite's own shapes fit");
    NamedTensor { name: name.into(), tensor }
}

struct Answered {
    expected: Vec<NamedTensor>,
    received: Vec<NamedTensor>,
}

/// Runs the cases that the engine answers; what it refuses, the reference cases have checked.
fn answered(reference: &Reference, opened: &mut Opened) -> Vec<Answered> {
    let mut answers = Vec::new();
    for case in &reference.cases {
        if let Ok(outputs) = opened.run(case.inputs.iter().cloned()) {
            let received = super::named(&opened.model.signature, outputs);
            answers.push(Answered { expected: case.outputs.clone(), received });
        }
    }
    answers
}

/// Sessions of one model, run at once by threads of their own, answer as one alone, bit for bit.
fn concurrent(reference: &Reference, opened: &Opened) -> Result<(), String> {
    let mut session = opened.loaded.session().map_err(|error| error.to_string())?;
    let mut jobs = Vec::new();
    for case in &reference.cases {
        let bound = opened.bind(case.inputs.iter().cloned())?;
        if let Ok(alone) = session.run(&bound) {
            jobs.push((bound, alone));
        }
    }
    // Opened before any thread starts: one that failed to would leave the others at the barrier.
    let sessions: Result<Vec<_>, _> = (0..THREADS).map(|_| opened.loaded.session()).collect();
    let start = Barrier::new(THREADS);
    let work = |mut session: Box<dyn Session>| {
        start.wait();
        for run in 0..RUNS {
            for (bound, alone) in &jobs {
                let together = session.run(bound).map_err(|error| error.to_string())?;
                if together != *alone {
                    return Err(format!("run {run} answers otherwise than alone"));
                }
            }
        }
        Ok(())
    };
    thread::scope(|scope| {
        let work = &work;
        let workers: Vec<_> = sessions
            .map_err(|error| error.to_string())?
            .into_iter()
            .map(|session| scope.spawn(move || work(session)))
            .collect();
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().unwrap_or_else(|_| Err("panics".to_owned())))
    })
}

/// The same request gets the same bits, and an earlier answer is not changed by a later run.
fn repeated(reference: &Reference, opened: &mut Opened) -> Result<(), String> {
    let mut kept: Vec<(usize, Tensors, Vec<Vec<u8>>)> = Vec::new();
    for _ in 0..3 {
        for (index, case) in reference.cases.iter().enumerate() {
            if let Ok(outputs) = opened.run(case.inputs.iter().cloned()) {
                let copies = outputs.iter().map(copied).collect();
                kept.push((index, outputs, copies));
            }
        }
    }
    for (index, outputs, copies) in &kept {
        if outputs.iter().map(copied).ne(copies.iter().cloned()) {
            return Err("a later run changed an earlier answer".to_owned());
        }
        let first = kept.iter().find(|(other, _, _)| other == index);
        if first.is_some_and(|(_, first, _)| first != outputs) {
            return Err("the same request got another answer".to_owned());
        }
    }
    Ok(())
}

/// Answers stay whole when the session and the model are gone.
fn outlived(reference: &Reference, mut opened: Opened) -> Result<(), String> {
    let answers = answered(reference, &mut opened);
    let copies: Vec<Vec<u8>> = answers
        .iter()
        .flat_map(|answer| answer.received.iter().map(|output| copied(&output.tensor)))
        .collect();
    drop(opened);
    let outputs = answers.iter().flat_map(|answer| &answer.received);
    let same = outputs.map(|output| copied(&output.tensor)).eq(copies);
    same.then_some(()).ok_or_else(|| "an answer changed when the model was closed".to_owned())
}

/// Returns a tensor's elements as bytes of our own.
fn copied(tensor: &Tensor) -> Vec<u8> {
    match (tensor.as_bytes(), tensor.as_strings()) {
        (Some(bytes), _) => bytes.to_vec(),
        (None, Some(strings)) => strings.iter().flatten().copied().collect(),
        (None, None) => Vec::new(),
    }
}

/// A batch answers as each of its rows alone, within the reference's tolerance: kernels may add in
/// another order for another number of rows.
fn batch_equals_rows(reference: &Reference, opened: &mut Opened) -> Result<(), String> {
    let rows =
        |inputs: &[NamedTensor]| inputs.first().and_then(|input| input.tensor.shape().rows());
    let batch = reference.cases.iter().max_by_key(|case| rows(&case.inputs));
    let batch = batch.ok_or("no cases")?;
    let count = rows(&batch.inputs).filter(|&count| count > 1).ok_or("no case with rows")?;
    let together = opened.run(batch.inputs.iter().cloned())?;
    for row in 0..count {
        let slice = |input: &NamedTensor| NamedTensor {
            name: input.name.clone(),
            tensor: input.tensor.slice_rows(row..row + 1),
        };
        let alone = opened.run(batch.inputs.iter().map(slice))?;
        for (alone, together) in alone.iter().zip(&together) {
            reference
                .tolerance
                .agree_tensor(alone, &together.slice_rows(row..row + 1))
                .map_err(|reason| format!("row {row}: {reason}"))?;
        }
    }
    Ok(())
}

/// An identity returns exactly what it was given.
fn returns_the_same(opened: &mut Opened, tensor: Tensor) -> Result<(), String> {
    let name = opened.model.signature.inputs[0].name.clone();
    let given = tensor.clone();
    let bound = opened.bind([NamedTensor { name, tensor }])?;
    let outputs = match opened.run_bound(&bound) {
        Ok(outputs) => outputs,
        // A value that this engine has no room for; the reference cases list which models do that.
        Err(RunError::Unsupported { .. }) => return Ok(()),
        Err(error) => return Err(format!("does not run: {error}")),
    };
    fits(&opened.model.signature, &outputs)?;
    // The input is gone; an output that still pointed into it would show here under a checker.
    if outputs[0] == given {
        Ok(())
    } else {
        Err(format!("given {given:?}, returned {:?}", outputs[0]))
    }
}

fn fails_and_recovers(
    opened: &mut Opened,
    bad: Vec<NamedTensor>,
    good: Vec<NamedTensor>,
) -> Result<(), String> {
    let (bad, good) = (opened.bind(bad)?, opened.bind(good)?);
    let run = |opened: &mut Opened| {
        opened.run_bound(&good).map_err(|error| format!("the good run fails: {error}"))
    };
    let before = run(opened)?;
    fits(&opened.model.signature, &before)?;
    for _ in 0..3 {
        match opened.run_bound(&bad) {
            Err(RunError::BadInput { .. } | RunError::Unsupported { .. }) => {}
            Err(other) => return Err(format!("the caller's mistake is called ours: {other}")),
            Ok(_) => return Err("answers a request that it cannot".to_owned()),
        }
    }
    if run(opened)? == before {
        Ok(())
    } else {
        Err("answers otherwise after a failed run".to_owned())
    }
}

/// Tensors of rank two that an identity must not change.
fn odd_tensors(data_type: DataType) -> Vec<(String, Tensor)> {
    let Some(size) = data_type.size() else {
        return odd_strings();
    };
    let make = |shape: [usize; 2], bytes: Bytes| {
        Tensor::from_bytes(data_type, shape, bytes).expect("the suite's own shapes fit")
    };
    // Every bit pattern is a value, NaNs with a payload among them; a BOOL has two.
    let patterns: Vec<u8> = match data_type {
        DataType::Bool => vec![0, 1, 1, 0],
        _ => [0x00, 0xff, 0x7f, 0x80, 0x01].iter().flat_map(|&byte| edge(byte, size)).collect(),
    };
    let count = patterns.len() / size;
    let large: Vec<u8> = patterns.iter().copied().cycle().take(count * size * 1000).collect();
    let mut odd = vec![
        ("no rows".to_owned(), make([0, 3], Bytes::new())),
        ("no columns".to_owned(), make([3, 0], Bytes::new())),
        ("extreme values".to_owned(), make([1, count], patterns.clone().into())),
        ("many values".to_owned(), make([1000, count], large.into())),
    ];
    for offset in 1..8 {
        let mut shifted = vec![0_u8; offset];
        shifted.extend_from_slice(&patterns);
        let bytes = Bytes::from(shifted).slice(offset..);
        odd.push((format!("a buffer {offset} bytes off"), make([count, 1], bytes)));
    }
    odd
}

/// Returns one element at an edge of its range: all bits alike, or only the highest byte so.
fn edge(byte: u8, size: usize) -> Vec<u8> {
    let mut element = vec![if byte == 0x7f { 0xff } else { 0 }; size];
    match byte {
        0xff => element.fill(0xff),
        0x01 => element[0] = 0x01,
        high => element[size - 1] = high,
    }
    element
}

fn odd_strings() -> Vec<(String, Tensor)> {
    let make = |shape: [usize; 2], strings: &[&[u8]]| {
        let strings: Strings = strings.iter().collect();
        Tensor::from_strings(shape, strings).expect("the suite's own shapes fit")
    };
    let long = vec![b'x'; 100_000];
    vec![
        ("no rows".to_owned(), make([0, 3], &[])),
        ("no columns".to_owned(), make([3, 0], &[])),
        ("NUL bytes".to_owned(), make([1, 3], &[b"a\0b", b"\0", b"\0\0end"])),
        ("no UTF-8".to_owned(), make([2, 1], &[b"\xff\xfe", b"\xc3\x28 caf\xe9"])),
        ("empty strings".to_owned(), make([1, 3], &[b"", b"", b""])),
        ("a long string".to_owned(), make([1, 2], &[&long, b"short"])),
    ]
}
