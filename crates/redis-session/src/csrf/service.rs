//! The service around an application's own, and the future of its response.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum_core::extract::Request;
use http::{Method, Response};
use pin_project_lite::pin_project;
use redis_session_core::BoxFuture;
use tower_service::Service;

use super::form::token_in;
use super::source::look;
use super::token::{check, nothing_to_use};
use super::{CsrfLayer, Settings, refuse};
use crate::error::Error;
use crate::layer::Main;
use crate::session::{Session, Untyped};

/// What [`CsrfLayer`] makes of a service.
pub struct Csrf<S, L = Main> {
    inner: S,
    settings: Arc<Settings>,
    marker: PhantomData<fn() -> L>,
}

impl<S, L> Csrf<S, L> {
    pub(super) fn new(inner: S, settings: Arc<Settings>) -> Self {
        Self { inner, settings, marker: PhantomData }
    }
}

impl<S, L, ResBody> Service<Request> for Csrf<S, L>
where
    S: Service<Request, Response = Response<ResBody>> + Clone + Send + 'static,
    S::Future: Send,
    ResBody: Default,
    L: 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = CsrfFuture<S::Future, S::Response, S::Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        if is_safe(request.method()) {
            return CsrfFuture { way: Way::Free { inner: self.inner.call(request) } };
        }
        // The one that was polled ready is the one to be called.
        let next = self.inner.clone();
        let (mut inner, settings) = (std::mem::replace(&mut self.inner, next), self.settings.clone());
        let checked = async move {
            match let_through::<L>(&settings, request).await {
                Ok(request) => inner.call(request).await,
                Err(error) => Ok(error.respond()),
            }
        };
        CsrfFuture { way: Way::Checked { answer: Box::pin(checked) } }
    }
}

/// Those that RFC 9110, section 9.2.1, calls safe.
fn is_safe(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE)
}

/// Answers the request as it came. The body is read last, and only where the token may be in it.
///
/// # Errors
/// It is refused, or the session cannot be loaded.
async fn let_through<L: 'static>(settings: &Settings, request: Request) -> Result<Request, Error> {
    let handle = crate::session::handle_of::<CsrfLayer<L>, L>(request.extensions())?;
    let refuse = |refusal| refuse(&handle, refusal);
    let source = look(request.headers(), request.uri(), &settings.origins).map_err(refuse)?;
    match Session::<Untyped, L>::asked_for_as::<CsrfLayer<L>>(request.extensions()).await {
        // Its route may do without the session: whether it does is not for this layer to say.
        Err(error) if !error.is_unreadable() => return Err(error),
        _ => {}
    }
    if nothing_to_use(&handle, source)? {
        return Ok(request);
    }
    if let Some(sent) = request.headers().get(&settings.header) {
        check(&handle, source, Some(sent.as_bytes())).map_err(refuse)?;
        return Ok(request);
    }
    let (request, sent) = token_in(request, &settings.field, settings.form_limit).await.map_err(refuse)?;
    check(&handle, source, sent.as_deref().map(str::as_bytes)).map_err(refuse)?;
    Ok(request)
}

impl<S: Clone, L> Clone for Csrf<S, L> {
    fn clone(&self) -> Self {
        Self::new(self.inner.clone(), self.settings.clone())
    }
}

impl<S: fmt::Debug, L> fmt::Debug for Csrf<S, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Csrf").field("inner", &self.inner).finish_non_exhaustive()
    }
}

pin_project! {
    /// The response of a [`Csrf`].
    pub struct CsrfFuture<F, R, E> {
        #[pin]
        way: Way<F, R, E>,
    }
}

pin_project! {
    #[project = WayProjected]
    enum Way<F, R, E> {
        /// A safe method: nothing is asked.
        Free { #[pin] inner: F },
        /// All others.
        Checked { answer: BoxFuture<'static, Result<R, E>> },
    }
}

impl<F, R, E> Future for CsrfFuture<F, R, E>
where
    F: Future<Output = Result<R, E>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        match self.project().way.project() {
            WayProjected::Free { inner } => inner.poll(context),
            WayProjected::Checked { answer } => answer.as_mut().poll(context),
        }
    }
}

impl<F, R, E> fmt::Debug for CsrfFuture<F, R, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CsrfFuture").finish_non_exhaustive()
    }
}
