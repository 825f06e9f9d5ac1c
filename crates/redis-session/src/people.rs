//! Who is logged in: the part of [`Session`] that applications with accounts use.

use std::fmt::Display;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use redis_session_core::{Found, Kind, Level, Login, Reason, User};

use crate::ending;
use crate::error::Error;
use crate::finish::Finish;
use crate::handle::Handle;
use crate::log_in::{Asked, log_in};
use crate::session::{Session, Untyped, refuse_if_left};

/// The most bytes that a label may have.
const LONGEST_LABEL: usize = 256;

impl<L> Session<Untyped, L> {
    /// Logs a user in, at once: a new id, and the old one is worth nothing from then on; the session is in the list of the
    /// user's sessions, and the absolute timeout begins anew. What an anonymous visitor has gathered (a cart) stays;
    /// what another user has left goes. Who is remembered stays so, until the same time as before: say it anew with each
    /// login, [`remember(Some(…))` or `remember(None)`](Session::remember). Any id that has a text form will do.
    ///
    /// Check the password first; then await this; then say welcome. It stands whatever the handler answers later.
    ///
    /// # Errors
    /// `is_login_refused`: the user's sessions were ended ("log out everywhere", a new password) after the request
    /// arrived, or that was over a minute ago; nobody is logged in, as with all of these but the last. `is_user`: the id is
    /// empty or over 16 KiB. `is_unavailable`, `is_outcome_unknown`, `is_contended`: the store failed, or others were faster
    /// until the deadline. `is_field`, `is_too_large`: edits of this request cannot be saved with it. `is_config`: the store
    /// keeps no lists of users' sessions. `is_committed`: the response has left. `is_not_replicated`: he is logged in, and a
    /// failover now may log him out, or on a cluster hide the session from a revocation until its next touch.
    ///
    /// ```
    /// use axum::{Form, response::{IntoResponse, Redirect, Response}};
    /// use redis_session::{Error, Session};
    /// # #[derive(serde::Deserialize)] struct Credentials { name: String, password: String }
    /// # async fn check(_: &Credentials) -> Option<u64> { Some(7) }
    ///
    /// async fn log_in(session: Session, Form(credentials): Form<Credentials>) -> Result<Response, Error> {
    ///     let Some(user) = check(&credentials).await else {
    ///         return Ok(Redirect::to("/login?wrong").into_response());
    ///     };
    ///     session.log_in(user).await?;
    ///     Ok(Redirect::to("/account").into_response())
    /// }
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// # let session = Session::detached(std::collections::BTreeMap::from([("cart".to_owned(), 3)])).await?;
    /// # log_in(session.clone(), Form(Credentials { name: String::new(), password: String::new() })).await?;
    /// assert_eq!(session.user::<u64>()?, Some(7));
    /// assert_eq!(session.get::<u32>("cart")?, Some(3));
    /// # Ok::<(), Error>(()) }).unwrap();
    /// ```
    pub fn log_in(&self, user: impl Display) -> LoggingIn {
        LoggingIn {
            handle: self.handle.clone(),
            asked: User::new(user).map_err(Error::from).map(|user| Asked {
                user,
                level: Level::FULL,
                label: None,
                verified: None,
            }),
        }
    }

    /// Ends the session at once, for all requests and servers, and then takes the cookie away. Edits made before are
    /// dropped; those made afterwards, a "goodbye", are those of a new session.
    ///
    /// # Errors
    /// `is_unavailable`, `is_outcome_unknown`: the store failed. The cookie is taken away all the same, and the end is
    /// tried again in the background for 30 seconds. `is_gone`: the id was replaced by a newer login, so the session is
    /// not this request's to end, and no cookie is touched. `is_not_replicated`: it ended and the cookie is taken away, but a
    /// failover now may bring it back for who has a copy.
    pub async fn log_out(&self) -> Result<(), Error> {
        let handle = self.handle.clone();
        Finish::new(handle.under_way(), async move {
            let _turn = handle.turn().await;
            handle.told(ending::end(&handle, Reason::LoggedOut).await)
        })
        .await
    }

    /// Who is logged in; `None` if nobody is, or if his login is not done ([`Level::PARTIAL`]).
    ///
    /// # Errors
    /// `is_user`: the id that was logged in is not a `U`.
    pub fn user<U: FromStr>(&self) -> Result<Option<U>, Error> {
        self.login(|login| login.level >= Level::FULL).map(|login| parse(&login)).transpose()
    }

    /// Whose login is under way: he has done the first step, and the last one is still open.
    ///
    /// # Errors
    /// As [`user`](Self::user).
    pub fn pending_user<U: FromStr>(&self) -> Result<Option<U>, Error> {
        self.login(|login| login.level < Level::FULL).map(|login| parse(&login)).transpose()
    }

    /// How well whoever is logged in has proved who he is. `None`: nobody is.
    pub fn level(&self) -> Option<Level> {
        self.login(|_| true).map(|login| login.level)
    }

    /// When the request came by which whoever is logged in last proved who he is, by the store's clock. `None`: nobody is.
    /// In a session that was taken over ([`adopt`](crate::RedisSessionLayer::adopt)) nobody knows: it is 400 days before that.
    pub fn logged_in_at(&self) -> Option<SystemTime> {
        self.login(|_| true).map(|login| UNIX_EPOCH + Duration::from_millis(login.arrived.as_millis()))
    }

    fn login(&self, counts: impl Fn(&Login) -> bool) -> Option<Login> {
        match &self.handle.state().found {
            Found::Alive(record) => record.login.as_deref().filter(|login| counts(login)).cloned(),
            _ => None,
        }
    }
}

fn parse<U: FromStr>(login: &Login) -> Result<U, Error> {
    let wrong = |_| Error::new(Kind::User, "the id of the user who is logged in is not of the type asked for");
    login.user.as_str().parse().map_err(wrong)
}

/// A login, done when it is awaited: what [`Session::log_in`] returns.
///
/// ```
/// use redis_session::{Error, Level, Session};
///
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// # let session = Session::detached(std::collections::BTreeMap::<String, u8>::new()).await?;
/// // The password was right, and the second factor is still to come.
/// session.log_in("ada").level(Level::PARTIAL).label("Firefox on Linux").await?;
/// assert_eq!((session.user::<String>()?, session.pending_user()?), (None, Some("ada".to_owned())));
/// session.log_in("ada").await?;
/// assert_eq!(session.user()?, Some("ada".to_owned()));
/// # Ok::<(), Error>(()) }).unwrap();
/// ```
#[must_use = "nobody is logged in before this is awaited"]
pub struct LoggingIn {
    handle: Arc<Handle>,
    asked: Result<Asked, Error>,
}

impl LoggingIn {
    /// How well the user has proved who he is. Default: [`Level::FULL`].
    pub fn level(self, level: Level) -> Self {
        self.with(|asked| asked.level = level)
    }

    /// What the list of the user's sessions calls this one: "Firefox on Linux". At most 256 bytes of it are kept, and of
    /// the request itself (address, user agent) nothing is unless it is in here. Without one, the same user's session keeps
    /// the label of his login before: of the first factor, say.
    pub fn label(self, label: impl Into<String>) -> Self {
        let mut label = label.into();
        let end = (0..=LONGEST_LABEL.min(label.len())).rev().find(|at| label.is_char_boundary(*at));
        label.truncate(end.unwrap_or(0));
        self.with(|asked| asked.label = Some(label).filter(|label| !label.is_empty()))
    }

    /// When the application checked the password, if that was before this request, or so late in it that the user's
    /// sessions may have been ended in between: with a new password, say, just before. At most a minute ago. Default:
    /// when the request arrived.
    pub fn verified_at(self, verified: Instant) -> Self {
        self.with(|asked| asked.verified = Some(verified.into()))
    }

    fn with(mut self, change: impl FnOnce(&mut Asked)) -> Self {
        if let Ok(asked) = &mut self.asked {
            change(asked);
        }
        self
    }
}

impl IntoFuture for LoggingIn {
    type Output = Result<(), Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        let Self { handle, asked } = self;
        Box::pin(Finish::new(handle.under_way(), async move {
            let asked = asked?;
            let _turn = handle.turn_to_write().await?;
            refuse_if_left(&handle)?;
            handle.told(log_in(&handle, &asked).await)
        }))
    }
}

impl std::fmt::Debug for LoggingIn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoggingIn").finish_non_exhaustive()
    }
}
