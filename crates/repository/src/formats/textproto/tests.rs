use std::fmt::Write;

use proptest::prelude::*;

use super::*;

const PATH: &str = "config.pbtxt";

fn parse(text: &str) -> Result<Document, Vec<Problem>> {
    Document::parse(Path::new(PATH), text, &schema("inference.ModelConfig"))
}

fn problems(text: &str) -> Vec<String> {
    let problems = parse(text).err().unwrap_or_default();
    problems.iter().map(Problem::to_string).collect()
}

#[test]
fn every_notation_is_read() {
    // One model in many hands.
    let texts = [
        "name: 'a' input { name: 'x' dims: [1, -1] } \
         parameters { key: 'k' value { string_value: 'v' } }",
        "name: \"a\"\ninput [ { name: \"x\" dims: 1 dims: -1 } ]\n\
         parameters: { key: \"k\", value: { string_value: \"v\" } }",
        "\u{feff}name:'a',input:<name:'x';dims:[0x1,-01];>;\
         parameters[{key:'k'value<string_value:'v'>}]",
        "# {\nname: 'a' # }'\n input: [{name: '' 'x' \"\" dims: []dims:[1,-1]}] \
         parameters { value { string_value: '\\x76' } key: '\\153' }",
    ];
    for text in texts {
        let document = parse(text).unwrap_or_else(|problems| panic!("{text}: {problems:?}"));
        let root = document.root();
        assert_eq!(root.text("name"), "a", "{text}");
        let inputs = root.sections("input");
        assert_eq!(inputs.len(), 1, "{text}");
        assert_eq!(inputs[0].text("name"), "x", "{text}");
        assert_eq!(inputs[0].numbers("dims"), [1, -1], "{text}");
        let parameters = root.sections_by_key("parameters");
        assert_eq!(parameters[0].0, "k", "{text}");
        assert_eq!(parameters[0].1.text("string_value"), "v", "{text}");
        assert!(root.is_written("name") && !root.is_written("backend"), "{text}");
    }
}

#[test]
fn a_field_knows_its_line() {
    let text = "name: 'a'\n\
                input [ {\n name: 'x' }, {\n name: 'y' dims: 1\n reshape {\n shape: 1 } } ]\n\
                output { }\n output {\n name: 'z' }\n\
                parameters {\n key: 'k'\n value {\n string_value: 'v' } }\n\
                parameters { value {\n string_value: 'w' }\n key: 'l' }";
    let document = parse(text).unwrap();
    struct Case(&'static str, Option<usize>);
    let cases = [
        Case("name", Some(1)),
        Case("input", Some(2)),
        Case("input[0].name", Some(3)),
        Case("input[1]", Some(3)),
        Case("input[1].name", Some(4)),
        Case("input[1].reshape", Some(5)),
        Case("input[1].reshape.shape", Some(6)),
        Case("output[1].name", Some(9)),
        Case("parameters[k].string_value", Some(13)),
        Case("parameters[l]", Some(16)),
        // Its key came too late.
        Case("parameters[l].string_value", Some(16)),
        // What is not written is where its parent is.
        Case("input[0].dims", Some(2)),
        Case("backend", None),
    ];
    for Case(path, line) in cases {
        assert_eq!(document.line(path), line, "{path}");
    }
}

#[test]
fn all_unknown_fields_are_told_at_once() {
    let text = "nam: 'a'\ninput {\n  shape: 1\n  datatype: TYPE_FP32\n}\nzzz { nothing: 1 }\n";
    let expected = [
        "config.pbtxt:1: nam: unknown field; did you mean name?",
        "config.pbtxt:3: input[0].shape: unknown field; did you mean reshape?",
        "config.pbtxt:4: input[0].datatype: unknown field; did you mean data_type?",
    ];
    let problems = problems(text);
    assert_eq!(problems[..3], expected);
    let last = "config.pbtxt:6: zzz: unknown field; the fields of ModelConfig are name, platform, ";
    assert!(problems[3].starts_with(last), "{problems:?}");
    assert_eq!(problems.len(), 4, "what is inside of an unknown field is not told: {problems:?}");
}

#[test]
fn a_mistake_says_where_it_is() {
    struct Case(&'static str, &'static str);
    let cases = [
        Case("name: 'a'\nbackend 'b'", ":2: not protobuf text at column 9: expected ':' or a "),
        Case("name: 'a'\n  input {", ":2: not protobuf text at column 10: expected '}' or a field"),
        Case("name: 5", ":1: not protobuf text at column 7: expected a string, but found '5'"),
        Case("name: 'a' name: 'b'", ":1: not protobuf text at column 17: 'name' is already set"),
        Case("max_batch_size: 3000000000", ":1: not protobuf text at column 17: expected value"),
        Case("input [ { } ] output [ { dims: x } ]", ":1: not protobuf text at column 32: expec"),
        Case("input { data_type: FP32 }", ":1: not protobuf text at column 20: value 'FP32' was"),
        Case("é", ":1: not protobuf text at column 1: "),
        Case("name: 'a\nb'", ":1: not protobuf text at column "),
        Case("name: 'a'}", ":1: not protobuf text at column 10: "),
        Case("input [ [ {} ] ]", ":1: not protobuf text at column "),
        Case(
            "version_policy { all {} latest {} }",
            ":1: not protobuf text at column 32: a value is already set for oneof 'policy_choice'",
        ),
        Case("[a.b/c.D] { x: 1 }", ":1: [a.b/c.D]: messages of other types mean nothing here; "),
        Case("input { [a.b]: 1 }", ":1: input[0].[a.b]: messages of other types mean nothing "),
    ];
    for Case(text, expected) in cases {
        let problems = problems(text);
        assert_eq!(problems.len(), 1, "{text}: {problems:?}");
        let expected = format!("{PATH}{expected}");
        assert!(problems[0].starts_with(&expected), "{text}: {problems:?}");
        assert!(problems[0].contains("; "), "{problems:?}");
    }
    let both = problems("nam: 'a'\ninput {\n  dims: x\n}\n:");
    assert!(both[0].contains("did you mean name?"), "{both:?}");
}

#[test]
fn nesting_is_bounded() {
    let starts =
        ["[a/inference.ModelConfig]{", "a{", "a<", "input{", "input[", "a:[", "a[{", "-", "'"];
    for start in starts {
        for text in [start.repeat(40_000), format!("{}x", start.repeat(40_000))] {
            assert!(parse(&text).is_err(), "{start}");
        }
    }
    // The walk stops before the parser would: what follows is not read.
    let hidden = format!("name 'a' {}", "[a/inference.ModelConfig]{".repeat(40_000));
    assert!(parse(&hidden).is_err());
}

#[test]
fn a_file_that_cannot_be_read_is_one_problem() {
    struct Case(Vec<u8>, &'static str);
    let cases = [
        Case(b"name: '\xff'".to_vec(), "is not UTF-8"),
        Case(vec![b'#'; 1024 * 1024 + 1], "is larger than 1 MiB"),
    ];
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(PATH);
    let read = || Document::read(&path, &schema("inference.ModelConfig"));
    assert!(read().err().unwrap()[0].rule.starts_with("cannot be read"));
    for Case(bytes, rule) in cases {
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(read().err().unwrap()[0].rule, rule);
    }
}

#[test]
fn no_more_problems_are_told_than_anybody_reads() {
    let problem = Problem::of_place("a", "b", "c");
    let mut problems = vec![problem.clone().warning(); 150];
    assert_eq!(in_order(problems.clone()).len(), MOST_PROBLEMS + 1);
    assert_eq!(in_order(problems.clone())[100].severity, Severity::Warning);
    problems.push(problem);
    let last = in_order(problems).pop().unwrap();
    assert_eq!((last.severity, last.rule.as_str()), (Severity::Error, "51 more problems"));
    assert_eq!(parse(&"a:1 ".repeat(100_000)).err().unwrap().len(), 50);
}

/// Returns the fields of a schema that a table does not decide, and the rows that name no field.
pub(in crate::formats) fn undecided(
    schema: &MessageDescriptor,
    rows: &[Row],
) -> (Vec<String>, Vec<String>) {
    let mut table: BTreeMap<&str, Decision> = rows.iter().copied().collect();
    assert_eq!(table.len(), rows.len(), "a field is decided twice");
    let mut without = Vec::new();
    let mut open = vec![(String::new(), schema.clone())];
    while let Some((path, message)) = open.pop() {
        for field in message.fields() {
            let name = field.name();
            let path = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
            let inner = inner(&field).filter(|inner| inner.fields().len() > 0);
            match (table.remove(path.as_str()), inner) {
                (Some(Decision::Warn(..) | Decision::Refuse(..)), _) => {}
                (_, Some(inner)) => open.push((path, inner)),
                (Some(Decision::Taken), None) => {}
                (None, None) => without.push(path),
            }
        }
    }
    (without, table.into_keys().map(str::to_owned).collect())
}

/// Writes a message of the schema, with fields and notations that `choices` picks.
fn write_message(
    schema: &MessageDescriptor,
    choices: &mut impl Iterator<Item = u8>,
    text: &mut String,
    depth: usize,
) {
    let mut oneofs = Vec::new();
    for field in schema.fields() {
        if choices.next().unwrap_or(0) % 3 != 1 || depth > 6 {
            continue;
        }
        if let Some(oneof) = field.containing_oneof() {
            if oneofs.contains(&oneof.full_name().to_owned()) {
                continue;
            }
            oneofs.push(oneof.full_name().to_owned());
        }
        let times =
            if field.is_list() || field.is_map() { choices.next().unwrap_or(0) % 3 } else { 1 };
        for _ in 0..times {
            text.push_str(field.name());
            match field.kind() {
                Kind::Message(message) => {
                    text.push_str(if choices.next().unwrap_or(0).is_multiple_of(2) {
                        ": {\n"
                    } else {
                        " {"
                    });
                    write_message(&message, choices, text, depth + 1);
                    text.push('}');
                }
                Kind::Enum(values) => {
                    let count = values.values().len();
                    let index = usize::from(choices.next().unwrap_or(0)) % count;
                    write!(text, ": {}", values.values().nth(index).unwrap().name()).unwrap();
                }
                Kind::String | Kind::Bytes => {
                    write!(text, ": 'a{}'", choices.next().unwrap_or(0) % 4).unwrap();
                }
                Kind::Bool => text.push_str(": true"),
                Kind::Int32 | Kind::Int64 => {
                    let number = i32::from(choices.next().unwrap_or(0)) - 100;
                    write!(text, ": {number}").unwrap();
                }
                _ => write!(text, ": {}", choices.next().unwrap_or(0)).unwrap(),
            }
            text.push_str(
                ["\n", ", ", "; # { '\n", "\n\n"][usize::from(choices.next().unwrap_or(0)) % 4],
            );
        }
    }
}

/// Pieces that texts are put together from.
const PIECES: [&str; 28] = [
    "name",
    "input",
    "dims",
    "parameters",
    "key",
    "value",
    "string_value",
    "version_policy",
    "all",
    "model_warmup",
    "inputs",
    ":",
    "{",
    "}",
    "<",
    ">",
    "[",
    "]",
    ",",
    ";",
    "-",
    "'a'",
    "\"",
    "1",
    "1.5e+3",
    "# '\n",
    "\n",
    "[a.b/inference.ModelConfig]",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_text_makes_it_panic(text in any::<String>()) {
        drop(parse(&text));
    }

    /// The walk refuses nothing that the parser takes.
    #[test]
    fn the_walk_agrees_with_the_parser(
        pieces in prop::collection::vec(prop::sample::select(&PIECES[..]), 0..40)
    ) {
        let text = pieces.join(" ");
        let schema = schema("inference.ModelConfig");
        let parsed = DynamicMessage::parse_text_format(schema, &text);
        prop_assert!(parsed.is_err() || parse(&text).is_ok(), "{}", text);
    }

    #[test]
    fn every_message_of_a_schema_is_read(choices in prop::collection::vec(any::<u8>(), 0..400)) {
        for name in ["inference.ModelConfig", "tensorflow.serving.ModelServerConfig"] {
            let schema = schema(name);
            let mut text = String::new();
            write_message(&schema, &mut choices.iter().copied(), &mut text, 0);
            let document = Document::parse(Path::new(PATH), &text, &schema);
            let document = match document {
                Ok(document) => document,
                Err(problems) => return Err(TestCaseError::fail(format!("{text}\n{problems:?}"))),
            };
            let written = document.message.to_text_format();
            let again = Document::parse(Path::new(PATH), &written, &schema).ok().unwrap();
            // Maps have no order.
            prop_assert_eq!(again.message.to_text_format().len(), written.len());
            let root = document.root();
            for (field, _) in document.message.fields() {
                prop_assert!(root.is_written(field.name()), "{}: {}", field.name(), text);
            }
        }
    }
}
