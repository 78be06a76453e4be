use outhaul_types::{Content, DataType, Shape, Strings, Tensor};

use super::*;
use crate::rows::tests::{Model, answer, input, spec, strings};

fn read(model: &Model, body: &[u8]) -> Result<Inputs, String> {
    decode(body, &model.schema(), &DecodeLimits::default()).map_err(|error| error.to_string())
}

fn packed(columns: i64) -> Model {
    Model::of([spec("X", DataType::Fp32, &[-1, columns])])
}

#[test]
fn lines_become_columns() {
    let model = Model::people();
    for body in [
        "41,1.7,Oslo,true\n7,,Bergen,0\n",
        "city,member,age,height\nOslo,1,41,1.7\nBergen,False,7,\n",
        "\u{feff}age,height,city,member\r\n41,1.7,\"Oslo\",TRUE\r\n\r\n7,,\"Bergen\",0",
    ] {
        let inputs = read(&model, body.as_bytes()).unwrap();
        assert_eq!(input(&inputs, "age").as_slice::<f64>().unwrap(), [41.0, 7.0], "{body}");
        let heights = input(&inputs, "height").as_slice::<f64>().unwrap();
        assert!(heights[0] == 1.7 && heights[1].is_nan());
        assert_eq!(strings(input(&inputs, "city")), ["Oslo", "Bergen"]);
        assert_eq!(input(&inputs, "member").as_slice::<f64>().unwrap(), [1.0, 0.0]);
    }
    let inputs = read(&model, b"age,city,member\n41,\"a \"\"b\"\",\nc\",1\n").unwrap();
    assert_eq!(strings(input(&inputs, "city")), ["a \"b\",\nc"]);
    assert!(input(&inputs, "height").as_slice::<f64>().unwrap()[0].is_nan());
}

#[test]
fn lines_become_a_packed_tensor() {
    for model in [packed(3), packed(-1)] {
        let inputs = read(&model, b"1,2,3\n 4 ,+5,-6e0\n").unwrap();
        assert_eq!(input(&inputs, "X").shape(), &Shape::from([2, 3]));
        let elements = input(&inputs, "X").as_slice::<f32>().unwrap();
        assert_eq!(elements, [1.0, 2.0, 3.0, 4.0, 5.0, -6.0]);
    }
    let text = Model::of([spec("text", DataType::Bytes, &[-1])]).means(Content::Text);
    let inputs = read(&text, b"text\n\"one, two\"\n\"\"\nthree").unwrap();
    assert_eq!(strings(input(&inputs, "text")), ["one, two", "", "three"]);
}

#[test]
fn what_is_wrong_with_a_line_is_named() {
    struct Case(Model, &'static [u8], &'static str);
    let cases = [
        Case(packed(2), b"", "request has no rows"),
        Case(Model::people(), b"age,height,city,member\n", "request has no rows"),
        Case(packed(2), b"1,2\n3\n", "row 1 (line 2) has 1 value where the model takes 2"),
        Case(packed(-1), b"1,2\n3,4,5\n", "row 1 (line 2) has 3 values where the model takes 2"),
        Case(packed(2), b"1,2\n\n3,abc\n", "row 1 (line 3): 'X'[1] must be a number, got 'abc'"),
        Case(packed(2), b"1,\n", "row 0 (line 1): 'X'[1] is missing"),
        Case(
            Model::people(),
            b"age,height,city,member\n1,2,Oslo,1\nabc,2,Oslo,1\n",
            "row 1 (line 3): 'age' must be a number, got 'abc'",
        ),
        Case(
            Model::people(),
            b"age,colour,city,member\n1,2,Oslo,1\n",
            "line 1: 'colour' is no column of this model, which takes 'age', 'height', 'city', 'member'",
        ),
        Case(Model::people(), b"age,city\n1,Oslo\n", "line 1: 'member' is missing from the header"),
        Case(Model::people(), b"age,age,city\n1,2,Oslo\n", "line 1: 'age' is given twice"),
        Case(
            Model::people(),
            b"age,city,member\n1,Oslo\n",
            "row 0 (line 2) has 2 values where the header has 3",
        ),
        Case(Model::people(), b"1,2,,1\n", "row 0 (line 1): 'city' is missing"),
        Case(Model::people(), b"1,2,Oslo,maybe\n", {
            "row 0 (line 1): 'member' must be true, false, 1 or 0, got 'maybe'"
        }),
        Case(Model::people(), b"1,2,Oslo,1\n1,2,\xff,1\n", "line 2: field 2 (from 0) is not UTF-8"),
        Case(
            Model::of([spec("X", DataType::Fp32, &[-1, 2, 2])]),
            b"1,2,3,4\n",
            "'X' has shape [-1,2,2], which lines of CSV cannot hold",
        ),
    ];
    for Case(model, body, expected) in cases {
        assert_eq!(read(&model, body).unwrap_err(), expected, "{}", body.escape_ascii());
    }
    let many = "1,2\n".repeat(70_000);
    let error = read(&packed(2), many.as_bytes()).unwrap_err();
    assert!(error.starts_with("request has 70000 rows, more than the limit of 65536"), "{error}");
}

#[test]
fn long_lines_and_fields_are_read_whole() {
    let long = "x".repeat(100_000);
    let text = Model::of([spec("text", DataType::Bytes, &[-1])]).means(Content::Text);
    let inputs = read(&text, format!("{long}\n\"{long}\"").as_bytes()).unwrap();
    assert_eq!(strings(input(&inputs, "text")), [&*long, &*long]);
    let wide = format!("{}0", "1.5,".repeat(9_999));
    let inputs = read(&packed(-1), wide.as_bytes()).unwrap();
    assert_eq!(input(&inputs, "X").shape(), &Shape::from([1, 10_000]));
}

#[test]
fn answers_become_lines() {
    let label = Tensor::from_strings([2], ["a,b", "c\"d"].iter().collect::<Strings>()).unwrap();
    let scores = Tensor::from_vec([2, 2], vec![0.5_f32, f32::NAN, 1.0, -2.5]).unwrap();
    let answers = [answer(vec![("label", label), ("scores", scores)])];
    let model = packed(2);
    let mut out = Vec::new();
    encode(&answers, &model.schema(), &mut out).unwrap();
    let lines = "label,scores_0,scores_1\n\"a,b\",0.5,NaN\n\"c\"\"d\",1.0,-2.5\n";
    assert_eq!(std::str::from_utf8(&out).unwrap(), lines);
    let mut out = Vec::new();
    encode_lines(&answers, &model.schema(), &mut out).unwrap();
    assert_eq!(lines.split_once('\n').unwrap().1.as_bytes(), out);
}
