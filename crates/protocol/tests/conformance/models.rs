//! What the models take that the conformance cases ask: their signatures as the server makes them of
//! their files and of `model.toml`.

use std::sync::Arc;

use outhaul_protocol::Schema;
use outhaul_types::{
    Content, DataType, Dimension, Field, Interface, ModelSignature, ModelVersion, ShapePattern,
    Task, TensorSpec,
};

/// The model of calls that name none.
pub const DEFAULT: &str = "flowers";

pub struct Model {
    name: &'static str,
    signature: ModelSignature,
    interface: Interface,
}

impl Model {
    pub fn schema(&self) -> Schema<'_> {
        Schema {
            name: self.name,
            version: ModelVersion(1),
            signature: &self.signature,
            interface: &self.interface,
        }
    }
}

fn spec(name: &str, data_type: DataType, dimensions: &[i64]) -> TensorSpec {
    let dimension = |&size: &i64| usize::try_from(size).map_or(Dimension::Any, Dimension::Fixed);
    let shape = ShapePattern::ranked(dimensions.iter().map(dimension));
    TensorSpec { name: name.into(), data_type, shape, optional: false }
}

/// Returns a model, or `None` where the cases have the server know it.
pub fn find(name: &str) -> Option<Model> {
    use DataType::{Bool, Bytes, Fp32, Fp64, Int8, Int64, Uint64};
    let tensors = |name, inputs| {
        let signature = ModelSignature { inputs, outputs: Vec::new() };
        let interface = Interface::of_tensors(&signature);
        Some(Model { name, signature, interface })
    };
    match name {
        "iris" => tensors("iris", vec![spec("X", Fp32, &[-1, 4])]),
        "two_versions" => tensors("two_versions", vec![spec("x", Fp32, &[-1, 4])]),
        "two_inputs" => tensors("two_inputs", ["a", "b"].map(|x| spec(x, Fp32, &[-1, 3])).to_vec()),
        "optional_input" => {
            let bias = TensorSpec { optional: true, ..spec("bias", Fp32, &[3]) };
            tensors("optional_input", vec![spec("x", Fp32, &[-1, 3]), bias])
        }
        "identity_bytes" => tensors("identity_bytes", vec![spec("x", Bytes, &[-1, -1])]),
        "identity_int8" => tensors("identity_int8", vec![spec("x", Int8, &[-1, -1])]),
        "identity_int64" => tensors("identity_int64", vec![spec("x", Int64, &[-1, -1])]),
        "identity_uint64" => tensors("identity_uint64", vec![spec("x", Uint64, &[-1, -1])]),
        "identity_bool" => tensors("identity_bool", vec![spec("x", Bool, &[-1, -1])]),
        "identity_fp32" => tensors("identity_fp32", vec![spec("x", Fp32, &[-1, -1])]),
        "scalar" => tensors("scalar", vec![spec("x", Fp32, &[])]),
        "no_batch" => tensors("no_batch", vec![spec("x", Fp32, &[3])]),
        "flowers" => {
            let columns = ["sepal_length", "sepal_width", "petal_length", "petal_width"];
            let classes = ["setosa", "versicolor", "virginica"].map(str::to_owned);
            let choices: Option<Arc<[String]>> = Some(classes.into());
            let inner = ModelSignature {
                inputs: vec![spec("X", Fp32, &[-1, 4])],
                outputs: vec![spec("label", Int64, &[-1]), spec("probabilities", Fp32, &[-1, 3])],
            };
            let outputs = vec![
                spec("label", Bytes, &[-1]),
                spec("score", Fp32, &[-1]),
                spec("probabilities", Fp32, &[-1, 3]),
            ];
            let contents = [Content::Label, Content::Score, Content::Score];
            Some(Model {
                name: "flowers",
                signature: ModelSignature {
                    inputs: columns.map(|column| spec(column, Fp64, &[-1])).to_vec(),
                    outputs,
                },
                interface: Interface {
                    task: Task::Classification,
                    inputs: vec![Field::of(Content::Number); columns.len()],
                    outputs: contents
                        .map(|content| Field { choices: choices.clone(), ..Field::of(content) })
                        .to_vec(),
                    inner: Some(inner),
                    sample: None,
                },
            })
        }
        "tiny-embedder" => {
            let outputs = vec![spec("embedding", Fp32, &[-1, 16])];
            Some(of_texts(
                "tiny-embedder",
                Task::Embedding,
                &["text"],
                (outputs, Content::Embedding),
            ))
        }
        "tiny-reranker" => {
            let outputs = vec![spec("score", Fp32, &[-1])];
            let inputs = ["query", "text"];
            Some(of_texts("tiny-reranker", Task::Rerank, &inputs, (outputs, Content::Score)))
        }
        "tiny-classifier" => {
            let outputs = vec![spec("label", Bytes, &[-1])];
            let name = "tiny-classifier";
            Some(of_texts(name, Task::Classification, &["text"], (outputs, Content::Label)))
        }
        _ => None,
    }
}

/// Makes one of `testdata/text_models`.
fn of_texts(
    name: &'static str,
    task: Task,
    inputs: &[&str],
    (outputs, content): (Vec<TensorSpec>, Content),
) -> Model {
    let ids = ["input_ids", "attention_mask", "token_type_ids"];
    let inner = ModelSignature {
        inputs: ids.map(|name| spec(name, DataType::Int64, &[-1, -1])).to_vec(),
        outputs: vec![spec("logits", DataType::Fp32, &[-1, -1])],
    };
    let interface = Interface {
        task,
        inputs: vec![Field::of(Content::Text); inputs.len()],
        outputs: vec![Field::of(content); outputs.len()],
        inner: Some(inner),
        sample: None,
    };
    let inputs = inputs.iter().map(|input| spec(input, DataType::Bytes, &[-1])).collect();
    Model { name, signature: ModelSignature { inputs, outputs }, interface }
}
