//! How long a session lives: by the layer, by `set_expiry`, by use.

use super::script::Happens;
use super::script::Step::{Ask, Be, Cookie, CopyTo, Life, Milliseconds, Redis, See};
use super::sides::Setting::{Nothing, Seconds, SecondsAlwaysSave};
use super::{Case, Choice, Ours, Same, Theirs, case};

pub(super) fn cases() -> Vec<Case> {
    let reader = |what, setting, verdict| {
        let mut steps = vec![Ask("insert a=1")];
        for _ in 0..8 {
            steps.extend([Milliseconds(500), Ask("get a")]);
        }
        steps.push(See("keys"));
        case(what, steps, "a=1", verdict).setting(setting)
    };
    vec![
        case(
            "nothing is said of expiry",
            [Ask("insert a=1"), Life],
            "a record for 31 minutes",
            Choice("half an hour without use and 12 hours in all, as OWASP and NIST advise, rather than two weeks"),
        )
        .setting(Nothing),
        case(
            "half an hour without use",
            [Ask("insert a=1"), Life],
            "a record for 31 minutes",
            Choice("an idle visitor is gone within a minute after his half hour, so that reading needs no write"),
        ),
        reader(
            "three seconds without use, and a visitor who reads every half second for four seconds",
            Seconds(3),
            Ours("reading is use; theirs is renewed by writes only, or by `with_always_save`"),
        ),
        case(
            "`set_expiry` to an hour without use",
            [Ask("insert a=1; inactivity 3600"), Life],
            "a record for 61 minutes",
            Choice("the minute as above"),
        ),
        case(
            "the same, and a write in the next request",
            [Ask("insert a=1; inactivity 3600"), Ask("insert b=1"), Life],
            "a record for 61 minutes",
            Ours("what a session was told holds for it, not for one request"),
        ),
        case(
            "`set_expiry` alone, in a later request",
            [Ask("insert a=1"), Ask("inactivity 3600"), Life, See("keys")],
            "a record for 61 minutes; a=1",
            Choice("the minute as above"),
        ),
        case(
            "`set_expiry` to a date in two hours",
            [Ask("insert a=1; until 7200"), Life, See("keys")],
            "a record for 2 hours; a=1",
            Same,
        )
        .setting(Nothing),
        case(
            "the same, and a write in the next request",
            [Ask("insert a=1; until 7200"), Ask("insert b=1"), Life],
            "a record for 2 hours",
            Ours("what a session was told holds for it, not for one request"),
        )
        .setting(Nothing),
        case(
            "`set_expiry` to the end of all calendars",
            [Ask("insert a=1; for-ever"), Life, See("keys")],
            "a record for 30 days; a=1",
            Choice("no session outlives `Expiry::remembered`, by default 30 days"),
        ),
        case(
            "`set_expiry` to a date that has passed, by a visitor with a session",
            [Ask("insert a=1"), Ask("until -60"), Cookie, See("keys")],
            "the cookie is removed; nothing",
            Ours("a session that has ended leaves no cookie behind"),
        ),
        case(
            "`set_expiry` to a date that has passed, by a stranger",
            [Ask("insert a=1; until -60"), Cookie, See("keys")],
            "no Set-Cookie; nothing",
            Ours("no cookie of a session that there is not"),
        ),
        case(
            "`set_expiry` to the end of the browser",
            [Ask("insert a=1; inactivity 3600"), Ask("browser-end"), Life],
            "a record for 31 minutes",
            Choice("the layer's own timeout again, rather than two weeks"),
        ),
        case(
            "a record whose expiry somebody took away, after its time",
            [Ask("insert a=1"), CopyTo("copy"), Redis(Happens::Persisted), Milliseconds(2300), Be("copy"), See("keys")],
            "nothing",
            Ours("the record knows its own end"),
        )
        .setting(Seconds(1)),
        reader("the same reader where every request saves", SecondsAlwaysSave(3), Same),
        case(
            "a stranger's `set_expiry`, and nothing else",
            [Ask("inactivity 3600"), Cookie, Life],
            "no Set-Cookie; no record",
            Same,
        ),
        case(
            "`expiry_age` of a session that was told, in the next request",
            [Ask("insert a=1; inactivity 3600"), See("get a; age")],
            "1, 14 days",
            Theirs("it says theirs' default; theirs itself says its layer's"),
        ),
    ]
}
