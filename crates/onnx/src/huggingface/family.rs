//! What the families of encoders call their keys and tensors, as tables: the mathematics of their layers is
//! one and the same.

/// One family.
#[derive(Debug)]
pub(super) struct Family {
    pub(super) name: &'static str,
    /// What the names of its classes begin with.
    pub(super) classes: &'static [&'static str],
    /// What the names of the encoder's tensors may begin with, where a head is saved with them.
    pub(super) prefix: &'static str,
    pub(super) keys: ConfigKeys,
    pub(super) has_types: bool,
    pub(super) usual_types: usize,
    /// Whether positions are counted from behind the padding token's number, padding left out.
    pub(super) positions_skip_padding: bool,
    pub(super) usual_padding: i64,
    pub(super) usual_epsilon: f32,
    pub(super) layer: LayerNames,
    pub(super) heads: HeadNames,
}

/// The names of keys in `config.json`.
#[derive(Debug)]
pub(super) struct ConfigKeys {
    pub(super) hidden: &'static str,
    pub(super) intermediate: &'static str,
    pub(super) layers: &'static str,
    pub(super) heads: &'static str,
    pub(super) activation: &'static str,
    /// `None` where it is the same for the whole family.
    pub(super) epsilon: Option<&'static str>,
}

/// The names of a layer's tensors, below `{layers}.{number}.`.
#[derive(Debug)]
pub(super) struct LayerNames {
    pub(super) layers: &'static str,
    pub(super) query: &'static str,
    pub(super) key: &'static str,
    pub(super) value: &'static str,
    pub(super) attention: &'static str,
    pub(super) attention_norm: &'static str,
    pub(super) up: &'static str,
    pub(super) down: &'static str,
    pub(super) norm: &'static str,
}

/// The tensors behind the encoder.
#[derive(Debug)]
pub(super) struct HeadNames {
    pub(super) sequence: SequenceHead,
    /// A linear layer, its activation (`None`: that of the configuration) and a normalisation.
    pub(super) masked: MaskedHead,
}

/// From the first token's vector to classes: a linear layer, a function, a linear layer.
#[derive(Debug)]
pub(super) struct SequenceHead {
    pub(super) dense: &'static str,
    /// Whether `dense` belongs to the encoder, so that its name may begin with the prefix.
    pub(super) dense_is_encoders: bool,
    pub(super) function: &'static str,
    pub(super) out: &'static str,
}

/// From a token's vector to words.
#[derive(Debug)]
pub(super) struct MaskedHead {
    pub(super) dense: &'static str,
    pub(super) norm: &'static str,
    pub(super) decoder: &'static str,
    /// The decoder's bias, by the names that it has been saved under.
    pub(super) bias: [&'static str; 2],
    pub(super) is_always_gelu: bool,
}

const BERT_KEYS: ConfigKeys = ConfigKeys {
    hidden: "hidden_size",
    intermediate: "intermediate_size",
    layers: "num_hidden_layers",
    heads: "num_attention_heads",
    activation: "hidden_act",
    epsilon: Some("layer_norm_eps"),
};

const BERT_LAYER: LayerNames = LayerNames {
    layers: "encoder.layer",
    query: "attention.self.query",
    key: "attention.self.key",
    value: "attention.self.value",
    attention: "attention.output.dense",
    attention_norm: "attention.output.LayerNorm",
    up: "intermediate.dense",
    down: "output.dense",
    norm: "output.LayerNorm",
};

/// BERT and its small relatives, MiniLM among them.
pub(super) const BERT: Family = Family {
    name: "BERT",
    classes: &["Bert"],
    prefix: "bert.",
    keys: BERT_KEYS,
    has_types: true,
    usual_types: 2,
    positions_skip_padding: false,
    usual_padding: 0,
    usual_epsilon: 1e-12,
    layer: BERT_LAYER,
    heads: HeadNames {
        sequence: SequenceHead {
            dense: "pooler.dense",
            dense_is_encoders: true,
            function: "Tanh",
            out: "classifier",
        },
        masked: MaskedHead {
            dense: "cls.predictions.transform.dense",
            norm: "cls.predictions.transform.LayerNorm",
            decoder: "cls.predictions.decoder.weight",
            bias: ["cls.predictions.bias", "cls.predictions.decoder.bias"],
            is_always_gelu: false,
        },
    },
};

/// RoBERTa, XLM-RoBERTa and CamemBERT.
pub(super) const ROBERTA: Family = Family {
    name: "RoBERTa",
    classes: &["Roberta", "XLMRoberta", "Camembert"],
    prefix: "roberta.",
    keys: BERT_KEYS,
    has_types: true,
    usual_types: 1,
    positions_skip_padding: true,
    usual_padding: 1,
    usual_epsilon: 1e-12,
    layer: BERT_LAYER,
    heads: HeadNames {
        sequence: SequenceHead {
            dense: "classifier.dense",
            dense_is_encoders: false,
            function: "Tanh",
            out: "classifier.out_proj",
        },
        masked: MaskedHead {
            dense: "lm_head.dense",
            norm: "lm_head.layer_norm",
            decoder: "lm_head.decoder.weight",
            bias: ["lm_head.bias", "lm_head.decoder.bias"],
            is_always_gelu: true,
        },
    },
};

/// DistilBERT: BERT without types of tokens and under other names.
pub(super) const DISTILBERT: Family = Family {
    name: "DistilBERT",
    classes: &["DistilBert"],
    prefix: "distilbert.",
    keys: ConfigKeys {
        hidden: "dim",
        intermediate: "hidden_dim",
        layers: "n_layers",
        heads: "n_heads",
        activation: "activation",
        epsilon: None,
    },
    has_types: false,
    usual_types: 0,
    positions_skip_padding: false,
    usual_padding: 0,
    usual_epsilon: 1e-12,
    layer: LayerNames {
        layers: "transformer.layer",
        query: "attention.q_lin",
        key: "attention.k_lin",
        value: "attention.v_lin",
        attention: "attention.out_lin",
        attention_norm: "sa_layer_norm",
        up: "ffn.lin1",
        down: "ffn.lin2",
        norm: "output_layer_norm",
    },
    heads: HeadNames {
        sequence: SequenceHead {
            dense: "pre_classifier",
            dense_is_encoders: false,
            function: "Relu",
            out: "classifier",
        },
        masked: MaskedHead {
            dense: "vocab_transform",
            norm: "vocab_layer_norm",
            decoder: "vocab_projector.weight",
            bias: ["vocab_projector.bias", "vocab_projector.bias"],
            is_always_gelu: false,
        },
    },
};

/// The tensors that a checkpoint may hold beside those of its class: buffers, and heads of the training
/// before. transformers passes over them too.
pub(super) const PASSED_OVER: [&str; 8] = [
    "embeddings.position_ids",
    "embeddings.token_type_ids",
    "pooler.dense.",
    "cls.",
    "lm_head.",
    "vocab_transform.",
    "vocab_layer_norm.",
    "vocab_projector.",
];
