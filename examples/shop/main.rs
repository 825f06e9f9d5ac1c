//! A plant shop whose visitors' carts and logins are sessions: `cargo run --example shop`, and open the address that it
//! prints.
//!
//! It needs nothing else. With `REDIS_URL` and `SESSION_KEY`, several instances share sessions and accounts; `settings.rs`
//! has all variables. Where to read on: `shopper.rs` is the state, `routes.rs` reads and changes it, `people.rs` logs in
//! and out, `devices.rs` lists and ends the sessions of a user, `live.rs` tells open windows of it, and `watch.rs` shows
//! how a store and an observer of one's own look into what happens.

mod accounts;
mod answer;
mod catalogue;
mod devices;
mod drawer;
mod forms;
mod layout;
mod live;
mod pages;
mod passwords;
mod people;
mod people_pages;
mod routes;
mod settings;
mod shopper;
mod watch;

use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;

use axum::middleware::{from_fn_with_state, map_response};
use axum::routing::get;
use redis_session::{MemoryStore, RedisSessionLayer, Store};
use tokio::net::TcpListener;

use crate::routes::Shop;
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
    let redis = settings.redis().await?;
    let store: Box<dyn Store> = match redis.clone() {
        Some(redis) => Box::new(redis),
        None => Box::new(MemoryStore::new()),
    };
    let sessions = RedisSessionLayer::with_store(Watched(store), settings.keys()?)
        .cookie(settings.cookie()?)
        .log_in_page("/login")
        .step_up_page("/confirm")
        .observer(Events)
        .check()?;
    let (closes, closing) = tokio::sync::watch::channel(());
    let shop = Shop { accounts: settings.accounts().await?, closing };

    let listener = TcpListener::bind(settings.listen).await;
    let listener = listener.map_err(|error| format!("cannot listen on {}: {error}", settings.listen))?;
    let listening = listener.local_addr()?;
    // From the inside out.
    let app = routes::all(shop)
        .layer(settings.csrf())
        .layer(sessions.clone())
        .layer(map_response(answer::explain_errors))
        .layer(from_fn_with_state(Arc::new(settings.instance(listening)), watch))
        .layer(map_response(answer::harden))
        .route("/ready", get(async move || routes::readiness(redis.as_ref()).await));

    greet(&settings.greeting(listening));
    let ends = async move {
        until_told_to_end().await;
        drop(closes);
    };
    axum::serve(listener, app).with_graceful_shutdown(ends).await?;
    // What visitors who went away meanwhile had begun.
    sessions.close().await?;
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
