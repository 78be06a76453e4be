//! Declarations by cases, and tensors on their way in and out.

use outhaul_types::Dimension;

use super::*;

/// `-1` is open.
fn pattern(sizes: &[i64]) -> ShapePattern {
    ShapePattern::ranked(sizes.iter().map(|&size| match usize::try_from(size) {
        Ok(size) => Dimension::Fixed(size),
        Err(_) => Dimension::Any,
    }))
}

fn spec(name: &str, shape: ShapePattern) -> TensorSpec {
    TensorSpec { name: name.into(), data_type: DataType::Fp32, shape, optional: false }
}

/// A model of one input `x` and one output `y`.
fn model(x: ShapePattern, y: ShapePattern) -> ModelSignature {
    ModelSignature { inputs: vec![spec("x", x)], outputs: vec![spec("y", y)] }
}

fn declare(name: &str, shape: Option<&[i64]>, reshape: Option<&[i64]>) -> TensorDeclaration {
    TensorDeclaration {
        name: name.into(),
        data_type: None,
        shape: shape.map(pattern),
        reshape: reshape.map(pattern),
    }
}

fn of_inputs(inputs: Vec<TensorDeclaration>) -> ModelManifest {
    ModelManifest { inputs, ..ModelManifest::default() }
}

fn of_outputs(outputs: Vec<TensorDeclaration>) -> ModelManifest {
    ModelManifest { outputs, ..ModelManifest::default() }
}

fn zeros(shape: &[usize]) -> Tensor {
    Tensor::from_vec(shape, vec![0_f32; shape.iter().product()]).unwrap()
}

#[test]
fn what_can_never_hold_is_refused_by_name() {
    struct Case {
        file: &'static [i64],
        shape: Option<&'static [i64]>,
        reshape: Option<&'static [i64]>,
        error: Option<&'static str>,
    }
    let case = |file, shape, reshape, error| Case { file, shape, reshape, error };
    let cases = [
        case(&[-1, 4], None, None, None),
        case(&[-1, 4], Some(&[-1, 4]), None, None),
        case(&[-1, 4], Some(&[8, -1]), None, None),
        case(
            &[-1, 4],
            Some(&[-1, 5]),
            None,
            Some(
                "input 'x' is declared with shape [-1,5], which never fits [-1,4], its shape in the \
                 model's file",
            ),
        ),
        case(
            &[-1, 4],
            Some(&[4]),
            None,
            Some(
                "input 'x' is declared with shape [4], which never fits [-1,4], its shape in the \
                 model's file",
            ),
        ),
        case(&[-1, 2, 2], Some(&[-1, 4]), Some(&[-1, 2, 2]), None),
        case(&[1, 3, 8, 8], Some(&[3, 8, 8]), Some(&[1, 3, 8, 8]), None),
        case(&[-1], Some(&[-1, 1]), Some(&[-1]), None),
        case(&[-1], Some(&[-1, 4]), Some(&[-1]), None),
        case(&[], Some(&[1]), Some(&[]), None),
        case(&[-1, -1, 4], Some(&[-1, -1, 2, 2]), Some(&[-1, -1, 4]), None),
        case(&[-1, 2, -1], Some(&[-1, -1, 2]), Some(&[-1, 2, -1]), Some("leave open")),
        case(&[-1, -1], Some(&[-1]), Some(&[-1, -1]), Some("leave open")),
        case(
            &[-1, 2, 2],
            Some(&[-1, 4]),
            Some(&[-1, 4]),
            Some(
                "input 'x' is declared with reshape [-1,4], which never fits [-1,2,2], its shape in \
                 the model's file",
            ),
        ),
        case(
            &[1, 6],
            Some(&[5]),
            Some(&[1, 6]),
            Some(
                "input 'x' is declared with shape [5] and reshape [1,6], which never have as many \
                 elements",
            ),
        ),
        case(&[-1, 2], Some(&[5]), Some(&[-1, 2]), Some("never have as many")),
        case(&[8], Some(&[-1, 3]), Some(&[8]), Some("never have as many")),
        case(&[8], Some(&[-1, 4]), Some(&[8]), None),
        case(&[-1, 0], Some(&[-1, 4]), Some(&[-1, 0]), Some("never have as many")),
        case(
            &[-1, 2],
            None,
            Some(&[-1, 2]),
            Some("input 'x' is declared with a reshape [-1,2] and no shape"),
        ),
    ];
    for Case { file, shape, reshape, error } in cases {
        let inner = model(pattern(file), pattern(&[-1]));
        let manifest = of_inputs(vec![declare("x", shape, reshape)]);
        let applied = Declared::apply(&inner, &manifest);
        let told = applied.err().map(|error| error.to_string());
        let as_expected = match (&told, error) {
            (None, None) => true,
            (Some(told), Some(error)) => told.contains(error),
            _ => false,
        };
        assert!(as_expected, "{file:?} {shape:?} {reshape:?}: {told:?}, expected {error:?}");
    }
}

#[test]
fn names_and_types_must_be_the_files() {
    let inner = model(pattern(&[-1, 4]), pattern(&[-1]));
    let error = |manifest| Declared::apply(&inner, &manifest).unwrap_err().to_string();
    assert_eq!(
        error(of_inputs(vec![declare("z", None, None)])),
        "input 'z' is declared, but the model's file has 'x'"
    );
    assert_eq!(
        error(of_outputs(vec![declare("y", None, None), declare("y", None, None)])),
        "output 'y' is declared twice"
    );
    let typed = TensorDeclaration { data_type: Some(DataType::Int64), ..declare("y", None, None) };
    assert_eq!(
        error(of_outputs(vec![typed])),
        "output 'y' is declared as INT64, but is FP32 in the model's file"
    );
}

#[test]
fn callers_see_what_is_declared_and_what_the_file_fixes() {
    let inner = model(pattern(&[-1, 4]), pattern(&[-1, 1]));
    let nothing = Declared::apply(&inner, &ModelManifest::default()).unwrap();
    assert_eq!(nothing.outer, inner);
    assert!(nothing.reshapes.inputs.is_empty() && nothing.reshapes.outputs.is_empty());
    let manifest = ModelManifest {
        inputs: vec![declare("x", Some(&[8, -1]), None)],
        outputs: vec![declare("y", Some(&[-1]), Some(&[-1, 1]))],
        ..ModelManifest::default()
    };
    let declared = Declared::apply(&inner, &manifest).unwrap();
    assert_eq!(declared.outer, model(pattern(&[8, 4]), pattern(&[-1])));
    assert!(declared.reshapes.inputs.is_empty(), "no input changes its shape");
}

#[test]
fn tensors_change_their_shape_on_the_way() {
    struct Case {
        file: &'static [i64],
        shape: &'static [i64],
        reshape: &'static [i64],
        given: &'static [usize],
        expected: Result<&'static [usize], &'static str>,
    }
    let case =
        |file, shape, reshape, given, expected| Case { file, shape, reshape, given, expected };
    let cases = [
        case(&[-1, 2, 2], &[-1, 4], &[-1, 2, 2], &[3, 4], Ok(&[3, 2, 2])),
        case(&[-1, 2, 2], &[-1, 4], &[-1, -1, -1], &[0, 4], Ok(&[0, 2, 2])),
        case(&[-1], &[-1, 1], &[-1], &[7, 1], Ok(&[7])),
        case(&[1, 2, 3], &[2, 3], &[1, 2, 3], &[2, 3], Ok(&[1, 2, 3])),
        case(&[], &[1], &[], &[1], Ok(&[])),
        case(&[-1, -1, 4], &[-1, -1, 2, 2], &[-1, -1, 4], &[3, 5, 2, 2], Ok(&[3, 5, 4])),
        case(
            &[-1, 2],
            &[-1, 3],
            &[-1, 2],
            &[1, 3],
            Err("input 'x' of shape [1,3] cannot be given to the model as [-1,2]"),
        ),
        case(&[-1, 2], &[-1, 3], &[-1, 2], &[2, 3], Ok(&[3, 2])),
        case(
            &[8],
            &[-1, 4],
            &[8],
            &[3, 4],
            Err("input 'x' of shape [3,4] cannot be given to the model as [8]"),
        ),
    ];
    for Case { file, shape, reshape, given, expected } in cases {
        let inner = model(pattern(file), pattern(&[-1]));
        let manifest = of_inputs(vec![declare("x", Some(shape), Some(reshape))]);
        let declared = Declared::apply(&inner, &manifest).unwrap();
        let inward = declared.reshapes.inward([Some(zeros(given))].into_iter().collect());
        let shapes = inward.map(|inputs| inputs[0].as_ref().unwrap().shape().to_vec());
        let shapes = shapes.map_err(|error| error.to_string());
        assert_eq!(shapes, expected.map(<[usize]>::to_vec).map_err(str::to_owned), "{given:?}");
    }
}

#[test]
fn outputs_are_given_as_declared_or_not_at_all() {
    let inner = model(pattern(&[-1, 4]), pattern(&[-1, -1]));
    let outward = |shape, reshape, given: &[usize]| {
        let manifest = of_outputs(vec![declare("y", Some(shape), reshape)]);
        let declared = Declared::apply(&inner, &manifest).unwrap();
        let outputs = declared.reshapes.outward([zeros(given)].into_iter().collect());
        outputs.map(|outputs| outputs[0].shape().to_vec())
    };
    assert_eq!(outward(&[-1], Some(&[-1, 1]), &[5, 1]), Ok(vec![5]));
    assert_eq!(outward(&[-1, 3], None, &[5, 3]), Ok(vec![5, 3]));
    let error = outward(&[-1, 3], None, &[5, 2]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::EngineFailed);
    assert_eq!(
        error.to_string(),
        "the model gave output 'y' of shape [5,2], which is declared as [-1,3]"
    );
    assert!(outward(&[-1], Some(&[-1, 1]), &[5, 2]).is_err(), "the model's shape counts too");
}

#[test]
fn an_input_left_out_stays_out_and_others_are_not_touched() {
    let mut inner = model(pattern(&[-1, 2, 2]), pattern(&[-1]));
    inner.inputs.push(TensorSpec { optional: true, ..spec("b", pattern(&[1, 2])) });
    inner.inputs.push(spec("z", pattern(&[-1])));
    let manifest = of_inputs(vec![
        declare("x", Some(&[-1, 4]), Some(&[-1, 2, 2])),
        declare("b", Some(&[2]), Some(&[1, 2])),
    ]);
    let declared = Declared::apply(&inner, &manifest).unwrap();
    assert_eq!(declared.unbatched, None, "a default has no rows");
    let given = [Some(zeros(&[1, 4])), None, Some(zeros(&[1]))].into_iter().collect();
    let inputs = declared.reshapes.inward(given).unwrap();
    let shapes: Vec<_> =
        inputs.iter().map(|input| input.as_ref().map(|tensor| tensor.shape().to_vec())).collect();
    assert_eq!(shapes, [Some(vec![1, 2, 2]), None, Some(vec![1])]);
}

#[test]
fn rows_that_could_differ_are_not_batched() {
    /// Shape in the file, declared shape, declared reshape.
    struct Given(&'static [i64], &'static [i64], Option<&'static [i64]>);
    struct Case {
        name: &'static str,
        inputs: &'static [Given],
        unbatched: Option<&'static str>,
    }
    let cases = [
        Case {
            name: "nothing changes",
            inputs: &[Given(&[-1, 4], &[-1, 4], None)],
            unbatched: None,
        },
        Case {
            name: "rows stay rows",
            inputs: &[Given(&[-1, 2, 2], &[-1, 4], Some(&[-1, 2, 2])), Given(&[-1], &[-1], None)],
            unbatched: None,
        },
        Case {
            name: "each request is one row",
            inputs: &[
                Given(&[-1, 3, 8], &[3, 8], Some(&[1, 3, 8])),
                Given(&[-1, 3], &[3], Some(&[-1, 3])),
            ],
            unbatched: None,
        },
        Case {
            name: "rows become more",
            inputs: &[Given(&[-1], &[-1, 4], Some(&[-1]))],
            unbatched: Some("input 'x0' is reshaped from [-1,4] to [-1], which changes its rows"),
        },
        Case {
            name: "one row beside any number",
            inputs: &[Given(&[-1], &[-1], None), Given(&[-1, 3], &[3], Some(&[1, 3]))],
            unbatched: Some("input 'x1' is reshaped from [3] to [1,3], which changes its rows"),
        },
    ];
    for Case { name, inputs, unbatched } in cases {
        let named = || inputs.iter().enumerate().map(|(index, input)| (format!("x{index}"), input));
        let inner = ModelSignature {
            inputs: named().map(|(name, Given(file, _, _))| spec(&name, pattern(file))).collect(),
            outputs: vec![spec("y", pattern(&[-1]))],
        };
        let declarations =
            named().map(|(name, Given(_, shape, reshape))| declare(&name, Some(shape), *reshape));
        let declared = Declared::apply(&inner, &of_inputs(declarations.collect())).unwrap();
        assert_eq!(declared.unbatched.as_deref(), unbatched, "{name}");
    }
}
