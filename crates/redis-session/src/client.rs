//! Notices when a session is used from another network or browser, where the application asks for that.

use crate::error::Error;
use crate::events::Event;
use crate::session::{Session, Status, Untyped};

/// The field that holds the mark of the last one.
const FIELD: &str = "client.mark";

impl<L> Session<Untyped, L> {
    /// Notes by what network and browser the session is used, and answers whether that is another than the last time:
    /// [`Event::ClientChanged`] then. What becomes of it is the application's to say: nothing, a mail to the user, a
    /// [step-up](crate::Fresh); a session never ends by itself for it, since networks change all the time.
    ///
    /// The text is the application's: from a source that it trusts (never a header that the visitor can set), and as coarse
    /// as will do, `203.0.113.0/24 Firefox`. Only a keyed hash of it is kept, in the field `client.mark`. Without a session
    /// nothing happens.
    ///
    /// # Errors
    /// As [`insert`](Session::insert).
    ///
    /// ```
    /// use redis_session::{Error, Session};
    ///
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// # let session = Session::detached(std::collections::BTreeMap::<String, u8>::new()).await?;
    /// assert!(!session.note_client("203.0.113.0/24 Firefox")?); // the first time
    /// assert!(!session.note_client("203.0.113.0/24 Firefox")?);
    /// assert!(session.note_client("198.51.100.0/24 Chrome")?);
    /// # Ok::<(), Error>(()) }).unwrap();
    /// ```
    pub fn note_client(&self, client: &str) -> Result<bool, Error> {
        if self.status() != Status::Alive {
            return Ok(false);
        }
        let signer = &self.handle.settings.signer;
        // Of another type only if the application has written it.
        let last = self.get::<String>(FIELD).unwrap_or_default();
        if last.as_ref().is_some_and(|mark| signer.is_mark_of(mark, client)) {
            return Ok(false);
        }
        self.insert(FIELD, &signer.client_mark(client))?;
        if last.is_some() {
            self.handle.tell(Event::ClientChanged);
        }
        Ok(last.is_some())
    }
}
