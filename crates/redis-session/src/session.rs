//! The session as handlers, middleware and tasks see it, without a type for its state.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{Extensions, Method, Uri};
use redis_session_core::{
    Durability, Edit, Found, KeyRing, Kind, MemoryStore, Plan, ReadFrom, Reason, SessionHandle, State, View, Wishes,
    Working,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::commit::{self, Order, Stage};
use crate::ending;
use crate::error::Error;
use crate::events::Event;
use crate::finish::Finish;
use crate::handle::{Handle, Loaded, Outgoing, Word};
use crate::layer::{IfUnavailable, Main, RedisSessionLayer};
use crate::scan::CookieLines;
use crate::service::InRequest;

/// The type of a session's state where none is named.
#[derive(Clone, Copy, Debug)]
pub struct Untyped(());

/// A visitor's session: `Session` the session itself, `Session<T>` a typed view of it.
///
/// Both are extractors: the first one of a request loads the session, with one read; all share one working copy. What
/// they change is written when the response leaves. Handlers of a second layer name its marker: `Session<T, Office>`.
///
/// # `Session`, the session itself
///
/// Cheap to clone, for middleware, WebSocket handlers and tasks. Single fields by name, and what concerns the session as
/// a whole:
///
/// ```
/// use redis_session::{Error, Session, Status};
///
/// async fn greet(session: Session) -> Result<String, Error> {
///     if session.status() == Status::New {
///         session.insert("language", "en")?;      // these three merge with whatever others save meanwhile
///     }
///     session.increment("visits", 1)?;
///     session.remove("flash")?;
///     Ok(format!("visit {}", session.get::<u64>("visits")?.unwrap_or_default()))
/// }
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// # #[derive(Default, Clone, serde::Serialize, serde::Deserialize)] struct V { visits: u64 }
/// let session = Session::detached(V { visits: 41 }).await?;
/// assert_eq!(greet(session).await?, "visit 42");
/// # Ok::<(), Error>(()) }).unwrap();
/// ```
///
/// # `Session<T>`, a typed view
///
/// Derefs to `T`, any struct or map with serde's traits and a `Default`; each of its fields is a field of the session.
/// [`update`](Session::update) changes it, [`transaction`](Session::transaction) changes it at once:
///
/// ```
/// use redis_session::{Error, Session};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Clone, Default, Serialize, Deserialize)]
/// #[serde(default)]
/// struct Visitor { visits: u64, cart: Vec<String> }
///
/// async fn add(mut visitor: Session<Visitor>, item: String) -> Result<String, Error> {
///     visitor.update_with(item, |visitor, item| visitor.cart.push(item))?;
///     Ok(format!("{} in your cart", visitor.cart.len()))
/// }
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// let session = Session::detached(Visitor::default()).await?;
/// assert_eq!(add(session.view()?, "tea".into()).await?, "1 in your cart");
/// assert_eq!(session.get::<Vec<String>>("cart")?.unwrap(), ["tea"]);
/// # Ok::<(), Error>(()) }).unwrap();
/// ```
///
/// # After the response
///
/// A clone may outlive the response, in a WebSocket or a streamed body. Edits are errors then (`is_committed`), since
/// nothing would save them; `transaction`, `save` (which renews the idle timeout), `refresh` and `destroy` work, without
/// a cookie.
pub struct Session<T = Untyped, L = Main> {
    pub(crate) handle: Arc<Handle>,
    pub(crate) view: View<T>,
    marker: PhantomData<fn() -> L>,
}

/// What an application wants to tell its visitor about the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Status {
    /// There is no session: the visitor came without one, or with a cookie that is none of ours.
    New,
    /// There is a session.
    Alive,
    /// There was one, and it ended: [`Reason::Expired`] also if nothing is stored for it any more.
    Ended(Reason),
    /// There is one, and its id was replaced: another answer with the new one may be on its way to this browser.
    Replaced,
    /// Nobody knows: it could not be read, and the route is one of [`IfUnavailable::Anonymous`](crate::IfUnavailable).
    Unavailable,
}

impl<L> Session<Untyped, L> {
    /// The session of a request, from its extensions: for `tower` middleware of one's own. Loads it, like an extractor.
    ///
    /// # Errors
    /// There is no layer of this marker around, or the session cannot be loaded; `is_unknown_tenant`.
    ///
    /// ```
    /// use axum::{extract::Request, middleware::Next, response::{IntoResponse, Response}};
    /// use redis_session::Session;
    ///
    /// async fn count_pages(request: Request, next: Next) -> Response {
    ///     let session: Session = match Session::from_extensions(request.extensions()).await {
    ///         Ok(session) => session,
    ///         Err(error) => return error.into_response(),
    ///     };
    ///     if let Err(error) = session.increment("pages", 1) {
    ///         return error.into_response();
    ///     }
    ///     next.run(request).await
    /// }
    /// ```
    pub fn from_extensions(extensions: &Extensions) -> impl Future<Output = Result<Self, Error>> + Send + use<L>
    where
        L: 'static,
    {
        Self::asked_for_as::<Self>(extensions)
    }

    /// The session that the request's cookie names, before anybody asked the store whether it lives; `None`: it came
    /// without one, or with one that is none of ours. For who has to know a name of the session before it is loaded;
    /// asks for nothing, so a response that shows it says `Vary: cookie` by itself.
    ///
    /// # Errors
    /// There is no layer of this marker around.
    ///
    /// ```
    /// use redis_session::{Session, Untyped};
    ///
    /// fn is_first_visit(request: &http::Request<()>) -> Result<bool, redis_session::Error> {
    ///     Ok(Session::<Untyped>::presented(request.extensions())?.is_none())
    /// }
    /// # let mut request = http::Request::new(());
    /// assert!(is_first_visit(&request).is_err(), "no layer");
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// Session::detached(std::collections::BTreeMap::<String, u8>::new()).await.unwrap().attach(&mut request);
    /// assert!(!is_first_visit(&request).unwrap());
    /// # });
    /// ```
    pub fn presented(extensions: &Extensions) -> Result<Option<SessionHandle>, Error>
    where
        L: 'static,
    {
        let handle = handle_of::<Self, L>(extensions)?;
        Ok(handle.presented_id().map(|id| handle.key(&id).handle()))
    }

    /// As [`from_extensions`](Self::from_extensions), for who asked for an `S`.
    pub(crate) fn asked_for_as<S>(
        extensions: &Extensions,
    ) -> impl Future<Output = Result<Self, Error>> + Send + use<S, L>
    where
        L: 'static,
    {
        let of_route = extensions.get::<ReadFrom>();
        Self::by_word_of::<S>(if of_route == Some(&ReadFrom::Primary) { Word::Primary } else { Word::Any }, extensions)
    }

    /// As [`from_extensions`](Self::from_extensions), for a guard: what a replica says is not enough.
    pub(crate) fn by_primary(extensions: &Extensions) -> impl Future<Output = Result<Self, Error>> + Send + use<L>
    where
        L: 'static,
    {
        Self::by_word_of::<Self>(Word::Primary, extensions)
    }

    fn by_word_of<S>(
        word: Word,
        extensions: &Extensions,
    ) -> impl Future<Output = Result<Self, Error>> + Send + use<S, L>
    where
        L: 'static,
    {
        let handle = handle_of::<S, L>(extensions);
        let of_route = extensions.get::<IfUnavailable>().copied();
        async move {
            let handle = handle?;
            handle.state().asked_for = true;
            let if_unavailable = of_route.unwrap_or(handle.settings.if_unavailable);
            match handle.load(word).await {
                Err(error) if if_unavailable == IfUnavailable::Refuse || !error.is_unreadable() => Err(error),
                _ => Ok(Self::of(handle)),
            }
        }
    }

    pub(crate) fn of(handle: Arc<Handle>) -> Self {
        Self { handle, view: View::unread(Untyped(())), marker: PhantomData }
    }

    /// A typed view of this session.
    ///
    /// # Errors
    /// `is_field`: a field does not decode as `T`'s; or `T` takes every field, and so does not go with another view.
    pub fn view<T: State>(&self) -> Result<Session<T, L>, Error> {
        let view = View::open(&mut *self.handle.working()?)?;
        Ok(Session { handle: self.handle.clone(), view, marker: PhantomData })
    }

    /// The value of a field; `None` if it is absent.
    ///
    /// # Errors
    /// `is_field`: it does not decode as `V`. Nothing is changed, and other fields can be read.
    pub fn get<V: DeserializeOwned>(&self, name: &str) -> Result<Option<V>, Error> {
        Ok(self.handle.working()?.get(name)?)
    }

    /// Names and JSON texts of all fields, sorted by name: for a page that shows a visitor what is kept.
    ///
    /// # Errors
    /// `is_field`: called in the closure of an update.
    pub fn fields(&self) -> Result<Vec<(String, String)>, Error> {
        let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
        Ok(self.handle.working()?.fields().iter().map(|(name, value)| (text(name), text(value))).collect())
    }

    /// Sets a field. Merges: it does not depend on what was read, so it is right on any version.
    ///
    /// # Errors
    /// `is_field`: the value cannot be JSON, or is nested deeper than 127 levels, which could not be read again; or the name
    /// begins with `@`. `is_too_large`: over the limit. `is_committed`: the response has left.
    pub fn insert<V: Serialize + ?Sized>(&self, name: &str, value: &V) -> Result<(), Error> {
        Ok(self.handle.editable()?.insert(name, value)?)
    }

    /// Removes a field. Merges.
    ///
    /// # Errors
    /// `is_committed`: the response has left. `is_field`: the name begins with `@`.
    pub fn remove(&self, name: &str) -> Result<(), Error> {
        Ok(self.handle.editable()?.edit(Edit::Remove(Bytes::copy_from_slice(name.as_bytes())))?)
    }

    /// Adds to the integer in a field; an absent one counts as 0. Merges: increments of parallel requests add up.
    ///
    /// # Errors
    /// `is_field`: what is there is no integer (`1.5`, a text), or would leave the range of an `i64`. Nothing is changed.
    /// `is_committed`: the response has left.
    pub fn increment(&self, name: &str, by: i64) -> Result<(), Error> {
        Ok(self.handle.editable()?.edit(Edit::Increment(Bytes::copy_from_slice(name.as_bytes()), by))?)
    }

    /// Removes all fields, also those that another request adds meanwhile. The session itself stays.
    ///
    /// # Errors
    /// `is_committed`: the response has left.
    pub fn clear(&self) -> Result<(), Error> {
        Ok(self.handle.editable()?.edit(Edit::Clear)?)
    }

    /// What became of the session that the visitor came with.
    pub fn status(&self) -> Status {
        let state = self.handle.state();
        if state.was_read().is_err() {
            return Status::Unavailable;
        }
        if let (Some(reason), Found::Absent) = (state.ended_here, &state.found) {
            return Status::Ended(reason);
        }
        match &state.found {
            Found::Absent => Status::New,
            Found::Alive(_) => Status::Alive,
            Found::Gone | Found::Expired => Status::Ended(Reason::Expired),
            Found::Ended { reason, .. } => Status::Ended(*reason),
            Found::Replaced { .. } => Status::Replaced,
        }
    }

    /// Whose session it is, where one application serves many: the name of the [`Tenant`](crate::Tenant) that the layer was
    /// told of. `None`: the layer has no tenants. Take what else belongs to a tenant by this name, and not by the host or
    /// the header once more, so that nobody gets one tenant's data in another's session.
    pub fn tenant(&self) -> Option<&str> {
        self.handle.settings.tenant.as_deref()
    }

    /// This session in the list of its user's sessions. `None`: there is no session.
    pub fn handle(&self) -> Option<SessionHandle> {
        let state = self.handle.state();
        match (&state.found, &state.id) {
            (Found::Alive(_), Some(id)) => Some(self.handle.key(id).handle()),
            _ => None,
        }
    }

    /// When the session ends if nothing more comes from its visitor, by the store's clock. `None`: there is none.
    pub fn expires_at(&self) -> Option<SystemTime> {
        let state = self.handle.state();
        let Found::Alive(record) = &state.found else { return None };
        let wishes = Wishes { idle: state.wish.idle.unwrap_or(record.wishes.idle), ..record.wishes };
        let deadline = self.handle.life().deadline(record.created, record.seen, &wishes);
        Some(UNIX_EPOCH + Duration::from_millis(deadline.as_millis()))
    }

    /// Gives this session an idle timeout of its own, which stays with it; `None` gives it the layer's again. Written
    /// when the response leaves. The absolute timeout holds all the same.
    ///
    /// # Errors
    /// `is_config`: under 100 milliseconds or over 400 days. `is_committed`: the response has left.
    pub fn expire_after(&self, idle: impl Into<Option<Duration>>) -> Result<(), Error> {
        let wish = self.handle.settings.expiry.own_idle(idle.into())?;
        let mut state = self.handle.state();
        state.may_edit()?;
        state.wish.idle = Some(wish);
        Ok(())
    }

    /// What this request's writes wait for from now on, rather than what its layer says
    /// ([`RedisSessionLayer::durability`]): for a logout, or a payment.
    ///
    /// # Errors
    /// `is_config`: no replica, or no time or too much of it.
    ///
    /// ```
    /// use redis_session::{Durability, Error, Session};
    /// use std::time::Duration;
    ///
    /// async fn log_out(session: Session) -> Result<&'static str, Error> {
    ///     session.durability(Durability::Replicated { replicas: 1, within: Duration::from_millis(300) })?;
    ///     match session.log_out().await {
    ///         // It stands, and the cookie is gone: it is only that a failover now would bring the session back.
    ///         Err(error) if error.is_not_replicated() => Ok("goodbye"),
    ///         ended => ended.map(|()| "goodbye"),
    ///     }
    /// }
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// # let session = Session::detached(std::collections::BTreeMap::<String, u8>::new()).await?;
    /// # assert_eq!(log_out(session).await?, "goodbye");
    /// # Ok::<(), Error>(()) }).unwrap();
    /// ```
    pub fn durability(&self, durability: Durability) -> Result<(), Error> {
        let durability = durability.check()?;
        self.handle.state().durability = Some(durability);
        Ok(())
    }

    /// Saves the edits now, and tells how it went. Without edits it renews the idle timeout. A visitor without a session
    /// gets one.
    ///
    /// # Errors
    /// `is_gone`: the session ended or its id was replaced; the edits are dropped. `is_unavailable`: nothing was saved, and
    /// the edits are tried again when the response leaves. `is_outcome_unknown`: nobody can tell whether they were saved.
    /// `is_contended`, `is_too_large`, `is_field`: nothing was saved. `is_committed`: the response has left, so that a new
    /// session could have no cookie. `is_not_replicated`: it was saved, and is not on as many replicas as
    /// [`durability`](Self::durability) asks for.
    pub async fn save(&self) -> Result<(), Error> {
        let handle = self.handle.clone();
        Finish::new(handle.under_way(), async move {
            let _turn = handle.turn_to_write().await?;
            handle.told(commit_now(&handle, ASKED, &mut |working| Ok(working.stage())).await)
        })
        .await
    }

    /// Gives the session a new id at once, and saves the edits with it; the old id is worth nothing from then on. To be
    /// called whenever a visitor's rights change, against session fixation (OWASP). Without a session nothing happens:
    /// one that begins later has a new id anyway.
    ///
    /// # Errors
    /// As [`save`](Self::save). `is_gone` also if another request, or a timed renewal, replaced the id first: one of the two is
    /// the winner, and the next request can rotate again.
    pub async fn rotate(&self) -> Result<(), Error> {
        let handle = self.handle.clone();
        Finish::new(handle.under_way(), async move {
            let _turn = handle.turn_to_write().await?;
            refuse_if_left(&handle)?;
            handle.told(commit::rotate(&handle).await)
        })
        .await
    }

    /// Ends the session at once: its record goes, for all requests and servers, and the response takes the cookie away.
    /// Edits made before are dropped, and edits made afterwards are those of a new session.
    ///
    /// # Errors
    /// `is_unavailable`, `is_outcome_unknown`: the store failed. The cookie is taken away all the same, and the end is
    /// tried again in the background for 30 seconds. `is_gone`: the id was replaced, so the session is not this
    /// request's to end, and no cookie is touched. `is_not_replicated`: it ended, and a failover now may bring it back.
    pub async fn destroy(&self) -> Result<(), Error> {
        let handle = self.handle.clone();
        Finish::new(handle.under_way(), async move {
            let _turn = handle.turn().await;
            handle.told(ending::end(&handle, Reason::Destroyed).await)
        })
        .await
    }

    /// Lets the session and its cookie live for so long, whatever its visitor does, and through the end of the browser; at
    /// most [`Expiry::remembered`](crate::Expiry::remembered). `None` makes it one of this browser session again. A
    /// visitor without a session gets one.
    ///
    /// # Errors
    /// As [`save`](Self::save).
    pub async fn remember(&self, duration: impl Into<Option<Duration>>) -> Result<(), Error> {
        let handle = self.handle.clone();
        let wish = duration.into().map(|duration| handle.settings.expiry.own_remembered(duration));
        Finish::new(handle.under_way(), async move {
            let _turn = handle.turn_to_write().await?;
            refuse_if_left(&handle)?;
            if wish.is_none() && !matches!(handle.state().found, Found::Alive(_)) {
                return Ok(());
            }
            handle.state().wish.remember = Some(wish);
            let saved = commit_now(&handle, ASKED, &mut |working| Ok(working.stage())).await;
            if saved.is_ok() {
                handle.state().outgoing = Outgoing::Give;
                handle.tell(Event::Remembered);
            }
            handle.told(saved)
        })
        .await
    }

    /// Reads the session again, and makes this request's edits again on what is there now. For connections that live
    /// long. After a save of unknown outcome its edits are dropped instead: what is there shows whether they were saved.
    ///
    /// # Errors
    /// `is_unavailable`: it stays as it was. `is_field`: an edit cannot be made on what is there now.
    pub async fn refresh(&self) -> Result<(), Error> {
        let _turn = self.handle.turn().await;
        self.handle.read_again().await
    }

    /// Puts this session into a request, as a layer does: the handlers of a router get it, and a layer of the same marker
    /// around them leaves it alone. For tests, with [`detached`](Session::detached).
    pub fn attach<B>(&self, request: &mut http::Request<B>)
    where
        L: 'static,
    {
        request.extensions_mut().insert(InRequest::<L>::new(self.handle.clone()));
    }
}

impl Session {
    /// A living session with this state, without a layer, a browser or a Redis: for tests of handlers, which are called as
    /// functions, or get it through [`attach`](Self::attach). What they did is read from it afterwards.
    ///
    /// # Errors
    /// `is_field`: `T` cannot be a session's state.
    ///
    /// ```
    /// use redis_session::{Error, Session};
    ///
    /// async fn count(session: Session) -> Result<(), Error> {
    ///     session.increment("visits", 1)
    /// }
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let session = Session::detached(std::collections::BTreeMap::from([("visits".to_owned(), 41)])).await?;
    /// count(session.clone()).await?;
    /// assert_eq!(session.get("visits")?, Some(42));
    /// # Ok::<(), Error>(()) }).unwrap();
    /// ```
    pub async fn detached<T: State + Clone>(state: T) -> Result<Self, Error> {
        let layer: RedisSessionLayer = RedisSessionLayer::with_store(MemoryStore::new(), KeyRing::random()?);
        let handle = Handle::new(layer.settings, CookieLines::default(), &Method::GET, &Uri::default());
        {
            let mut state = handle.state();
            (state.cookie_read, state.loaded) = (true, Loaded::Done);
        }
        {
            let mut working = handle.working()?;
            View::<T>::open(&mut working)?.update(&mut working, move |value| *value = state.clone())?;
        }
        commit_now(&handle, ASKED, &mut |working| Ok(working.stage())).await?;
        Ok(Self::of(Arc::new(handle)))
    }
}

impl<T: State, L> Session<T, L> {
    /// Changes the state: at once here, and once more on what is there if another request saved meanwhile. So the closure
    /// must say what is to change (`visitor.visits += 1`) and not what the result is to be; ids, times and random numbers
    /// are drawn outside and handed in. It returns nothing, since the run that counts may come later:
    /// [`transaction`](Self::transaction) is for what must be known now.
    ///
    /// # Errors
    /// `is_field`: what the closure left cannot be stored. `is_too_large`: it is over the limit. Nothing is kept of it then.
    /// `is_committed`: the response has left.
    pub fn update(&mut self, closure: impl Fn(&mut T) + Send + 'static) -> Result<(), Error> {
        Ok(self.view.update(&mut *self.handle.editable()?, closure)?)
    }

    /// As [`update`](Self::update), with a value that the closure gets a copy of each time it is run.
    ///
    /// # Errors
    /// As [`update`](Self::update).
    pub fn update_with<A: Clone + Send + 'static>(
        &mut self,
        value: A,
        closure: impl Fn(&mut T, A) + Send + 'static,
    ) -> Result<(), Error> {
        self.update(move |state| closure(state, value.clone()))
    }

    /// Changes the state in the store now, together with the edits made before, and answers what the closure returned in
    /// the run that counted. It is run again if another request saved meanwhile. Its `Err` aborts: nothing is written.
    /// A visitor without a session gets one if it changes something.
    ///
    /// # Errors
    /// The closure's, or as [`save`](Session::save). Edits made before stay, and are tried again when the response leaves.
    ///
    /// ```
    /// use redis_session::{Error, Session};
    /// # #[derive(Clone, Default, serde::Serialize, serde::Deserialize)]
    /// # struct Visitor { coupons: u32 }
    ///
    /// async fn redeem(mut visitor: Session<Visitor>) -> Result<&'static str, Error> {
    ///     let had_one = visitor
    ///         .transaction(|visitor| {
    ///             let had_one = visitor.coupons > 0;
    ///             visitor.coupons -= u32::from(had_one);
    ///             Ok::<_, Error>(had_one)
    ///         })
    ///         .await?;
    ///     Ok(if had_one { "redeemed" } else { "none left" })
    /// }
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let session = Session::detached(Visitor { coupons: 1 }).await?;
    /// assert_eq!(redeem(session.view()?).await?, "redeemed");
    /// assert_eq!(redeem(session.view()?).await?, "none left");
    /// # Ok::<(), Error>(()) }).unwrap();
    /// ```
    pub async fn transaction<R, E>(&mut self, closure: impl Fn(&mut T) -> Result<R, E> + Send + 'static) -> Result<R, E>
    where
        R: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        let handle = self.handle.clone();
        let answer = Finish::new(handle.under_way(), async move {
            let _turn = handle.turn_to_write().await?;
            run_transaction(&handle, closure).await
        })
        .await;
        self.reread()?;
        answer
    }

    /// Reads the session again, makes this request's edits again on what is there now, and shows the result.
    ///
    /// # Errors
    /// As [`Session::refresh`]; or `is_field`: a field does not decode.
    pub async fn refresh(&mut self) -> Result<(), Error> {
        {
            let _turn = self.handle.turn().await;
            self.handle.read_again().await?;
        }
        self.reread()
    }

    /// The session itself: its life, its fields by name, a view of another type.
    pub fn session(&self) -> Session<Untyped, L> {
        Session::of(self.handle.clone())
    }

    fn reread(&mut self) -> Result<(), Error> {
        Ok(self.view.refresh(&*self.handle.working()?)?)
    }
}

/// Somebody waits for the answer.
const ASKED: Order = Order { asked: true, dropped: false, changes: false, brings_ids: false };

async fn commit_now(handle: &Handle, order: Order, stage: &mut Stage<'_>) -> Result<(), Error> {
    let plan = commit::plan(handle, order)?;
    if plan == Plan::Create {
        refuse_if_left(handle)?;
    }
    commit::carry_out_with(handle, plan, order, stage).await
}

/// What needs a cookie cannot be had after the response.
pub(crate) fn refuse_if_left(handle: &Handle) -> Result<(), Error> {
    handle.state().may_edit()
}

/// Why a transaction's closure was not staged.
enum Stop<E> {
    /// The closure said so.
    Abort(E),
    Failed(redis_session_core::Error),
}

impl<E> From<redis_session_core::Error> for Stop<E> {
    fn from(error: redis_session_core::Error) -> Self {
        Self::Failed(error)
    }
}

async fn run_transaction<T, R, E>(handle: &Handle, closure: impl Fn(&mut T) -> Result<R, E> + Send) -> Result<R, E>
where
    T: State,
    R: Send,
    E: From<Error> + Send,
{
    let mut view: View<T> = View::open(&mut *handle.working()?).map_err(Error::from)?;
    let mut answer = None;
    let last = &mut answer;
    let mut stage =
        move |working: &mut Working| match view.attempt(working, |state| closure(state).map_err(Stop::Abort)) {
            Ok((value, staged)) => {
                *last = Some(Ok(value));
                Ok(staged)
            }
            Err(Stop::Failed(error)) => Err(error.into()),
            Err(Stop::Abort(abort)) => {
                *last = Some(Err(abort));
                Err(Error::new(Kind::Field, "the transaction was aborted by its closure"))
            }
        };
    let saved = handle.told(commit_now(handle, Order { changes: true, ..ASKED }, &mut stage).await);
    drop(stage);
    match (saved, answer) {
        (_, Some(Err(abort))) => Err(abort),
        (Ok(()), Some(answer)) => answer,
        (Err(error), _) => Err(error.into()),
        (Ok(()), None) => Err(Error::gone().into()),
    }
}

/// The handle of a request's session.
pub(crate) fn handle_of<S, L: 'static>(extensions: &Extensions) -> Result<Arc<Handle>, Error> {
    let in_request = extensions.get::<InRequest<L>>().ok_or_else(|| {
        let error = Error::new(
            Kind::NoLayer,
            format!(
                "there is no session layer around the handler that asks for {}: add RedisSessionLayer to its router, \
                 below its routes",
                std::any::type_name::<S>()
            ),
        );
        tracing::error!(target: "redis_session", "{error}");
        error
    })?;
    in_request.handle()
}

impl<T, L> Deref for Session<T, L>
where
    T: State,
{
    type Target = T;

    fn deref(&self) -> &T {
        &self.view
    }
}

impl<L> Clone for Session<Untyped, L> {
    fn clone(&self) -> Self {
        Self::of(self.handle.clone())
    }
}

/// Its status; no ids, no data.
impl<T, L> fmt::Debug for Session<T, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.handle.state();
        f.debug_struct("Session").field("realm", &self.handle.settings.realm).field("found", &state.found).finish()
    }
}
