//! The service around an application's own: a handle into each request, and the commit when the response leaves.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::{Request, Response, StatusCode};
use pin_project_lite::pin_project;
use redis_session_core::{Kind, Plan};
use tower_service::Service;

use crate::adopt;
use crate::commit::{self, Order};
use crate::error::Error;
use crate::events::Event;
use crate::finish::Finish;
use crate::handle::{Handle, Word};
use crate::headers;
use crate::layer::{IfNotSaved, Main, Renew, Settings};
use crate::scan::CookieLines;

/// What [`RedisSessionLayer`](crate::RedisSessionLayer) makes of a service.
pub struct RedisSession<S, L = Main> {
    inner: S,
    settings: Arc<Settings>,
    marker: PhantomData<fn() -> L>,
}

/// What a layer puts into a request's extensions.
pub(crate) struct InRequest<L>(Put, PhantomData<fn() -> L>);

#[derive(Clone)]
enum Put {
    /// Its session.
    Session(Arc<Handle>),
    /// The request is of no tenant that is known, so there is none: the layer's settings, for who asks all the same.
    Nobodys(Arc<Settings>),
}

impl<L> InRequest<L> {
    pub(crate) fn new(handle: Arc<Handle>) -> Self {
        Self(Put::Session(handle), PhantomData)
    }

    fn nobodys(settings: Arc<Settings>) -> Self {
        Self(Put::Nobodys(settings), PhantomData)
    }

    /// The handle of the session.
    ///
    /// # Errors
    /// `is_unknown_tenant`: there is none.
    pub(crate) fn handle(&self) -> Result<Arc<Handle>, Error> {
        match &self.0 {
            Put::Session(handle) => Ok(handle.clone()),
            Put::Nobodys(settings) => {
                settings.tell(Event::UnknownTenant);
                let message = "the request is of no tenant that is known: the closure given to `tenants` answered None";
                Err(Error::new(Kind::UnknownTenant, message))
            }
        }
    }
}

impl<L> Clone for InRequest<L> {
    fn clone(&self) -> Self {
        Self(self.0.clone(), PhantomData)
    }
}

impl<S, L> RedisSession<S, L> {
    pub(crate) fn new(inner: S, settings: Arc<Settings>) -> Self {
        Self { inner, settings, marker: PhantomData }
    }
}

impl<S, L, ReqBody, ResBody> Service<Request<ReqBody>> for RedisSession<S, L>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
    ResBody: Default,
    L: 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future, ResBody>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<ReqBody>) -> Self::Future {
        // A layer of the same marker around this one commits for both.
        let handle = if request.extensions().get::<InRequest<L>>().is_some() {
            None
        } else {
            let settings = match &self.settings.tenants {
                None => Some(self.settings.clone()),
                Some(tenants) => {
                    let (parts, body) = request.into_parts();
                    let settings = self.settings.of_request(tenants, &parts);
                    request = Request::from_parts(parts, body);
                    settings
                }
            };
            let handle = settings.map(|settings| {
                let cookies = CookieLines::of(request.headers());
                Arc::new(Handle::new(settings, cookies, request.method(), request.uri()))
            });
            let put = match &handle {
                Some(handle) => InRequest::<L>::new(handle.clone()),
                None => InRequest::nobodys(self.settings.clone()),
            };
            request.extensions_mut().insert(put);
            handle
        };
        ResponseFuture { inner: self.inner.call(request), commit: Commit { handle, step: None } }
    }
}

impl<S: Clone, L> Clone for RedisSession<S, L> {
    fn clone(&self) -> Self {
        Self::new(self.inner.clone(), self.settings.clone())
    }
}

impl<S: fmt::Debug, L> fmt::Debug for RedisSession<S, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisSession").field("inner", &self.inner).finish_non_exhaustive()
    }
}

pin_project! {
    /// The response of a [`RedisSession`], once its session is saved.
    pub struct ResponseFuture<F, ResBody> {
        #[pin]
        inner: F,
        commit: Commit<ResBody>,
    }
}

impl<F, ResBody> fmt::Debug for ResponseFuture<F, ResBody> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}

struct Commit<ResBody> {
    /// `None`: a layer around this one has it, or the request is of no tenant.
    handle: Option<Arc<Handle>>,
    /// The response that waits, and what it waits for. `None`: there is no response yet, or nothing to wait for.
    ///
    /// Boxed, since the future of every request is moved about with the room for it.
    step: Option<Box<(Step, Response<ResBody>)>>,
}

/// A commit under way.
type Step = Finish<Result<(), Error>>;

/// A request that ends without a response, or whose future is dropped, keeps no edits.
impl<ResBody> Drop for Commit<ResBody> {
    fn drop(&mut self) {
        if let Some(handle) = &self.handle {
            handle.state().left = true;
        }
    }
}

impl<F, ResBody, E> Future for ResponseFuture<F, ResBody>
where
    F: Future<Output = Result<Response<ResBody>, E>>,
    ResBody: Default,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let Some(handle) = &this.commit.handle else { return this.inner.poll(context) };
        if this.commit.step.is_none() {
            let response = ready!(this.inner.poll(context))?;
            match begin(handle, response.status()) {
                Begun::Untouched => return Poll::Ready(Ok(response)),
                Begun::Done(saved) => return Poll::Ready(Ok(finish(handle, response, saved))),
                Begun::Step(step) => this.commit.step = Some(Box::new((step, response))),
            }
        }
        let Some(waiting) = &mut this.commit.step else { unreachable!("a step was begun above") };
        let saved = ready!(Pin::new(&mut waiting.0).poll(context));
        let Some((_, response)) = this.commit.step.take().map(|waiting| *waiting) else {
            unreachable!("it was there just now")
        };
        Poll::Ready(Ok(finish(handle, response, saved)))
    }
}

enum Begun {
    /// Nobody asked for the session.
    Untouched,
    /// Nothing is to be written; or there were edits that cannot be.
    Done(Result<(), Error>),
    Step(Step),
}

/// The response leaves: what is to be written?
fn begin(handle: &Arc<Handle>, status: StatusCode) -> Begun {
    let renews = handle.settings.renew == Renew::OnEveryRequest;
    let asked_for = handle.was_asked_for();
    if !renews && !asked_for {
        return Begun::Untouched;
    }
    let was_read = {
        let mut state = handle.state();
        state.left = true;
        state.was_read()
    };
    if let Err(error) = was_read {
        // What could not be read was not changed either, but for what a replica told before the primary could not be asked.
        let changed = handle.working().is_ok_and(|working| working.is_edited()) || !handle.state().wish.is_empty();
        let lost = changed && !handle.settings.drops_edits(status);
        return Begun::Done(if lost { Err(error) } else { Ok(()) });
    }
    let order = Order { dropped: handle.settings.drops_edits(status), brings_ids: asked_for, ..Order::default() };
    if asked_for && !handle.state().adopts && handle.try_turn().is_ok() && is_nothing(handle, order) {
        return Begun::Done(Ok(()));
    }
    Begun::Step(Finish::new(handle.under_way(), commit_response(handle.clone(), order)))
}

/// Whether it is plain that nothing is to be written. What edits come to, the commit finds out, once.
fn is_nothing(handle: &Handle, order: Order) -> bool {
    handle.working().is_ok_and(|working| !working.is_edited())
        && matches!(commit::plan(handle, order), Ok(Plan::Nothing))
}

async fn commit_response(handle: Arc<Handle>, order: Order) -> Result<(), Error> {
    let handle = &*handle;
    if !handle.was_asked_for() {
        // Only to renew it: a response that never asked is not held up by a store that fails.
        if handle.load(Word::Any).await.is_err() {
            return Ok(());
        }
    }
    let _turn = handle.turn().await;
    // Who waited for that write knows, and its handler has found an answer for the visitor.
    if handle.was_told_of_all() {
        return Ok(());
    }
    if handle.state().by_replica && !is_nothing(handle, order) {
        let edits = !order.dropped && (handle.working()?.is_edited() || !handle.state().wish.is_empty());
        match handle.confirm().await {
            Err(error) if edits => return Err(error),
            // It was only to be renewed, and the next request renews it.
            Err(_) => return Ok(()),
            Ok(()) => {}
        }
    }
    let plan = commit::plan(handle, order)?;
    let saved = match (plan, handle.told(commit::carry_out(handle, plan, order).await)) {
        // The session lives until its deadline all the same, and the next request renews it.
        (Plan::Touch, Err(_)) => Ok(()),
        (_, saved) => saved,
    };
    adopt::tell_browser(handle).await;
    saved
}

fn finish<ResBody: Default>(
    handle: &Handle,
    response: Response<ResBody>,
    saved: Result<(), Error>,
) -> Response<ResBody> {
    let mut response = match saved {
        // Nothing was written for a session that is gone, and its visitor sees what the handler answered.
        Err(error) if !error.is_gone() && handle.settings.if_not_saved == IfNotSaved::ReplaceResponse => {
            error.respond()
        }
        _ => response,
    };
    // A response is not one for this visitor alone because the layer renewed the session.
    if handle.was_asked_for() {
        headers::write(handle, response.headers_mut());
    }
    response
}
