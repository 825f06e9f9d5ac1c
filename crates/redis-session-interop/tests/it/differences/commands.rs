//! How many commands go to Redis, and what caches are told.

use super::script::Happens;
use super::script::Step::{Ask, Caching, Cookie, Count, Redis, See};
use super::sides::Setting::AlwaysSave;
use super::{Case, Ours, Same, Theirs, case};

pub(super) fn cases() -> Vec<Case> {
    vec![
        case("a visitor's request whose handler leaves the session alone", [Ask("insert a=1"), Count(""), Cookie, Caching], "no command; no Set-Cookie; caches are told nothing", Same),
        case(
            "the same where every request saves",
            [Ask("insert a=1"), Count(""), Cookie],
            "no command; no Set-Cookie",
            Ours("the timeout is renewed by requests that ask for their session, and when it is due (`Renew::OnEveryRequest` asks for more)"),
        )
        .setting(AlwaysSave),
        case("a stranger's request that looks", [Count("get a"), Cookie], "no command; no Set-Cookie", Same),
        case("ten looks in one request", [Ask("insert a=1"), Count("get a; get a; get a; get a; get a; get b; get b; get b; get b; get b")], "1 read", Same),
        case(
            "a request that only reads, where every request saves",
            [Ask("insert a=1"), Count("get a"), Cookie],
            "1 read; no Set-Cookie",
            Ours("a timeout of half an hour is renewed once a minute at most, not with each request"),
        )
        .setting(AlwaysSave),
        case("a stranger's first insert", [Count("insert a=1")], "1 write", Same),
        case("an insert", [Ask("insert a=1"), Count("insert b=1")], "1 read, 1 write", Same),
        case("ten inserts", [Ask("insert a=1"), Count("many n=10")], "1 read, 1 write", Same),
        case(
            "a removal of what is not there",
            [Ask("insert a=1"), Count("remove b"), Cookie],
            "1 read; no Set-Cookie",
            Ours("nothing has changed, so nothing is written"),
        ),
        case(
            "an insert that is taken back",
            [Ask("insert a=1"), Count("insert b=1; remove b")],
            "1 read",
            Ours("nothing has changed, so nothing is written"),
        ),
        case(
            "`flush`",
            [Ask("insert a=1"), Count("flush")],
            "1 read, 1 write",
            Theirs("whose session it is must be known, to end it in the right list"),
        ),
        case(
            "`cycle_id`",
            [Ask("insert a=1"), Count("cycle")],
            "1 read, 1 write",
            Ours("one step, so that no crash between two leaves none or both"),
        ),
        case(
            "what caches are told of a page that looked",
            [Ask("insert a=1"), Ask("get a"), Caching],
            "vary: cookie",
            Ours("no cache between hands one visitor's page to another"),
        ),
        case(
            "what they are told of a page with a cookie",
            [Ask("insert a=1"), Caching],
            "vary: cookie, cache-control: no-store",
            Ours("no cache keeps a cookie for somebody else"),
        ),
        case("Redis has forgotten its scripts", [Ask("insert a=1"), Redis(Happens::Forgetful), Ask("insert b=1"), See("keys")], "a=1 b=1", Same),
    ]
}
