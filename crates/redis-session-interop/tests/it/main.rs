//! tower-sessions on our layer, our store under theirs and theirs under ours, by HTTP.

#![allow(clippy::unwrap_used)]

mod adopt;
#[path = "../../examples/axum_login/app.rs"]
mod app;
mod differences;
mod from;
mod logging;
mod login;
mod messages;
mod place;
mod replicas;
mod rolling;
mod session;
mod tenants;
mod under;
