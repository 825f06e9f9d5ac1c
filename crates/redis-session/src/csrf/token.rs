//! The token that pages hand out, and requests bring back.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use axum_core::extract::FromRequestParts;
use http::request::Parts;
use redis_session_core::{FormOf, Found};

use super::refuse;
use super::source::{Source, look};
use crate::error::Error;
use crate::events::CsrfRefusal;
use crate::handle::Handle;
use crate::layer::Main;
use crate::session::{Session, Untyped};

/// The token of a page's forms and of its `fetch` calls, which a [`CsrfLayer`](crate::CsrfLayer) asks for. An extractor; its
/// text is what goes into the page, and needs no escaping.
///
/// It is bound to the session, to who is logged in, and to the time of the login; nothing is stored. An open form survives
/// a timed renewal of the session's id, and no login, `rotate` or logout. The text is that of the session as it is when it
/// is written: ask for it after `log_in`.
///
/// ```
/// use axum::response::Html;
/// use redis_session::CsrfToken;
///
/// async fn page(token: CsrfToken) -> Html<String> {
///     Html(format!(
///         r#"<meta name="csrf-token" content="{token}">
///         <form method="post" action="/buy"><input type="hidden" name="csrf_token" value="{token}"></form>
///         <script>
///             const token = document.querySelector("meta[name=csrf-token]").content;
///             const buy = () => fetch("/buy", {{ method: "POST", headers: {{ "X-CSRF-Token": token }} }});
///         </script>"#
///     ))
/// }
/// # use redis_session::Session;
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// # let session = Session::detached(std::collections::BTreeMap::<String, u8>::new()).await?;
/// # let token = CsrfToken::of(&session)?;
/// # let html = page(token).await.0;
/// # let token = html.split('"').nth(3).unwrap();
/// # CsrfToken::of(&session)?.verify(token)?;
/// assert!(CsrfToken::of(&session)?.verify("another one").unwrap_err().is_csrf());
/// # Ok::<(), redis_session::Error>(()) }).unwrap();
/// ```
///
/// # A visitor without a session
///
/// To see a form begins no session. The page gets a token that is bound to nothing, and without a session the layer asks
/// for none. If a session has begun when the form is sent (an item put into the cart in another tab), this token is
/// right where nobody is logged in and the browser says that the request is the application's own: what the visitor has
/// filled in is not lost, and another site, which can get such a token for itself, gains nothing. With a login it is a
/// token of the time before it, and worth nothing.
pub struct CsrfToken<L = Main> {
    handle: Arc<Handle>,
    pad: [u8; 16],
    source: Result<Source, CsrfRefusal>,
    marker: PhantomData<fn() -> L>,
}

impl<L> CsrfToken<L> {
    /// The token of this session, for middleware and tests.
    ///
    /// # Errors
    /// The system's random generator failed.
    pub fn of(session: &Session<Untyped, L>) -> Result<Self, Error> {
        let handle = session.handle.clone();
        let pad = handle.settings.random.array()?;
        Ok(Self { handle, pad, source: Ok(Source::Unknown), marker: PhantomData })
    }

    /// What the layer does, for a request whose token the layer cannot read, as in `multipart/form-data`. The handler's
    /// route is not under the layer then, and calls this before it does anything. Origins that the layer was told of are
    /// not known here: only the request's own is right.
    ///
    /// # Errors
    /// `is_csrf`: the request comes from another site; or there is a session, and this is not its token.
    pub fn verify(&self, sent: &str) -> Result<(), Error> {
        let source = self.source.map_err(|refusal| refuse(&self.handle, refusal))?;
        if nothing_to_use(&self.handle, source)? {
            return Ok(());
        }
        check(&self.handle, source, Some(sent.as_bytes())).map_err(|refusal| refuse(&self.handle, refusal))
    }
}

/// Whether there is no session that a request from there could misuse.
///
/// # Errors
/// The session could not be read, and so the token cannot be checked. From the application's own pages a request is let
/// through all the same: all that can be done without having read the session is to log out.
pub(super) fn nothing_to_use(handle: &Handle, source: Source) -> Result<bool, Error> {
    let state = handle.state();
    if source != Source::Own {
        state.was_read()?;
    }
    Ok(!matches!(state.found, Found::Alive(_)))
}

/// Whether a request from there with this token may use the session.
pub(super) fn check(handle: &Handle, source: Source, sent: Option<&[u8]>) -> Result<(), CsrfRefusal> {
    let sent = sent.filter(|sent| !sent.is_empty()).ok_or(CsrfRefusal::NoToken)?;
    let signer = &handle.settings.signer;
    let is_right = bound(handle, |of| {
        let may_be_older = source == Source::Own && matches!(of, FormOf::Session { user: None, .. });
        signer.is_form_token(sent, of) || may_be_older && signer.is_form_token(sent, FormOf::Nobody)
    });
    if is_right { Ok(()) } else { Err(CsrfRefusal::WrongToken) }
}

/// What the tokens of this request are bound to, by what it knows of its session now.
fn bound<R>(handle: &Handle, then: impl FnOnce(FormOf<'_>) -> R) -> R {
    let state = handle.state();
    then(match (&state.found, &state.id) {
        (Found::Alive(record), Some(id)) => {
            FormOf::Session { session: handle.key(id).handle(), proved: record.proved, user: record.user() }
        }
        _ => FormOf::Nobody,
    })
}

impl<S, L> FromRequestParts<S> for CsrfToken<L>
where
    S: Sync,
    L: 'static,
{
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        let session = Session::<Untyped, L>::asked_for_as::<Self>(&parts.extensions).await?;
        Ok(Self { source: look(&parts.headers, &parts.uri, &[]), ..Self::of(&session)? })
    }
}

/// The text for a page.
impl<L> fmt::Display for CsrfToken<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&bound(&self.handle, |of| self.handle.settings.signer.form_token(of, self.pad)))
    }
}

impl<L> fmt::Debug for CsrfToken<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CsrfToken(…)")
    }
}
