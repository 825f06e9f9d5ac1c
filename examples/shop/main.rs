//! A plant shop whose visitors' carts are sessions: `cargo run --example shop`, and open the address that it prints.
//!
//! It needs nothing else. With `REDIS_URL` and `SESSION_KEY`, several instances share their sessions; `settings.rs` has
//! all variables. Where to read on: `shopper.rs` is the state, `routes.rs` reads and changes it, and `watch.rs` shows
//! how a store and an observer of one's own look into what happens.

mod catalogue;
mod drawer;
mod forms;
mod layout;
mod pages;
mod routes;
mod settings;
mod shopper;
mod watch;

use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;

use axum::middleware::{from_fn_with_state, map_response};
use redis_session::RedisSessionLayer;
use tokio::net::TcpListener;

use crate::settings::Settings;
use crate::watch::{Events, Watched, watch};

#[tokio::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt().with_max_level(tracing::Level::WARN).with_writer(std::io::stderr).init();
    match serve().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve() -> Result<(), Box<dyn Error>> {
    let settings = Settings::from_env()?;
    let sessions = RedisSessionLayer::with_store(Watched(settings.store().await?), settings.keys()?)
        .cookie(settings.cookie()?)
        .observer(Events)
        .check()?;

    let listener = TcpListener::bind(settings.listen).await;
    let listener = listener.map_err(|error| format!("cannot listen on {}: {error}", settings.listen))?;
    let listening = listener.local_addr()?;
    // From the inside out.
    let app = routes::all()
        .layer(sessions)
        .layer(map_response(routes::explain_errors))
        .layer(from_fn_with_state(Arc::new(settings.instance(listening)), watch))
        .layer(map_response(routes::harden));

    greet(&settings.greeting(listening));
    axum::serve(listener, app).with_graceful_shutdown(until_told_to_end()).await?;
    Ok(())
}

#[expect(clippy::print_stdout, reason = "whoever starts it wants to know where it is")]
fn greet(greeting: &str) {
    println!("{greeting}");
}

/// Ctrl-C, or what `docker stop` sends.
async fn until_told_to_end() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminated) = signal(SignalKind::terminate()) else { return std::future::pending().await };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminated.recv() => {}
    }
}
