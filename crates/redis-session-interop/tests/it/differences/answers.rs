//! What a handler answers, or fails to, and what becomes of its edits.

use super::script::Step::{Ask, Be, Cookie, CopyTo, See};
use super::{Case, Ours, Same, case};

pub(super) fn cases() -> Vec<Case> {
    vec![
        case(
            "an insert and a 404",
            [Ask("insert a=1; status 404"), Cookie, See("keys")],
            "404; a cookie is set; a=1",
            Same,
        ),
        case(
            "an insert and a redirect",
            [Ask("insert a=1; status 303"), Cookie, See("keys")],
            "303; a cookie is set; a=1",
            Same,
        ),
        case(
            "an insert and a 500",
            [Ask("insert a=1"), Ask("insert b=1; status 500"), Cookie, See("keys")],
            "500; no Set-Cookie; a=1",
            Same,
        ),
        case(
            "an insert, a `save` and a 500",
            [Ask("insert a=1"), Ask("insert b=1; save; insert c=1; status 500"), See("keys")],
            "500; a=1 b=1",
            Same,
        ),
        case(
            "a stranger's insert, a `save` and a 500",
            [Ask("insert a=1; save; status 500"), Cookie, See("keys")],
            "500; a cookie is set; a=1",
            Ours("what was saved is not left without a cookie"),
        ),
        case(
            "a `flush` and a 500",
            [Ask("insert a=1"), CopyTo("copy"), Ask("flush; status 500"), Cookie, Be("copy"), See("keys")],
            "500; the cookie is removed; nothing",
            Same,
        ),
        case(
            "a `cycle_id`, as of a login, and a 500",
            [Ask("insert a=1"), Ask("cycle; insert b=1; status 500"), See("keys")],
            "500; a=1",
            Ours("the visitor keeps the session that he had, under a new id; theirs is gone"),
        ),
        case(
            "a `cycle_id` and a panic",
            [Ask("insert a=1"), Ask("cycle; panic"), See("keys")],
            "a panic; a=1",
            Ours("nothing ends by an accident"),
        ),
        case("an insert and a panic", [Ask("insert a=1"), Ask("insert b=1; panic"), See("keys")], "a panic; a=1", Same),
        case(
            "an insert, a `save` and a panic",
            [Ask("insert a=1"), Ask("insert b=1; save; panic"), See("keys")],
            "a panic; a=1 b=1",
            Same,
        ),
        case(
            "a `flush` and a panic",
            [Ask("insert a=1"), CopyTo("copy"), Ask("flush; panic"), Be("copy"), See("keys")],
            "a panic; nothing",
            Same,
        ),
    ]
}
