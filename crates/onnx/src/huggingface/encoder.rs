//! The encoder that BERT and its relatives share, and the heads behind it, node by node.
//!
//! The forms are those that PyTorch exports, which engines know and fuse: a matrix product and a sum for
//! each linear layer, GELU by the error function spelled out, heads apart by `Reshape` and `Transpose`.
//! The mask is added to the scores, the least FP32 number where a token is padding, as transformers
//! does it. In and out: `input_ids`, `attention_mask` and, where there are types of tokens,
//! `token_type_ids`, INT64 `[batch, sequence]`; `last_hidden_state` FP32 `[batch, sequence, hidden]`, or
//! `logits`.
//!
//! The table of positions is cut to the sequence by `Slice` so that ONNX Runtime cannot tell that the sum's
//! shape is that of the words: it would then join sums and normalisations into `SkipLayerNormalization`,
//! which on the processor takes a fifth more of the whole run (1.31, 32 tokens, one thread).

use super::HuggingFaceError;
use super::config::{Activation, Config, Head};
use super::graph::{Attribute, Dim, FP32, GraphBuilder, INT64, Port};
use super::weights::{Weight, Weights};

const IDS: &str = "input_ids";
const MASK: &str = "attention_mask";
const TYPES: &str = "token_type_ids";

/// Builds the whole graph.
pub(super) fn build(
    config: &Config,
    weights: &mut Weights,
) -> Result<GraphBuilder, HuggingFaceError> {
    let mut encoder = Encoder { config, weights, graph: GraphBuilder::default() };
    encoder.inputs();
    let mask = encoder.mask();
    let mut hidden = encoder.embeddings()?;
    let shapes = encoder.shapes();
    for layer in 0..config.layers {
        hidden = encoder.layer(layer, &hidden, &mask, &shapes)?;
    }
    encoder.head(&hidden)?;
    encoder.weights.all_taken()?;
    Ok(encoder.graph)
}

struct Encoder<'a> {
    config: &'a Config,
    weights: &'a mut Weights,
    graph: GraphBuilder,
}

/// The names of constants that every layer needs.
struct Shapes {
    /// `[batch, sequence, heads, size]`
    apart: String,
    /// `[batch, sequence, hidden]`
    together: String,
    /// The root of a head's size.
    scale: String,
}

/// The name of a linear layer's or a normalisation's two tensors.
fn pair(name: &str) -> [String; 2] {
    [format!("{name}.weight"), format!("{name}.bias")]
}

impl Encoder<'_> {
    fn inputs(&mut self) {
        let names = [IDS, MASK, TYPES];
        let count = if self.config.types > 1 { 3 } else { 2 };
        for name in names.into_iter().take(count) {
            let dims = vec![Dim::Name("batch"), Dim::Name("sequence")];
            self.graph.inputs.push(Port { name, data_type: INT64, dims });
        }
    }

    /// 0 where a token counts, else the least number, `[batch, 1, 1, sequence]`.
    fn mask(&mut self) -> String {
        let graph = &mut self.graph;
        let axes = graph.integers("mask.axes", &[1, 2]);
        let one = graph.scalar("mask.one", 1.0);
        let least = graph.scalar("mask.least", f32::MIN);
        let mask = graph.node("mask.unsqueezed", "Unsqueeze", &[MASK, &axes], &[]);
        let mask = graph.node("mask.cast", "Cast", &[&mask], &[Attribute::Int("to", FP32)]);
        let mask = graph.node("mask.inverted", "Sub", &[&one, &mask], &[]);
        graph.node("mask.added", "Mul", &[&mask, &least], &[])
    }

    fn shapes(&mut self) -> Shapes {
        let (heads, hidden) = (self.config.heads, self.config.hidden);
        let size = hidden / heads;
        Shapes {
            apart: self.graph.integers("heads.apart", &[0, 0, heads as i64, size as i64]),
            together: self.graph.integers("heads.together", &[0, 0, hidden as i64]),
            scale: self.graph.scalar("heads.scale", (size as f64).sqrt() as f32),
        }
    }

    fn embeddings(&mut self) -> Result<String, HuggingFaceError> {
        let Config { hidden, vocabulary, types, positions, .. } = *self.config;
        let table = |kind: &str| format!("embeddings.{kind}_embeddings.weight");
        let words = self.weights.encoder(&table("word"), &[vocabulary, hidden])?;
        let words = self.graph.weight(words);
        let mut sum = self.graph.node("embeddings.words", "Gather", &[&words, IDS], &[]);
        if types > 0 {
            let table = self.weights.encoder(&table("token_type"), &[types, hidden])?;
            let table = self.graph.weight(table);
            // Of one type only, the table is a vector that every token gets.
            let of_tokens = match types {
                1 => table,
                _ => self.graph.node("embeddings.types", "Gather", &[&table, TYPES], &[]),
            };
            sum = self.graph.node("embeddings.typed", "Add", &[&sum, &of_tokens], &[]);
        }
        let table = self.weights.encoder(&table("position"), &[positions, hidden])?;
        let table = self.graph.weight(table);
        let places = match self.config.family.positions_skip_padding {
            true => self.positions_of_tokens(&table),
            false => self.positions_in_order(&table),
        };
        let sum = self.graph.node("embeddings.sum", "Add", &[&sum, &places], &[]);
        self.normalise("embeddings.LayerNorm", &sum)
    }

    /// The first rows of the table, `[sequence, hidden]`.
    fn positions_in_order(&mut self, table: &str) -> String {
        let graph = &mut self.graph;
        let (zero, one) =
            (graph.integers("positions.zero", &[0]), graph.integers("positions.one", &[1]));
        let shape = graph.node("positions.shape", "Shape", &[IDS], &[]);
        let length = graph.node("positions.length", "Gather", &[&shape, &one], &[]);
        graph.node("embeddings.positions", "Slice", &[table, &zero, &length, &zero], &[])
    }

    /// Counts tokens that are no padding, from behind the padding token's number;
    /// `[batch, sequence, hidden]`.
    fn positions_of_tokens(&mut self, table: &str) -> String {
        let graph = &mut self.graph;
        let padding = graph.integer("positions.padding", self.config.padding);
        let axis = graph.integer("positions.axis", 1);
        let to_int = [Attribute::Int("to", INT64)];
        let is_padding = graph.node("positions.is_padding", "Equal", &[IDS, &padding], &[]);
        let counts = graph.node("positions.counts", "Not", &[&is_padding], &[]);
        let counts = graph.node("positions.ones", "Cast", &[&counts], &to_int);
        let place = graph.node("positions.running", "CumSum", &[&counts, &axis], &[]);
        let place = graph.node("positions.masked", "Mul", &[&place, &counts], &[]);
        let place = graph.node("positions.places", "Add", &[&place, &padding], &[]);
        graph.node("embeddings.positions", "Gather", &[table, &place], &[])
    }

    fn layer(
        &mut self,
        number: usize,
        hidden: &str,
        mask: &str,
        shapes: &Shapes,
    ) -> Result<String, HuggingFaceError> {
        let names = &self.config.family.layer;
        let (size, wide) = (self.config.hidden, self.config.intermediate);
        let at = |part: &str| format!("{}.{number}.{part}", names.layers);
        let attended = self.attention(number, hidden, mask, shapes)?;
        let attended = self.linear(&at(names.attention), &attended, [size, size])?;
        let sum = self.graph.node(&at("attention.sum"), "Add", &[&attended, hidden], &[]);
        let hidden = self.normalise(&at(names.attention_norm), &sum)?;
        let up = self.linear(&at(names.up), &hidden, [wide, size])?;
        let up = self.activate(&at("activation"), &up, self.config.activation);
        let down = self.linear(&at(names.down), &up, [size, wide])?;
        let sum = self.graph.node(&at("sum"), "Add", &[&down, &hidden], &[]);
        self.normalise(&at(names.norm), &sum)
    }

    /// What each token takes over from the others, `[batch, sequence, hidden]`.
    fn attention(
        &mut self,
        number: usize,
        hidden: &str,
        mask: &str,
        shapes: &Shapes,
    ) -> Result<String, HuggingFaceError> {
        let names = &self.config.family.layer;
        let at = |part: &str| format!("{}.{number}.{part}", names.layers);
        let query = self.by_head(&at(names.query), hidden, &shapes.apart, &[0, 2, 1, 3])?;
        // Keys are transposed once more, for the product.
        let key = self.by_head(&at(names.key), hidden, &shapes.apart, &[0, 2, 3, 1])?;
        let value = self.by_head(&at(names.value), hidden, &shapes.apart, &[0, 2, 1, 3])?;
        let graph = &mut self.graph;
        let scores = graph.node(&at("attention.scores"), "MatMul", &[&query, &key], &[]);
        let scores = graph.node(&at("attention.scaled"), "Div", &[&scores, &shapes.scale], &[]);
        let scores = graph.node(&at("attention.masked"), "Add", &[&scores, mask], &[]);
        let last = [Attribute::Int("axis", -1)];
        let shares = graph.node(&at("attention.shares"), "Softmax", &[&scores], &last);
        let context = graph.node(&at("attention.context"), "MatMul", &[&shares, &value], &[]);
        let order = [Attribute::Ints("perm", &[0, 2, 1, 3])];
        let context = graph.node(&at("attention.by_token"), "Transpose", &[&context], &order);
        let together = [context.as_str(), &shapes.together];
        Ok(graph.node(&at("attention.together"), "Reshape", &together, &[]))
    }

    /// A linear layer of the hidden size whose result is parted by heads, in this order of dimensions.
    fn by_head(
        &mut self,
        name: &str,
        hidden: &str,
        apart: &str,
        order: &[i64],
    ) -> Result<String, HuggingFaceError> {
        let size = self.config.hidden;
        let part = self.linear(name, hidden, [size, size])?;
        let part = self.graph.node(&format!("{name}.apart"), "Reshape", &[&part, apart], &[]);
        let order = [Attribute::Ints("perm", order)];
        Ok(self.graph.node(&format!("{name}.by_head"), "Transpose", &[&part], &order))
    }

    fn head(&mut self, hidden: &str) -> Result<(), HuggingFaceError> {
        let (batch, sequence) = (Dim::Name("batch"), Dim::Name("sequence"));
        let size = self.config.hidden;
        let (name, value, dims) = match self.config.head {
            Head::None => {
                ("last_hidden_state", hidden.to_owned(), vec![batch, sequence, Dim::Size(size)])
            }
            Head::Sequence { labels } => {
                ("logits", self.sequence_head(hidden, labels)?, vec![batch, Dim::Size(labels)])
            }
            Head::Token { labels } => {
                let logits = self.head_linear("classifier", hidden, [labels, size])?;
                ("logits", logits, vec![batch, sequence, Dim::Size(labels)])
            }
            Head::MaskedLanguage => {
                let words = self.config.vocabulary;
                let logits = self.masked_head(hidden)?;
                ("logits", logits, vec![batch, sequence, Dim::Size(words)])
            }
        };
        self.graph.node(name, "Identity", &[&value], &[]);
        self.graph.outputs.push(Port { name, data_type: FP32, dims });
        Ok(())
    }

    fn sequence_head(&mut self, hidden: &str, labels: usize) -> Result<String, HuggingFaceError> {
        let head = &self.config.family.heads.sequence;
        let size = self.config.hidden;
        let first = self.graph.integer("first.index", 0);
        let axis = [Attribute::Int("axis", 1)];
        let first = self.graph.node("first", "Gather", &[hidden, &first], &axis);
        let dense = match head.dense_is_encoders {
            true => self.linear(head.dense, &first, [size, size])?,
            false => self.head_linear(head.dense, &first, [size, size])?,
        };
        let pooled = self.graph.node("pooled", head.function, &[&dense], &[]);
        self.head_linear(head.out, &pooled, [labels, size])
    }

    fn masked_head(&mut self, hidden: &str) -> Result<String, HuggingFaceError> {
        let head = &self.config.family.heads.masked;
        let (size, words) = (self.config.hidden, self.config.vocabulary);
        let dense = self.head_linear(head.dense, hidden, [size, size])?;
        let activation =
            if head.is_always_gelu { Activation::Gelu } else { self.config.activation };
        let dense = self.activate("head.activation", &dense, activation);
        let [scale, bias] = pair(head.norm);
        let (scale, bias) =
            (self.weights.take(&scale, &[size])?, self.weights.take(&bias, &[size])?);
        let dense = self.layer_norm(head.norm, &dense, [scale, bias]);
        // The decoder is the table of words, unless it was saved apart.
        let decoder = match self.weights.has(head.decoder) || !self.config.is_tied {
            true => self.weights.take(head.decoder, &[words, size])?,
            false => self.weights.encoder("embeddings.word_embeddings.weight", &[words, size])?,
        };
        let [usual, other] = head.bias;
        let bias = if self.weights.has(usual) { usual } else { other };
        let bias = self.weights.take(bias, &[words])?;
        Ok(self.product("head.decoder", &dense, [decoder, bias]))
    }

    /// `x Wᵀ + b` of the encoder, with `W` `[out, in]`.
    fn linear(
        &mut self,
        name: &str,
        input: &str,
        shape: [usize; 2],
    ) -> Result<String, HuggingFaceError> {
        let [weight, bias] = pair(name);
        let weight = self.weights.encoder(&weight, &shape)?;
        let bias = self.weights.encoder(&bias, &shape[..1])?;
        Ok(self.product(name, input, [weight, bias]))
    }

    /// As [`Encoder::linear`], of a head, whose names have no prefix.
    fn head_linear(
        &mut self,
        name: &str,
        input: &str,
        shape: [usize; 2],
    ) -> Result<String, HuggingFaceError> {
        let [weight, bias] = pair(name);
        let (weight, bias) =
            (self.weights.take(&weight, &shape)?, self.weights.take(&bias, &shape[..1])?);
        Ok(self.product(name, input, [weight, bias]))
    }

    fn product(&mut self, name: &str, input: &str, [weight, bias]: [Weight; 2]) -> String {
        let (weight, bias) = (self.graph.transposed(weight), self.graph.weight(bias));
        let graph = &mut self.graph;
        let product = graph.node(&format!("{name}.product"), "MatMul", &[input, &weight], &[]);
        graph.node(&format!("{name}.sum"), "Add", &[&product, &bias], &[])
    }

    fn normalise(&mut self, name: &str, input: &str) -> Result<String, HuggingFaceError> {
        let [scale, bias] = pair(name);
        let shape = [self.config.hidden];
        let both = [self.weights.encoder(&scale, &shape)?, self.weights.encoder(&bias, &shape)?];
        Ok(self.layer_norm(name, input, both))
    }

    fn layer_norm(&mut self, name: &str, input: &str, [scale, bias]: [Weight; 2]) -> String {
        let (scale, bias) = (self.graph.weight(scale), self.graph.weight(bias));
        let attributes =
            [Attribute::Int("axis", -1), Attribute::Float("epsilon", self.config.epsilon)];
        let inputs = [input, &scale, &bias];
        self.graph.node(&format!("{name}.normalised"), "LayerNormalization", &inputs, &attributes)
    }

    fn activate(&mut self, name: &str, x: &str, activation: Activation) -> String {
        let graph = &mut self.graph;
        let at = |part: &str| format!("{name}.{part}");
        match activation {
            Activation::Relu => graph.node(name, "Relu", &[x], &[]),
            // x/2 (1 + erf(x/√2))
            Activation::Gelu => {
                let root = graph.scalar(&at("root"), std::f32::consts::SQRT_2);
                let one = graph.scalar(&at("one"), 1.0);
                let half = graph.scalar(&at("half"), 0.5);
                let inner = graph.node(&at("inner"), "Div", &[x, &root], &[]);
                let error = graph.node(&at("erf"), "Erf", &[&inner], &[]);
                let sum = graph.node(&at("sum"), "Add", &[&error, &one], &[]);
                let product = graph.node(&at("product"), "Mul", &[x, &sum], &[]);
                graph.node(name, "Mul", &[&product, &half], &[])
            }
            // x/2 (1 + tanh(√(2/π) (x + 0.044715 x³)))
            Activation::GeluTanh => {
                let three = graph.scalar(&at("three"), 3.0);
                let part = graph.scalar(&at("part"), 0.044_715);
                let root = graph.scalar(&at("root"), (2.0 / std::f64::consts::PI).sqrt() as f32);
                let one = graph.scalar(&at("one"), 1.0);
                let half = graph.scalar(&at("half"), 0.5);
                let cube = graph.node(&at("cube"), "Pow", &[x, &three], &[]);
                let cube = graph.node(&at("cube_part"), "Mul", &[&cube, &part], &[]);
                let inner = graph.node(&at("inner"), "Add", &[x, &cube], &[]);
                let inner = graph.node(&at("scaled"), "Mul", &[&inner, &root], &[]);
                let tanh = graph.node(&at("tanh"), "Tanh", &[&inner], &[]);
                let sum = graph.node(&at("sum"), "Add", &[&tanh, &one], &[]);
                let product = graph.node(&at("product"), "Mul", &[x, &sum], &[]);
                graph.node(name, "Mul", &[&product, &half], &[])
            }
        }
    }
}
