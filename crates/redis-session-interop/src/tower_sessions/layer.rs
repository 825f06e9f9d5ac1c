//! The layer that gives handlers a `tower_sessions::Session` on ours.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum_core::response::IntoResponse as _;
use http::{Request, Response};
use pin_project_lite::pin_project;
use redis_session::{Error, Main, ReadFrom};
use serde_json::Value;
use tower_layer::Layer;
use tower_service::Service;

use super::bridge::Bridge;

/// Which user a field of theirs names. `None`: nobody.
type NamedBy = dyn Fn(&Value) -> Option<String> + Send + Sync;

/// Where axum-login keeps who is logged in, unless it is told otherwise.
pub(super) const AXUM_LOGIN: &str = "axum-login.data";

/// Gives every handler under it a `tower_sessions::Session` on the session of our layer, which is to be around it: in the
/// place of their `SessionManagerLayer`. What extracts or uses that session works unchanged.
///
/// ```
/// use axum::{Router, routing::post};
/// use redis_session::{KeyRing, MemoryStore, RedisSessionLayer};
/// use redis_session_interop::tower_sessions::TowerSessionsLayer;
/// use redis_session_testkit::Browser;
/// use tower_sessions::Session;
///
/// async fn add(theirs: Session, ours: redis_session::Session) -> String {
///     theirs.insert("cart", ["tea"]).await.unwrap();
///     theirs.save().await.unwrap(); // now ours sees it too
///     ours.get::<Vec<String>>("cart").unwrap().unwrap().join(", ")
/// }
///
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// let sessions = RedisSessionLayer::with_store(MemoryStore::new(), KeyRing::random()?);
/// let app = Router::new().route("/", post(add)).layer(TowerSessionsLayer::new()).layer(sessions);
/// assert_eq!(Browser::new(app).post_form("/", &[]).await.body, "tea");
/// # Ok::<(), redis_session::Error>(()) }).unwrap();
/// ```
///
/// # What their methods are on our session
///
/// | theirs | ours |
/// | --- | --- |
/// | `get`, `insert`, `remove`, … | on their own record, which is read when it is first asked for |
/// | the response, below 500 | what changed in their record since it was read becomes inserts and removals, one for each key. They merge: parallel requests that change different keys are all kept; of one key, the last save counts, as a whole. Keys that begin with `@` are refused |
/// | `save` | the same at once |
/// | `load` | reads ours again, with the edits made through it |
/// | `clear` | removes all keys; where the record was not read before, also those that others add meanwhile |
/// | `flush`, `delete` | the session ends at once: `log_out` where somebody is logged in, else `destroy` |
/// | `cycle_id` | a new id with the next save, at the latest with the response, whatever its status; one step together with the edits |
/// | `set_expiry` | `OnInactivity`: an idle timeout of the session's own, from 100 milliseconds to 400 days, under the layer's absolute timeout; `AtDateTime`: remembered until then, at most [`Expiry::remembered`](redis_session::Expiry::remembered); what has passed already ends the session; `OnSessionEnd` or `None`: the layer's own again |
/// | `id` | a hash of the session's place: the same for all its life, over `cycle_id` too, and worth nothing as a cookie |
/// | `expiry_date`, `expiry_age` | of what `set_expiry` said, and two weeks without: not when our session ends |
///
/// The cookie is ours, and set by our layer. A session that has ended or was replaced meanwhile stays so: nothing is
/// written, and their methods answer `Ok`, as their stores do. Without a session cookie nothing is read, and a request
/// whose handlers leave their session alone sends no command. Guards on their session (axum-login's) read it like any handler, so
/// under this layer no replica answers, whatever [`read_from`](redis_session::RedisSessionLayer::read_from) says.
///
/// # Both views in one request
///
/// Their record is private to them. Ours shows their edits after their `save`, or not before the response; theirs shows
/// our edits that were made before it was first asked for, or before its `load`. A visitor without a session has nothing
/// to be read: there, theirs shows ours from its first `save` on. What one view has changed, the other does not undo: only
/// keys that theirs has changed are written.
///
/// # Errors
///
/// Their errors are texts. Where one of ours is the cause and the response is a 5xx, it is in the response's extensions as
/// everywhere else. What fails when the response leaves replaces it, as our layer does: a login that is refused is a 409.
/// After the response has left, edits are errors.
///
/// A route's own [`IfUnavailable`](redis_session::IfUnavailable) has to be around this layer: inside it comes too late.
pub struct TowerSessionsLayer<L = Main> {
    users: Option<Users>,
    marker: PhantomData<fn() -> L>,
}

impl TowerSessionsLayer {
    /// A layer on the session of [`RedisSessionLayer`](redis_session::RedisSessionLayer).
    pub fn new() -> Self {
        Self { users: None, marker: PhantomData }
    }
}

impl<L> TowerSessionsLayer<L> {
    /// Makes logins of axum-login logins of ours: they are in the list of the user's sessions, so that
    /// [`Sessions`](redis_session::Sessions) lists and revokes them, and its logouts are logouts. Its user ids are listed by
    /// their text form. Its own `AuthManagerLayer` brings a `SessionManagerLayer`; the part of it that is wanted here is
    /// `AuthManager`:
    ///
    /// ```
    /// use axum_login::AuthManager;
    /// use redis_session_interop::tower_sessions::TowerSessionsLayer;
    /// use tower::{ServiceBuilder, layer::layer_fn};
    /// # #[derive(Clone, Debug)] struct User;
    /// # impl axum_login::AuthUser for User {
    /// #     type Id = u64;
    /// #     fn id(&self) -> u64 { 7 }
    /// #     fn session_auth_hash(&self) -> &[u8] { b"hash" }
    /// # }
    /// # #[derive(Clone)] struct Backend;
    /// # impl axum_login::AuthnBackend for Backend {
    /// #     type User = User;
    /// #     type Credentials = ();
    /// #     type Error = std::convert::Infallible;
    /// #     async fn authenticate(&self, _: ()) -> Result<Option<User>, Self::Error> { Ok(Some(User)) }
    /// #     async fn get_user(&self, _: &u64) -> Result<Option<User>, Self::Error> { Ok(Some(User)) }
    /// # }
    /// # fn app(backend: Backend) -> Result<axum::Router, redis_session::Error> {
    /// # use redis_session::{KeyRing, MemoryStore, RedisSessionLayer};
    ///
    /// let sessions = RedisSessionLayer::with_store(MemoryStore::new(), KeyRing::random()?);
    /// let layers = ServiceBuilder::new()
    ///     .layer(sessions)
    ///     .layer(TowerSessionsLayer::new().axum_login())
    ///     .layer(layer_fn(move |inner| AuthManager::new(inner, backend.clone(), "axum-login.data")));
    /// let app = axum::Router::new().layer(layers);
    /// # Ok(app)
    /// # }
    /// # app(Backend).unwrap();
    /// ```
    pub fn axum_login(self) -> Self {
        self.user(AXUM_LOGIN, axum_login_user)
    }

    /// Says which user a field of theirs names, for crates other than axum-login, or an axum-login with another data key.
    /// When a save names another user than before, he is logged in (with `cycle_id` or without); when it names nobody any
    /// more, the session ends, and what else is in it goes on in a new one.
    ///
    /// ```
    /// use redis_session_interop::tower_sessions::TowerSessionsLayer;
    ///
    /// let layer = TowerSessionsLayer::new().user("account", |account| Some(account.get("name")?.as_str()?.to_owned()));
    /// # let _: TowerSessionsLayer = layer;
    /// ```
    pub fn user(
        self,
        field: impl Into<Arc<str>>,
        names: impl Fn(&Value) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        Self { users: Some(Users::new(field, names)), ..self }
    }

    /// A layer on the session of the layer with this marker.
    pub fn marker<M>(self) -> TowerSessionsLayer<M> {
        TowerSessionsLayer { users: self.users, marker: PhantomData }
    }
}

/// Who is logged in, by their data.
#[derive(Clone)]
pub(super) struct Users {
    field: Arc<str>,
    names: Arc<NamedBy>,
}

/// The text form of the user's id in what axum-login keeps.
pub(super) fn axum_login_user(data: &Value) -> Option<String> {
    match data.get("user_id")? {
        Value::Null => None,
        Value::String(id) => Some(id.clone()),
        id => Some(id.to_string()),
    }
}

impl Users {
    pub(super) fn new(
        field: impl Into<Arc<str>>,
        names: impl Fn(&Value) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        Self { field: field.into(), names: Arc::new(names) }
    }

    pub(super) fn field(&self) -> &str {
        &self.field
    }

    pub(super) fn named_by(&self, value: Option<&Value>) -> Option<String> {
        value.and_then(|value| (self.names)(value))
    }
}

impl Default for TowerSessionsLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl<L> Clone for TowerSessionsLayer<L> {
    fn clone(&self) -> Self {
        Self { users: self.users.clone(), marker: PhantomData }
    }
}

impl<L> fmt::Debug for TowerSessionsLayer<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let field = self.users.as_ref().map(Users::field);
        f.debug_struct("TowerSessionsLayer").field("user", &field).finish()
    }
}

impl<S, L> Layer<S> for TowerSessionsLayer<L> {
    type Service = TowerSessions<S, L>;

    fn layer(&self, inner: S) -> Self::Service {
        TowerSessions { inner, layer: self.clone() }
    }
}

/// What [`TowerSessionsLayer`] makes of a service.
pub struct TowerSessions<S, L = Main> {
    inner: S,
    layer: TowerSessionsLayer<L>,
}

impl<S: Clone, L> Clone for TowerSessions<S, L> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), layer: self.layer.clone() }
    }
}

impl<S: fmt::Debug, L> fmt::Debug for TowerSessions<S, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TowerSessions").field("inner", &self.inner).field("layer", &self.layer).finish()
    }
}

impl<S, L, ReqBody, ResBody> Service<Request<ReqBody>> for TowerSessions<S, L>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
    ResBody: Default,
    L: 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future, ResBody, L>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<ReqBody>) -> Self::Future {
        // Their guards read the session like anything else, and a guard must not go by a replica's word.
        request.extensions_mut().insert(ReadFrom::Primary);
        // Without our layer there is no session, and whoever asks for one is told so, by the log and by their extractor.
        let bridge = Bridge::<L>::open(request.extensions(), self.layer.users.clone()).ok();
        let bridge = bridge.map(|(bridge, theirs)| {
            request.extensions_mut().insert(theirs);
            bridge
        });
        ResponseFuture { inner: self.inner.call(request), leaving: Leaving { bridge, step: None } }
    }
}

pin_project! {
    /// The response of [`TowerSessions`], once what their session did is handed over to ours.
    pub struct ResponseFuture<F, ResBody, L: 'static = Main> {
        #[pin]
        inner: F,
        leaving: Leaving<ResBody, L>,
    }
}

impl<F, ResBody, L> fmt::Debug for ResponseFuture<F, ResBody, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}

struct Leaving<ResBody, L: 'static> {
    /// `None`: there is no layer of ours.
    bridge: Option<Arc<Bridge<L>>>,
    /// The response that waits, and what for. `None`: there is none yet, or nothing to wait for.
    step: Option<Box<(Step, Response<ResBody>)>>,
}

type Step = Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>;

/// Also where the request ends without a response.
impl<ResBody, L> Drop for Leaving<ResBody, L> {
    fn drop(&mut self) {
        if let Some(bridge) = &self.bridge {
            bridge.part();
        }
    }
}

impl<F, ResBody, E, L> Future for ResponseFuture<F, ResBody, L>
where
    F: Future<Output = Result<Response<ResBody>, E>>,
    ResBody: Default,
    L: 'static,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let Some(bridge) = &this.leaving.bridge else { return this.inner.poll(context) };
        if this.leaving.step.is_none() {
            let response = ready!(this.inner.poll(context))?;
            if !bridge.is_changed() {
                bridge.count_as_asked_for();
                return Poll::Ready(Ok(finish(bridge, response, Ok(()))));
            }
            let step: Step = Box::pin(bridge.clone().leave(response.status()));
            this.leaving.step = Some(Box::new((step, response)));
        }
        let Some(waiting) = &mut this.leaving.step else { unreachable!("a step was begun above") };
        let left = ready!(waiting.0.as_mut().poll(context));
        let Some((_, response)) = this.leaving.step.take().map(|waiting| *waiting) else {
            unreachable!("it was there just now")
        };
        Poll::Ready(Ok(finish(bridge, response, left)))
    }
}

fn finish<ResBody: Default, L>(
    bridge: &Bridge<L>,
    mut response: Response<ResBody>,
    left: Result<(), Error>,
) -> Response<ResBody> {
    match left {
        // Nothing was written for a session that is gone, and its visitor sees what the handler answered.
        Err(error) if !error.is_gone() => error.into_response().map(|_| ResBody::default()),
        _ => {
            if let Some(failure) = bridge.failure().filter(|_| response.status().is_server_error()) {
                response.extensions_mut().insert(failure);
            }
            response
        }
    }
}
