//! tower-sessions on our layer, our store under theirs and theirs under ours, by HTTP.

#![allow(clippy::unwrap_used)]

#[path = "../../examples/axum_login/app.rs"]
mod app;
mod differences;
mod differences;
mod from;
