//! Requests of one visitor that overlap: edits, logouts and new ids beside each other.

use super::script::Step::{Ask, Be, Begin, Cookie, CopyTo, Finish, Leave, See, Together};
use super::sides::Setting::{AlwaysSave, Users};
use super::{Case, Ours, Same, case};

pub(super) fn cases() -> Vec<Case> {
    vec![
        case(
            "two inserts of different keys",
            [Ask("insert a=1"), Begin("one", "get a; wait; insert b=1"), Ask("insert c=1"), Finish("one"), See("keys")],
            "a=1 b=1 c=1",
            Ours("both edits are kept: what a request did not change it does not write"),
        ),
        case(
            "twenty inserts of different keys",
            [Ask("insert a=1"), Together(20, "get a; meet; insert n#=1"), See("how-many n=20; get a")],
            "20 of 20 keys, 1",
            Ours("all are kept"),
        ),
        case(
            "two inserts of one key: the last save counts",
            [Ask("insert a=1"), Begin("one", "get a; wait; insert a=2"), Ask("insert a=3"), Finish("one"), See("keys")],
            "a=2",
            Same,
        ),
        case(
            "twenty requests count one up, all having read the same",
            [Ask("insert a=0"), Together(20, "count a"), See("get a")],
            "1",
            Same,
        )
        .typed("20"),
        case(
            "an insert beside a removal of another key",
            [Ask("insert a=1; insert b=1"), Begin("one", "get a; wait; insert c=1"), Ask("remove a"), Finish("one"), See("keys")],
            "b=1 c=1",
            Ours("what one request removed, the other does not write back"),
        ),
        case(
            "an insert beside a `clear`",
            [Ask("insert a=1"), Begin("one", "get a; wait; insert b=1"), Ask("get a; clear"), Finish("one"), See("keys")],
            "b=1",
            Ours("what was cleared stays so"),
        ),
        case(
            "a `clear` beside an insert that it did not see",
            [Ask("insert a=1"), Begin("one", "get a; wait; clear"), Ask("insert b=1"), Finish("one"), See("keys")],
            "b=1",
            Ours("after a `get`, `clear` removes what was there to be seen"),
        ),
        case(
            "a request that only reads, beside an insert",
            [Ask("insert a=1"), Begin("one", "get a; wait"), Ask("insert b=1"), Finish("one"), See("keys")],
            "a=1 b=1",
            Same,
        ),
        case(
            "the same where every request saves",
            [Ask("insert a=1"), Begin("one", "get a; wait"), Ask("insert b=1"), Finish("one"), See("keys")],
            "a=1 b=1",
            Ours("who only reads writes no data back"),
        )
        .setting(AlwaysSave),
        case(
            "an insert in flight during a logout (`flush`)",
            [
                Ask("insert a=1"),
                CopyTo("copy"),
                Begin("one", "get a; wait; insert b=1"),
                Ask("flush"),
                Finish("one"),
                Cookie,
                See("keys; id"),
                Be("copy"),
                See("keys"),
            ],
            "no Set-Cookie; nothing, no id; nothing",
            Ours("a logout costs nobody else's request an error"),
        ),
        case(
            "a `save` in flight during a logout",
            [
                Ask("insert a=1"),
                CopyTo("copy"),
                Begin("one", "get a; wait; insert b=1; save"),
                Ask("flush"),
                Finish("one"),
                Cookie,
                Be("copy"),
                See("keys"),
            ],
            "no Set-Cookie; nothing",
            Ours("nothing is written, and the handler goes on"),
        ),
        case(
            "a request that only reads, in flight during a logout",
            [Ask("insert a=1"), Begin("one", "get a; wait"), Ask("flush"), Finish("one"), Cookie, See("keys")],
            "no Set-Cookie; nothing",
            Same,
        ),
        case(
            "the same where every request saves",
            [Ask("insert a=1"), Begin("one", "get a; wait"), Ask("flush"), Finish("one"), Cookie, See("keys")],
            "no Set-Cookie; nothing",
            Ours("a page that is only read does not fail for a logout elsewhere"),
        )
        .setting(AlwaysSave),
        case(
            "an insert in flight while another request has a new id given (`cycle_id`)",
            [
                Ask("insert a=1"),
                Begin("one", "get a; wait; insert b=1"),
                Ask("cycle; insert c=1"),
                Finish("one"),
                Cookie,
                See("keys; id"),
            ],
            "no Set-Cookie; a=1 c=1, an id",
            Ours("on both sides the late edit is dropped (its id may be a thief's by then); here it costs no error page, and an event is counted"),
        ),
        case(
            "two `cycle_id` at once",
            [
                Ask("insert a=1"),
                Begin("one", "get a; wait; cycle"),
                Ask("cycle"),
                CopyTo("copy"),
                Finish("one"),
                Ask("insert b=1"),
                Be("copy"),
                See("keys"),
            ],
            "a=1 b=1",
            Ours("one session is left, not two"),
        ),
        case(
            "a logout (`flush`) in flight while another request has a new id given, of a user whom the layer is told of",
            [
                Ask("insert user=\"ada\""),
                Begin("one", "get user; wait; flush"),
                Ask("cycle"),
                CopyTo("copy"),
                Finish("one"),
                Be("copy"),
                See("get user"),
            ],
            "none",
            Ours("a logout ends its user's session, whatever the id is by then"),
        )
        .setting(Users),
        case(
            "the same of a session without a user that the layer knows of",
            [
                Ask("insert a=1"),
                Begin("one", "get a; wait; flush"),
                Ask("cycle"),
                CopyTo("copy"),
                Finish("one"),
                Be("copy"),
                See("keys"),
            ],
            "a=1",
            Same,
        ),
        case(
            "a `cycle_id` and an insert in flight during a logout",
            [Ask("insert a=1"), CopyTo("copy"), Begin("one", "get a; wait; cycle; insert b=1"), Ask("flush"), Finish("one"), See("keys"), Be("copy"), See("keys")],
            "nothing; nothing",
            Ours("a session that was logged out does not come back under a new id"),
        ),
        case(
            "a stranger's two first requests at once",
            [Begin("one", "wait; insert a=1"), Ask("insert b=1"), Finish("one"), See("keys")],
            "a=1",
            Same,
        ),
        case(
            "a `load` after another request's insert sees it",
            [Ask("insert a=1"), Begin("one", "get a; wait; load; keys"), Ask("insert b=1"), Finish("one"), See("keys")],
            "a=1 b=1",
            Same,
        ),
        case(
            "a client that goes away before its handler is done",
            [Ask("insert a=1"), Begin("one", "insert b=1; wait"), Leave("one"), See("keys")],
            "a=1",
            Same,
        ),
        case(
            "a client that goes away after its handler asked for a new id",
            [Ask("insert a=1"), Begin("one", "cycle; insert b=1; wait"), Leave("one"), See("keys")],
            "a=1",
            Ours("a new id is one step with the rest of the save: there is always one session"),
        ),
        case(
            "a client that goes away after its handler has saved",
            [Ask("insert a=1"), Begin("one", "insert b=1; save; wait"), Leave("one"), See("keys")],
            "a=1 b=1",
            Same,
        ),
    ]
}
