//! The application: axum-login's examples `sqlite` and `permissions` with their users in memory, and three routes of ours.

use std::collections::HashSet;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum::{Form, Router};
use axum_login::{AuthManager, AuthUser, AuthnBackend, AuthzBackend, UserId, login_required, permission_required};
use axum_messages::{Messages, MessagesManagerLayer};
use redis_session::{RedisSessionLayer, Session, Sessions};
use redis_session_interop::tower_sessions::TowerSessionsLayer;
use serde::Deserialize;
use tower::ServiceBuilder;
use tower::layer::layer_fn;

/// The whole application. Theirs is all but the two lines of layers that begin with ours.
pub(crate) fn app(sessions: RedisSessionLayer, users: Users) -> Router {
    let devices = sessions.sessions();
    let backend = users.clone();
    let layers = ServiceBuilder::new()
        .layer(sessions)
        .layer(TowerSessionsLayer::new().axum_login())
        .layer(layer_fn(move |inner| AuthManager::new(inner, backend.clone(), "axum-login.data")))
        .layer(MessagesManagerLayer);
    Router::new()
        .route("/restricted", get(async || Html("<h1>Restricted</h1>")))
        .route_layer(permission_required!(Users, login_url = "/login", "restricted.read"))
        .merge(
            Router::new()
                .route("/", get(protected))
                .route("/devices", get(list))
                .route("/devices/others", post(log_out_others))
                .route("/password", post(change_password))
                .route_layer(login_required!(Users, login_url = "/login"))
                .with_state(devices),
        )
        .route("/login", get(login_form).post(login))
        .route("/logout", get(logout))
        .layer(layers)
}

type AuthSession = axum_login::AuthSession<Users>;

#[derive(Clone, Debug)]
pub(crate) struct User {
    id: i64,
    name: String,
    // An application keeps a hash of it.
    password: String,
}

impl AuthUser for User {
    type Id = i64;

    fn id(&self) -> i64 {
        self.id
    }

    /// With another password, all sessions that were logged in with the old one are over.
    fn session_auth_hash(&self) -> &[u8] {
        self.password.as_bytes()
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Users(Arc<Mutex<Vec<User>>>);

impl Default for Users {
    fn default() -> Self {
        let user = |id, name: &str| User { id, name: name.to_owned(), password: "hunter42".to_owned() };
        Self(Arc::new(Mutex::new(vec![user(1, "ferris"), user(2, "admin")])))
    }
}

impl Users {
    fn find(&self, is_it: impl Fn(&User) -> bool) -> Option<User> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().find(|user| is_it(user)).cloned()
    }

    fn set_password(&self, id: i64, password: String) -> Option<User> {
        let mut users = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let user = users.iter_mut().find(|user| user.id == id)?;
        user.password = password;
        Some(user.clone())
    }
}

#[derive(Clone, Deserialize)]
pub(crate) struct Credentials {
    username: String,
    password: String,
    next: Option<String>,
}

impl AuthnBackend for Users {
    type User = User;
    type Credentials = Credentials;
    type Error = Infallible;

    async fn authenticate(&self, creds: Credentials) -> Result<Option<User>, Infallible> {
        Ok(self.find(|user| user.name == creds.username && user.password == creds.password))
    }

    async fn get_user(&self, id: &UserId<Self>) -> Result<Option<User>, Infallible> {
        Ok(self.find(|user| user.id == *id))
    }
}

impl AuthzBackend for Users {
    type Permission = String;

    async fn get_group_permissions(&self, user: &User) -> Result<HashSet<String>, Infallible> {
        Ok(if user.name == "admin" { HashSet::from(["restricted.read".to_owned()]) } else { HashSet::new() })
    }
}

async fn protected(auth: AuthSession, messages: Messages) -> Response {
    let Some(user) = auth.user else { return StatusCode::INTERNAL_SERVER_ERROR.into_response() };
    page(
        messages,
        &format!(
            "<h1>Hello, {}</h1><a href=/devices>Devices</a> <a href=/logout>Log out</a>\
             <form method=post action=/password><input name=password type=password required><button>Change</button></form>",
            user.name
        ),
    )
}

#[derive(Deserialize)]
struct NextUrl {
    next: Option<String>,
}

async fn login_form(messages: Messages, Query(NextUrl { next }): Query<NextUrl>) -> Response {
    let next = next.map(|next| format!("<input type=hidden name=next value=\"{}\">", escaped(&next)));
    page(
        messages,
        &format!(
            "<form method=post action=/login><input name=username required>\
             <input name=password type=password required>{}<button>Log in</button></form>",
            next.unwrap_or_default()
        ),
    )
}

async fn login(mut auth: AuthSession, messages: Messages, Form(creds): Form<Credentials>) -> Response {
    let user = match auth.authenticate(creds.clone()).await {
        Ok(Some(user)) => user,
        Ok(None) => {
            messages.error("Invalid credentials");
            let login = creds.next.map_or("/login".to_owned(), |next| format!("/login?next={}", in_url(&next)));
            return Redirect::to(&login).into_response();
        }
        Err(_) => return StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    };
    if auth.login(&user).await.is_err() {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    }
    messages.success(format!("Successfully logged in as {}", user.name));
    let next = creds.next.filter(|next| is_a_page_of_ours(next));
    Redirect::to(next.as_deref().unwrap_or("/")).into_response()
}

async fn logout(mut auth: AuthSession) -> Response {
    match auth.logout().await {
        Ok(_) => Redirect::to("/login").into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// What axum-login has nothing for: where this user is logged in.
async fn list(
    auth: AuthSession,
    session: Session,
    State(devices): State<Sessions>,
) -> Result<Html<String>, redis_session::Error> {
    let Some(user) = auth.user else { return Ok(Html(String::new())) };
    let here = session.handle();
    let rows = devices.list(user.id).await?.into_iter().map(|device| {
        let place = if Some(device.handle()) == here { "here" } else { "elsewhere" };
        format!("<li>{place}</li>")
    });
    Ok(Html(format!(
        "<ul>{}</ul><form method=post action=/devices/others><button>Log out elsewhere</button></form>",
        rows.collect::<String>()
    )))
}

async fn log_out_others(session: Session, State(devices): State<Sessions>) -> Result<Redirect, redis_session::Error> {
    devices.revoke_others(&session).await?;
    Ok(Redirect::to("/devices"))
}

#[derive(Deserialize)]
struct NewPassword {
    password: String,
}

async fn change_password(mut auth: AuthSession, messages: Messages, Form(new): Form<NewPassword>) -> Response {
    let Some(user) = auth.user.take() else { return StatusCode::UNAUTHORIZED.into_response() };
    let Some(user) = auth.backend.set_password(user.id, new.password) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    // Keeps this session; the others have the hash of before.
    if auth.login(&user).await.is_err() {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    }
    messages.success("Password changed");
    Redirect::to("/").into_response()
}

fn page(messages: Messages, body: &str) -> Response {
    let said: String = messages.map(|message| format!("<p class=message>{}</p>", escaped(&message.message))).collect();
    Html(format!("<!doctype html><title>axum-login</title>{said}{body}")).into_response()
}

/// No other site's address, in whatever way browsers read one.
fn is_a_page_of_ours(next: &str) -> bool {
    next.starts_with('/') && !next[1..].starts_with(['/', '\\']) && !next.contains(|c: char| c.is_control())
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}

fn in_url(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(byte).collect()
}
