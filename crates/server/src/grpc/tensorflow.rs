//! The methods of `tensorflow.serving.PredictionService` and `tensorflow.serving.ModelService`.

use outhaul_protocol::Schema;
use outhaul_protocol::oip::Target;
use outhaul_protocol::tensorflow_grpc::pb::serving::model_service_server::ModelService;
use outhaul_protocol::tensorflow_grpc::pb::serving::prediction_service_server::PredictionService;
use outhaul_protocol::tensorflow_grpc::pb::serving::*;
use outhaul_protocol::tensorflow_grpc::{
    self as codec, Classes, Form, Tasks, TensorFlowError, Value, VersionFact,
};
use outhaul_router::{RouterError, Standing, VersionStatus};
use outhaul_types::{InferRequest, InferResponse, Name, RequestedOutput, VersionChoice};
use prost::Message;
use tonic::{Request, Response, Status};

use super::answer::{Answer, Asked, Base, named};
use super::context::Caller;
use crate::describe;

/// Answers the methods of both services.
#[derive(Clone)]
pub(super) struct TensorFlow {
    pub(super) base: Base,
}

/// A call with examples.
struct Examples {
    route: &'static str,
    request_bytes: usize,
    target: Result<Target, TensorFlowError>,
    input: Option<Input>,
}

impl TensorFlow {
    async fn infer(&self, request: InferRequest, caller: &Caller) -> Result<InferResponse, Status> {
        let response = self.base.app.router().infer(request, &caller.context).await;
        response.map_err(|error| self.base.refuse(&error, caller))
    }

    /// Answers examples in a form that `find` makes of what the model is. Nothing is run where there is
    /// none.
    async fn answer<F: Form, M: Message>(
        &self,
        examples: Examples,
        caller: &Caller,
        find: impl FnOnce(&Schema<'_>) -> Result<F, TensorFlowError>,
        message: impl FnOnce(F::Written, ModelSpec) -> M,
    ) -> Result<Response<M>, Status> {
        let Examples { route, request_bytes, target, input } = examples;
        let model = target.as_ref().map(|target| target.model.clone()).unwrap_or_default();
        let prediction = async {
            let target = target.map_err(|error| self.base.refuse(&error, caller))?;
            let (written, response) = self.answer_form(target, input, caller, find).await?;
            let spec = codec::model_spec(response.model.as_str(), response.version);
            Ok(Answer::of(&response, message(written, spec)))
        };
        let asked = Asked { route, model: &model, request_bytes };
        named(self.base.tell(asked, caller, prediction).await, caller)
    }

    async fn answer_form<F: Form>(
        &self,
        target: Target,
        input: Option<Input>,
        caller: &Caller,
        find: impl FnOnce(&Schema<'_>) -> Result<F, TensorFlowError>,
    ) -> Result<(F::Written, InferResponse), Status> {
        let refuse = |error| self.base.refuse(&error, caller);
        let model = self.base.describe(&target.model, &target.version, caller).await?;
        let schema = describe::schema(&model);
        let form = find(&schema).map_err(refuse)?;
        let limits = &self.base.app.config().decode_limits;
        let decoded = codec::decode_examples(input, &schema, limits);
        let (inputs, rows) = decoded.map_err(refuse)?;
        let output = |name: &Name| RequestedOutput { name: name.clone(), classification: None };
        let request = InferRequest {
            version: target.version,
            outputs: form.outputs().into_iter().map(output).collect(),
            ..InferRequest::new(target.model, inputs)
        };
        let response = self.infer(request, caller).await?;
        Ok((form.write(&response, rows).map_err(refuse)?, response))
    }

    async fn predict_tensors(
        &self,
        message: PredictRequest,
        caller: &Caller,
    ) -> Result<Answer<PredictResponse>, Status> {
        let request = codec::decode_predict(message, &self.base.app.config().decode_limits);
        let request = request.map_err(|error| self.base.refuse(&error, caller))?;
        let response = self.infer(request, caller).await?;
        Ok(Answer::of(&response, codec::encode_predict(&response)))
    }

    /// Returns the versions of a model that are meant.
    fn versions(&self, target: &Target) -> Result<Vec<VersionStatus>, RouterError> {
        let Target { model, version } = target;
        let mut versions = self.base.app.router().models();
        versions.retain(|status| model == status.name.as_str());
        if versions.is_empty() {
            return Err(RouterError::UnknownModel { model: model.clone() });
        }
        let model = model.clone();
        match version {
            VersionChoice::Latest => return Ok(versions),
            VersionChoice::Exact(version) => {
                versions.retain(|status| status.version == *version);
                if versions.is_empty() {
                    return Err(RouterError::UnknownVersion { model, version: *version });
                }
            }
            VersionChoice::Label(label) => {
                versions.retain(|status| status.labels.contains(label));
                if versions.is_empty() {
                    return Err(RouterError::UnknownLabel { model, label: label.clone() });
                }
            }
        }
        Ok(versions)
    }
}

#[tonic::async_trait]
impl PredictionService for TensorFlow {
    async fn predict(
        &self,
        request: Request<PredictRequest>,
    ) -> Result<Response<PredictResponse>, Status> {
        let caller = self.base.limited_caller(&request)?;
        let message = request.into_inner();
        let spec = message.model_spec.as_ref();
        let model = spec.map(|spec| spec.name.clone()).unwrap_or_default();
        let route = "tensorflow.serving.PredictionService/Predict";
        let asked = Asked { route, model: &model, request_bytes: message.encoded_len() };
        let prediction = self.predict_tensors(message, &caller);
        named(self.base.tell(asked, &caller, prediction).await, &caller)
    }

    async fn classify(
        &self,
        request: Request<ClassificationRequest>,
    ) -> Result<Response<ClassificationResponse>, Status> {
        let caller = self.base.limited_caller(&request)?;
        let message = request.into_inner();
        let examples = Examples {
            route: "tensorflow.serving.PredictionService/Classify",
            request_bytes: message.encoded_len(),
            target: codec::read_spec(message.model_spec),
            input: message.input,
        };
        let message =
            |result, spec| ClassificationResponse { result: Some(result), model_spec: Some(spec) };
        self.answer(examples, &caller, Classes::find, message).await
    }

    async fn regress(
        &self,
        request: Request<RegressionRequest>,
    ) -> Result<Response<RegressionResponse>, Status> {
        let caller = self.base.limited_caller(&request)?;
        let message = request.into_inner();
        let examples = Examples {
            route: "tensorflow.serving.PredictionService/Regress",
            request_bytes: message.encoded_len(),
            target: codec::read_spec(message.model_spec),
            input: message.input,
        };
        let message =
            |result, spec| RegressionResponse { result: Some(result), model_spec: Some(spec) };
        self.answer(examples, &caller, Value::find, message).await
    }

    async fn multi_inference(
        &self,
        request: Request<MultiInferenceRequest>,
    ) -> Result<Response<MultiInferenceResponse>, Status> {
        let caller = self.base.limited_caller(&request)?;
        let message = request.into_inner();
        let examples = Examples {
            route: "tensorflow.serving.PredictionService/MultiInference",
            request_bytes: message.encoded_len(),
            target: Tasks::target(&message.tasks),
            input: message.input,
        };
        let find = |model: &Schema<'_>| Tasks::find(&message.tasks, model);
        let message = |results, _| MultiInferenceResponse { results };
        self.answer(examples, &caller, find, message).await
    }

    async fn get_model_metadata(
        &self,
        request: Request<GetModelMetadataRequest>,
    ) -> Result<Response<GetModelMetadataResponse>, Status> {
        let caller = self.base.limited_caller(&request)?;
        let GetModelMetadataRequest { model_spec, metadata_field } = request.into_inner();
        let refuse = |error| self.base.refuse(&error, &caller);
        let target = codec::read_spec(model_spec).map_err(refuse)?;
        let model = self.base.describe(&target.model, &target.version, &caller).await?;
        let metadata = codec::model_metadata(&metadata_field, &describe::schema(&model));
        metadata.map_err(refuse).map(Response::new)
    }
}

#[tonic::async_trait]
impl ModelService for TensorFlow {
    async fn get_model_status(
        &self,
        request: Request<GetModelStatusRequest>,
    ) -> Result<Response<GetModelStatusResponse>, Status> {
        let caller = self.base.limited_caller(&request)?;
        let target = codec::read_spec(request.into_inner().model_spec);
        let target = target.map_err(|error| self.base.refuse(&error, &caller))?;
        let versions = self.versions(&target);
        let versions = versions.map_err(|error| self.base.refuse(&error, &caller))?;
        fn fact(status: &VersionStatus) -> VersionFact<'_> {
            VersionFact {
                version: status.version,
                state: describe::entry_state(status.standing),
                failure: (status.standing == Standing::Failed).then_some(&*status.reason),
            }
        }
        Ok(Response::new(codec::model_status(versions.iter().map(fact))))
    }

    async fn handle_reload_config_request(
        &self,
        request: Request<ReloadConfigRequest>,
    ) -> Result<Response<ReloadConfigResponse>, Status> {
        let caller = self.base.limited_caller(&request)?;
        Err(self.base.refuse(&TensorFlowError::NoReload, &caller))
    }
}
