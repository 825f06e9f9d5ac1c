//! The floor: the least that a session by hand can do. One JSON string under the cookie's value, read with `GETEX` and
//! written with `SET`. No signature, no layer, no protection of anything.

use std::error::Error;

use axum::Router;
use axum::extract::State;
use axum::http::header::{COOKIE, SET_COOKIE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{AppendHeaders, IntoResponse};
use axum::routing::{get, post};
use fred::clients::{Client, Pool, WithOptions};
use fred::interfaces::{ClientLike as _, KeysInterface as _};
use fred::types::config::{Blocking, Config, Options, ReconnectPolicy};
use fred::types::{Builder, ClusterHash, CustomCommand, Expiration, RespVersion, Value};

use super::{PATIENCE, untouched};
use crate::shopper::Shopper;

const LIVES: i64 = 30 * 60;

/// Two clients on RESP3, deadlines and reconnection: what one reads in advice on fred.
pub(crate) async fn router(redis: &str) -> Result<Router, Box<dyn Error>> {
    serve(redis, RespVersion::RESP3, 2).await
}

/// With what the store of this project uses, so that its settings and its work can be told apart.
pub(crate) async fn router_resp2(redis: &str) -> Result<Router, Box<dyn Error>> {
    serve(redis, RespVersion::RESP2, 1).await
}

async fn serve(redis: &str, version: RespVersion, clients: usize) -> Result<Router, Box<dyn Error>> {
    let config = Config { fail_fast: true, blocking: Blocking::Block, version, ..Config::from_url(redis)? };
    let mut builder = Builder::from_config(config);
    builder.with_performance_config(|performance| {
        performance.default_command_timeout = PATIENCE;
        performance.broadcast_channel_capacity = 1024;
    });
    builder.with_connection_config(|connection| {
        connection.connection_timeout = PATIENCE;
        connection.internal_command_timeout = PATIENCE;
        connection.max_command_attempts = 1;
        connection.max_redirections = 1;
        connection.max_command_buffer_len = 10_000;
        connection.tcp.nodelay = Some(true);
    });
    builder.set_policy(ReconnectPolicy::new_exponential(0, 10, 200, 2));
    let pool = builder.build_pool(clients)?;
    pool.init().await?;
    Ok(Router::new()
        .route("/begin", post(begin))
        .route("/untouched", get(untouched))
        .route("/read", get(read))
        .route("/write", post(write))
        .with_state(pool))
}

async fn begin(State(pool): State<Pool>) -> Result<impl IntoResponse, Failed> {
    let id = format!("{:032x}{:032x}", random(), random());
    store(&client(&pool), &key(&id), &Shopper::example()).await?;
    Ok(AppendHeaders([(SET_COOKIE, format!("id={id}; Path=/; HttpOnly"))]))
}

async fn read(State(pool): State<Pool>, headers: HeaderMap) -> Result<String, Failed> {
    let key = key(id(&headers).ok_or(Failed)?);
    Ok(load(&client(&pool), &key).await?.name)
}

async fn write(State(pool): State<Pool>, headers: HeaderMap) -> Result<String, Failed> {
    let key = key(id(&headers).ok_or(Failed)?);
    let client = client(&pool);
    let mut shopper = load(&client, &key).await?;
    shopper.visits += 1;
    store(&client, &key, &shopper).await?;
    Ok(shopper.visits.to_string())
}

fn id(headers: &HeaderMap) -> Option<&str> {
    headers.get(COOKIE)?.to_str().ok()?.split("; ").find_map(|pair| pair.strip_prefix("id="))
}

fn key(id: &str) -> String {
    format!("floor:{id}")
}

/// One client for all commands of a request: the pool itself would draw another for each.
fn client(pool: &Pool) -> WithOptions<Client> {
    pool.next_connected().with_options(&Options { fail_fast: true, ..Options::default() })
}

async fn load(client: &WithOptions<Client>, key: &str) -> Result<Shopper, Failed> {
    // fred has no method for it.
    let getex = CustomCommand::new_static("GETEX", ClusterHash::FirstKey, false);
    let args: Vec<Value> = vec![key.into(), Value::from_static_str("EX"), LIVES.into()];
    let json: Option<String> = client.custom(getex, args).await.map_err(|_| Failed)?;
    serde_json::from_str(&json.ok_or(Failed)?).map_err(|_| Failed)
}

async fn store(client: &WithOptions<Client>, key: &str, shopper: &Shopper) -> Result<(), Failed> {
    let json = serde_json::to_string(shopper).map_err(|_| Failed)?;
    client.set(key, json, Some(Expiration::EX(LIVES)), None, false).await.map_err(|_| Failed)
}

/// Good enough for names in a benchmark, and drawn before anything is measured.
fn random() -> u128 {
    use std::hash::{BuildHasher as _, RandomState};
    let part = |with: u8| u128::from(RandomState::new().hash_one(with));
    part(0) << 64 | part(1)
}

struct Failed;

impl IntoResponse for Failed {
    fn into_response(self) -> axum::response::Response {
        StatusCode::INTERNAL_SERVER_ERROR.into_response()
    }
}
