//! The contenders that this binary itself can be: it starts itself again with the name of one.

mod bare;
mod floor;
mod ours;

use std::error::Error;
use std::time::Duration;

use crate::serve::serve;

/// How long Redis may take. Much more than an application would wait: a busy machine must not end the measurement.
const PATIENCE: Duration = Duration::from_secs(10);

/// Serves as this contender until stdin ends.
pub(crate) async fn run(name: &str, redis: &str) -> Result<(), Box<dyn Error>> {
    let router = match name {
        "bare" => bare::router(),
        "layered" => bare::layered(),
        "floor" => floor::router(redis).await?,
        "floor-resp2" => floor::router_resp2(redis).await?,
        "redis" | "cluster" => ours::on_redis(redis).await?,
        "user" => ours::of_users(redis).await?,
        "memory" => ours::in_memory()?,
        _ => return Err(format!("there is no contender {name:?} in this program").into()),
    };
    Ok(serve(router).await?)
}

/// The handler that leaves its session alone: the same for all.
async fn untouched() -> &'static str {
    "untouched"
}
