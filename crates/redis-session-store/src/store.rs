//! The operations of the store on any server: what is sent, how long it may take, and what an error means.

use std::time::{Duration, Instant};

use bytes::Bytes;
use redis_session_core::{
    Create, Created, End, Ended, Error, Kind, Read, Record, ReplicaRead, Replication, Save, Saved, SessionKey, Stored,
    Time, Waited,
};

use crate::bell;
use crate::script::{self, Script};
use crate::server::{Copies, Failure, Pairs, Reply, Server};

/// The longest that a replica may take where the primary could be asked; a quarter of the deadline where that is less.
const LONGEST_AT_A_REPLICA: Duration = Duration::from_millis(100);

/// The store, on one way to the servers.
pub(crate) struct Operations<S> {
    pub(crate) server: S,
    pub(crate) prefix: String,
    pub(crate) deadline: Duration,
}

impl<S: Server> Operations<S> {
    pub(crate) async fn load(&self, session: &SessionKey) -> Result<Option<Stored>, Error> {
        self.load_by(session, self.by()).await
    }

    async fn load_by(&self, session: &SessionKey, by: Instant) -> Result<Option<Stored>, Error> {
        let key = self.key(session);
        self.know_the_time(by).await?;
        let hash = match self.server.hgetall(&key, by).await {
            Err(Failure::Lost(_)) => self.load_again(&key, by).await,
            answer => answer,
        };
        self.checked(hash.map_err(Failure::of_read).and_then(|hash| Stored::parse(hash, session)))
    }

    /// By a replica where that will do, and else by the primary in the time that is left.
    pub(crate) async fn read(&self, session: &SessionKey, read: &ReplicaRead) -> Result<Read, Error> {
        let by = self.by();
        match self.read_near(session, read, by).await {
            Some(record) => Ok(Read::Replica(record)),
            None => self.load_by(session, by).await.map(Read::Primary),
        }
    }

    /// A replica does not know that a slot is on its way elsewhere, or what was written a moment ago, so that anything but
    /// a living session proves nothing.
    async fn read_near(&self, session: &SessionKey, read: &ReplicaRead, by: Instant) -> Option<Record> {
        self.know_the_time(by).await.ok()?;
        let soon = Instant::now() + LONGEST_AT_A_REPLICA.min(self.deadline / 4);
        let hash = self.server.hgetall_near(&self.key(session), read.behind, soon.min(by)).await?;
        match self.checked(Stored::parse(hash, session)) {
            Ok(Some(Stored::Record(record))) if read.takes(&record, self.server.now()) => Some(record),
            _ => None,
        }
    }

    /// A reply that cannot be right may be that to another command.
    pub(crate) fn checked<T>(&self, answer: Result<T, Error>) -> Result<T, Error> {
        if answer.as_ref().is_err_and(Error::is_corrupt) {
            self.server.doubt();
        }
        answer
    }

    /// The same of a write, which has another connection where it waits for replicas.
    fn checked_write<T>(&self, wait: Option<Replication>, answer: Result<T, Error>) -> Result<T, Error> {
        if wait.is_some() && answer.as_ref().is_err_and(Error::is_corrupt) {
            self.server.doubt_waits();
        }
        self.checked(answer)
    }

    /// The connection may have been an old one that Redis or a proxy has closed: a new one takes some 20 milliseconds.
    async fn load_again(&self, key: &Bytes, by: Instant) -> Result<Pairs, Failure> {
        for pause in [5, 10, 20, 40].map(Duration::from_millis) {
            if Instant::now() + pause >= by {
                break;
            }
            tokio::time::sleep(pause).await;
            match self.server.hgetall(key, by).await {
                Err(Failure::NotSent(_)) => {}
                answer => return answer,
            }
        }
        self.server.hgetall(key, by).await
    }

    pub(crate) async fn create(
        &self,
        session: &SessionKey,
        create: &Create,
        wait: Option<Replication>,
    ) -> Result<Waited<Created>, Error> {
        let key = self.key(session);
        let args = script::create_args(create, self.until(&key, create.not_after))?;
        let read = |reply| script::created(reply, &key);
        let wrote = |outcome: &Created| matches!(outcome, Created::Created { .. });
        self.write(&script::CREATE, &key, args, wait, read, wrote).await
    }

    pub(crate) async fn save(
        &self,
        session: &SessionKey,
        save: &Save,
        wait: Option<Replication>,
    ) -> Result<Waited<Saved>, Error> {
        let key = self.key(session);
        let args = script::save_args(save, self.until(&key, save.not_after))?;
        let read = |reply| script::saved(reply, &key, session);
        let wrote = |outcome: &Saved| matches!(outcome, Saved::Saved { .. });
        self.write(&script::SAVE, &key, args, wait, read, wrote).await
    }

    pub(crate) async fn end(
        &self,
        session: &SessionKey,
        end: &End,
        wait: Option<Replication>,
    ) -> Result<Waited<Ended>, Error> {
        let key = self.key(session);
        let args = script::end_args(end, |time| self.server.by_clock_of(&key, time), &self.ended_channel());
        let read = |reply| script::ended(reply, &key, session);
        let wrote = |outcome: &Ended| match outcome {
            Ended::Ended | Ended::Already(_) => true,
            Ended::Gone => end.reason.also_ends_what_is_to_come(),
            _ => false,
        };
        self.write(&script::END, &key, args, wait, read, wrote).await
    }

    pub(crate) async fn ping(&self) -> Result<Time, Error> {
        self.server.time(self.by()).await.map_err(Failure::of_read)
    }

    pub(crate) async fn run(&self, script: &'static Script, key: &Bytes, args: Vec<Bytes>) -> Result<Reply, Error> {
        self.run_and_wait(script, key, args, None).await.map(|(reply, _)| reply)
    }

    /// Runs a script, and says of what it wrote whether it is where it was to be.
    pub(crate) async fn write<T>(
        &self,
        script: &'static Script,
        key: &Bytes,
        args: Vec<Bytes>,
        wait: Option<Replication>,
        read: impl FnOnce(Reply) -> Result<T, Error>,
        wrote: impl FnOnce(&T) -> bool,
    ) -> Result<Waited<T>, Error> {
        let (reply, copies) = self.run_and_wait(script, key, args, wait).await?;
        let outcome = self.checked_write(wait, read(reply))?;
        let wrote = wrote(&outcome);
        if wrote {
            self.server.wrote();
        }
        Ok(Waited { missed: missed(wait.filter(|_| wrote), copies), outcome })
    }

    /// Ends within the deadline, and the time to wait.
    async fn run_and_wait(
        &self,
        script: &'static Script,
        key: &Bytes,
        args: Vec<Bytes>,
        wait: Option<Replication>,
    ) -> Result<(Reply, Copies), Error> {
        let sent = Instant::now();
        self.know_the_time(sent + self.deadline).await?;
        let by = sent + self.deadline + wait.map_or(Duration::ZERO, |wait| wait.within);
        let answer = self.server.script(script, key, args, wait, by).await;
        self.checked_write(wait, answer.map_err(Failure::of_write))
    }

    /// Whoever goes on from here has a clock to say until when a write may run, and what is past its deadline.
    pub(crate) async fn know_the_time(&self, by: Instant) -> Result<(), Error> {
        if self.server.now().is_none() {
            self.server.time(by).await.map_err(Failure::of_read)?;
        }
        Ok(())
    }

    /// Until when a write may run, by the clock of the server that it goes to.
    pub(crate) fn until(&self, key: &Bytes, not_after: Time) -> Time {
        self.server.by_clock_of(key, not_after)
    }

    pub(crate) fn key(&self, session: &SessionKey) -> Bytes {
        session.to_text_after(&self.prefix).into()
    }

    /// Where it is told which sessions ended.
    fn ended_channel(&self) -> Bytes {
        bell::channel(&self.prefix).into()
    }

    pub(crate) fn by(&self) -> Instant {
        Instant::now() + self.deadline
    }
}

/// Why what was written is not where it was to be.
fn missed(wait: Option<Replication>, copies: Copies) -> Option<Error> {
    let Replication { replicas, within } = wait?;
    let text = match copies {
        Ok(there) if there >= replicas => return None,
        Ok(there) => format!("the write was made, but is on {there} of {replicas} replicas after {within:?}"),
        Err("NOPERM") => "the write was made, but this user may not wait for replicas: allow +wait".to_owned(),
        Err(why) => format!("the write was made, but nobody knows whether it is on {replicas} replicas: {why}"),
    };
    Some(Error::new(Kind::NotReplicated, text))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use redis_session_core::{Fields, Life, Random, Reason, SessionId, Token, Tokens, Whose, Wishes};

    use super::*;
    use crate::clock::ServerClock;
    use crate::server::{Elsewhere, ScanMark};

    /// A server that answers from a list, and writes down what it was asked.
    #[derive(Default)]
    struct Scripted {
        loads: Mutex<Vec<Result<Pairs, Failure>>>,
        /// What a replica says.
        near: Option<Pairs>,
        /// Until when those who were to read had time.
        times: Mutex<Vec<Instant>>,
        scripts: Mutex<Vec<Result<Reply, Failure>>>,
        asked: Mutex<Vec<&'static str>>,
        clock: ServerClock,
        /// What `WAIT` says. `None`: nothing is waited for.
        copies: Option<Copies>,
        /// How far the clock of the server that has the key is ahead.
        ahead: Duration,
    }

    impl Scripted {
        fn asked(&self, what: &'static str) {
            self.asked.lock().unwrap().push(what);
        }
    }

    impl Server for Scripted {
        async fn hgetall(&self, _: &Bytes, by: Instant) -> Result<Pairs, Failure> {
            self.asked("HGETALL");
            self.times.lock().unwrap().push(by);
            self.loads.lock().unwrap().remove(0)
        }

        async fn hgetall_near(&self, _: &Bytes, _: Duration, by: Instant) -> Option<Pairs> {
            self.asked("HGETALL of a replica");
            self.times.lock().unwrap().push(by);
            self.near.clone()
        }

        async fn script(
            &self,
            _: &'static Script,
            _: &Bytes,
            _: Vec<Bytes>,
            wait: Option<Replication>,
            _: Instant,
        ) -> Result<(Reply, Copies), Failure> {
            self.asked("EVALSHA");
            if wait.is_some() {
                self.asked("WAIT");
            }
            Ok((self.scripts.lock().unwrap().remove(0)?, self.copies.unwrap_or(Ok(0))))
        }

        async fn command(&self, name: &'static str, _: &Bytes, _: Vec<Bytes>, _: Instant) -> Result<Reply, Failure> {
            self.asked(name);
            self.scripts.lock().unwrap().remove(0)
        }

        async fn scan(
            &self,
            _: ScanMark,
            _: Vec<Bytes>,
            _: Instant,
        ) -> Result<(Vec<Reply>, Option<ScanMark>), Failure> {
            self.asked("SCAN");
            Ok((Vec::new(), None))
        }

        async fn time(&self, _: Instant) -> Result<Time, Failure> {
            self.asked("TIME");
            Ok(Time::MAX)
        }

        fn spreads_keys(&self) -> bool {
            false
        }

        fn now(&self) -> Option<Time> {
            self.clock.now()
        }

        fn by_clock_of(&self, _: &Bytes, moment: Time) -> Time {
            moment + self.ahead
        }

        fn wrote(&self) {}

        fn doubt(&self) {
            self.asked("doubt");
        }

        fn doubt_waits(&self) {
            self.asked("doubt of those that wait");
        }
    }

    fn operations(server: Scripted) -> Operations<Scripted> {
        server.clock.learn(1_800_000_000_000_000, Instant::now());
        Operations { server, prefix: "sess:".to_owned(), deadline: Duration::from_millis(250) }
    }

    fn visitor() -> (SessionId, SessionKey) {
        let id = SessionId::random(&Random::system()).unwrap();
        let key = id.key(&"main".into());
        (id, key)
    }

    fn session() -> SessionKey {
        visitor().1
    }

    fn end() -> End {
        let life = Life { idle: 1, absolute: 1, touch: 1 };
        End { not_after: Time::MAX, reason: Reason::Destroyed, whose: Whose::Expired(life) }
    }

    #[tokio::test]
    async fn a_load_is_tried_again_when_the_connection_is_lost() {
        let (lost, not_sent) = (|| Err(Failure::Lost(None)), || Err(Failure::NotSent(None)));
        let table = [
            (vec![lost(), Ok(Vec::new())], 2, true),
            (vec![lost(), not_sent(), not_sent(), Ok(Vec::new())], 4, true),
            (vec![lost(), not_sent(), not_sent(), not_sent(), not_sent(), not_sent()], 6, false),
            (vec![lost(), lost()], 2, false),
            (vec![Err(Failure::Silent(None))], 1, false),
            (vec![not_sent()], 1, false),
            (vec![Err(Failure::Refused("LOADING"))], 1, false),
        ];
        for (loads, tries, works) in table {
            let what = format!("{loads:?}");
            let operations = operations(Scripted { loads: loads.into(), ..Scripted::default() });
            let answer = operations.load(&session()).await;
            assert_eq!(answer.is_ok(), works, "{what}");
            assert!(answer.err().is_none_or(|error| error.is_unavailable()), "{what}");
            assert_eq!(operations.server.asked.lock().unwrap().len(), tries, "{what}");
        }
    }

    #[tokio::test]
    async fn the_primary_is_asked_unless_a_replica_has_a_living_session() {
        let (id, key) = visitor();
        let hash = |key: &SessionKey| {
            let (at, life) = (Time::from_millis(1_800_000_000_000), Life { idle: 1000, absolute: 1000, touch: 1 });
            let record = Record {
                tokens: Tokens::first(Token::random(&Random::system()).unwrap()),
                proof: id.proof(),
                proved: at,
                previous: None,
                created: at,
                seen: at,
                wishes: Wishes::default(),
                login: None,
                fields: Fields::default(),
            };
            (vec![(Bytes::from_static(b"@"), Bytes::from(record.meta(key)))], life)
        };
        let (living, life) = hash(&key);
        let read = ReplicaRead { proof: id.proof(), life, behind: Duration::from_secs(2) };
        let (near, primary) = ("HGETALL of a replica", "HGETALL");
        let other_proof = ReplicaRead { proof: visitor().0.proof(), ..read };
        let past = ReplicaRead { life: Life { idle: 0, ..life }, ..read };
        let table = [
            (Some(living.clone()), read, vec![near]),
            (None, read, vec![near, primary]),
            (Some(Vec::new()), read, vec![near, primary]),
            (Some(living.clone()), other_proof, vec![near, primary]),
            (Some(living), past, vec![near, primary]),
            (Some(vec![("@ended".into(), "destroyed 1800000000000".into())]), read, vec![near, primary]),
            (Some(vec![("@".into(), "what is this".into())]), read, vec![near, "doubt", primary]),
            (Some(hash(&visitor().1).0), read, vec![near, "doubt", primary]),
        ];
        for (said, read, asked) in table {
            let what = format!("{said:?}");
            let operations =
                operations(Scripted { near: said, loads: vec![Ok(Vec::new())].into(), ..Scripted::default() });
            let answer = operations.read(&key, &read).await.unwrap();
            assert_eq!(matches!(answer, Read::Replica(_)), asked == [near], "{what}");
            assert_eq!(*operations.server.asked.lock().unwrap(), asked, "{what}");
        }
    }

    #[tokio::test]
    async fn a_replica_has_a_quarter_of_the_deadline_and_a_tenth_of_a_second_at_most() {
        let (id, key) = visitor();
        let life = Life { idle: 1000, absolute: 1000, touch: 1 };
        let read = ReplicaRead { proof: id.proof(), life, behind: Duration::from_secs(2) };
        for (deadline, at_a_replica) in [(40, 10), (250, 62), (400, 100), (10_000, 100)]
            .map(|(all, part)| (Duration::from_millis(all), Duration::from_millis(part + 1)))
        {
            let server = Scripted { loads: vec![Ok(Vec::new())].into(), ..Scripted::default() };
            let operations = Operations { deadline, ..operations(server) };
            let begun = Instant::now();
            operations.read(&key, &read).await.unwrap();
            let took = begun.elapsed();
            let times = operations.server.times.lock().unwrap();
            assert!(times[0] <= begun + took + at_a_replica, "{deadline:?}");
            assert!(times[1] >= begun + deadline && times[1] <= begun + took + deadline, "all of it is within it");
        }
    }

    #[tokio::test]
    async fn a_write_is_sent_once_and_says_whether_it_may_have_run() {
        let table = [
            (Failure::Lost(None), "OutcomeUnknown"),
            (Failure::Silent(None), "OutcomeUnknown"),
            (Failure::Refused("CLUSTERDOWN"), "OutcomeUnknown"),
            (Failure::NotSent(None), "Unavailable"),
            (Failure::Refused("READONLY"), "Unavailable"),
            (Failure::Refused("OOM"), "Unavailable"),
            (Failure::Elsewhere(Elsewhere { once: false, host: None, port: 1 }), "Unavailable"),
            (Failure::Refused("ERR"), "Unavailable"),
            (Failure::Refused("WRONGTYPE"), "Corrupt"),
            (Failure::Odd, "Corrupt"),
        ];
        for (failure, kind) in table {
            let what = format!("{failure:?}");
            let operations = operations(Scripted { scripts: vec![Err(failure)].into(), ..Scripted::default() });
            let error = operations.end(&session(), &end(), None).await.unwrap_err();
            assert_eq!(format!("{:?}", error.kind()), kind, "{what}");
            let doubted = if kind == "Corrupt" { &["EVALSHA", "doubt"][..] } else { &["EVALSHA"] };
            assert_eq!(*operations.server.asked.lock().unwrap(), doubted, "{what}");
        }
    }

    #[tokio::test]
    async fn connections_to_wait_on_are_doubted_for_replies_to_writes_that_wait_only() {
        let wait = Replication { replicas: 1, within: Duration::from_millis(1) };
        let waited = ["EVALSHA", "WAIT", "doubt of those that wait", "doubt"];
        for reply in [|| Err(Failure::Odd), || Ok(Reply::Nothing)] {
            for (wait, asked) in [(None, &["EVALSHA", "doubt"][..]), (Some(wait), &waited)] {
                let operations = operations(Scripted { scripts: vec![reply()].into(), ..Scripted::default() });
                assert!(operations.end(&session(), &end(), wait).await.unwrap_err().is_corrupt());
                assert_eq!(*operations.server.asked.lock().unwrap(), asked);
            }
        }
    }

    #[tokio::test]
    async fn an_unknown_clock_is_asked_for_first() {
        let server = Scripted { loads: vec![Ok(Vec::new())].into(), ..Scripted::default() };
        let operations = Operations { server, prefix: "sess:".to_owned(), deadline: Duration::from_millis(250) };
        operations.load(&session()).await.unwrap();
        assert_eq!(*operations.server.asked.lock().unwrap(), ["TIME", "HGETALL"]);
    }

    #[tokio::test]
    async fn only_what_was_written_can_miss_its_replicas() {
        let wait = Replication { replicas: 2, within: Duration::from_millis(70) };
        let session = session();
        let reply = |word: &str, rest: &[Reply]| {
            let key = Reply::Text(format!("sess:{}", session.to_text()).into());
            Reply::List([&[key, Reply::Text(word.to_owned().into())], rest].concat())
        };
        let tombstone = || reply("tombstone", &[Reply::Text("destroyed 1800000000000".into())]);
        let table = [
            (reply("ended", &[]), Ok(2), None),
            (reply("ended", &[]), Ok(3), None),
            (reply("ended", &[]), Ok(1), Some("on 1 of 2 replicas after 70ms")),
            (tombstone(), Ok(2), None),
            (tombstone(), Ok(0), Some("on 0 of 2")),
            (reply("gone", &[]), Ok(0), None),
            (reply("alive", &[]), Ok(0), None),
            (reply("late", &[Reply::Number(1_800_000_000_000)]), Ok(0), None),
            (reply("ended", &[]), Err("NOPERM"), Some("allow +wait")),
            (reply("ended", &[]), Err("UNBLOCKED"), Some("UNBLOCKED")),
        ];
        for (reply, copies, wanted) in table {
            let what = format!("{reply:?} {copies:?}");
            let server = Scripted { scripts: vec![Ok(reply)].into(), copies: Some(copies), ..Scripted::default() };
            let operations = operations(server);
            let waited = operations.end(&session, &end(), Some(wait)).await.unwrap();
            assert_eq!(*operations.server.asked.lock().unwrap(), ["EVALSHA", "WAIT"], "{what}");
            match (waited.missed, wanted) {
                (None, None) => {}
                (Some(error), Some(wanted)) => {
                    assert!(error.is_not_replicated() && error.to_string().contains(wanted), "{what}: {error}");
                }
                (missed, _) => panic!("{what}: {missed:?}"),
            }
        }
    }
}
