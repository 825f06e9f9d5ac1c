//! Visits and a small cart, kept in a session: in memory, or in Redis when REDIS_URL is set.

#![allow(clippy::print_stdout)]

use axum::Router;
use axum::extract::Path;
use axum::response::{Html, Redirect};
use axum::routing::{get, post};
use redis_session::{Cookie, Error, KeyRing, MemoryStore, RedisSessionLayer, Session};
use serde::{Deserialize, Serialize};

#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(default)]
struct Visitor {
    visits: u64,
    cart: Vec<Item>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
enum Item {
    Tea,
    Cake,
}

async fn home(mut visitor: Session<Visitor>) -> Result<Html<String>, Error> {
    visitor.update(|visitor| visitor.visits += 1)?;
    let (visits, cart) = (visitor.visits, &visitor.cart);
    let button = |item: Item| format!("<button formaction=/add/{item:?}>Add {item:?}</button>");
    let buttons = [Item::Tea, Item::Cake].map(button).concat();
    Ok(Html(format!("<p>Visit {visits}. Your cart: {cart:?}<form method=post>{buttons}</form>")))
}

async fn add(mut visitor: Session<Visitor>, Path(item): Path<Item>) -> Result<Redirect, Error> {
    visitor.update_with(item, |visitor, item| visitor.cart.push(item))?;
    Ok(Redirect::to("/"))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let keys = KeyRing::random()?; // In production: KeyRing::from_env("SESSION_KEY")?
    let sessions = match std::env::var("REDIS_URL") {
        Ok(url) => RedisSessionLayer::connect(&url, keys).await?,
        Err(_) => RedisSessionLayer::with_store(MemoryStore::new(), keys),
    };
    let sessions = sessions.cookie(Cookie::insecure_for_development()); // Over HTTPS: leave this out.
    let app = Router::new().route("/", get(home)).route("/add/{item}", post(add)).layer(sessions);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    println!("http://{}", listener.local_addr()?);
    Ok(axum::serve(listener, app).await?)
}
