//! The list of all paths.

use utoipa::openapi::path::HttpMethod::{self, Delete, Get, Post, Put};

/// One operation.
pub struct Route {
    /// Its method.
    pub method: HttpMethod,
    /// Its path as OpenAPI writes it.
    pub path: &'static str,
    /// The router's own path that serves it.
    pub served_by: &'static str,
    /// Its group.
    pub tag: &'static str,
    /// What clients made of the document call it.
    pub id: &'static str,
    /// What it does, in a line.
    pub summary: &'static str,
    pub(super) takes: Takes,
    pub(super) gives: Gives,
}

/// What an operation takes as its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Takes {
    Nothing,
    /// JSON of a common schema, or nothing.
    Maybe(&'static str),
    /// JSON of a common schema.
    Json(&'static str),
    /// `{"instances": [...]}` of any model.
    Instances,
    /// What `/invocations` takes: several media types.
    Invocation,
    /// The parameters of a GraphQL query.
    QueryParameters,
}

/// What an operation gives, with the schema of its failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gives {
    Nothing,
    /// JSON of a common schema.
    Json(&'static str),
    /// `{"predictions": [...]}` of any model.
    Predictions,
    /// What `/invocations` gives.
    Invocation,
    /// Text of a media type.
    Text(&'static str),
}

const SERVER: &str = "Server";
const OIP: &str = "Open Inference Protocol";
const REPOSITORY: &str = "Repository";
const TENSORFLOW: &str = "TensorFlow Serving";
const OPENAI: &str = "OpenAI and reranking";
const SAGEMAKER: &str = "SageMaker";
const AZURE: &str = "Azure ML";
const GRAPHQL: &str = "GraphQL";
const TRAFFIC: &str = "Traffic";
const PAGES: &str = "Pages";

/// The groups with a word on each, in the order in which they are shown.
pub const TAGS: &[(&str, &str)] = &[
    (MODELS, "Each model's own paths, with its own rows."),
    (OIP, "Tensors in, tensors out: the protocol of KServe and Triton (`/v2`)."),
    (
        TENSORFLOW,
        "Rows or whole tensors in JSON: TensorFlow Serving's REST API, KServe v1 (`/v1`).",
    ),
    (OPENAI, "Texts to vectors, and how well texts answer a query."),
    (SAGEMAKER, "One model or many behind SageMaker's paths."),
    (AZURE, "Azure Machine Learning's scoring path."),
    (VERTEX, "Vertex AI's paths, where the platform has set them."),
    (GRAPHQL, "Several questions and predictions in one request."),
    (REPOSITORY, "What is there, and loading and unloading it."),
    (TRAFFIC, "Where requests go: routes, roll-outs, outcomes, caches."),
    (SERVER, "Health, metrics, this document."),
    (PAGES, "Pages for people."),
];

pub(super) const MODELS: &str = "Models";
pub(super) const VERTEX: &str = "Vertex AI";

const fn route(
    (method, path): (HttpMethod, &'static str),
    served_by: &'static str,
    (tag, id): (&'static str, &'static str),
    summary: &'static str,
    (takes, gives): (Takes, Gives),
) -> Route {
    Route { method, path, served_by, tag, id, summary, takes, gives }
}

/// A path that the router writes as OpenAPI does.
const fn plain(
    method_path: (HttpMethod, &'static str),
    tag_id: (&'static str, &'static str),
    summary: &'static str,
    body: (Takes, Gives),
) -> Route {
    let served_by = method_path.1;
    route(method_path, served_by, tag_id, summary, body)
}

const V1: &str = "/v1/models/{*rest}";

use Gives::{Json as GivesJson, Predictions, Text};
use Takes::{Instances, Json, Maybe, Nothing};

/// Every path that the server has, those of pages' own files left out.
#[rustfmt::skip]
pub const ROUTES: &[Route] = &[
    plain((Post, "/v2/models/{model}/infer"), (OIP, "infer"),
        "Predict with the newest version", (Json("InferRequest"), GivesJson("InferResponse"))),
    plain((Post, "/v2/models/{model}/versions/{version}/infer"), (OIP, "inferVersion"),
        "Predict with one version", (Json("InferRequest"), GivesJson("InferResponse"))),
    plain((Get, "/v2/models/{model}"), (OIP, "modelMetadata"),
        "What a model takes and gives", (Nothing, GivesJson("ModelMetadata"))),
    plain((Get, "/v2/models/{model}/versions/{version}"), (OIP, "versionMetadata"),
        "What a version takes and gives", (Nothing, GivesJson("ModelMetadata"))),
    plain((Get, "/v2/models/{model}/ready"), (OIP, "modelReady"),
        "Whether a model answers", (Nothing, GivesJson("ModelReady"))),
    plain((Get, "/v2/models/{model}/versions/{version}/ready"), (OIP, "versionReady"),
        "Whether a version answers", (Nothing, GivesJson("ModelReady"))),
    plain((Get, "/v2/models/{model}/config"), (OIP, "modelConfig"),
        "How a model is run, in Triton's words", (Nothing, GivesJson("ModelConfig"))),
    plain((Get, "/v2/models/{model}/versions/{version}/config"), (OIP, "versionConfig"),
        "How a version is run, in Triton's words", (Nothing, GivesJson("ModelConfig"))),
    plain((Get, "/v2/models/{model}/stats"), (OIP, "modelStatistics"),
        "What a model did since it was loaded", (Nothing, GivesJson("Statistics"))),
    plain((Get, "/v2/models/{model}/versions/{version}/stats"), (OIP, "versionStatistics"),
        "What a version did since it was loaded", (Nothing, GivesJson("Statistics"))),
    plain((Get, "/v2/models/stats"), (OIP, "allStatistics"),
        "What all models did since they were loaded", (Nothing, GivesJson("Statistics"))),
    plain((Get, "/v2"), (OIP, "serverMetadata"),
        "What the server is", (Nothing, GivesJson("ServerMetadata"))),
    plain((Get, "/v2/"), (OIP, "serverMetadataSlash"),
        "What the server is", (Nothing, GivesJson("ServerMetadata"))),
    plain((Get, "/v2/health/live"), (OIP, "live"),
        "Whether the process lives", (Nothing, GivesJson("Live"))),
    plain((Get, "/v2/health/ready"), (OIP, "ready"),
        "Whether traffic may come", (Nothing, GivesJson("Ready"))),

    route((Post, "/v1/models/{model}:predict"), V1, (TENSORFLOW, "predict"),
        "Predict rows or whole tensors", (Json("PredictRequest"), GivesJson("PredictResponse"))),
    route((Post, "/v1/models/{model}/versions/{version}:predict"), V1, (TENSORFLOW, "predictVersion"),
        "Predict with one version", (Json("PredictRequest"), GivesJson("PredictResponse"))),
    route((Post, "/v1/models/{model}/labels/{label}:predict"), V1, (TENSORFLOW, "predictLabel"),
        "Predict with the version of a label", (Json("PredictRequest"), GivesJson("PredictResponse"))),
    route((Post, "/v1/models/{model}:classify"), V1, (TENSORFLOW, "classify"),
        "Classify examples", (Json("ExamplesRequest"), GivesJson("ResultsResponse"))),
    route((Post, "/v1/models/{model}/versions/{version}:classify"), V1, (TENSORFLOW, "classifyVersion"),
        "Classify examples with one version", (Json("ExamplesRequest"), GivesJson("ResultsResponse"))),
    route((Post, "/v1/models/{model}/labels/{label}:classify"), V1, (TENSORFLOW, "classifyLabel"),
        "Classify examples with the version of a label", (Json("ExamplesRequest"), GivesJson("ResultsResponse"))),
    route((Post, "/v1/models/{model}:regress"), V1, (TENSORFLOW, "regress"),
        "Regress examples", (Json("ExamplesRequest"), GivesJson("ResultsResponse"))),
    route((Post, "/v1/models/{model}/versions/{version}:regress"), V1, (TENSORFLOW, "regressVersion"),
        "Regress examples with one version", (Json("ExamplesRequest"), GivesJson("ResultsResponse"))),
    route((Post, "/v1/models/{model}/labels/{label}:regress"), V1, (TENSORFLOW, "regressLabel"),
        "Regress examples with the version of a label", (Json("ExamplesRequest"), GivesJson("ResultsResponse"))),
    route((Get, "/v1/models/{model}"), V1, (TENSORFLOW, "modelStatus"),
        "How a model's versions stand", (Nothing, GivesJson("ModelStatus"))),
    route((Get, "/v1/models/{model}/versions/{version}"), V1, (TENSORFLOW, "versionStatus"),
        "How a version stands", (Nothing, GivesJson("ModelStatus"))),
    route((Get, "/v1/models/{model}/labels/{label}"), V1, (TENSORFLOW, "labelStatus"),
        "How the version of a label stands", (Nothing, GivesJson("ModelStatus"))),
    route((Get, "/v1/models/{model}/metadata"), V1, (TENSORFLOW, "tensorflowMetadata"),
        "What a model takes and gives", (Nothing, GivesJson("SignatureMetadata"))),
    route((Get, "/v1/models/{model}/versions/{version}/metadata"), V1, (TENSORFLOW, "tensorflowVersionMetadata"),
        "What a version takes and gives", (Nothing, GivesJson("SignatureMetadata"))),
    route((Get, "/v1/models/{model}/labels/{label}/metadata"), V1, (TENSORFLOW, "tensorflowLabelMetadata"),
        "What the version of a label takes and gives", (Nothing, GivesJson("SignatureMetadata"))),
    plain((Get, "/v1/models"), (TENSORFLOW, "listModels"),
        "All models", (Nothing, GivesJson("ModelList"))),
    plain((Get, "/v1/models/"), (TENSORFLOW, "listModelsSlash"),
        "All models", (Nothing, GivesJson("ModelList"))),

    plain((Post, "/v1/embeddings"), (OPENAI, "embeddings"),
        "Texts or their tokens to vectors", (Json("EmbeddingsRequest"), GivesJson("EmbeddingsResponse"))),
    plain((Post, "/v1/rerank"), (OPENAI, "rerankDocuments"),
        "How well documents answer a query, best first", (Json("RerankRequest"), GivesJson("RerankResponse"))),
    plain((Post, "/rerank"), (OPENAI, "rerankTexts"),
        "How well texts answer a query, best first", (Json("TextsRequest"), GivesJson("TextsResponse"))),

    plain((Get, "/ping"), (SAGEMAKER, "ping"),
        "Whether traffic may come", (Nothing, Gives::Nothing)),
    plain((Post, "/invocations"), (SAGEMAKER, "invocations"),
        "Predict with the default model", (Takes::Invocation, Gives::Invocation)),
    plain((Post, "/endpoints/{endpoint}/invocations"), (SAGEMAKER, "endpointInvocations"),
        "Predict with the default model, as boto3 asks", (Takes::Invocation, Gives::Invocation)),
    plain((Get, "/models"), (SAGEMAKER, "sagemakerList"),
        "The models that are loaded", (Nothing, GivesJson("SagemakerModels"))),
    plain((Post, "/models"), (SAGEMAKER, "sagemakerLoad"),
        "Load a model", (Json("SagemakerLoad"), Gives::Nothing)),
    plain((Get, "/models/{model}"), (SAGEMAKER, "sagemakerDescribe"),
        "Where a model comes from", (Nothing, GivesJson("SagemakerModel"))),
    plain((Delete, "/models/{model}"), (SAGEMAKER, "sagemakerUnload"),
        "Unload a model", (Nothing, Gives::Nothing)),
    plain((Post, "/models/{model}/invoke"), (SAGEMAKER, "sagemakerInvoke"),
        "Predict with one of many models", (Takes::Invocation, Gives::Invocation)),

    plain((Post, "/score"), (AZURE, "score"),
        "Predict with the default model", (Json("ScoreRequest"), GivesJson("ScoreResponse"))),

    plain((Post, "/graphql"), (GRAPHQL, "graphql"),
        "Answer a query", (Json("GraphqlRequest"), GivesJson("GraphqlResponse"))),
    plain((Get, "/graphql"), (GRAPHQL, "graphqlByUrl"),
        "Answer a query of the URL", (Takes::QueryParameters, GivesJson("GraphqlResponse"))),
    plain((Get, "/graphql/schema.graphql"), (GRAPHQL, "graphqlSchema"),
        "The schema in GraphQL's own language", (Nothing, Text("text/plain"))),

    plain((Post, "/v2/repository/index"), (REPOSITORY, "repositoryIndex"),
        "Every version with its state", (Maybe("IndexRequest"), GivesJson("Index"))),
    plain((Post, "/v2/repository/models/{model}/load"), (REPOSITORY, "loadModel"),
        "Load a model", (Maybe("LoadRequest"), Gives::Nothing)),
    plain((Post, "/v2/repository/models/{model}/unload"), (REPOSITORY, "unloadModel"),
        "Unload a model", (Maybe("UnloadRequest"), Gives::Nothing)),

    plain((Get, "/metrics"), (SERVER, "metrics"),
        "Metrics as Prometheus reads them", (Nothing, Text("text/plain"))),
    plain((Get, "/openapi.json"), (SERVER, "openapi"),
        "This document", (Nothing, GivesJson("Anything"))),
    plain((Get, "/"), (SERVER, "alive"),
        "A sign of life; the list of models for browsers", (Nothing, GivesJson("Alive"))),

    plain((Get, "/v1/routes"), (TRAFFIC, "listRoutes"),
        "All routes, and how their variants do", (Nothing, GivesJson("Routes"))),
    plain((Get, "/v1/routes/{route}"), (TRAFFIC, "showRoute"),
        "One route, and how its variants do", (Nothing, GivesJson("RouteStatus"))),
    plain((Put, "/v1/routes/{route}"), (TRAFFIC, "setRoute"),
        "Make or change a route", (Json("Route"), GivesJson("Changed"))),
    plain((Delete, "/v1/routes/{route}"), (TRAFFIC, "removeRoute"),
        "Take a route away", (Nothing, GivesJson("Changed"))),
    plain((Get, "/v1/routes/{route}/report"), (TRAFFIC, "reportRoute"),
        "The variants compared by their outcomes", (Nothing, GivesJson("Report"))),
    plain((Get, "/v1/rollouts"), (TRAFFIC, "listRollouts"),
        "The newest roll-out of each route", (Nothing, GivesJson("Rollouts"))),
    plain((Get, "/v1/rollouts/{route}"), (TRAFFIC, "showRollout"),
        "The newest roll-out of a route, with its guards", (Nothing, GivesJson("RolloutStatus"))),
    plain((Post, "/v1/rollouts/{route}"), (TRAFFIC, "startRollout"),
        "Start a roll-out", (Json("Rollout"), GivesJson("Changed"))),
    plain((Post, "/v1/rollouts/{route}/{action}"), (TRAFFIC, "actOnRollout"),
        "Promote, pause, resume, abort or roll back", (Nothing, GivesJson("Changed"))),
    plain((Get, "/v1/journal"), (TRAFFIC, "journal"),
        "What was changed, when, by whom and why; newest first", (Nothing, GivesJson("Journal"))),
    plain((Get, "/v1/caches"), (TRAFFIC, "listCaches"),
        "What the models' caches saved", (Nothing, GivesJson("Caches"))),
    plain((Post, "/v1/feedback"), (TRAFFIC, "feedback"),
        "Outcomes of predictions, by the request's id", (Json("Feedback"), GivesJson("FeedbackAnswer"))),

    plain((Get, "/traffic"), (PAGES, "trafficPage"),
        "A page of routes and roll-outs", (Nothing, Text("text/html"))),
    plain((Get, "/docs"), (PAGES, "docs"),
        "This document to read", (Nothing, Text("text/html"))),
    plain((Get, "/try/{model}"), (PAGES, "tryModel"),
        "A page to try a model", (Nothing, Text("text/html"))),
    plain((Get, "/try/{model}/versions/{version}"), (PAGES, "tryVersion"),
        "A page to try a version", (Nothing, Text("text/html"))),
];

impl Route {
    /// Returns the common schema of its failures.
    pub(super) fn fails(&self) -> &'static str {
        match self.tag {
            OPENAI if self.path == "/rerank" => "TextsError",
            OPENAI => "OpenaiError",
            SAGEMAKER => "SagemakerError",
            AZURE | VERTEX => "CloudError",
            GRAPHQL => "GraphqlResponse",
            // OpenAI's clients read a missing model there, TensorFlow Serving's everything else.
            TENSORFLOW if matches!(self.gives, Gives::Json("ModelStatus")) => "ModelError",
            _ => "Error",
        }
    }

    /// Returns whether a model answers it, which may be busy, slow or not ready.
    pub(super) fn predicts(&self) -> bool {
        if self.tag == TRAFFIC {
            return false;
        }
        match self.takes {
            Instances | Takes::Invocation | Takes::QueryParameters => true,
            Json(schema) => schema != "SagemakerLoad",
            Nothing | Maybe(_) => false,
        }
    }
}

/// Returns the operations of Vertex AI, whose paths the platform says.
pub(super) const fn vertex() -> [Route; 2] {
    let health = "Whether traffic may come";
    [
        plain(
            (Post, "(predict)"),
            (VERTEX, "vertexPredict"),
            "Predict with the default model",
            (Instances, Predictions),
        ),
        plain((Get, "(health)"), (VERTEX, "vertexHealth"), health, (Nothing, Gives::Nothing)),
    ]
}
