//! What sentence-transformers adds: how tokens become one vector (`modules.json`, `1_Pooling`), and what
//! is put before texts.

use outhaul_types::{EmbeddingOutput, Pooling};
use serde_json::Value;

use super::keys::{At, Document, Reading};

const MODULES: &str = "modules.json";
const PROMPTS: &str = "config_sentence_transformers.json";

/// What to do about modules that are not carried out.
const EXPORT: &str = "export the whole pipeline to one ONNX file with an output sentence_embedding, and \
                      declare it in a model.toml";

/// Reads the modules in their order. Without them, tokens are averaged, which is a guess.
pub(super) fn embedding(reading: &mut Reading) -> Option<EmbeddingOutput> {
    if !reading.has(MODULES) {
        let rule = "there is no modules.json, which says how tokens become one vector; their mean is \
                    taken, not normalised";
        let remedy = "declare transform.output in a model.toml if that is not what the model was trained \
                      for";
        reading.warning(At("", "", None), rule, remedy);
        return Some(EmbeddingOutput::default());
    }
    let modules = reading.json(MODULES)?;
    let Value::Array(modules) = modules else {
        reading.error(At(MODULES, "", None), "must hold a list", "download the file once more");
        return None;
    };
    let mut output = EmbeddingOutput::default();
    let mut is_pooled = false;
    for (index, module) in modules.iter().enumerate() {
        let text = |key: &str| module.get(key).and_then(Value::as_str).unwrap_or_default();
        let (kind, path) = (text("type"), text("path"));
        let key = |name: &str| format!("[{index}].{name}");
        match kind.rsplit('.').next().unwrap_or_default() {
            "Transformer" if path.is_empty() => {}
            "Transformer" => {
                let rule = "the weights must lie in the folder itself";
                let remedy = "load and save the model once more with sentence-transformers";
                reading.error(At(MODULES, &key("path"), module.get("path")), rule, remedy);
            }
            "Pooling" => {
                is_pooled = true;
                output.pooling = pooling(path, reading)?;
            }
            "Normalize" => output.normalize = true,
            // Drops parts of vectors in training only.
            "Dropout" => {}
            _ => {
                let rule = "this module is not carried out";
                reading.error(At(MODULES, &key("type"), module.get("type")), rule, EXPORT);
            }
        }
    }
    if !is_pooled {
        let rule = "no module says how tokens become one vector";
        reading.error(At(MODULES, "", None), rule, EXPORT);
    }
    Some(output)
}

fn pooling(path: &str, reading: &mut Reading) -> Option<Pooling> {
    let file = match path {
        "1_Pooling" => "1_Pooling/config.json",
        _ => {
            let rule = format!("pooling is read from 1_Pooling, not from '{path}'");
            reading.error(At(MODULES, "", None), rule, "rename the folder, and name it here");
            return None;
        }
    };
    let config = reading.document(file)?;
    if !config.is_true("include_prompt", true) {
        let rule = "prompts are part of the vector here";
        reading.error(At(file, "include_prompt", config.get("include_prompt")), rule, EXPORT);
    }
    let mut modes = modes(&config);
    let (Some(mode), None) = (modes.pop(), modes.pop()) else {
        let rule = "must say exactly one way of pooling";
        reading.error(At(file, "", None), rule, EXPORT);
        return None;
    };
    match mode.trim_start_matches("pooling_mode_") {
        "mean_tokens" | "mean" => Some(Pooling::Mean),
        "cls_token" | "cls" => Some(Pooling::Cls),
        "max_tokens" | "max" => Some(Pooling::Max),
        _ => {
            let rule = "pooling by the mean, the first token and the maximum is carried out";
            reading.error(At(file, &mode, config.get(&mode)), rule, EXPORT);
            None
        }
    }
}

/// Returns the ways of pooling that are switched on: by `pooling_mode`, or by a key for each.
fn modes(config: &Document) -> Vec<String> {
    if let Some(mode) = config.text("pooling_mode") {
        return vec![mode.to_owned()];
    }
    let switched_on =
        config.beginning("pooling_mode_").filter(|(_, on)| on.as_bool() == Some(true));
    switched_on.map(|(key, _)| key.to_owned()).collect()
}

/// Returns what is put before every text.
pub(super) fn prompt(reading: &mut Reading) -> String {
    let config = reading.has(PROMPTS).then(|| reading.document(PROMPTS)).flatten();
    let Some(config) = config else { return String::new() };
    let prompts = config.get("prompts").and_then(Value::as_object);
    let Some(name) = config.text("default_prompt_name") else {
        let named = prompts.into_iter().flatten();
        let names: Vec<&str> = named
            .filter(|(_, text)| text.as_str().is_some_and(|text| !text.is_empty()))
            .map(|(name, _)| name.as_str())
            .collect();
        if !names.is_empty() {
            let rule = format!("none of the prompts {} is put before texts", names.join(", "));
            let remedy = "let callers write them, or set transform.input.prefix in a model.toml";
            reading.warning(At(PROMPTS, "prompts", None), rule, remedy);
        }
        return String::new();
    };
    match prompts.and_then(|prompts| prompts.get(name)).and_then(Value::as_str) {
        Some(prompt) => prompt.to_owned(),
        None => {
            let value = config.get("default_prompt_name");
            let rule = "there is no prompt of this name under prompts";
            reading.error(At(PROMPTS, "default_prompt_name", value), rule, "correct the name");
            String::new()
        }
    }
}
