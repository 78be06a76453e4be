use outhaul_types::{
    CategoryEncoding, Column as Declared, ColumnKind, DateUnit, Missing, UnknownCategory,
};
use serde_json::Value;

use super::*;

fn column(name: &str, kind: ColumnKind, missing: Missing) -> Declared {
    Declared { name: name.into(), kind, missing, input: None }
}

fn number(name: &str) -> Declared {
    column(name, ColumnKind::Number, Missing::Refuse)
}

fn into(input: &str, column: Declared) -> Declared {
    Declared { input: Some(input.into()), ..column }
}

fn category(values: &[&str], encoding: CategoryEncoding, unknown: UnknownCategory) -> ColumnKind {
    let values = values.iter().map(|&value| value.to_owned()).collect();
    ColumnKind::Category { values, encoding, unknown }
}

fn date(unit: DateUnit) -> ColumnKind {
    ColumnKind::Date { format: None, unit }
}

fn signature(inputs: &[(&str, DataType, &[i64])]) -> ModelSignature {
    let input = |&(name, data_type, sizes): &(&str, DataType, &[i64])| {
        let size = |&size: &i64| usize::try_from(size).map_or(Dimension::Any, Dimension::Fixed);
        let shape = ShapePattern::ranked(sizes.iter().map(size));
        TensorSpec { name: name.into(), data_type, shape, optional: false }
    };
    ModelSignature { inputs: inputs.iter().map(input).collect(), outputs: Vec::new() }
}

fn built(
    columns: &[Declared],
    inputs: &[(&str, DataType, &[i64])],
) -> Result<Built<dyn InputSide>, String> {
    let spec = RowsInput { columns: columns.to_vec() };
    RowsSide::build(&spec, &signature(inputs)).map_err(|error| error.to_string())
}

fn numbers(values: &[f64]) -> Option<Tensor> {
    Some(Tensor::from_vec([values.len()], values.to_vec()).unwrap())
}

fn texts(values: &[&str]) -> Option<Tensor> {
    Some(Tensor::from_strings([values.len()], values.iter().collect()).unwrap())
}

fn prepare(
    built: &Built<dyn InputSide>,
    given: Vec<Option<Tensor>>,
) -> Result<Vec<Tensor>, String> {
    let prepared = built.side.prepare(&given.into(), 1, Grouping::Together);
    let [part] = <[Part; 1]>::try_from(prepared.map_err(|error| error.to_string())?.parts).unwrap();
    Ok(part.inputs.into_iter().flatten().collect())
}

fn values_of(value: &Value) -> Vec<f64> {
    match value {
        Value::Array(items) => items.iter().flat_map(values_of).collect(),
        Value::Number(number) => vec![number.as_f64().unwrap()],
        Value::String(text) => vec![text.parse().unwrap()],
        Value::Null => vec![f64::NAN],
        Value::Bool(_) | Value::Object(_) => panic!("{value}"),
    }
}

fn texts_of(value: &Value) -> Vec<&str> {
    value.as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect()
}

fn reference() -> Value {
    let text = include_str!("../../../../testdata/transform/rows/answers.json");
    serde_json::from_str(text).unwrap()
}

/// Equal, where a NaN equals a NaN.
fn assert_equal(got: &[f64], expected: &[f64], what: &str) {
    let same = |(got, expected): (&f64, &f64)| got == expected || got.is_nan() && expected.is_nan();
    let equal = got.len() == expected.len() && got.iter().zip(expected).all(same);
    assert!(equal, "{what}: {got:?}, not {expected:?}");
}

#[test]
fn a_table_becomes_what_scikit_learn_makes_of_it() {
    let reference = &reference()["table"];
    let (cities, sizes) = (texts_of(&reference["cities"]), texts_of(&reference["sizes"]));
    let columns = [
        column("age", ColumnKind::Number, Missing::Nan),
        column("member", ColumnKind::Boolean, Missing::Nan),
        column(
            "city",
            category(&cities, CategoryEncoding::OneHot, UnknownCategory::Code(0.0)),
            Missing::Refuse,
        ),
        column(
            "size",
            category(&sizes, CategoryEncoding::Index, UnknownCategory::Code(-1.0)),
            Missing::Number(-1.0),
        ),
        column("when", date(DateUnit::Days), Missing::Refuse),
    ];
    let given = &reference["columns"];
    let table = || {
        let texts_of = |name: &str| texts(&texts_of(&given[name]));
        vec![
            numbers(&values_of(&given["age"])),
            numbers(&values_of(&given["member"])),
            texts_of("city"),
            texts_of("size"),
            texts_of("when"),
        ]
    };
    let expected = values_of(&reference["packed"]);
    let double = built(&columns, &[("X", DataType::Fp64, &[-1, 8])]).unwrap();
    let packed = prepare(&double, table()).unwrap();
    assert_eq!(packed[0].shape()[..], [6, 8]);
    assert_equal(packed[0].as_slice::<f64>().unwrap(), &expected, "FP64");
    // Rounded to the nearest, as numpy does.
    let single = built(&columns, &[("X", DataType::Fp32, &[-1, 8])]).unwrap();
    let packed = prepare(&single, table()).unwrap();
    let packed = packed[0].as_slice::<f32>().unwrap();
    let packed: Vec<f64> = packed.iter().map(|&of| f64::from(of)).collect();
    let rounded: Vec<f64> = expected.iter().map(|&of| f64::from(of as f32)).collect();
    assert_equal(&packed, &rounded, "FP32");
}

#[test]
fn dates_are_counted_as_pandas_counts_them() {
    let reference = reference();
    let units = [
        ("seconds", DateUnit::Seconds),
        ("days", DateUnit::Days),
        ("year", DateUnit::Year),
        ("month", DateUnit::Month),
        ("day", DateUnit::Day),
        ("weekday", DateUnit::Weekday),
        ("hour", DateUnit::Hour),
    ];
    let cases = reference["dates"].as_array().unwrap();
    assert!(cases.len() > 5);
    for case in cases {
        let given = texts_of(&case["texts"]);
        let format = case["format"].as_str().map(str::to_owned);
        for (name, unit) in units {
            let kind = ColumnKind::Date { format: format.clone(), unit };
            let columns = [column("when", kind, Missing::Refuse)];
            let built = built(&columns, &[("when", DataType::Fp64, &[-1])]).unwrap();
            let counted = prepare(&built, vec![texts(&given)]).unwrap();
            let counted = counted[0].as_slice::<f64>().unwrap();
            for (got, expected) in counted.iter().zip(values_of(&case[name])) {
                // pandas divides nanoseconds; half a microsecond is what FP64 holds of seconds.
                assert!((got - expected).abs() < 5e-7, "{name} {format:?}: {got}, not {expected}");
            }
        }
    }
}

#[test]
fn what_callers_see_is_a_tensor_a_column() {
    let columns = [
        number("age"),
        column("member", ColumnKind::Boolean, Missing::Nan),
        column(
            "city",
            category(&["Rome"], CategoryEncoding::Index, UnknownCategory::Refuse),
            Missing::Text("Rome".to_owned()),
        ),
        column("when", date(DateUnit::Year), Missing::Number(0.0)),
        into("T", column("note", ColumnKind::Text, Missing::Text(String::new()))),
    ];
    let inputs = [("X", DataType::Fp32, &[-1, 4][..]), ("T", DataType::Bytes, &[-1, 1])];
    let built = built(&columns, &inputs).unwrap();
    let shown = |(spec, field): (&TensorSpec, &Field)| {
        let optional = if spec.optional { " optional" } else { "" };
        let TensorSpec { name, data_type, shape, .. } = spec;
        format!("{name} {data_type} {shape} {}{optional}", field.content.as_str())
    };
    let shown: Vec<String> = built.specs.iter().zip(&built.fields).map(shown).collect();
    let expected = [
        "age FP64 [-1] number",
        "member FP64 [-1] boolean optional",
        "city BYTES [-1] category optional",
        "when BYTES [-1] date optional",
        "note BYTES [-1] text optional",
    ];
    assert_eq!(shown, expected);
    assert_eq!(built.fields[2].choices.as_deref(), Some(&["Rome".to_owned()][..]));
    assert!(!built.side.is_heavy(100) && built.side.is_heavy(100_000));
    // A column that is left out is missing in each row.
    let given = vec![numbers(&[1.0, 2.0]), None, None, None, None];
    let packed = prepare(&built, given).unwrap();
    let rows = packed[0].as_slice::<f32>().unwrap();
    assert!(rows[1].is_nan() && rows[5].is_nan());
    assert_eq!((rows[0], rows[4], &rows[6..]), (1.0, 2.0, &[0.0, 0.0][..]));
    assert_eq!(packed[1].as_strings().unwrap().iter().collect::<Vec<_>>(), [b"", b""]);
}

#[test]
fn texts_go_to_a_model_that_takes_texts() {
    // As a scikit-learn pipeline with a column of each kind is exported.
    let columns = [
        number("age"),
        column("city", ColumnKind::Text, Missing::Text("nowhere".to_owned())),
        into(
            "words",
            column(
                "size",
                category(&["S", "M"], CategoryEncoding::Index, UnknownCategory::Refuse),
                Missing::Refuse,
            ),
        ),
        into("words", column("note", ColumnKind::Text, Missing::Text(String::new()))),
    ];
    let inputs = [
        ("age", DataType::Int64, &[-1, 1][..]),
        ("city", DataType::Bytes, &[-1, 1]),
        ("words", DataType::Bytes, &[-1, 2]),
    ];
    let built = built(&columns, &inputs).unwrap();
    let given = |sizes: &[&str]| {
        vec![numbers(&[41.0, 7.0]), texts(&["Rome", ""]), texts(sizes), texts(&["a b", "\u{e9}"])]
    };
    let packed = prepare(&built, given(&["M", "S"])).unwrap();
    assert_eq!(packed[0].as_slice::<i64>(), Some(&[41, 7][..]));
    let words = |tensor: &Tensor| {
        let words = tensor.as_strings().unwrap().iter();
        words.map(|word| String::from_utf8(word.to_vec()).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(words(&packed[1]), ["Rome", "nowhere"]);
    assert_eq!(packed[2].shape()[..], [2, 2]);
    assert_eq!(words(&packed[2]), ["M", "a b", "S", "\u{e9}"]);
    assert_eq!(
        prepare(&built, given(&["M", "XL"])).unwrap_err(),
        "row 1: 'size' has the unknown value 'XL'; the values are 'S', 'M'"
    );
    let mut latin = given(&["M", "S"]);
    latin[3] = Some(Tensor::from_strings([2], [&b"a"[..], b"caf\xe9"].iter().collect()).unwrap());
    assert_eq!(prepare(&built, latin).unwrap_err(), "row 1: 'note' is not UTF-8");
}

#[test]
fn a_value_that_cannot_be_taken_is_told_with_its_row_and_column() {
    struct Case {
        column: Declared,
        data_type: DataType,
        given: Option<Tensor>,
        error: &'static str,
    }
    let refuse = UnknownCategory::Refuse;
    let city = || category(&["Paris", "Rome"], CategoryEncoding::Index, refuse);
    let hot = || category(&["Paris", "Rome"], CategoryEncoding::OneHot, refuse);
    let case = |kind, data_type, given, error| {
        let column = column("c", kind, Missing::Refuse);
        Case { column, data_type, given, error }
    };
    let (single, whole) = (DataType::Fp32, DataType::Int32);
    let cases = [
        case(ColumnKind::Number, single, numbers(&[1.0, f64::NAN]), "row 1: 'c' is missing"),
        case(ColumnKind::Number, whole, numbers(&[f64::NAN]), "row 0: 'c' is missing"),
        case(
            ColumnKind::Number,
            whole,
            numbers(&[1.0, 2.0, 3.5]),
            "row 2: 'c' must be a whole number from -2147483648 to 2147483647, got 3.5",
        ),
        case(
            ColumnKind::Number,
            single,
            numbers(&[1e39]),
            "row 0: 'c' must be a number from -3.4e38 to 3.4e38, got \
             1000000000000000000000000000000000000000",
        ),
        case(ColumnKind::Boolean, single, numbers(&[0.0, f64::NAN]), "row 1: 'c' is missing"),
        case(
            ColumnKind::Boolean,
            single,
            numbers(&[0.0, 2.0]),
            "row 1: 'c' must be true or false (1 or 0), got 2",
        ),
        case(city(), single, texts(&["Rome", ""]), "row 1: 'c' is missing"),
        case(
            city(),
            single,
            texts(&["Rome", "Pariss"]),
            "row 1: 'c' has the unknown value 'Pariss'; did you mean 'Paris'?",
        ),
        case(hot(), single, texts(&[""]), "row 0: 'c' is missing"),
        case(
            hot(),
            single,
            texts(&["rom"]),
            "row 0: 'c' has the unknown value 'rom'; did you mean 'Rome'?",
        ),
        case(date(DateUnit::Day), single, texts(&["2024-01-01", ""]), "row 1: 'c' is missing"),
        case(
            date(DateUnit::Day),
            single,
            texts(&["31.12.1999"]),
            "row 0: 'c' must be a date as in 2026-03-31 or 2026-03-31T14:30:00Z, got '31.12.1999'",
        ),
    ];
    for Case { column, data_type, given, error } in cases {
        let built = built(&[column], &[("X", data_type, &[-1, -1])]).unwrap();
        assert_eq!(prepare(&built, vec![given]).unwrap_err(), error);
    }
}

#[test]
fn missing_and_unknown_values_become_what_is_declared() {
    let hot = |unknown| category(&["a", "b"], CategoryEncoding::OneHot, unknown);
    let index = |unknown| category(&["a", "b"], CategoryEncoding::Index, unknown);
    let (refuse, code) = (UnknownCategory::Refuse, UnknownCategory::Code(-1.0));
    let nan = f64::NAN;
    struct Case(ColumnKind, Missing, Option<Tensor>, Vec<f64>);
    let text = |text: &str| Missing::Text(text.to_owned());
    let cases = [
        Case(ColumnKind::Number, Missing::Number(7.0), numbers(&[nan, 1.0]), vec![7.0, 1.0]),
        Case(ColumnKind::Boolean, Missing::Number(0.5), numbers(&[nan, 1.0]), vec![0.5, 1.0]),
        Case(index(code), Missing::Nan, texts(&["", "x", "b"]), vec![nan, -1.0, 1.0]),
        Case(index(refuse), text("b"), texts(&["", "a"]), vec![1.0, 0.0]),
        Case(hot(code), Missing::Nan, texts(&["", "x"]), vec![nan, nan, 0.0, 0.0]),
        Case(hot(refuse), text("b"), texts(&["", "a"]), vec![0.0, 1.0, 1.0, 0.0]),
        Case(hot(refuse), Missing::Number(0.0), texts(&["", "a"]), vec![0.0, 0.0, 1.0, 0.0]),
        Case(date(DateUnit::Year), Missing::Nan, texts(&["", "2024-01-01"]), vec![nan, 2024.0]),
        Case(date(DateUnit::Year), text("1999-01-01"), texts(&[""]), vec![1999.0]),
    ];
    for Case(kind, missing, given, expected) in cases {
        let what = format!("{kind:?} {missing:?}");
        let columns = [column("c", kind, missing)];
        let built = built(&columns, &[("X", DataType::Fp64, &[-1, -1])]).unwrap();
        let packed = prepare(&built, vec![given]).unwrap();
        assert_equal(packed[0].as_slice::<f64>().unwrap(), &expected, &what);
    }
}

#[test]
fn every_type_of_input_is_fed() {
    let types = DataType::ALL.into_iter().filter(|&of| of != DataType::Bytes);
    for data_type in types {
        let columns = [number("a"), column("b", ColumnKind::Boolean, Missing::Refuse)];
        let built = built(&columns, &[("X", data_type, &[-1, 2])]).unwrap();
        let packed = prepare(&built, vec![numbers(&[1.0, 0.0]), numbers(&[0.0, 1.0])]).unwrap();
        assert_eq!((packed[0].data_type(), &packed[0].shape()[..]), (data_type, &[2, 2][..]));
        let size = data_type.size().unwrap();
        let ones: Vec<bool> = packed[0]
            .as_bytes()
            .unwrap()
            .chunks(size)
            .map(|one| one.iter().any(|&b| b > 0))
            .collect();
        assert_eq!(ones, [true, false, false, true], "{data_type}");
    }
}

#[test]
fn rows_are_grouped_as_asked() {
    let built = built(&[number("a"), number("b")], &[("X", DataType::Fp32, &[-1, 2])]).unwrap();
    let given = || vec![numbers(&[0.0, 1.0, 2.0, 3.0, 4.0]), numbers(&[5.0; 5])].into();
    let two = Grouping::Equal(NonZeroUsize::new(2).unwrap());
    let groups: [(Grouping, &[&[usize]]); 3] = [
        (Grouping::Alone, &[&[0], &[1], &[2], &[3], &[4]]),
        (two, &[&[0, 1], &[2, 3], &[4]]),
        (Grouping::Together, &[&[0, 1, 2, 3, 4]]),
    ];
    for (grouping, expected) in groups {
        let prepared = built.side.prepare(&given(), 5, grouping).unwrap();
        let rows: Vec<&[usize]> = prepared.parts.iter().map(|part| part.rows.as_slice()).collect();
        assert_eq!((rows.as_slice(), prepared.rows), (expected, 5));
        for part in &prepared.parts {
            let cells = part.inputs[0].as_ref().unwrap();
            let cells = cells.elements_of::<f32>().unwrap();
            let firsts: Vec<usize> = cells.chunks(2).map(|row| row[0] as usize).collect();
            assert_eq!(firsts, part.rows);
        }
    }
}

#[test]
fn a_model_that_takes_so_many_rows_at_a_time_gets_them() {
    let built = built(&[number("a")], &[("X", DataType::Fp32, &[2, 1])]).unwrap();
    let parts = |rows: usize, grouping| {
        let prepared = built.side.prepare(&vec![numbers(&vec![0.0; rows])].into(), rows, grouping);
        let parts = prepared.map_err(|error| error.to_string())?.parts;
        Ok(parts.into_iter().map(|part| part.rows).collect::<Vec<_>>())
    };
    let twice = Ok(vec![vec![0, 1], vec![2, 3]]);
    assert_eq!(parts(4, Grouping::Alone), twice);
    assert_eq!(parts(4, Grouping::Together), twice);
    let error = "'a' has 3 rows, where the model takes 2 at a time".to_owned();
    assert_eq!(parts(3, Grouping::Alone), Err(error));
    let inputs = [("a", DataType::Fp32, &[2, 1][..]), ("b", DataType::Fp32, &[1, 1])];
    let error = self::built(&[number("a"), number("b")], &inputs).err().unwrap();
    assert!(error.ends_with("which takes 1 rows at a time, another input 2"), "{error}");
}

#[test]
fn columns_must_agree_on_rows_even_where_they_may_be_missing() {
    let columns = ["a", "b"].map(|name| column(name, ColumnKind::Number, Missing::Nan));
    let built = built(&columns, &[("X", DataType::Fp32, &[-1, 2])]).unwrap();
    let rows =
        |given: Vec<Option<Tensor>>| prepare(&built, given).map(|packed| packed[0].shape()[0]);
    assert_eq!(rows(vec![None, numbers(&[1.0, 2.0, 3.0])]), Ok(3));
    assert_eq!(rows(vec![None, None]), Ok(1));
    assert_eq!(rows(vec![None, numbers(&[])]), Err("the request has no rows".to_owned()));
    assert_eq!(
        rows(vec![numbers(&[1.0]), numbers(&[1.0, 2.0])]),
        Err("input 'b' has 2 rows where input 'a' has 1".to_owned())
    );
}

#[test]
fn shapes_follow_the_models_file() {
    let shape = |sizes: &[i64], columns: usize| {
        let columns: Vec<Declared> = (0..columns).map(|at| number(&format!("c{at}"))).collect();
        let built = built(&columns, &[("X", DataType::Fp32, sizes)])?;
        let packed = prepare(&built, vec![numbers(&[0.0, 0.0]); columns.len()]).unwrap();
        Ok(packed[0].shape().to_string())
    };
    assert_eq!(shape(&[-1], 1), Ok("[2]".to_owned()));
    assert_eq!(shape(&[-1, 1], 1), Ok("[2,1]".to_owned()));
    assert_eq!(shape(&[-1, -1], 3), Ok("[2,3]".to_owned()));
    assert_eq!(shape(&[-1, 2, 3], 6), Ok("[2,2,3]".to_owned()));
    assert_eq!(shape(&[2, 1, -1], 4), Ok("[2,1,4]".to_owned()));
    let wrong = |sizes, columns| -> String { shape(sizes, columns).unwrap_err() };
    assert_eq!(
        wrong(&[-1, 30], 29),
        "transform.input.columns: 'X' is FP32 [-1,30] in the model's file, which takes 30 columns, \
         where 29 are declared"
    );
    assert!(wrong(&[-1], 2).ends_with("which takes 1 columns, where 2 are declared"));
    assert!(wrong(&[-1, 2, -1], 3).ends_with("which takes columns by 2, where 3 are declared"));
    assert!(wrong(&[-1, -1, -1], 3).ends_with("has more than one open size beside the rows"));
    assert!(wrong(&[0, 2], 2).ends_with("which takes no rows at all"));
    assert!(wrong(&[], 1).ends_with("which has no rows"));
}

#[test]
fn a_declaration_that_does_not_fit_is_told_at_load() {
    type Inputs = &'static [(&'static str, DataType, &'static [i64])];
    const X: Inputs = &[("X", DataType::Fp32, &[-1, 1])];
    const TWO: Inputs = &[("X", DataType::Fp32, &[-1, 1]), ("Y", DataType::Fp32, &[-1, 1])];
    const BYTE: Inputs = &[("X", DataType::Int8, &[-1, 1])];
    const BYTES: Inputs = &[("X", DataType::Bytes, &[-1, 1])];
    let many: Vec<String> = (0..200).map(|number| number.to_string()).collect();
    let many = ColumnKind::Category {
        values: many,
        encoding: CategoryEncoding::Index,
        unknown: UnknownCategory::Refuse,
    };
    let city = |unknown| category(&["a"], CategoryEncoding::Index, unknown);
    let (refuse, unknown) = (UnknownCategory::Refuse, UnknownCategory::Code(0.5));
    let missing = |kind, missing| column("c", kind, missing);
    let text = |text: &str| Missing::Text(text.to_owned());
    let plain = |kind| column("c", kind, Missing::Refuse);
    struct Case(Vec<Declared>, Inputs, &'static str);
    let cases = [
        Case(vec![], X, " must name at least one column"),
        Case(vec![number("c"), number("c")], X, " 'c': is there twice"),
        Case(vec![into("Z", number("c"))], TWO, " names 'Z', but the model has 'X', 'Y'"),
        Case(vec![number("c")], TWO, " 'c': must say by input which of 'X', 'Y' it is part of"),
        Case(vec![number("X")], TWO, " make nothing of the model's input 'Y'"),
        Case(
            vec![number("X"), into("Y", number("b")), number("c")],
            TWO,
            " 'c': the model has no input that is left for it",
        ),
        Case(vec![plain(ColumnKind::Text)], X, " 'c': is a text, but the model takes FP32"),
        Case(
            vec![number("c")],
            BYTES,
            " 'c': the model takes a text; declare it as kind \"text\" or \"category\"",
        ),
        Case(
            vec![missing(ColumnKind::Number, text("x"))],
            X,
            " 'c': the model takes a number for missing ones, not a text",
        ),
        Case(
            vec![missing(ColumnKind::Number, Missing::Nan)],
            BYTE,
            " 'c': the number for missing ones must be a whole number from -128 to 127, got NaN",
        ),
        Case(
            vec![missing(ColumnKind::Text, Missing::Nan)],
            BYTES,
            " 'c': the model takes a text for missing ones, not a number",
        ),
        Case(
            vec![missing(city(refuse), text("b"))],
            X,
            " 'c': the text for missing ones has the unknown value 'b'; the values are 'a'",
        ),
        Case(
            vec![missing(city(refuse), text("b"))],
            BYTES,
            " 'c': the text for missing ones has the unknown value 'b'; the values are 'a'",
        ),
        Case(
            vec![plain(city(unknown))],
            BYTES,
            " 'c': the model takes the text itself; leave out encoding and unknown",
        ),
        Case(
            vec![plain(city(unknown))],
            BYTE,
            " 'c': the number for unknown ones must be a whole number from -128 to 127, got 0.5",
        ),
        Case(vec![plain(many)], BYTE, " 'c': has more values than INT8 can tell apart"),
        Case(
            vec![missing(date(DateUnit::Day), text("soon"))],
            X,
            " 'c': the date for missing ones must be a date as in 2026-03-31 or \
             2026-03-31T14:30:00Z",
        ),
    ];
    for Case(columns, inputs, expected) in cases {
        let error = built(&columns, inputs).err().unwrap();
        assert_eq!(error, format!("transform.input.columns{expected}"));
    }
}

#[test]
fn an_optional_input_is_fed_where_it_is_meant_and_else_left_out() {
    let mut inner =
        signature(&[("X", DataType::Fp32, &[-1, 1]), ("scale", DataType::Fp32, &[-1, 1])]);
    inner.inputs[1].optional = true;
    let fed = |columns: &[Declared]| {
        let built = RowsSide::build(&RowsInput { columns: columns.to_vec() }, &inner).unwrap();
        let given: BoundInputs = columns.iter().map(|_| numbers(&[1.0])).collect();
        let prepared = built.side.prepare(&given, 1, Grouping::Alone).unwrap();
        prepared.parts[0].inputs.iter().map(Option::is_some).collect::<Vec<_>>()
    };
    assert_eq!(fed(&[number("a")]), [true, false]);
    assert_eq!(fed(&[number("a"), number("scale")]), [true, true]);
}
