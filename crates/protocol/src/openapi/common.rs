//! Schemas that are the same whatever the models are.

use super::shape::Need::{May, Must};
use super::shape::{
    Member, Shape, any_of, anything, boolean, count, described, filled, integer, list, map, named,
    nullable, number, object, one_of, open, string,
};

const DATA_TYPES: [&str; 14] = [
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16",
    "BF16", "FP32", "FP64", "BYTES",
];

/// Returns all of them by name.
pub(super) fn schemas() -> Vec<(&'static str, Shape)> {
    let mut schemas = oip();
    schemas.extend(repository());
    schemas.extend(rows());
    schemas.extend(texts());
    schemas.extend(platforms());
    schemas.extend(traffic());
    schemas
}

fn must(name: &str, shape: Shape) -> Member<'_> {
    (name, shape, Must)
}

fn may(name: &str, shape: Shape) -> Member<'_> {
    (name, shape, May)
}

fn oip() -> Vec<(&'static str, Shape)> {
    let shape = || list(integer());
    let parameters = || described(map(anything()), "Free-form parameters by name.");
    let tensor = [
        must("name", string()),
        must("datatype", one_of(DATA_TYPES)),
        must("shape", described(list(count()), "Rows first.")),
        may("data", described(list(anything()), "Flat, or nested as the shape says.")),
        may("parameters", parameters()),
    ];
    let declared = [
        must("name", string()),
        must("datatype", one_of(DATA_TYPES)),
        must("shape", described(shape(), "-1 where a size may vary.")),
        may("content", described(string(), "What each element is, where that is known.")),
        may("choices", list(string())),
        may("unit", string()),
    ];
    let requested = [must("name", string()), may("parameters", parameters())];
    vec![
        ("Error", object([must("error", string())])),
        ("Anything", anything()),
        ("Alive", object([must("status", string())])),
        ("Live", object([must("live", boolean())])),
        ("Ready", object([must("ready", boolean())])),
        ("ModelReady", object([must("name", string()), must("ready", boolean())])),
        ("Tensor", object(tensor)),
        (
            "InferRequest",
            object([
                may("id", string()),
                may("parameters", parameters()),
                must("inputs", filled(named("Tensor"))),
                may("outputs", list(object(requested))),
            ]),
        ),
        (
            "InferResponse",
            object([
                may("id", string()),
                must("model_name", string()),
                must("model_version", string()),
                may("parameters", parameters()),
                must("outputs", list(named("Tensor"))),
            ]),
        ),
        (
            "ServerMetadata",
            object([
                must("name", string()),
                must("version", string()),
                must("extensions", list(string())),
            ]),
        ),
        ("DeclaredTensor", object(declared)),
        (
            "ModelMetadata",
            object([
                must("name", string()),
                must("versions", list(string())),
                must("platform", string()),
                must("inputs", list(named("DeclaredTensor"))),
                must("outputs", list(named("DeclaredTensor"))),
                may("properties", map(string())),
                may(
                    "model",
                    described(open(), "The model's own tensors, where a transform stands between."),
                ),
            ]),
        ),
        ("ModelConfig", open()),
        ("Statistics", object([must("model_stats", list(open()))])),
    ]
}

fn traffic() -> Vec<(&'static str, Shape)> {
    let destination =
        || described(string(), "NAME, NAME@VERSION, NAME@LABEL, or http://HOST/v2/models/NAME.");
    let target = [must("to", destination()), may("weight", number())];
    let entry = [
        must("at", described(count(), "Milliseconds since 1970.")),
        must("route", string()),
        may("rollout", string()),
        must("what", string()),
        must("text", string()),
        must("by", string()),
    ];
    let outcome = || {
        object([
            must("id", described(string(), "The request's id.")),
            may("route", string()),
            may("reward", described(number(), "From 0 to 1.")),
            may("label", described(anything(), "What the prediction should have been.")),
        ])
    };
    vec![
        (
            "Route",
            object([
                must("targets", filled(object(target))),
                may("policy", open()),
                may("sticky", described(string(), "caller, header:NAME, cookie:NAME, field:NAME.")),
                may("pinned", map(destination())),
                may("overrides", boolean()),
                may("shadow", open()),
                may("fallback", open()),
                may("feedback", boolean()),
            ]),
        ),
        (
            "RouteStatus",
            object([
                must("name", string()),
                must("variants", list(open())),
                must("shadow", nullable(open())),
                must("spec", named("Route")),
            ]),
        ),
        (
            "Routes",
            object([must("generation", count()), must("routes", list(named("RouteStatus")))]),
        ),
        (
            "Rollout",
            object([
                must("to", destination()),
                may("from", destination()),
                may("steps", described(list(number()), "Shares in percent, ascending.")),
                may("every", described(string(), "A duration with a unit, as in 10m.")),
                may("guards", described(list(string()), "As in error_rate<1%, p99<1.2x.")),
                may("false_alarm", number()),
                may("mirror", number()),
            ]),
        ),
        ("RolloutStatus", open()),
        ("Rollouts", object([must("rollouts", list(named("RolloutStatus")))])),
        ("Entry", object(entry)),
        (
            "Changed",
            object([
                must("generation", count()),
                must("entries", list(named("Entry"))),
                must("kept", described(boolean(), "Whether the state store has it already.")),
            ]),
        ),
        ("Journal", object([must("entries", list(named("Entry")))])),
        ("Report", open()),
        ("Caches", object([must("caches", list(open()))])),
        ("Feedback", any_of([outcome(), object([must("feedback", filled(outcome()))])])),
        (
            "FeedbackAnswer",
            object([
                must("joined", count()),
                must("replaced", count()),
                must("duplicate", list(string())),
                must("unknown", list(string())),
            ]),
        ),
    ]
}

fn repository() -> Vec<(&'static str, Shape)> {
    let states = ["READY", "LOADING", "UNAVAILABLE"];
    let standings = ["ready", "loading", "dormant", "failed", "unloaded"];
    let entry = [
        must("name", string()),
        must("version", string()),
        must("state", one_of(states)),
        must("reason", string()),
        may("standing", one_of(standings)),
        may("labels", list(string())),
        may("engine", nullable(string())),
        may("memory_bytes", nullable(count())),
        may("last_error", nullable(string())),
        may("source", nullable(string())),
    ];
    let version = described(any_of([integer(), string()]), "The one version that is to be loaded.");
    vec![
        ("IndexRequest", object([may("ready", boolean())])),
        ("IndexEntry", object(entry)),
        ("Index", list(named("IndexEntry"))),
        ("LoadRequest", object([may("parameters", object([may("version", version)]))])),
        (
            "UnloadRequest",
            object([may("parameters", object([may("unload_dependents", boolean())]))]),
        ),
    ]
}

fn rows() -> Vec<(&'static str, Shape)> {
    let instances =
        || described(filled(anything()), "Rows: objects by input name, or bare values.");
    let signature = || described(string(), "`serving_default`, where it is given.");
    let status = [
        must("version", string()),
        must("state", string()),
        must("status", object([must("error_code", string()), must("error_message", string())])),
    ];
    vec![
        (
            "PredictRequest",
            any_of([
                object([may("signature_name", signature()), must("instances", instances())]),
                object([
                    may("signature_name", signature()),
                    must(
                        "inputs",
                        described(anything(), "Whole tensors by name, or the only one."),
                    ),
                ]),
            ]),
        ),
        (
            "PredictResponse",
            any_of([
                object([must("predictions", list(anything()))]),
                object([must("outputs", anything())]),
            ]),
        ),
        (
            "ExamplesRequest",
            object([
                may("signature_name", signature()),
                may("context", described(open(), "Features that all examples share.")),
                must("examples", described(filled(open()), "Objects by input name.")),
            ]),
        ),
        ("ResultsResponse", object([must("results", list(anything()))])),
        (
            "ModelStatus",
            object([
                must("model_version_status", list(object(status))),
                may("name", string()),
                may("ready", boolean()),
                may("id", string()),
                may("object", string()),
            ]),
        ),
        ("SignatureMetadata", object([must("model_spec", open()), must("metadata", open())])),
        (
            "ModelList",
            object([
                must("object", string()),
                must("data", list(object([must("id", string()), must("object", string())]))),
                must("models", list(string())),
            ]),
        ),
    ]
}

fn texts() -> Vec<(&'static str, Shape)> {
    let tokens = || list(count());
    let input = any_of([string(), filled(string()), tokens(), filled(tokens())]);
    let usage = || object([must("prompt_tokens", count()), must("total_tokens", count())]);
    let embedding = [
        must("object", string()),
        must("index", count()),
        must(
            "embedding",
            described(any_of([list(number()), string()]), "Numbers, or Base64 of FP32."),
        ),
    ];
    let result =
        [must("index", count()), must("relevance_score", number()), may("document", open())];
    let best = [must("index", count()), must("score", number()), may("text", string())];
    let openai_error = object([
        must("message", string()),
        must("type", string()),
        must("param", nullable(string())),
        must("code", nullable(string())),
    ]);
    vec![
        (
            "EmbeddingsRequest",
            object([
                may("model", string()),
                must("input", described(input, "A text, texts, the tokens of one, or of several.")),
                may("encoding_format", one_of(["float", "base64"])),
                may("dimensions", described(count(), "At most as many as the model has.")),
            ]),
        ),
        (
            "EmbeddingsResponse",
            object([
                must("object", string()),
                must("data", list(object(embedding))),
                must("model", string()),
                must("usage", usage()),
            ]),
        ),
        (
            "RerankRequest",
            object([
                may("model", string()),
                must("query", string()),
                must("documents", filled(any_of([string(), object([must("text", string())])]))),
                may("top_n", count()),
                may("return_documents", boolean()),
            ]),
        ),
        ("RerankResponse", object([must("results", list(object(result)))])),
        (
            "TextsRequest",
            object([
                may("model", string()),
                must("query", string()),
                must("texts", filled(string())),
                may("raw_scores", boolean()),
                may("return_text", boolean()),
            ]),
        ),
        ("TextsResponse", list(object(best))),
        ("OpenaiError", object([must("error", openai_error)])),
        ("ModelError", any_of([named("Error"), named("OpenaiError")])),
        ("TextsError", object([must("error", string()), must("error_type", string())])),
    ]
}

fn platforms() -> Vec<(&'static str, Shape)> {
    let data = |name| object([must(name, anything())]);
    let forms =
        ["input_data", "data", "inputs", "instances", "dataframe_split", "dataframe_records"];
    let score = forms.map(data).into_iter().chain([filled(anything())]);
    let model = [must("modelName", string()), must("modelUrl", string())];
    let error = [
        must("message", string()),
        may("locations", list(open())),
        may("path", list(any_of([string(), count()]))),
        may("extensions", object([may("code", string())])),
    ];
    vec![
        ("ScoreRequest", any_of(score)),
        ("ScoreResponse", list(anything())),
        (
            "SagemakerError",
            object([must("error", string()), must("message", string()), must("code", string())]),
        ),
        ("SagemakerLoad", object([must("model_name", string()), must("url", string())])),
        ("SagemakerModel", object(model)),
        ("SagemakerModels", object([must("models", list(named("SagemakerModel")))])),
        (
            "CloudError",
            object([must("error", object([must("code", anything()), must("message", string())]))]),
        ),
        (
            "GraphqlRequest",
            object([
                must("query", string()),
                may("variables", nullable(open())),
                may("operationName", nullable(string())),
            ]),
        ),
        (
            "GraphqlResponse",
            object([may("data", nullable(open())), may("errors", list(object(error)))]),
        ),
    ]
}
