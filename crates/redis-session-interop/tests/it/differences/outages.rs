//! Redis that is away, frozen, read-only or out of order, and records that are broken.

use super::script::Happens::{AnotherType, Away, Back, Broken, Frozen, Gone, ReadOnly, Refuses, Thawed, Writable};
use super::script::Step::{Ask, Be, Begin, Cookie, CopyTo, Finish, Milliseconds, Redis, See};
use super::sides::Setting::Anonymous;
use super::{Case, Choice, Ours, Same, case};

pub(super) fn cases() -> Vec<Case> {
    vec![
        case(
            "Redis is frozen, and a page looks",
            [Ask("insert a=1"), Redis(Frozen), Ask("get a"), Cookie, Redis(Thawed), Milliseconds(1000), See("keys")],
            "500; no Set-Cookie; a=1",
            Ours("an answer within the deadline of 250 ms"),
        )
        .may_fail(),
        case(
            "Redis is frozen, and a page leaves its session alone",
            [Ask("insert a=1"), Redis(Frozen), Ask(""), Cookie],
            "no Set-Cookie",
            Same,
        ),
        case(
            "Redis freezes between what a request reads and what it writes",
            [
                Ask("insert a=1"),
                Begin("one", "get a; wait; insert b=1"),
                Redis(Frozen),
                Finish("one"),
                Cookie,
                Redis(Thawed),
                Milliseconds(1000),
                See("get a"),
            ],
            "503; no Set-Cookie; 1",
            Ours("503 with `Retry-After` within the deadline"),
        )
        .may_fail(),
        case(
            "Redis is frozen, and a stranger's first insert",
            [Redis(Frozen), Ask("insert a=1"), Cookie],
            "503; no Set-Cookie",
            Ours("503 with `Retry-After` within the deadline"),
        )
        .may_fail(),
        case(
            "Redis is frozen, and a logout",
            [Ask("insert a=1"), Redis(Frozen), Ask("flush"), Cookie],
            "500; no Set-Cookie",
            Ours("in time, and the handler knows that nobody was logged out"),
        )
        .may_fail(),
        case(
            "Redis freezes after a look, and then a logout; Redis is back",
            [
                Ask("insert a=1"),
                CopyTo("copy"),
                Begin("one", "get a; wait; flush"),
                Redis(Frozen),
                Finish("one"),
                Cookie,
                Redis(Thawed),
                Milliseconds(1500),
                Be("copy"),
                See("keys"),
            ],
            "500; the cookie is removed; nothing",
            Ours("in time, the cookie is taken away, and the session is ended once Redis is back"),
        )
        .may_fail(),
        case(
            "Redis is frozen, and a page looks that can do without its session",
            [Ask("insert a=1"), Redis(Frozen), See("get a"), Cookie],
            "none; no Set-Cookie",
            Ours("with `IfUnavailable::Anonymous` the page is served"),
        )
        .setting(Anonymous),
        case(
            "Redis is frozen, and a logout where that is allowed; Redis is back",
            [
                Ask("insert a=1"),
                CopyTo("copy"),
                Redis(Frozen),
                Ask("flush"),
                Cookie,
                Redis(Thawed),
                Milliseconds(1500),
                Be("copy"),
                See("keys"),
            ],
            "500; the cookie is removed; nothing",
            Ours("in time, the cookie is taken away, and the session is ended once Redis is back"),
        )
        .setting(Anonymous)
        .may_fail(),
        case(
            "nobody listens, and a page looks; then Redis is back",
            [
                Ask("insert a=1"),
                Redis(Away),
                Milliseconds(300),
                Ask("get a"),
                Cookie,
                Redis(Back),
                Milliseconds(1500),
                See("keys"),
            ],
            "500; no Set-Cookie; a=1",
            Ours("an answer at once rather than when Redis is back"),
        )
        .may_fail(),
        case(
            "nobody listens, and an insert",
            [
                Ask("insert a=1"),
                Begin("one", "get a; wait; insert b=1"),
                Redis(Away),
                Milliseconds(300),
                Finish("one"),
                Cookie,
            ],
            "503; no Set-Cookie",
            Ours("503 with `Retry-After` says that it may be tried again"),
        )
        .may_fail(),
        case(
            "Redis takes no writes, and a page looks",
            [Ask("insert a=1"), Redis(ReadOnly), See("get a"), Redis(Writable)],
            "1",
            Same,
        ),
        case(
            "Redis takes no writes, and an insert",
            [Ask("insert a=1"), Redis(ReadOnly), Ask("insert b=1"), Cookie, Redis(Writable), See("keys")],
            "503; no Set-Cookie; a=1",
            Ours("503 with `Retry-After` says that it may be tried again"),
        )
        .may_fail(),
        case(
            "a write that Redis refuses with an error of no name",
            [Ask("insert a=1"), Redis(Refuses), Ask("insert b=1"), Cookie, See("keys")],
            "503; no Set-Cookie; a=1",
            Choice("an error of the server is taken for an outage"),
        )
        .may_fail(),
        case(
            "a record that was evicted, and a page that looks",
            [Ask("insert a=1"), Redis(Gone), See("keys; id")],
            "nothing, no id",
            Same,
        ),
        case(
            "a value of another type in the record's place, and a page that looks",
            [Ask("insert a=1"), Redis(AnotherType), Ask("get a"), Cookie],
            "500; no Set-Cookie",
            Same,
        )
        .may_fail(),
        case(
            "broken bytes in the record, and a page that looks for another key",
            [Ask("insert a=1; insert b=1"), Redis(Broken), Ask("get b"), Cookie],
            "500; no Set-Cookie",
            Same,
        )
        .may_fail(),
        case(
            "broken bytes in the record, and a logout",
            [Ask("insert a=1"), Redis(Broken), Ask("flush"), Cookie, See("keys")],
            "the cookie is removed; nothing",
            Same,
        ),
    ]
}
