//! The other session libraries as contenders of `cargo bench --bench http`, which calls this program with a contender's name.
//!
//! Each is set up as its documentation shows, and keeps the shopper's eight fields as eight keys.

mod actix;
mod axum_session;
#[path = "../../http/serve.rs"]
mod serve;
#[path = "../../http/shopper.rs"]
mod shopper;
mod tower;

use std::env;
use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let name = env::args().nth(1).unwrap_or_default();
    let redis = env::var("REDIS_URL")?;
    if name == "actix-session" {
        // It brings a runtime of its own.
        return Ok(actix_web::rt::System::new().block_on(actix::serve(&redis))?);
    }
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
        let router = match name.as_str() {
            "tower-sessions" => tower::router(&redis, false).await?,
            "tower-sliding" => tower::router(&redis, true).await?,
            "bridge" => tower::router_on_ours(&redis).await?,
            "axum_session" => axum_session::router(&redis).await?,
            _ => return Err(format!("there is no contender {name:?} in this program").into()),
        };
        Ok(serve::serve(router).await?)
    })
}

/// The handler that leaves its session alone: the same for all.
async fn untouched() -> &'static str {
    "untouched"
}
