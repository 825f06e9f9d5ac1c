//! axum-login and axum-messages, unchanged, on redis-session: their own example, with a page of the user's devices.
//!
//! `cargo run -p redis-session-interop --features tower-sessions --example axum_login`, then <http://127.0.0.1:3000>;
//! in Redis where `REDIS_URL` and `SESSION_KEY` are set, else in memory.

#![allow(clippy::print_stdout, reason = "a program that says where it is")]

mod app;

use redis_session::{Cookie, KeyRing, MemoryStore, RedisSessionLayer};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let sessions = match std::env::var("REDIS_URL") {
        Ok(url) => RedisSessionLayer::connect(&url, KeyRing::from_env("SESSION_KEY")?).await?,
        Err(_) => RedisSessionLayer::with_store(MemoryStore::new(), KeyRing::random()?),
    };
    let sessions = sessions.cookie(Cookie::insecure_for_development()).check()?; // plain HTTP on loopback only
    let app = app::app(sessions, app::Users::default());
    let port = std::env::var("PORT").ok().map_or(Ok(3000), |port| port.parse())?;
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    println!("http://{}", listener.local_addr()?);
    println!("ferris and admin log in with the password hunter42");
    Ok(axum::serve(listener, app).await?)
}
