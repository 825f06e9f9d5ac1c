//! actix-session on its Redis store, on Actix Web: another HTTP server, so its figures are those of both.

use std::io;
use std::time::Duration;

use actix_session::storage::RedisSessionStore;
use actix_session::{Session, SessionMiddleware};
use actix_web::cookie::Key;
use actix_web::{App, Error, HttpServer, web};

use crate::serve::say;
use crate::shopper::Shopper;
use crate::untouched;

pub(crate) async fn serve(redis: &str) -> io::Result<()> {
    let store = RedisSessionStore::new(redis).await.map_err(io::Error::other)?;
    let key = Key::generate();
    let server = HttpServer::new(move || {
        App::new()
            .wrap(SessionMiddleware::new(store.clone(), key.clone()))
            .route("/begin", web::post().to(begin))
            .route("/untouched", web::get().to(untouched))
            .route("/read", web::get().to(read))
            .route("/write", web::post().to(write))
    })
    // Its five seconds are shorter than the turns of the others.
    .keep_alive(Duration::from_secs(600))
    .bind(("127.0.0.1", 0))?;
    say(server.addrs()[0])?;
    server.run().await
}

async fn begin(session: Session) -> Result<&'static str, Error> {
    let Shopper { name, email, language, visits, cart, seen, voucher, address } = Shopper::example();
    session.insert("name", name)?;
    session.insert("email", email)?;
    session.insert("language", language)?;
    session.insert("visits", visits)?;
    session.insert("cart", cart)?;
    session.insert("seen", seen)?;
    session.insert("voucher", voucher)?;
    session.insert("address", address)?;
    Ok("")
}

async fn read(session: Session) -> Result<String, Error> {
    Ok(session.get("name")?.unwrap_or_default())
}

async fn write(session: Session) -> Result<String, Error> {
    let visits = session.get::<u64>("visits")?.unwrap_or_default() + 1;
    session.insert("visits", visits)?;
    Ok(visits.to_string())
}
