//! The gRPC listener over loopback: a client built from the same stubs, models that do as told.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub, reason = "tests")]

mod describe;
mod fixture;
mod frames;
mod infer;
mod lifecycle;
#[path = "../shared/models.rs"]
mod models;
mod repository;
#[path = "../shared/repository.rs"]
mod shelf;
mod stream;
mod tensorflow;
