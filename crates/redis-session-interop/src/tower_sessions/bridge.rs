//! A store of theirs for one request, which turns what their `Session` does into edits, rotations and ends of ours.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt as _;
use futures_util::future::Shared;
use http::{Extensions, StatusCode};
use redis_session::{Error, Session, Status, Untyped};
use serde_json::Value;
use time::OffsetDateTime;
use tower_sessions_core::session::{Expiry, Id, Record};
use tower_sessions_core::session_store;
use tower_sessions_core::{Session as Theirs, SessionStore};

use super::layer::Users;
use super::names::{Data, date, decoded, failed, id_of, left_until, says};

type Ours<L> = Session<Untyped, L>;
type Loading<L> = Shared<Pin<Box<dyn Future<Output = Result<Ours<L>, Error>> + Send>>>;

/// One request's session, as their `Session` sees a store. There is one session in it, so ids are not compared.
pub(super) struct Bridge<L: 'static> {
    ours: Loading<L>,
    users: Option<Users>,
    /// Their session, to be asked what it is about. It owns this bridge in its turn, so it is let go when the response
    /// leaves. `None`: it has left.
    theirs: Mutex<Option<Theirs>>,
    /// Whether the request brought a cookie of ours.
    presented: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The fields when their record last agreed with them, sorted by name. `None`: they have not looked yet.
    seen: Option<Vec<(String, String)>>,
    /// Whether a new id was asked for, and is yet to be given.
    cycled: bool,
    /// Whether they have ended the session and begun no other.
    over: bool,
    /// Whether the response is leaving, so that our layer saves anyway.
    leaving: bool,
    /// What `set_expiry` said when it was last heeded.
    expiry: Option<Expiry>,
    /// What failed last, as ours: their errors are texts. `None`: nothing since.
    failure: Option<Error>,
}

impl<L: 'static> Bridge<L> {
    /// A bridge for a request, and the session of theirs that uses it. Nothing is read yet but the cookie.
    ///
    /// # Errors
    /// There is no layer of ours around.
    pub(super) fn open(extensions: &Extensions, users: Option<Users>) -> Result<(Arc<Self>, Theirs), Error> {
        let presented = Session::<Untyped, L>::presented(extensions)?;
        let loading: Pin<Box<dyn Future<Output = _> + Send>> =
            Box::pin(Session::<Untyped, L>::from_extensions(extensions));
        // Who comes without a session has seen all there is of it.
        let seen = if presented.is_none() { Some(Vec::new()) } else { None };
        let bridge = Arc::new(Self {
            ours: loading.shared(),
            users,
            theirs: Mutex::default(),
            presented: presented.is_some(),
            state: Mutex::new(State { seen, ..State::default() }),
        });
        let theirs = Theirs::new(presented.map(id_of), bridge.clone(), None);
        *bridge.theirs.lock().unwrap_or_else(PoisonError::into_inner) = Some(theirs.clone());
        Ok((bridge, theirs))
    }

    /// Whether there is anything to do when the response leaves.
    pub(super) fn is_changed(&self) -> bool {
        self.theirs().is_some_and(|theirs| theirs.is_modified())
    }

    /// Their session does not ask the store about a visitor who has none, so nobody knows whether the response depends on
    /// that; it counts as asked for, without a command, and varies by cookie.
    pub(super) fn count_as_asked_for(&self) {
        if !self.presented {
            let _ = self.ours.clone().now_or_never();
        }
    }

    /// The response leaves: their edits become ours, which our layer saves; a login, a logout and a new id are carried out.
    pub(super) async fn leave(self: Arc<Self>, status: StatusCode) -> Result<(), Error> {
        let Some(theirs) = self.theirs() else { return Ok(()) };
        let cycled = self.state().cycled;
        if theirs.is_empty().await {
            // A new id was asked for, and then nothing left to give it to: `flush` does not name the old one any more.
            return if cycled { self.end().await } else { Ok(()) };
        }
        // As their own layer does; but the old id is worth nothing more all the same.
        if status.is_server_error() {
            return if cycled { self.ours().await?.rotate().await } else { Ok(()) };
        }
        self.state().leaving = true;
        let Err(error) = theirs.save().await else { return Ok(()) };
        match self.failure() {
            Some(failure) => Err(failure),
            None => Err(redis_session_core::Error::caused(
                redis_session_core::Kind::Field,
                "the session of tower-sessions cannot be saved",
                error,
            )
            .into()),
        }
    }

    /// What failed last.
    pub(super) fn failure(&self) -> Option<Error> {
        self.state().failure.clone()
    }

    /// Lets their session go, which would otherwise keep this bridge, and this bridge it, for ever.
    pub(super) fn part(&self) {
        let theirs = self.theirs.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(theirs);
    }

    fn theirs(&self) -> Option<Theirs> {
        self.theirs.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn ours(&self) -> Result<Ours<L>, Error> {
        self.ours.clone().await
    }

    /// Keeps an error as ours, and makes it theirs.
    fn told<T>(&self, result: Result<T, Error>) -> session_store::Result<T> {
        self.state().failure = result.as_ref().err().cloned();
        result.map_err(failed)
    }

    async fn look(&self, id: Id) -> session_store::Result<Option<Record>> {
        let ours = self.told(self.ours().await)?;
        let (over, again) = {
            let state = self.state();
            (state.over, state.seen.is_some())
        };
        if over {
            return Ok(None);
        }
        if again {
            self.told(ours.refresh().await)?;
        }
        let fields = self.told(ours.fields())?;
        // Fields without a session are edits of one that is yet to begin.
        let there = ours.status() == Status::Alive || !fields.is_empty();
        let data = data_of(&fields)?;
        self.state().seen = Some(fields);
        let expiry_date = ours.expires_at().map_or_else(OffsetDateTime::now_utc, date);
        Ok(there.then_some(Record { id, data, expiry_date }))
    }

    /// Makes of their record what is new in it: a login or a logout, edits, an expiry, a new id.
    async fn take(&self, data: &Data) -> Result<(), Error> {
        let ours = self.ours().await?;
        self.follow_user(&ours, data).await?;
        {
            let mut state = self.state();
            state.seen = Some(stage(&ours, state.seen.as_deref(), data)?);
        }
        self.follow_expiry(&ours).await?;
        if std::mem::take(&mut self.state().cycled) {
            ours.rotate().await?;
        }
        Ok(())
    }

    /// Logs in whom the record names anew, before any of it is staged: of a login that is refused, nothing may stay.
    async fn follow_user(&self, ours: &Ours<L>, data: &Data) -> Result<(), Error> {
        let Some(users) = &self.users else { return Ok(()) };
        let before = self.user_before(ours, users)?;
        let now = users.named_by(data.get(users.field()));
        match now {
            now if now == before => {}
            Some(user) => {
                ours.log_in(user).await?;
                // The login's id is a new one.
                self.state().cycled = false;
            }
            // What else is in their record goes on without its user.
            None => {
                self.end().await?;
                self.state().over = false;
            }
        }
        Ok(())
    }

    fn user_before(&self, ours: &Ours<L>, users: &Users) -> Result<Option<String>, Error> {
        if let Some(seen) = &self.state().seen {
            let at = seen.binary_search_by(|(name, _)| name.as_str().cmp(users.field()));
            let value = at.ok().and_then(|at| serde_json::from_str::<Value>(&seen[at].1).ok());
            return Ok(users.named_by(value.as_ref()));
        }
        // They have cleared what they have not looked at.
        Ok(users.named_by(ours.get(users.field())?.as_ref()))
    }

    async fn follow_expiry(&self, ours: &Ours<L>) -> Result<(), Error> {
        let Some(asked) = self.theirs().map(|theirs| theirs.expiry()) else { return Ok(()) };
        let before = std::mem::replace(&mut self.state().expiry, asked);
        if asked == before {
            return Ok(());
        }
        if matches!(before, Some(Expiry::AtDateTime(_))) {
            ours.remember(None).await?;
        }
        let left = match asked {
            None | Some(Expiry::OnSessionEnd) => return ours.expire_after(None),
            Some(Expiry::OnInactivity(idle)) => Duration::try_from(idle).ok().filter(|idle| !idle.is_zero()),
            Some(Expiry::AtDateTime(then)) => left_until(then),
        };
        match (asked, left) {
            // It is to have ended already.
            (_, None) => self.end().await,
            (Some(Expiry::AtDateTime(_)), Some(left)) => ours.remember(left).await,
            (_, Some(idle)) => {
                ours.expire_after(idle.clamp(redis_session::Expiry::SHORTEST, redis_session::Expiry::LONGEST))
            }
        }
    }

    /// Ends the session at once, a user's as a logout.
    async fn end(&self) -> Result<(), Error> {
        let ours = self.ours().await?;
        {
            let mut state = self.state();
            (state.seen, state.cycled, state.over) = (Some(Vec::new()), false, true);
        }
        let ended = if ours.level().is_some() { ours.log_out().await } else { ours.destroy().await };
        gone_is_fine(ended)
    }

    /// Saves at once, where a handler asked for that; our layer does when the response leaves.
    async fn save_now(&self) -> Result<(), Error> {
        let ours = self.ours().await?;
        if self.state().leaving || self.state().over { Ok(()) } else { ours.save().await }
    }
}

/// Their stores say nothing of a session that is gone, and handlers do not expect an error then: nothing was written, and
/// nothing comes back.
fn gone_is_fine(result: Result<(), Error>) -> Result<(), Error> {
    match result {
        Err(error) if error.is_gone() => Ok(()),
        result => result,
    }
}

fn data_of(fields: &[(String, String)]) -> session_store::Result<Data> {
    decoded(fields.iter().map(|(name, text)| (name.as_str(), text.as_bytes())))
}

/// What their record has that was not seen becomes inserts, what it lacks removals; all of them merge. Answers what is seen
/// from now on. An error leaves everything as it was.
fn stage<L>(ours: &Ours<L>, seen: Option<&[(String, String)]>, data: &Data) -> Result<Vec<(String, String)>, Error> {
    let Some(seen) = seen else {
        ours.clear()?;
        return stage(ours, Some(&[]), data);
    };
    let text_of = |name: &str| seen.binary_search_by(|(n, _)| n.as_str().cmp(name)).ok().map(|at| &seen[at].1);
    let mut now = Vec::with_capacity(data.len());
    let mut changed: Vec<&str> = Vec::new();
    let mut change = || -> Result<(), Error> {
        // First what makes room.
        for (name, _) in seen.iter().filter(|(name, _)| !data.contains_key(name)) {
            changed.push(name);
            ours.remove(name)?;
        }
        for (name, value) in data {
            match text_of(name) {
                Some(text) if says(text.as_bytes(), value) => now.push((name.clone(), text.clone())),
                _ => {
                    changed.push(name);
                    ours.insert(name, value)?;
                    now.push((name.clone(), value.to_string()));
                }
            }
        }
        Ok(())
    };
    if let Err(error) = change() {
        for name in changed {
            let back = text_of(name).and_then(|text| serde_json::from_str::<Value>(text).ok());
            // The name that was refused has nothing to be taken back.
            let _ = back.map_or_else(|| ours.remove(name), |value| ours.insert(name, &value));
        }
        return Err(error);
    }
    now.sort_unstable();
    Ok(now)
}

#[async_trait]
impl<L: 'static> SessionStore for Bridge<L> {
    /// Their session has no id: the visitor has no session, or it was flushed, or is to have a new id.
    async fn create(&self, record: &mut Record) -> session_store::Result<()> {
        self.state().over = false;
        self.told(gone_is_fine(self.take(&record.data).await))?;
        self.told(gone_is_fine(self.save_now().await))?;
        let ours = self.told(self.ours().await)?;
        if let Some(session) = ours.handle() {
            record.id = id_of(session);
        }
        let fields = self.told(ours.fields())?;
        record.data = data_of(&fields)?;
        self.state().seen = Some(fields);
        Ok(())
    }

    async fn save(&self, record: &Record) -> session_store::Result<()> {
        if self.state().over {
            return Ok(());
        }
        self.told(gone_is_fine(self.take(&record.data).await))?;
        self.told(gone_is_fine(self.save_now().await))
    }

    async fn load(&self, id: &Id) -> session_store::Result<Option<Record>> {
        self.look(*id).await
    }

    async fn delete(&self, _: &Id) -> session_store::Result<()> {
        // `cycle_id` takes the id away before it comes here, `delete` and `flush` afterwards. After the response there is no
        // id to be given, and the end is on the safe side.
        if self.theirs().is_some_and(|theirs| theirs.id().is_none()) {
            self.state().cycled = true;
            return Ok(());
        }
        self.told(self.end().await)
    }
}

/// No ids, no data.
impl<L> fmt::Debug for Bridge<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bridge").field("presented", &self.presented).finish_non_exhaustive()
    }
}
