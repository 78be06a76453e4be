//! Pipelines of models as data.
