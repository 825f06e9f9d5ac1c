//! A counter and a small cart: `cargo run --example quickstart`. In memory, or in Redis and behind HTTPS when `REDIS_URL` is set.
#![allow(clippy::print_stdout)]

use axum::{Form, Router, response::Redirect, routing::get};
use redis_session::{Cookie, Error, KeyRing, MemoryStore, RedisSessionLayer, Session};
use serde::{Deserialize, Serialize};

#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(default)]
struct Visitor {
    visits: u64,
    cart: Vec<Item>,
}

#[derive(Clone, Serialize, Deserialize)]
struct Item {
    name: String,
}

async fn home(mut visitor: Session<Visitor>) -> Result<axum::response::Html<String>, Error> {
    visitor.update(|visitor| visitor.visits += 1)?;
    Ok(axum::response::Html(format!(
        "<p>Visit {}, {} things in your cart.</p><form method=post><input name=name required><button>Add</button></form>",
        visitor.visits,
        visitor.cart.len()
    )))
}

async fn add(mut visitor: Session<Visitor>, Form(item): Form<Item>) -> Result<Redirect, Error> {
    visitor.update_with(item, |visitor, item| visitor.cart.push(item))?;
    Ok(Redirect::to("/"))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let sessions = match std::env::var("REDIS_URL") {
        Ok(url) => RedisSessionLayer::connect(&url, KeyRing::from_env("SESSION_KEY")?).await?,
        Err(_) => RedisSessionLayer::with_store(MemoryStore::new(), KeyRing::random()?)
            .cookie(Cookie::insecure_for_development()), // plain HTTP on loopback only
    };
    let app = Router::new().route("/", get(home).post(add)).layer(sessions.check()?);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    eprintln!("http://{}", listener.local_addr()?);
    Ok(axum::serve(listener, app).await?)
}
