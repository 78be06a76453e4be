use std::num::{NonZeroU32, NonZeroUsize};

use outhaul_types::{
    Activation, Aggregation, CategoryEncoding, Channels, ClassificationOutput, Column, ColumnKind,
    DateUnit, EmbeddingOutput, FillMaskOutput, ImageInput, ImageLayout, InputTransform, Labels,
    Missing, OutputTransform, Pooling, RegressionOutput, RerankOutput, Resize, ResizeFilter,
    RowsInput, TensorsOutput, TextInput, TokenClassificationOutput, TransformSpec, Truncation,
    UnknownCategory,
};

use super::super::tests::read;
use super::*;

fn pixels(pixels: u32) -> NonZeroU32 {
    NonZeroU32::new(pixels).unwrap()
}

fn transform(text: &str) -> TransformSpec {
    read(text).unwrap_or_else(|problems| panic!("{text}: {problems:?}")).transform
}

fn input(text: &str) -> InputTransform {
    transform(&format!("[transform]\ninput = {text}")).input.unwrap()
}

fn output(text: &str) -> OutputTransform {
    transform(&format!("[transform]\noutput = {text}")).output.unwrap()
}

fn column(name: &str, kind: ColumnKind) -> Column {
    Column { name: name.into(), kind, missing: Missing::Refuse, input: None }
}

#[test]
fn every_kind_of_input_is_read() {
    let usual = TextInput {
        tokenizer: "tokenizer.json".into(),
        max_tokens: None,
        truncation: Truncation::End,
        pairs: false,
        prefix: String::new(),
    };
    assert_eq!(input("{ kind = 'text' }"), InputTransform::Text(usual));
    let full = TextInput {
        tokenizer: "assets/t.json".into(),
        max_tokens: NonZeroUsize::new(256),
        truncation: Truncation::Beginning,
        pairs: true,
        prefix: "query: ".to_owned(),
    };
    let text = "{ kind = 'text', tokenizer = './assets/t.json', max_tokens = 256, truncation = \
                'beginning', pairs = true, prefix = 'query: ' }";
    assert_eq!(input(text), InputTransform::Text(full));

    assert_eq!(input("{ kind = 'image' }"), InputTransform::Image(ImageInput::default()));
    let full = ImageInput {
        input: Some("pixel_values".into()),
        resize: Some(Resize::Shorter(pixels(256))),
        crop: Some((pixels(224), pixels(192))),
        filter: ResizeFilter::Lanczos,
        channels: Channels::Bgr,
        scale: 0.5,
        mean: vec![0.485, 1.0, -2.0],
        std: vec![0.229, 0.5, 2.0],
        layout: Some(ImageLayout::Nhwc),
        max_pixels: 1_000_000,
    };
    let text = "{ kind = 'image', input = 'pixel_values', resize = 256, crop = [224, 192], filter = \
                'lanczos', channels = 'bgr', scale = 0.5, mean = [0.485, 1, -2], std = [0.229, 0.5, \
                2.0], layout = 'nhwc', max_pixels = 1_000_000 }";
    assert_eq!(input(text), InputTransform::Image(full));
    let InputTransform::Image(exact) = input("{ kind = 'image', resize = [32, 48] }") else {
        panic!("another kind")
    };
    assert_eq!(exact.resize, Some(Resize::Exact { height: pixels(32), width: pixels(48) }));
}

#[test]
fn columns_are_read_in_short_and_long_form() {
    let category = |values: &[&str], encoding, unknown| {
        let values = values.iter().map(|&value| value.to_owned()).collect();
        ColumnKind::Category { values, encoding, unknown }
    };
    let text = r#"
        [transform.input]
        kind = "rows"
        [[transform.input.columns]]
        name = "age"
        missing = nan
        input = "X"
        [[transform.input.columns]]
        name = "city"
        kind = "category"
        values = ["Rome", "Oslo"]
        encoding = "one-hot"
        unknown = 0
        [[transform.input.columns]]
        name = "size"
        kind = "category"
        values = ["s", "m"]
        unknown = -1
        missing = 0.5
        [[transform.input.columns]]
        name = "when"
        kind = "date"
        format = "%d.%m.%Y"
        unit = "days"
        [[transform.input.columns]]
        name = "member"
        kind = "boolean"
        missing = "nan"
        [[transform.input.columns]]
        name = "note"
        kind = "text"
        missing = { text = "nan" }
    "#;
    let (index, refuse) = (CategoryEncoding::Index, UnknownCategory::Code(-1.0));
    let one_hot = category(&["Rome", "Oslo"], CategoryEncoding::OneHot, UnknownCategory::Code(0.0));
    let date = ColumnKind::Date { format: Some("%d.%m.%Y".to_owned()), unit: DateUnit::Days };
    let columns = vec![
        Column {
            missing: Missing::Nan,
            input: Some("X".into()),
            ..column("age", ColumnKind::Number)
        },
        column("city", one_hot),
        Column {
            missing: Missing::Number(0.5),
            ..column("size", category(&["s", "m"], index, refuse))
        },
        column("when", date),
        Column { missing: Missing::Nan, ..column("member", ColumnKind::Boolean) },
        Column { missing: Missing::Text("nan".to_owned()), ..column("note", ColumnKind::Text) },
    ];
    let expected = InputTransform::Rows(RowsInput { columns });
    assert_eq!(transform(text).input, Some(expected));
    let short = input("{ kind = 'rows', columns = ['a', { name = 'b', missing = '' }] }");
    let b = Column { missing: Missing::Text(String::new()), ..column("b", ColumnKind::Number) };
    let columns = vec![column("a", ColumnKind::Number), b];
    assert_eq!(short, InputTransform::Rows(RowsInput { columns }));
}

#[test]
fn every_kind_of_output_is_read() {
    let (ten, logits) = (NonZeroUsize::new(10), Some(Name::from("logits")));
    let labels = || vec!["no".to_owned(), "yes".to_owned()];
    let cases = [
        ("{ kind = 'embedding' }", OutputTransform::Embedding(EmbeddingOutput::default())),
        (
            "{ kind = 'embedding', output = 'logits', pooling = 'cls', normalize = true, \
             dimensions = 10 }",
            OutputTransform::Embedding(EmbeddingOutput {
                output: logits.clone(),
                pooling: Pooling::Cls,
                normalize: true,
                dimensions: ten,
            }),
        ),
        (
            "{ kind = 'classification' }",
            OutputTransform::Classification(ClassificationOutput::default()),
        ),
        (
            "{ kind = 'classification', output = 'logits', labels = ['no', 'yes'], activation = \
             'sigmoid', top_k = 10, threshold = 0.25, below = 'none' }",
            OutputTransform::Classification(ClassificationOutput {
                output: logits.clone(),
                labels: Labels::List(labels()),
                activation: Activation::Sigmoid,
                top_k: ten,
                threshold: Some(0.25),
                below: "none".to_owned(),
            }),
        ),
        (
            "{ kind = 'token-classification', labels = 'labels.txt', aggregation = 'none' }",
            OutputTransform::TokenClassification(TokenClassificationOutput {
                output: None,
                labels: Labels::File("labels.txt".into()),
                aggregation: Aggregation::None,
            }),
        ),
        ("{ kind = 'rerank' }", OutputTransform::Rerank(RerankOutput::default())),
        (
            "{ kind = 'rerank', output = 'logits', activation = 'none' }",
            OutputTransform::Rerank(RerankOutput {
                output: logits.clone(),
                activation: Activation::None,
            }),
        ),
        (
            "{ kind = 'fill-mask', output = 'logits', top_k = 10 }",
            OutputTransform::FillMask(FillMaskOutput {
                output: logits.clone(),
                top_k: ten.unwrap(),
            }),
        ),
        (
            "{ kind = 'regression', output = 'logits', name = 'price', unit = 'EUR', scale = 1000, \
             offset = -0.5 }",
            OutputTransform::Regression(RegressionOutput {
                output: logits,
                name: "price".into(),
                unit: Some("EUR".to_owned()),
                scale: 1000.0,
                offset: -0.5,
            }),
        ),
        (
            "{ kind = 'tensors', rename = { b = 'x', a = 'y' } }",
            OutputTransform::Tensors(TensorsOutput {
                rename: vec![("b".into(), "x".into()), ("a".into(), "y".into())],
            }),
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(output(text), expected, "{text}");
    }
    let long = "[transform.output]\nkind = 'regression'\nunit = 'EUR'\n[transform.output.x]\n";
    let problems = read(long).unwrap_err();
    assert!(problems[0].to_string().contains("transform.output.x = {}: unknown key"));
}

#[test]
fn every_rule_of_a_transform_names_key_rule_and_remedy() {
    struct Case(&'static str, &'static str);
    let cases = [
        Case("sample = 1", "sample = 1: must be the path of a file of JSON; leave it out"),
        Case("sample = '../x.json'", "must lie in the model's folder; put the file there"),
        Case("transform = 1", "transform = 1: must be a section; write one of transform.input, "),
        Case("transform.inputs = 1", "unknown key; did you mean "),
        Case("transform.input = 'text'", "must be a table; write as in { kind = \"text\" }"),
        Case(
            "transform.input = {}",
            "needs a kind; set kind to one of \"text\", \"image\", \"rows\"",
        ),
        Case("transform.input.kind = 'txt'", "transform.input.kind = \"txt\": must be one of"),
        Case("transform.input.kind = 'imag'", "did you mean \"image\"?"),
        Case(
            "transform.input = { kind = 'text', max_token = 1 }",
            "transform.input.max_token = 1: unknown key; did you mean max_tokens?",
        ),
        Case("transform.input = { kind = 'text', max_tokens = 0 }", "a whole number from 1 to"),
        Case("transform.input = { kind = 'text', tokenizer = '/t' }", "must lie in the model's"),
        Case(
            "transform.input = { kind = 'text', tokenizer = 1 }",
            "transform.input.tokenizer = 1: must be the path of a tokenizer.json; leave it out",
        ),
        Case(
            "transform.input = { kind = 'text', truncation = 'start' }",
            "\"beginning\", \"refuse\"",
        ),
        Case("transform.input = { kind = 'text', pairs = 1 }", "must be true or false"),
        Case(
            "transform.input = { kind = 'text', prefix = 1 }",
            "must be a text; write it in quotes",
        ),
        Case(
            "transform.input = { kind = 'text', crop = [1, 1] }",
            "unknown key; the keys are kind",
        ),
        Case(
            "transform.input = { kind = 'image', resize = 0 }",
            "must be the pixels of the shorter side, or height and width; write as in 256",
        ),
        Case("transform.input = { kind = 'image', resize = [1, 2, 3] }", "or height and width"),
        Case("transform.input = { kind = 'image', crop = 224 }", "must be height and width"),
        Case("transform.input = { kind = 'image', crop = [0, 1] }", "must be height and width"),
        Case(
            "transform.input = { kind = 'image', filter = 'bilinea' }",
            "did you mean \"bilinear\"?",
        ),
        Case("transform.input = { kind = 'image', scale = inf }", "must be a finite number"),
        Case("transform.input = { kind = 'image', scale = 1e99 }", "that FP32 holds"),
        Case("transform.input = { kind = 'image', mean = [0.5] }", "must be a list of 3 numbers"),
        Case("transform.input = { kind = 'image', mean = 0.5 }", "must be a list of 3 numbers"),
        Case(
            "transform.input = { kind = 'image', channels = 'gray', std = [0] }",
            "transform.input.std[0] = 0: must not be 0",
        ),
        Case("transform.input = { kind = 'image', max_pixels = 0 }", "leave it out for 50 million"),
        Case("transform.input = { kind = 'image', input = '' }", "must be a name"),
        Case("transform.input.kind = 'rows'", "needs columns; write as in columns = ["),
        Case("transform.input = { kind = 'rows', columns = [] }", "needs columns"),
        Case("transform.input = { kind = 'rows', columns = 'a' }", "must be a list of columns"),
        Case("transform.input = { kind = 'rows', columns = [1] }", "must be a name or a table"),
        Case(
            "transform.input = { kind = 'rows', columns = [''] }",
            "columns[0] = \"\": must be a name",
        ),
        Case("transform.input = { kind = 'rows', columns = [{}] }", "needs a name"),
        Case(
            "transform.input = { kind = 'rows', columns = ['a', { name = 'a' }] }",
            "columns[1] = { name = \"a\" }: has the name of an earlier column",
        ),
        Case(
            "transform.input = { kind = 'rows', columns = [{ name = 'a', kind = 'datum' }] }",
            "transform.input.columns[0].kind = \"datum\": must be one of \"number\", \"boolean\"",
        ),
        Case(
            "transform.input = { kind = 'rows', columns = [{ name = 'a', values = ['x'] }] }",
            "transform.input.columns[0].values = [\"x\"]: unknown key; the keys are name, kind",
        ),
        Case(
            "transform.input = { kind = 'rows', columns = [{ name = 'a', kind = 'category' }] }",
            "needs values; write as in values = [",
        ),
        Case(
            "transform.input = { kind = 'rows', columns = [{ name = 'a', kind = 'category', values \
             = ['x', 'x'] }] }",
            "columns[0].values[1] = \"x\": is there twice",
        ),
        Case(
            "transform.input = { kind = 'rows', columns = [{ name = 'a', kind = 'category', values \
             = [''] }] }",
            "columns[0].values[0] = \"\": must not be empty",
        ),
        Case(
            "transform.input = { kind = 'rows', columns = [{ name = 'a', kind = 'category', values \
             = ['x'], encoding = 'one-hot', unknown = -1 }] }",
            "columns[0].unknown = -1: must be 0 where the encoding is one-hot",
        ),
        Case(
            "transform.input = { kind = 'rows', columns = [{ name = 'a', missing = true }] }",
            "columns[0].missing = true: must be \"nan\", a number or a text; leave it out",
        ),
        Case(
            "transform.input = { kind = 'rows', columns = [{ name = 'a', missing = inf }] }",
            "must be \"nan\", a number or a text",
        ),
        Case(
            "transform.input = { kind = 'rows', columns = [{ name = 'a', kind = 'date', format = \
             'iso' }] }",
            "must be a format of strftime; write as in \"%d.%m.%Y\"",
        ),
        Case(
            "transform.input = { kind = 'rows', columns = [{ name = 'a', kind = 'date', unit = \
             'minutes' }] }",
            "must be one of \"seconds\", \"days\"",
        ),
        Case("transform.output.kind = 'classify'", "must be one of \"embedding\", "),
        Case("transform.output.kind = 'classificaton'", "did you mean \"classification\"?"),
        Case(
            "transform.output = { kind = 'embedding', normalise = true }",
            "did you mean normalize?",
        ),
        Case(
            "transform.output = { kind = 'embedding', pooling = 'last' }",
            "must be one of \"mean\"",
        ),
        Case(
            "transform.output = { kind = 'classification', labels = [] }",
            "must be a list of labels",
        ),
        Case(
            "transform.output = { kind = 'classification', labels = ['a', 1] }",
            "transform.output.labels[1] = 1: must be a text",
        ),
        Case("transform.output = { kind = 'classification', labels = '/x' }", "must lie in the"),
        Case("transform.output = { kind = 'classification', threshold = nan }", "a finite number"),
        Case("transform.output = { kind = 'classification', top_k = 0 }", "a whole number from 1"),
        Case(
            "transform.output = { kind = 'rerank', activation = 'tanh' }",
            "\"softmax\", \"sigmoid\"",
        ),
        Case("transform.output = { kind = 'fill-mask', top_k = 'all' }", "leave it out for 5"),
        Case("transform.output = { kind = 'regression', scale = '2' }", "must be a finite number"),
        Case(
            "transform.output = { kind = 'tensors', rename = [] }",
            "must be a table; write as in",
        ),
        Case(
            "transform.output = { kind = 'tensors', rename = { a = 'x', b = 'x' } }",
            "transform.output.rename.b = \"x\": is the new name of another output",
        ),
    ];
    for Case(text, expected) in cases {
        let problems = read(text).unwrap_err();
        let [problem] = problems.as_slice() else { panic!("{text}: {problems:?}") };
        let line = problem.to_string();
        assert!(line.starts_with("model.toml:1: "), "{line}");
        assert!(line.contains(expected), "{text}: {line}");
    }
}

#[test]
fn all_problems_of_a_transform_come_at_once() {
    let text = "[transform.input]\nkind = 'image'\nscale = 'x'\ncrop = 1\n[transform.output]\nkind = \
                'fill-mask'\ntop_k = 0\nlabels = []";
    let problems = read(text).unwrap_err();
    let keys: Vec<&str> = problems.iter().filter_map(|problem| problem.key.as_deref()).collect();
    let expected = [
        "transform.input.crop",
        "transform.input.scale",
        "transform.output.labels",
        "transform.output.top_k",
    ];
    assert_eq!(keys, expected);
}

#[test]
fn the_guide_tells_every_key_of_a_transform() {
    let guide = include_str!("../../../../../docs/guide/model-toml.md");
    let keys = [
        "tokenizer",
        "max_tokens",
        "truncation",
        "pairs",
        "prefix",
        "input",
        "resize",
        "crop",
        "filter",
        "channels",
        "scale",
        "mean",
        "std",
        "layout",
        "max_pixels",
        "columns",
        "name",
        "missing",
        "values",
        "encoding",
        "unknown",
        "format",
        "unit",
        "output",
        "pooling",
        "normalize",
        "dimensions",
        "labels",
        "activation",
        "top_k",
        "threshold",
        "below",
        "aggregation",
        "offset",
        "rename",
    ];
    for key in keys {
        assert!(guide.contains(&format!("- `{key}`: ")), "docs/guide/model-toml.md: {key}");
    }
}

#[test]
fn a_transform_is_written_for_people() {
    let text = "sample = \"rows.json\"\n\n[transform.input]\nkind = \"rows\"\ncolumns = [\n    \
                \"age\",\n    { name = \"city\", kind = \"category\", values = [\"Rome\", \"Oslo\"], \
                encoding = \"one-hot\", missing = \"Rome\" },\n    { name = \"when\", kind = \
                \"date\", unit = \"days\", missing = \"nan\", input = \"X\" },\n]\n\n\
                [transform.output]\nkind = \"classification\"\nlabels = \"labels.txt\"\nactivation = \
                \"none\"\ntop_k = 3\n";
    assert_eq!(crate::write_manifest(&read(text).unwrap()), text);
}
