//! What handlers do: requests of every kind, which mark each edit of theirs and note what they were told and shown.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::{Request, Response};
use redis_session::{Error, Kind, Session, Sessions, Status};
use serde::{Deserialize, Serialize};

use crate::gate::Gate;

/// What a request's handler does. The edits that it awaits and those that it leaves to the response have one mark each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Act {
    Read,
    /// A field of its own and one that all set.
    Insert,
    Increment,
    /// A closure that appends.
    Push,
    Transaction,
    Rotate,
    /// An edit, a rotation, and then what only who is logged in may see.
    LogIn,
    Destroy,
    /// An end, and then an edit: the flash line that says goodbye, or who logs in from another visitor's session.
    Goodbye,
    /// An increment, a save, and a look at the fields.
    Save,
    /// A save whose error is not heeded, and one more edit.
    SaveMore,
    /// A save; where its outcome is unknown, a refresh; and one more edit.
    SaveRefresh,
    /// An edit, and a look at what others have done meanwhile.
    Refresh,
    /// A save without edits.
    Touch,
    /// A save without edits whose error is not heeded, and then an edit.
    TouchMore,
    Remember,
    /// Increments what another may have made a text, beside an edit of its own.
    Count,
    /// Makes that text.
    Text,
    /// Makes that a number.
    Number,
    /// Four saves one after the other: whoever based on what was before does not find it any more.
    FourSaves,
    /// Four saves without edits.
    FourTouches,
    /// An edit, and a 500.
    Fail,
    /// Logs this user in.
    LogInAs(u8),
    LogOut,
    /// Looks at the list of user 1, and ends the first other session in it.
    RevokeOne,
    /// Ends all other sessions of who is logged in.
    RevokeOthers,
    /// Ends all sessions of user 1, from outside: an administrator, a worker.
    RevokeAll,
}

impl Act {
    /// Whether all that it writes are touches.
    pub(crate) fn only_touches(self) -> bool {
        matches!(self, Self::Touch | Self::FourTouches)
    }

    /// Whom it logs in. `None`: nobody.
    pub(crate) fn logs_in(self) -> Option<u8> {
        if let Self::LogInAs(user) = self { Some(user) } else { None }
    }

    /// Whose sessions it is about. `None`: those of who happens to be logged in.
    pub(crate) fn user(self) -> Option<u8> {
        match self {
            Self::LogInAs(user) => Some(user),
            Self::RevokeOne | Self::RevokeOthers | Self::RevokeAll => Some(1),
            _ => None,
        }
    }
}

/// The body of a request.
#[derive(Clone)]
pub(crate) struct Job {
    pub(crate) act: Act,
    pub(crate) index: usize,
    pub(crate) notes: Arc<Mutex<Notes>>,
    pub(crate) gate: Arc<Gate>,
    /// The users' sessions, as the process has them that answers. `None`: it is not sent yet.
    pub(crate) sessions: Option<Sessions>,
}

/// What a handler has done, and what it was told and shown.
#[derive(Clone, Debug, Default, Hash)]
pub(crate) struct Notes {
    /// The marks of its edits, as far as they were made without an error.
    pub(crate) made: Vec<u8>,
    /// What an awaited save said about its mark.
    pub(crate) told: Vec<(u8, Result<(), Word>)>,
    /// What other awaited calls said.
    pub(crate) also_told: Vec<Word>,
    /// Who was logged in, by the fields that it was shown.
    pub(crate) shown: Vec<u8>,
    pub(crate) destroyed: bool,
    /// What was said about logins and revocations.
    pub(crate) of_people: Vec<OfPeople>,
    /// What a reader was told about who is logged in.
    pub(crate) seen: Option<Option<u8>>,
}

/// An answer about a user's sessions.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum OfPeople {
    LoggedIn(u8, Result<(), Word>),
    /// How many ended.
    Revoked(Result<usize, Word>),
}

/// [`Kind`], as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Word {
    Gone,
    Unknown,
    /// Nothing was saved, and the edits are tried again with the response.
    NotSaved,
    /// A login may not be.
    Refused,
}

impl From<Kind> for Word {
    fn from(kind: Kind) -> Self {
        match kind {
            // Also where nobody is logged in any more.
            Kind::Gone | Kind::NotLoggedIn => Self::Gone,
            Kind::OutcomeUnknown => Self::Unknown,
            Kind::Unavailable | Kind::Contended | Kind::Field | Kind::TooLarge | Kind::Random => Self::NotSaved,
            Kind::LoginRefused => Self::Refused,
            other => panic!("no request here leads to {other:?}"),
        }
    }
}

#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(default)]
struct Visitor {
    log: Vec<u8>,
    user: Option<u8>,
}

/// How far an increment's digit is from the last one, in bits.
pub(crate) const DIGIT: u32 = 4;

impl Job {
    pub(crate) fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn awaited(&self) -> u8 {
        2 * self.index as u8
    }

    fn trailing(&self) -> u8 {
        self.awaited() + 1
    }

    fn increment(&self, session: &Session, mark: u8) -> Result<(), Error> {
        session.increment("n", 1 << (DIGIT * u32::from(mark)))?;
        self.notes().made.push(mark);
        Ok(())
    }

    fn insert(&self, session: &Session, name: &str, mark: u8) -> Result<(), Error> {
        session.insert(&format!("{name}{mark}"), &mark)?;
        self.notes().made.push(mark);
        Ok(())
    }

    fn push(&self, session: &Session, mark: u8) -> Result<(), Error> {
        let (mut view, job) = (session.view::<Visitor>()?, self.clone());
        view.update(move |visitor| {
            job.notes().shown.extend(visitor.user);
            visitor.log.push(mark);
        })?;
        self.notes().made.push(mark);
        Ok(())
    }

    async fn transact(&self, session: &Session, mark: u8) -> Result<(), Error> {
        let (mut view, job) = (session.view::<Visitor>()?, self.clone());
        self.notes().made.push(mark);
        let answer = view
            .transaction(move |visitor| {
                job.notes().shown.extend(visitor.user);
                visitor.log.push(mark);
                Ok::<_, Error>(())
            })
            .await;
        self.told(mark, answer).await
    }

    async fn save(&self, session: &Session, mark: u8) -> Result<(), Error> {
        self.told(mark, session.save().await).await
    }

    /// Where there is a session, a rotation saves what was edited before.
    async fn rotate(&self, session: &Session, mark: u8) -> Result<(), Error> {
        let saves = session.status() == Status::Alive;
        let answer = session.rotate().await;
        if saves { self.told(mark, answer).await } else { self.also_told(answer).await }
    }

    /// Takes note of an answer, and then may take its time.
    async fn told(&self, mark: u8, answer: Result<(), Error>) -> Result<(), Error> {
        self.notes().told.push((mark, answer.as_ref().map(|_| ()).map_err(|error| error.kind().into())));
        self.gate.pass().await;
        answer
    }

    async fn also_told(&self, answer: Result<(), Error>) -> Result<(), Error> {
        self.notes().also_told.extend(answer.as_ref().err().map(|error| Word::from(error.kind())));
        self.gate.pass().await;
        answer
    }

    fn show(&self, session: &Session) -> Result<(), Error> {
        self.notes().shown.extend(session.get::<u8>("user")?);
        let user = session.user::<u8>()?;
        self.notes().shown.extend(user);
        self.notes().seen = Some(user);
        Ok(())
    }

    fn sessions(&self) -> &Sessions {
        self.sessions.as_ref().expect("it was sent")
    }

    fn of_people(&self, answer: OfPeople) {
        self.notes().of_people.push(answer);
    }

    fn revoked(&self, answer: Result<usize, Error>) {
        self.of_people(OfPeople::Revoked(answer.map_err(|error| error.kind().into())));
    }

    async fn revoke_one(&self, session: &Session) -> Result<usize, Error> {
        let listed = self.sessions().list(1).await?;
        let Some(other) = listed.iter().find(|other| Some(other.handle()) != session.handle()) else { return Ok(0) };
        Ok(usize::from(self.sessions().revoke(1, other.handle()).await?))
    }

    async fn refresh(&self, session: &Session) -> Result<(), Error> {
        let answer = session.refresh().await;
        self.gate.pass().await;
        answer
    }

    async fn end(&self, session: &Session) -> Result<(), Error> {
        let answer = session.destroy().await;
        self.notes().destroyed = answer.as_ref().err().is_none_or(|error| !error.is_gone());
        self.also_told(answer).await
    }

    async fn carry_out(&self, session: &Session) -> Result<u16, Error> {
        let (awaited, trailing) = (self.awaited(), self.trailing());
        match self.act {
            Act::Read => self.show(session)?,
            Act::Insert => {
                self.insert(session, "own", trailing)?;
                session.insert("last", &trailing)?;
            }
            Act::Increment => self.increment(session, trailing)?,
            Act::Push => self.push(session, trailing)?,
            Act::Transaction => self.transact(session, awaited).await?,
            Act::Rotate => self.also_told(session.rotate().await).await?,
            Act::LogIn => {
                self.increment(session, awaited)?;
                self.rotate(session, awaited).await?;
                session.insert("user", &self.index)?;
                self.insert(session, "own", trailing)?;
            }
            Act::Destroy => self.end(session).await?,
            Act::Goodbye => {
                self.end(session).await?;
                self.push(session, trailing)?;
            }
            Act::Save => {
                self.increment(session, awaited)?;
                let saved = self.save(session, awaited).await;
                self.show(session)?;
                saved?;
            }
            Act::SaveMore => {
                self.increment(session, awaited)?;
                let _heedless = self.save(session, awaited).await;
                self.push(session, trailing)?;
            }
            Act::SaveRefresh => {
                self.increment(session, awaited)?;
                if self.save(session, awaited).await.is_err_and(|error| error.is_outcome_unknown()) {
                    self.refresh(session).await?;
                }
                self.push(session, trailing)?;
            }
            Act::Refresh => {
                self.increment(session, trailing)?;
                self.refresh(session).await?;
                self.show(session)?;
            }
            Act::Touch => self.also_told(session.save().await).await?,
            Act::TouchMore => {
                let _heedless = self.also_told(session.save().await).await;
                self.increment(session, trailing)?;
            }
            Act::Remember => self.also_told(session.remember(Duration::from_secs(86_400)).await).await?,
            Act::Count => {
                session.increment("x", 1)?;
                self.insert(session, "own", trailing)?;
            }
            Act::Text => {
                session.insert("x", "text")?;
                self.insert(session, "own", trailing)?;
            }
            Act::Number => {
                session.insert("x", &1)?;
                self.insert(session, "own", trailing)?;
            }
            Act::FourSaves => {
                for _ in 0..4 {
                    session.increment("filler", 1)?;
                    self.also_told(session.save().await).await?;
                }
            }
            Act::FourTouches => {
                for _ in 0..4 {
                    self.also_told(session.save().await).await?;
                }
            }
            Act::Fail => {
                self.increment(session, trailing)?;
                return Ok(500);
            }
            Act::LogInAs(user) => {
                let answer = session.log_in(user).await;
                self.of_people(OfPeople::LoggedIn(user, answer.map_err(|error| error.kind().into())));
            }
            Act::LogOut => {
                let answer = session.log_out().await;
                self.notes().destroyed = answer.as_ref().err().is_none_or(|error| !error.is_gone());
                self.also_told(answer).await?;
            }
            Act::RevokeOne => self.revoked(self.revoke_one(session).await),
            Act::RevokeOthers => self.revoked(self.sessions().revoke_others(session).await),
            Act::RevokeAll => unreachable!("it comes without a session"),
        }
        Ok(200)
    }
}

/// The application.
pub(crate) async fn application(request: Request<Job>) -> Result<Response<String>, Infallible> {
    let (parts, job) = request.into_parts();
    job.gate.pass().await;
    if job.act == Act::RevokeAll {
        job.revoked(job.sessions().revoke_all(1).await);
        return Ok(Response::default());
    }
    let session = Session::from_extensions(&parts.extensions).await;
    job.gate.pass().await;
    let answer = match session {
        Ok(session) => job.carry_out(&session).await,
        Err(error) => Err(error),
    };
    let mut response = Response::new(String::new());
    match answer {
        Ok(status) => *response.status_mut() = status.try_into().expect("a status"),
        Err(error) => {
            *response.status_mut() = error.status();
            response.extensions_mut().insert(error);
        }
    }
    Ok(response)
}
