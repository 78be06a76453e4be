use std::collections::BTreeSet;

use outhaul_types::{
    Content, DataType, Dimension, Field, Interface, ModelSignature, ModelVersion, ShapePattern,
    Task, TensorSpec,
};
use serde_json::{Value, json};

use super::*;

fn spec(name: &str, data_type: DataType, row: &[Dimension], optional: bool) -> TensorSpec {
    let shape = ShapePattern::ranked([Dimension::Any].into_iter().chain(row.iter().cloned()));
    TensorSpec { name: name.into(), data_type, shape, optional }
}

fn of(models: &[(&str, ModelSignature, Interface)]) -> Value {
    let schemas: Vec<Schema<'_>> = models
        .iter()
        .map(|(name, signature, interface)| Schema {
            name,
            version: ModelVersion(1),
            signature,
            interface,
        })
        .collect();
    let vertex = Some(("/vertex/predict", "/"));
    let document = document(&Described { version: "1.2.3", models: &schemas, vertex });
    serde_json::from_slice(&document.json).unwrap()
}

fn flowers() -> (&'static str, ModelSignature, Interface) {
    let signature = ModelSignature {
        inputs: vec![
            spec("sepal length", DataType::Fp64, &[], false),
            spec("colour", DataType::Bytes, &[], true),
        ],
        outputs: vec![
            spec("label", DataType::Bytes, &[], false),
            spec("probabilities", DataType::Fp32, &[Dimension::Fixed(2)], false),
        ],
    };
    let colours: Vec<String> = vec!["red".to_owned(), "blue".to_owned()];
    let labels: Vec<String> = vec!["a".to_owned(), "b".to_owned()];
    let interface = Interface {
        task: Task::Classification,
        inputs: vec![
            Field { unit: Some("cm".into()), ..Field::of(Content::Number) },
            Field { choices: Some(colours.into()), ..Field::of(Content::Category) },
        ],
        outputs: vec![
            Field { choices: Some(labels.into()), ..Field::of(Content::Label) },
            Field::of(Content::Score),
        ],
        sample: Some(r#"[{"sepal length": 5.5, "colour": "blue"}]"#.into()),
        ..Interface::default()
    };
    ("flowers.v2", signature, interface)
}

fn tensors(name: &'static str, input: TensorSpec) -> (&'static str, ModelSignature, Interface) {
    let output = spec("Y", DataType::Int64, &[], false);
    let signature = ModelSignature { inputs: vec![input], outputs: vec![output] };
    let interface = Interface::of_tensors(&signature);
    (name, signature, interface)
}

#[test]
fn a_row_is_described_by_its_columns() {
    let api = of(&[flowers()]);
    let schemas = &api["components"]["schemas"];
    let row = json!({
        "type": "object",
        "description": "A row for flowers.v2.",
        "required": ["sepal length"],
        "additionalProperties": false,
        "properties": {
            "sepal length": {
                "type": "number", "format": "double", "x-unit": "cm",
                "description": "FP64 [-1]: number in cm",
            },
            "colour": {
                "anyOf": [{"type": "string", "enum": ["red", "blue"]}, {"type": "null"}],
                "description": "BYTES [-1]: category, one of red, blue",
            },
        },
    });
    assert_eq!(schemas["flowers.v2_Row"], row);
    let columns: Vec<&String> =
        schemas["flowers.v2_Row"]["properties"].as_object().unwrap().keys().collect();
    assert_eq!(columns.len(), 2);
    let prediction = &schemas["flowers.v2_Prediction"]["properties"];
    assert_eq!(prediction["label"]["enum"], json!(["a", "b"]));
    assert_eq!(
        (&prediction["probabilities"]["minItems"], &prediction["probabilities"]["maxItems"]),
        (&json!(2), &json!(2))
    );
}

#[test]
fn columns_keep_the_models_order_in_the_text() {
    let (name, signature, interface) = flowers();
    let model =
        Schema { name, version: ModelVersion(1), signature: &signature, interface: &interface };
    let document = document(&Described { version: "1", models: &[model], vertex: None });
    let text = std::str::from_utf8(&document.json).unwrap();
    let row = text.split("\"flowers.v2_Row\":").nth(1).unwrap();
    assert!(row.find("\"sepal length\":{").unwrap() < row.find("\"colour\":{").unwrap(), "{row}");
}

#[test]
fn examples_are_what_the_model_takes() {
    let (name, signature, mut interface) = flowers();
    let example = |api: &Value, path: &str| {
        api["paths"][path]["post"]["requestBody"]["content"]["application/json"]["example"].clone()
    };
    let api = of(&[(name, signature.clone(), interface.clone())]);
    let rows = json!({"instances": [{"sepal length": 5.5, "colour": "blue"}]});
    assert_eq!(example(&api, "/v1/models/flowers.v2:predict"), rows);
    let tensors = json!({"inputs": [
        {"name": "sepal length", "datatype": "FP64", "shape": [1], "data": [5.5]},
        {"name": "colour", "datatype": "BYTES", "shape": [1], "data": ["blue"]},
    ]});
    assert_eq!(example(&api, "/v2/models/flowers.v2/infer"), tensors);

    for sample in [None, Some("{"), Some(r#"[{"sepal": 1}]"#), Some("3")] {
        interface.sample = sample.map(Into::into);
        let api = of(&[(name, signature.clone(), interface.clone())]);
        let made_up = json!({"instances": [{"sepal length": 1.0, "colour": "red"}]});
        assert_eq!(example(&api, "/v1/models/flowers.v2:predict"), made_up, "{sample:?}");
    }
}

#[test]
fn tensors_and_values_without_rows_have_a_place_too() {
    let four = [Dimension::Fixed(4)];
    let wide = [Dimension::Fixed(3), Dimension::Fixed(224), Dimension::Fixed(224)];
    let scalar =
        TensorSpec { shape: ShapePattern::ranked([]), ..spec("x", DataType::Fp32, &[], false) };
    let free =
        TensorSpec { shape: ShapePattern::AnyRank, ..spec("x", DataType::Bytes, &[], false) };
    let api = of(&[
        tensors("flat", spec("X:0", DataType::Uint8, &four, false)),
        tensors("wide", spec("X", DataType::Fp32, &wide, false)),
        tensors("scalar", scalar),
        tensors("free", free),
    ]);
    let schemas = &api["components"]["schemas"];
    let byte = json!({"type": "integer", "minimum": 0, "maximum": 255});
    let list = &schemas["flat_Row"]["properties"]["X:0"];
    assert_eq!((&list["items"], &list["maxItems"]), (&byte, &json!(4)));
    assert_eq!(schemas["flat_Prediction"]["type"], "integer", "one output is a bare value");
    assert_eq!(schemas.get("scalar_Row"), None);
    assert!(api["paths"].get("/v1/models/scalar:predict").is_none());
    assert!(api["paths"].get("/v2/models/scalar/infer").is_some());
    let wide = &api["paths"]["/v1/models/wide:predict"]["post"]["requestBody"]["content"];
    assert_eq!(wide["application/json"].get("example"), None, "nobody reads 150,528 numbers");
}

#[test]
fn what_is_said_of_operations_holds_together() {
    let api = of(&[flowers(), tensors("flat", spec("X", DataType::Fp32, &[], false))]);
    assert_eq!(api["openapi"], "3.1.0");
    let (mut ids, mut operations) = (BTreeSet::new(), 0);
    let tags: BTreeSet<&str> =
        api["tags"].as_array().unwrap().iter().map(|tag| tag["name"].as_str().unwrap()).collect();
    for (path, item) in api["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            operations += 1;
            let id = operation["operationId"].as_str().unwrap();
            assert!(ids.insert(id.to_owned()), "{method} {path}: {id} is taken");
            assert!(tags.contains(operation["tags"][0].as_str().unwrap()), "{path}");
            let named: BTreeSet<&str> =
                operation["parameters"].as_array().map_or(BTreeSet::new(), |all| {
                    let inside = all.iter().filter(|parameter| parameter["in"] == "path");
                    inside.map(|parameter| parameter["name"].as_str().unwrap()).collect()
                });
            let wanted: BTreeSet<&str> =
                path.split('{').skip(1).map(|part| part.split('}').next().unwrap()).collect();
            assert_eq!(named, wanted, "{path}");
        }
    }
    assert!(operations > 55, "{operations}");
    let schemas = api["components"]["schemas"].as_object().unwrap();
    let text = api.to_string();
    for reference in text.split("#/components/schemas/").skip(1) {
        let name = reference.split('"').next().unwrap();
        assert!(schemas.contains_key(name), "{name} is not there");
    }
    for name in schemas.keys().filter(|name| !name.contains('_')) {
        let wanted = format!("#/components/schemas/{name}\"");
        assert!(text.contains(&wanted), "nothing needs {name}");
    }
    let vertex = &api["paths"]["/vertex/predict"]["post"]["tags"];
    assert_eq!(vertex[0], "Vertex AI");
    assert_eq!(api["paths"]["/"]["get"]["operationId"], "alive", "our own path keeps its meaning");
}
