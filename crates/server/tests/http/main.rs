//! The HTTP listener over real sockets on loopback, driven byte by byte.

#![allow(clippy::unwrap_used, reason = "a failing unwrap is a failing test")]
#![allow(unreachable_pub, reason = "modules of one test share what is public")]

mod bad_input;
mod client;
mod compression;
mod contracts;
mod describe;
mod fixture;
mod graphql;
mod lifecycle;
mod limits;
#[path = "../shared/models.rs"]
mod models;
mod openai;
mod openapi;
mod predict;
mod repository;
mod sagemaker;
#[path = "../shared/repository.rs"]
mod shelf;
