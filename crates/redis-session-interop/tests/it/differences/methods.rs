//! Each method of their `Session`, and what the next request sees.

use super::script::Step::{Ask, Be, Cookie, CopyTo, IsTheCookie, IsTheSame, See};
use super::{Case, Choice, Ours, Same, Theirs, case};

pub(super) fn cases() -> Vec<Case> {
    vec![
        case(
            "`insert`, and `get` in the next request",
            [Ask("insert a=1"), Cookie, See("get a; get b")],
            "a cookie is set; 1, none",
            Same,
        ),
        case(
            "`insert_value` and `remove_value` answer the value of before",
            [See("replace a=1; replace a=2; remove a; remove a"), See("keys")],
            "none, 1, 2, none; nothing",
            Same,
        ),
        case(
            "`insert` of what is there already",
            [Ask("insert a=1"), See("insert a=1; modified"), Cookie],
            "not modified; no Set-Cookie",
            Same,
        ),
        case(
            "`get` as another type than the value's",
            [Ask("insert a=\"text\"; insert b=1"), See("number a; number b"), See("keys")],
            "not a number, 1; a=\"text\" b=1",
            Same,
        ),
        case(
            "a stranger's `get`, and no more",
            [See("get a; empty; id"), Cookie],
            "none, empty, no id; no Set-Cookie",
            Same,
        ),
        case(
            "a stranger's `remove` and `clear`",
            [See("remove a; clear; empty"), Cookie],
            "none, empty; no Set-Cookie",
            Same,
        ),
        case(
            "`is_empty` before and after the first `insert`, and in the next request before and after its first `get`",
            [See("empty; insert a=1; empty"), See("empty; get a; empty")],
            "empty, not empty; not empty, 1, not empty",
            Same,
        ),
        case(
            "`clear` after a `get`",
            [Ask("insert a=1"), Ask("get a; clear"), See("keys; id")],
            "nothing, an id",
            Same,
        ),
        case("`clear` before any `get`", [Ask("insert a=1"), Ask("clear; insert b=1"), See("keys")], "b=1", Same),
        case(
            "`flush`",
            [Ask("insert a=1"), CopyTo("copy"), See("flush; id; empty"), Cookie, See("keys"), Be("copy"), See("keys")],
            "no id, empty; the cookie is removed; nothing; nothing",
            Same,
        ),
        case("a stranger's `flush`", [See("flush; id"), Cookie], "no id; no Set-Cookie", Same),
        case(
            "`flush`, and then `insert` in the same request",
            [Ask("insert a=1"), CopyTo("copy"), Ask("flush; insert b=1"), Cookie, See("keys"), Be("copy"), See("keys")],
            "a cookie is set; b=1; nothing",
            Ours(
                "what comes after a logout is a session of its own; theirs has the id of before, which a copy of the cookie opens",
            ),
        ),
        case(
            "`delete`, and no more",
            [Ask("insert a=1"), Ask("delete"), Cookie, See("keys")],
            "the cookie is removed; nothing",
            Ours("a session that has ended leaves no cookie behind"),
        ),
        case(
            "`delete`, and then `insert` in the same request",
            [Ask("insert a=1"), Ask("delete; insert b=1"), Cookie, See("keys")],
            "a cookie is set; b=1",
            Same,
        ),
        case(
            "`cycle_id` takes the data along, and the old id is worth nothing",
            [Ask("insert a=1"), CopyTo("copy"), Ask("cycle"), Cookie, See("keys"), Be("copy"), See("keys")],
            "a cookie is set; a=1; nothing",
            Same,
        ),
        case("a stranger's `cycle_id`", [Ask("cycle"), Cookie], "no Set-Cookie", Same),
        case(
            "`cycle_id` and an `insert` in one request, and `id` before the response",
            [Ask("insert a=1"), See("cycle; insert b=1; id"), See("keys; id")],
            "no id; a=1 b=1, an id",
            Same,
        ),
        case("`cycle_id` twice in one request", [Ask("insert a=1"), Ask("cycle; cycle"), See("keys")], "a=1", Same),
        case(
            "`id` before and after `cycle_id`",
            [Ask("insert a=1"), Ask("name"), Ask("cycle"), Ask("name"), IsTheSame],
            "the same id",
            Choice("the id names the session for all its life, and so does not tell of a new cookie"),
        ),
        case(
            "whether `id` is what the cookie holds",
            [Ask("insert a=1"), Ask("name"), IsTheCookie],
            "the id is not the cookie's value",
            Ours("an id in a log or on a page is nobody's session"),
        ),
        case(
            "`id` before and after a stranger's `save`",
            [See("insert a=1; id; save; id"), See("id; keys")],
            "no id, an id; an id, a=1",
            Same,
        ),
        case(
            "`save` acts at once, and `load` undoes what was not saved",
            [See("insert a=1; save; insert a=2; load; get a"), See("keys")],
            "1; a=1",
            Same,
        ),
        case("a stranger's `load` and `delete`", [See("load; delete; keys"), Cookie], "nothing; no Set-Cookie", Same),
        case(
            "`expiry_age` where the layer ends sessions after half an hour",
            [See("age")],
            "14 days",
            Theirs(
                "their session does not know our layer's timeout, and says its own default; `Session::expires_at` of ours is right",
            ),
        ),
        case(
            "`expiry_age` after `set_expiry`",
            [See("inactivity 300; age; until 7200; age")],
            "5 minutes, 2 hours",
            Same,
        ),
    ]
}
