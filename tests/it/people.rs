//! Users over HTTP, on both stores: log in and out, lists of devices, revocations, caps, and what races with them.

use std::num::NonZeroUsize;
use std::time::{Duration, Instant, SystemTime};

use axum::extract::FromRequestParts;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use redis_session::{
    Error, Event, KeyRing, Kind, Level, Listing, Main, Reason, RedisSessionLayer, Refusal, Session, Sessions, Status,
    Untyped,
};
use redis_session_testkit::{Browser, Page, RedisServer};

use crate::visitor::{Place, Visitor, on_both_stores};
use crate::watched::{Watched, patient};

const MINUTE: Duration = Duration::from_secs(60);

impl Visitor {
    async fn log_in(&self, user: &str) {
        self.visit(async |session| session.log_in(user).await).await;
    }

    async fn user(&self) -> Option<String> {
        self.visit(async |session| session.user()).await
    }

    async fn status(&self) -> Status {
        self.visit(async |session| Ok(session.status())).await
    }

    async fn fill_cart(&self) {
        self.visit(async |session| session.insert("cart", &["tea"])).await;
    }

    async fn cart(&self) -> Option<Vec<String>> {
        self.visit(async |session| session.get("cart")).await
    }
}

impl Place {
    fn sessions(&self) -> Sessions {
        self.layer.sessions()
    }

    async fn logged_in(&self, user: &str) -> Visitor {
        let visitor = self.visitor();
        visitor.log_in(user).await;
        visitor
    }

    async fn list(&self, user: &str) -> Vec<Listing> {
        self.sessions().list(user).await.unwrap()
    }
}

fn session_cookies(page: &Page) -> usize {
    page.set_cookies().len()
}

#[tokio::test]
async fn r32_a_login_keeps_the_cart_and_leaves_the_old_cookie_worth_nothing() {
    on_both_stores(async |place| {
        let visitor = place.visitor();
        visitor.fill_cart().await;
        let (before, cookie) = (visitor.copy(), visitor.cookie());
        visitor.log_in("ada").await;
        assert_ne!(visitor.cookie(), cookie);
        assert_eq!(
            (visitor.user().await.as_deref(), visitor.cart().await),
            (Some("ada"), Some(vec!["tea".to_owned()]))
        );
        assert_eq!(before.status().await, Status::Replaced);
        assert_eq!((before.user().await, before.cart().await), (None, None));
        let late = before.try_visit(async |session| session.insert("cart", &["poison"])).await;
        assert_eq!((late.page.status.as_u16(), session_cookies(&late.page)), (200, 0));
        let log_out = before.try_visit(async |session| session.log_out().await).await;
        assert!(log_out.error.unwrap().is_gone());
        assert_eq!(session_cookies(&log_out.page), 0);
        assert_eq!(visitor.user().await.as_deref(), Some("ada"));
        assert!(place.events.take().contains(&Event::LoggedIn));
    })
    .await;
}

#[tokio::test]
async fn r46_a_session_is_no_login() {
    on_both_stores(async |place| {
        let visitor = place.visitor();
        visitor.visit(async |session| session.insert("user", "ada")).await;
        assert_eq!((visitor.status().await, visitor.user().await), (Status::Alive, None));
        let (level, at) = visitor.visit(async |session| Ok((session.level(), session.logged_in_at()))).await;
        assert_eq!((level, at), (None, None));
    })
    .await;
}

#[tokio::test]
async fn a_login_without_a_session_begins_one_with_the_edits_of_the_request() {
    on_both_stores(async |place| {
        let visitor = place.visitor();
        visitor
            .visit(async |session| {
                session.insert("cart", &["tea"])?;
                session.log_in(7).await?;
                session.insert("welcome", &true)
            })
            .await;
        let (user, cart) = (visitor.visit(async |session| session.user::<u64>()).await, visitor.cart().await);
        assert_eq!((user, cart), (Some(7), Some(vec!["tea".to_owned()])));
        assert_eq!(visitor.visit(async |session| session.get("welcome")).await, Some(true));
        assert_eq!(place.list("7").await.len(), 1);
    })
    .await;
}

#[tokio::test]
async fn r34_another_user_begins_with_nothing_of_the_one_before() {
    on_both_stores(async |place| {
        let visitor = place.logged_in("ada").await;
        visitor.fill_cart().await;
        let copy = visitor.copy();
        visitor
            .visit(async |session| {
                session.insert("language", "en")?;
                session.log_in("bob").await
            })
            .await;
        assert_eq!((visitor.user().await.as_deref(), visitor.cart().await), (Some("bob"), None));
        assert_eq!(visitor.visit(async |session| session.get::<String>("language")).await.as_deref(), Some("en"));
        assert_eq!(copy.status().await, Status::Ended(Reason::OtherUser));
        assert_eq!((place.list("ada").await.len(), place.list("bob").await.len()), (0, 1));
    })
    .await;
}

#[tokio::test]
async fn both_clicks_of_a_double_click_get_the_same_cookie_whoever_is_first_and_whatever_is_lost() {
    on_both_stores(async |place| {
        for order in 0..4 {
            let user = format!("ada {order}");
            let visitor = place.visitor();
            visitor.fill_cart().await;
            let (first, second) = (visitor.copy(), visitor.copy());
            if order < 2 {
                // The second has loaded the session before the first logs in.
                second
                    .visit(async |session| {
                        first.log_in(&user).await;
                        session.log_in(&user).await?;
                        assert_eq!(session.get("cart")?, Some(vec!["tea".to_owned()]));
                        assert_eq!(session.user()?, Some(user.clone()));
                        Ok(())
                    })
                    .await;
            } else {
                first.log_in(&user).await;
                second.log_in(&user).await;
            }
            assert_eq!(first.cookie(), second.cookie());
            let third = visitor.copy();
            third.log_in(&user).await;
            assert_eq!(first.cookie(), third.cookie());
            let kept = if order % 2 == 0 { &first } else { &second };
            assert_eq!((kept.user().await, kept.cart().await), (Some(user.clone()), Some(vec!["tea".to_owned()])));
            assert_eq!(place.list(&user).await.len(), 1);
        }
    })
    .await;
}

#[tokio::test]
async fn a_second_click_a_minute_later_begins_a_session_of_its_own() {
    on_both_stores(async |place| {
        let visitor = place.visitor();
        visitor.fill_cart().await;
        let late = visitor.copy();
        visitor.log_in("ada").await;
        place.pass(2 * MINUTE);
        late.log_in("ada").await;
        assert_ne!(late.cookie(), visitor.cookie());
        assert_eq!((late.user().await.as_deref(), late.cart().await), (Some("ada"), None));
        assert_eq!((visitor.user().await.as_deref(), place.list("ada").await.len()), (Some("ada"), 2));
    })
    .await;
}

#[tokio::test]
async fn a_second_click_for_another_user_takes_nothing_over() {
    on_both_stores(async |place| {
        let visitor = place.visitor();
        visitor.fill_cart().await;
        let other = visitor.copy();
        visitor.log_in("ada").await;
        other.log_in("bob").await;
        assert_eq!((other.user().await.as_deref(), other.cart().await), (Some("bob"), None));
        assert_eq!((visitor.user().await.as_deref(), visitor.cart().await.is_some()), (Some("ada"), true));
    })
    .await;
}

#[tokio::test]
async fn r37_a_logout_ends_the_session_for_all_and_takes_the_cookie_away() {
    on_both_stores(async |place| {
        let visitor = place.logged_in("ada").await;
        let copy = visitor.copy();
        let answer = visitor.try_visit(async |session| session.log_out().await).await;
        assert_eq!((session_cookies(&answer.page), visitor.cookie()), (1, None));
        assert_eq!((copy.status().await, copy.user().await), (Status::Ended(Reason::LoggedOut), None));
        assert_eq!((place.list("ada").await.len(), place.events.take().contains(&Event::LoggedOut)), (0, true));
        // Nothing of it is in the way of the next login.
        copy.log_in("ada").await;
        assert_eq!(copy.user().await.as_deref(), Some("ada"));
    })
    .await;
}

#[tokio::test]
async fn a_goodbye_after_a_logout_is_a_new_session_s() {
    on_both_stores(async |place| {
        let visitor = place.logged_in("ada").await;
        let goodbye = visitor
            .try_visit(async |session| {
                session.log_out().await?;
                session.insert("flash", "goodbye")
            })
            .await;
        assert_eq!(session_cookies(&goodbye.page), 1);
        assert_eq!(visitor.user().await, None);
        assert_eq!(visitor.visit(async |session| session.get::<String>("flash")).await.as_deref(), Some("goodbye"));
    })
    .await;
}

#[tokio::test]
async fn r38_who_logs_out_while_his_session_is_rotated_ends_it_all_the_same() {
    on_both_stores(async |place| {
        let visitor = place.logged_in("ada").await;
        let other = visitor.copy();
        visitor
            .visit(async |session| {
                other.visit(async |session| session.rotate().await).await;
                session.log_out().await
            })
            .await;
        assert_eq!(other.status().await, Status::Ended(Reason::LoggedOut));
    })
    .await;
}

#[tokio::test]
async fn a_logout_that_was_held_does_not_end_the_login_of_another() {
    on_both_stores(async |place| {
        let visitor = place.visitor();
        visitor.fill_cart().await;
        let planted = visitor.copy();
        let held = planted
            .try_visit(async |session| {
                visitor.log_in("ada").await;
                session.log_out().await
            })
            .await;
        assert!(held.error.unwrap().is_gone());
        assert_eq!((session_cookies(&held.page), visitor.user().await.as_deref()), (0, Some("ada")));
    })
    .await;
}

#[tokio::test]
async fn r44_a_user_sees_his_devices_and_ends_one_by_its_handle() {
    on_both_stores(async |place| {
        let (phone, desk, stranger) = (place.visitor(), place.visitor(), place.logged_in("bob").await);
        phone.visit(async |session| session.log_in("ada").label("her phone").await).await;
        place.pass(MINUTE);
        desk.log_in("ada").await;
        let list = place.list("ada").await;
        let labels: Vec<_> = list.iter().map(Listing::label).collect();
        assert_eq!(labels, [None, Some("her phone")]);
        let own = desk.visit(async |session| Ok(session.handle())).await;
        assert_eq!(own, Some(list[0].handle()));

        // Its text is for a form, and worth nothing as a cookie.
        let handle = list[1].handle();
        assert_eq!(handle.to_string().parse().ok(), Some(handle));
        desk.browser.set_cookie("__Host-id", &handle.to_string());
        assert_eq!(desk.status().await, Status::New);

        let sessions = place.sessions();
        assert!(!sessions.revoke("bob", handle).await.unwrap(), "not his");
        assert_eq!(phone.user().await.as_deref(), Some("ada"));
        assert!(sessions.revoke("ada", handle).await.unwrap());
        assert!(!sessions.revoke("ada", handle).await.unwrap(), "once");
        let status = phone.visit(async |session| Ok(session.status())).await;
        assert_eq!((status, place.list("ada").await.len()), (Status::Ended(Reason::Revoked), 1));
        assert_eq!(stranger.user().await.as_deref(), Some("bob"));
    })
    .await;
}

#[tokio::test]
async fn r107_r109_a_listing_holds_a_handle_two_times_and_what_the_application_said() {
    on_both_stores(async |place| {
        let visitor = place.logged_in("ada").await;
        let first = place.list("ada").await.remove(0);
        place.pass(Duration::from_secs(10));
        visitor.visit(async |session| session.save().await).await;
        let second = place.list("ada").await.remove(0);
        assert_eq!((first.label(), first.level()), (None, Level::FULL));
        let since_1970 = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        assert_eq!(since_1970(second.last_seen()) % 300, 0);
        // The clock of the test may step over one of the five minutes.
        assert!(since_1970(second.last_seen()) - since_1970(first.last_seen()) <= 300);
        assert!(second.created() >= second.last_seen() || second.created() <= second.last_seen() + 5 * MINUTE);
    })
    .await;
}

#[tokio::test]
async fn r42_all_others_end_and_the_caller_lives() {
    on_both_stores(async |place| {
        let (one, two, three) =
            (place.logged_in("ada").await, place.logged_in("ada").await, place.logged_in("ada").await);
        let ended = two
            .visit(async |session| {
                let sessions = place.sessions();
                sessions.revoke_others(&session).await
            })
            .await;
        assert_eq!(ended, 2);
        assert_eq!(two.user().await.as_deref(), Some("ada"));
        for other in [one, three] {
            assert_eq!(other.status().await, Status::Ended(Reason::Revoked));
        }
        assert_eq!(place.list("ada").await.len(), 1);
        assert_eq!(place.sessions().revoke_all("ada").await.unwrap(), 1);
        assert_eq!((two.status().await, place.list("ada").await.len()), (Status::Ended(Reason::Revoked), 0));
    })
    .await;
}

#[tokio::test]
async fn only_who_is_logged_in_ends_the_others() {
    on_both_stores(async |place| {
        let visitor = place.visitor();
        visitor.fill_cart().await;
        let answer = visitor.try_visit(async |session| place.sessions().revoke_others(&session).await).await;
        assert!(answer.error.unwrap().is_not_logged_in());
        let nobody = place.visitor();
        let answer = nobody.try_visit(async |session| place.sessions().revoke_others(&session).await).await;
        assert!(answer.error.unwrap().is_not_logged_in());
    })
    .await;
}

#[tokio::test]
async fn r42_a_login_whose_request_came_before_a_revocation_is_refused() {
    on_both_stores(async |place| {
        let visitor = place.visitor();
        visitor.fill_cart().await;
        let refused = visitor
            .try_visit(async |session| {
                place.sessions().revoke_all("ada").await?;
                session.log_in("ada").await
            })
            .await;
        assert!(refused.error.unwrap().is_login_refused());
        assert_eq!((refused.page.status.as_u16(), session_cookies(&refused.page)), (409, 0));
        assert_eq!((visitor.user().await, visitor.cart().await.is_some()), (None, true));
        assert_eq!(place.list("ada").await.len(), 0);
        assert!(place.events.take().contains(&Event::LoginRefused));
        place.pass(MINUTE);
        visitor.log_in("ada").await;
        assert_eq!(visitor.user().await.as_deref(), Some("ada"));
    })
    .await;
}

#[tokio::test]
async fn r42_a_second_click_of_before_a_revocation_does_not_take_over_a_login_of_after_it() {
    on_both_stores(async |place| {
        let visitor = place.visitor();
        visitor.fill_cart().await;
        let (old, new) = (visitor.copy(), visitor.copy());
        place.sessions().revoke_all("ada").await.unwrap();
        place.pass(Duration::from_secs(1));
        new.log_in("ada").await;
        let before = Instant::now().checked_sub(MINUTE / 2).unwrap();
        let click = old.try_visit(async |session| session.log_in("ada").verified_at(before).await).await;
        assert!(click.error.unwrap().is_login_refused());
        assert_eq!((old.user().await, new.user().await.as_deref()), (None, Some("ada")));
        assert_eq!(place.list("ada").await.len(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_login_says_when_the_password_was_checked() {
    on_both_stores(async |place| {
        let visitor = place.visitor();
        visitor
            .visit(async |session| {
                place.sessions().revoke_all("ada").await?;
                place.pass(Duration::from_millis(20));
                session.log_in("ada").verified_at(Instant::now()).await
            })
            .await;
        assert_eq!(visitor.user().await.as_deref(), Some("ada"));
        let long_ago = Instant::now().checked_sub(2 * MINUTE).unwrap();
        let late = place.visitor();
        let refused = late.try_visit(async |session| session.log_in("bob").verified_at(long_ago).await).await;
        assert!(refused.error.unwrap().is_login_refused());
    })
    .await;
}

#[tokio::test]
async fn a_new_password_is_a_login_and_the_end_of_the_others() {
    on_both_stores(async |place| {
        let (thief, owner) = (place.logged_in("ada").await, place.visitor());
        owner
            .visit(async |session| {
                session.log_in("ada").await?;
                place.sessions().revoke_others(&session).await
            })
            .await;
        assert_eq!((thief.user().await, owner.user().await.as_deref()), (None, Some("ada")));
    })
    .await;
}

#[tokio::test]
async fn r43_over_the_cap_the_session_goes_that_would_expire_first_and_learns_why() {
    on_both_stores(async |mut place| {
        place.layer = place.layer.sessions_per_user(NonZeroUsize::new(2).unwrap());
        let one = place.logged_in("ada").await;
        place.pass(2 * MINUTE);
        let two = place.logged_in("ada").await;
        place.pass(2 * MINUTE);
        // Who was here again is not the one that would expire first.
        one.visit(async |session| session.save().await).await;
        place.pass(Duration::from_secs(1));
        let three = place.logged_in("ada").await;
        assert_eq!(two.status().await, Status::Ended(Reason::Cap));
        for alive in [&one, &three] {
            assert_eq!(alive.user().await.as_deref(), Some("ada"));
        }
        assert_eq!(place.list("ada").await.len(), 2);
        assert_eq!(place.events.take().iter().filter(|event| **event == Event::Revoked(Reason::Cap)).count(), 1);
        assert_eq!(place.logged_in("bob").await.user().await.as_deref(), Some("bob"));
    })
    .await;
}

/// A place on a store that can be made to fail.
fn watched_place(settings: impl FnOnce(RedisSessionLayer) -> RedisSessionLayer) -> (Watched, Place) {
    let store = Watched::new();
    let layer = RedisSessionLayer::with_store(store.clone(), KeyRing::random().unwrap());
    (store, Place::around(settings(layer), None))
}

#[tokio::test]
async fn r43_a_login_that_cannot_end_whom_it_pushes_out_pushes_out_nobody_else() {
    let (store, place) = watched_place(|layer| layer.sessions_per_user(NonZeroUsize::new(2).unwrap()));
    let one = place.logged_in("ada").await;
    store.clock().advance(2 * MINUTE);
    let (two, three) = (place.logged_in("ada").await, place.visitor());
    store.fail(Kind::Unavailable);
    for _ in 0..3 {
        let refused = three.try_visit(async |session| session.log_in("ada").await).await;
        assert!(refused.error.unwrap().is_unavailable());
    }
    store.heal();
    three.log_in("ada").await;
    assert_eq!(one.status().await, Status::Ended(Reason::Cap));
    for alive in [&two, &three] {
        assert_eq!(alive.user().await.as_deref(), Some("ada"));
    }
    assert_eq!(place.list("ada").await.len(), 2);
}

#[tokio::test]
async fn r43_a_record_that_cannot_be_read_keeps_its_user_from_no_login() {
    let mut place = Place::on_redis().await;
    place.layer = place.layer.sessions_per_user(NonZeroUsize::new(2).unwrap());
    let one = place.logged_in("ada").await;
    let redis = place.redis.as_ref().unwrap();
    let [spoiled] = <[String; 1]>::try_from(redis.run(&["KEYS", "sess:main:??????????????????????"]).texts()).unwrap();
    redis.run(&["HSET", &spoiled, "@", "9 of a later version"]);
    place.pass(2 * MINUTE);
    let mut others = Vec::new();
    for _ in 0..4 {
        others.push(place.logged_in("ada").await);
        place.pass(2 * MINUTE);
    }
    for (number, other) in others.iter().enumerate() {
        assert_eq!(other.user().await.is_some(), number >= 2, "{number}");
    }
    assert_eq!(place.list("ada").await.len(), 2);
    // Whoever ends all is told of the one that may live for another version, and the others have ended.
    let ended = place.sessions().revoke_all("ada").await.unwrap_err();
    assert!(ended.is_corrupt(), "{ended}");
    assert!(others[3].user().await.is_none());
    assert!(one.try_visit(async |_| Ok(())).await.error.unwrap().is_corrupt());
    assert_eq!(redis.run(&["HGET", &spoiled, "@"]).text(), "9 of a later version");
}

#[tokio::test]
async fn a_list_that_says_nothing_keeps_nobody_from_saving_and_leaves_nothing_unknown() {
    for kind in [Kind::Unavailable, Kind::OutcomeUnknown, Kind::Corrupt] {
        let (store, place) = watched_place(|layer| layer);
        let ada = place.logged_in("ada").await;
        // Its touch is due, and with it that of its entry.
        store.clock().advance(2 * MINUTE);
        store.fail_lists(kind);
        ada.visit(async |session| {
            session.increment("orders", 1)?;
            session.save().await
        })
        .await;
        // A wish is for the entry as well.
        let answer = ada
            .try_visit(async |session| {
                session.increment("orders", 1)?;
                session.expire_after(MINUTE)?;
                session.save().await
            })
            .await;
        let error = answer.error.unwrap();
        assert!(
            !error.is_outcome_unknown() && (error.is_unavailable() || kind == Kind::Corrupt),
            "{kind:?}: {error:?}"
        );
        store.heal();
        assert_eq!(ada.visit(async |session| session.get::<u64>("orders")).await, Some(1), "{kind:?}");
        assert_eq!(ada.user().await.as_deref(), Some("ada"));
    }
}

#[tokio::test]
async fn r32_r45_levels_tell_a_login_that_is_not_done_from_one_that_is() {
    on_both_stores(async |place| {
        let visitor = place.visitor();
        visitor.visit(async |session| session.log_in("ada").level(Level::PARTIAL).await).await;
        let (user, pending) = visitor.visit(async |session| Ok((session.user()?, session.pending_user()?))).await;
        assert_eq!((user, pending), (None::<String>, Some("ada".to_owned())));
        let half = visitor.copy();
        visitor.log_in("ada").await;
        assert_eq!((visitor.user().await.as_deref(), half.status().await), (Some("ada"), Status::Replaced));
        visitor.visit(async |session| session.log_in("ada").level(Level(3)).await).await;
        assert_eq!(visitor.visit(async |session| Ok(session.level())).await, Some(Level(3)));
        assert_eq!(place.list("ada").await.len(), 1);
    })
    .await;
}

#[tokio::test]
async fn r59_a_new_login_has_the_whole_absolute_timeout_before_it() {
    on_both_stores(async |place| {
        let visitor = place.logged_in("ada").await;
        let deadlines = async |session: Session| Ok((session.expires_at(), session.logged_in_at()));
        for _ in 0..23 {
            place.pass(30 * MINUTE);
            visitor.visit(async |session| session.save().await).await;
        }
        let (soon, then) = visitor.visit(deadlines).await;
        visitor.log_in("ada").await;
        let (later, now) = visitor.visit(deadlines).await;
        assert!(later > soon && now > then, "{soon:?} {later:?}");
        for _ in 0..3 {
            place.pass(29 * MINUTE);
            visitor.visit(async |session| session.save().await).await;
        }
        assert_eq!(visitor.user().await.as_deref(), Some("ada"));
    })
    .await;
}

#[tokio::test]
async fn r77_r110_an_entry_goes_with_its_session() {
    on_both_stores(async |place| {
        let visitor = place.logged_in("ada").await;
        place.pass(29 * MINUTE);
        visitor.visit(async |session| session.increment("visits", 1)).await;
        place.pass(29 * MINUTE);
        assert_eq!((visitor.user().await.as_deref(), place.list("ada").await.len()), (Some("ada"), 1));
        place.pass(40 * MINUTE);
        assert_eq!((visitor.status().await, place.list("ada").await.len()), (Status::Ended(Reason::Expired), 0));
        if let Some(redis) = &place.redis {
            assert_eq!(redis.run(&["DBSIZE"]).int(), 0);
        }
    })
    .await;
}

#[tokio::test]
async fn a_remembered_session_stays_listed_as_long_as_it_lives() {
    on_both_stores(async |place| {
        let visitor = place.logged_in("ada").await;
        visitor.visit(async |session| session.remember(Duration::from_secs(20 * 86_400)).await).await;
        place.pass(Duration::from_secs(19 * 86_400));
        assert_eq!((visitor.user().await.as_deref(), place.list("ada").await.len()), (Some("ada"), 1));
        assert_eq!(place.sessions().revoke_all("ada").await.unwrap(), 1);
        assert_eq!(visitor.user().await, None);
    })
    .await;
}

/// The index of users on Redis is gone, as after an eviction.
fn lose_the_lists(place: &Place) -> bool {
    let Some(redis) = &place.redis else { return false };
    let lists = redis.run(&["KEYS", "sess:main:user:*"]).texts();
    lists.iter().for_each(|list| drop(redis.run(&["DEL", list])));
    !lists.is_empty()
}

#[tokio::test]
async fn r76_a_list_that_was_lost_is_whole_again_with_the_next_touches() {
    on_both_stores(async |place| {
        let (one, two) = (place.logged_in("ada").await, place.logged_in("ada").await);
        if !lose_the_lists(&place) {
            return;
        }
        assert_eq!(place.list("ada").await.len(), 0);
        // Who ends the others is listed again at once; the others once they were touched.
        assert_eq!(one.visit(async |session| place.sessions().revoke_others(&session).await).await, 0);
        place.pass(2 * MINUTE);
        for visitor in [&one, &two] {
            assert_eq!(visitor.user().await.as_deref(), Some("ada"));
        }
        assert_eq!((place.list("ada").await.len(), place.sessions().revoke_all("ada").await.unwrap()), (2, 2));
    })
    .await;
}

#[tokio::test]
async fn r76_what_a_process_that_died_has_doomed_ends_with_the_next_touch_or_login() {
    on_both_stores(async |place| {
        let Some(redis) = &place.redis else { return };
        for next in ["touch", "login"] {
            let (one, two) = (place.logged_in(next).await, place.logged_in(next).await);
            let list = redis
                .run(&["KEYS", "sess:main:user:*"])
                .texts()
                .into_iter()
                .find(|list| redis.run(&["ZCARD", list]).int() == 2);
            let (list, doomed) = (list.unwrap(), one.visit(async |session| Ok(session.handle())).await.unwrap());
            let score = redis.run(&["ZSCORE", &list, &doomed.to_string()]).text();
            redis.run(&["ZADD", &list, &format!("-{score}"), &doomed.to_string()]);
            if next == "touch" {
                place.pass(2 * MINUTE);
                one.visit(async |_| Ok(())).await;
            } else {
                place.logged_in(next).await;
            }
            assert!(matches!(one.status().await, Status::Ended(Reason::Revoked | Reason::Cap)), "{next}");
            assert_eq!(
                (two.user().await.as_deref(), redis.run(&["ZSCORE", &list, &doomed.to_string()]).is_nil()),
                (Some(next), true)
            );
            place.sessions().revoke_all(next).await.unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn r111_r112_what_is_kept_of_a_user_can_be_had_and_erased() {
    on_both_stores(async |place| {
        let visitor = place.visitor();
        visitor
            .visit(async |session| {
                session.insert("cart", &["tea"])?;
                session.log_in("ada").label("her phone").await
            })
            .await;
        place.logged_in("ada").await;
        let export = place.sessions().export("ada").await.unwrap();
        assert_eq!(export.len(), 2);
        let with_cart = export.iter().find(|one| one.listing().label() == Some("her phone")).unwrap();
        assert_eq!(with_cart.fields(), [("cart".to_owned(), "[\"tea\"]".to_owned())]);
        assert_eq!(
            (place.sessions().erase("ada").await.unwrap(), place.sessions().erase("ada").await.unwrap()),
            (2, 0)
        );
        assert!(place.sessions().export("ada").await.unwrap().is_empty());
        place.pass(3 * MINUTE);
        if let Some(redis) = &place.redis {
            assert_eq!(redis.run(&["DBSIZE"]).int(), 0);
        }
    })
    .await;
}

#[tokio::test]
async fn r70_users_of_any_text_are_told_apart() {
    on_both_stores(async |place| {
        let long = "x".repeat(10_000);
        let users = ["a", "a:", "a:b", "*", "?", "{a}", "a\nb", "\0", " ", "é", &long];
        for user in users {
            let visitor = place.logged_in(user).await;
            assert_eq!(visitor.user().await.as_deref(), Some(user));
        }
        for user in users {
            assert_eq!(place.sessions().revoke_all(user).await.unwrap(), 1);
        }
        let nobody = place.visitor();
        let answer = nobody.try_visit(async |session| session.log_in("").await).await;
        assert!(answer.error.unwrap().is_user());
        assert_eq!((nobody.status().await, nobody.cookie()), (Status::New, None));
    })
    .await;
}

#[tokio::test]
async fn an_id_of_another_type_is_an_error_that_does_not_show_it() {
    on_both_stores(async |place| {
        let visitor = place.logged_in("ada@example.org").await;
        let answer = visitor.try_visit(async |session| session.user::<u64>()).await;
        let error = answer.error.unwrap();
        assert!(error.is_user() && !format!("{error} {error:?}").contains("ada"), "{error:?}");
    })
    .await;
}

#[tokio::test]
async fn a_login_after_the_response_is_an_error() {
    on_both_stores(async |place| {
        let visitor = place.logged_in("ada").await;
        let session = visitor.visit(async |session| Ok(session)).await;
        assert!(session.log_in("bob").await.unwrap_err().is_committed());
        session.log_out().await.unwrap();
        assert_eq!(visitor.status().await, Status::Ended(Reason::LoggedOut));
    })
    .await;
}

/// The second pass begins a minute after the first one.
#[tokio::test(start_paused = true)]
async fn r42_all_users_are_logged_out_at_once_and_visitors_stay() {
    let place = Place::in_memory();
    let (ada, bob, visitor) = (place.logged_in("ada").await, place.logged_in("bob").await, place.visitor());
    visitor.fill_cart().await;
    place.pass(MINUTE);
    let mut told = Vec::new();
    let ended = place.sessions().revoke_everybody(|progress| told.push(progress)).await.unwrap();
    assert_eq!(ended, 2);
    assert_eq!((ada.user().await, bob.user().await, visitor.cart().await.is_some()), (None, None, true));
    let told: Vec<_> = told.iter().map(|progress| (progress.pass, progress.looked_at, progress.ended)).collect();
    assert_eq!(told, [(1, 3, 2), (2, 6, 2)]);
    place.pass(MINUTE);
    assert_eq!(place.logged_in("ada").await.user().await.as_deref(), Some("ada"));
}

/// The second pass would have to wait for a minute on Redis's own clock, so it is for the long form (`PEOPLE_FULL=1`).
#[tokio::test(flavor = "multi_thread")]
async fn r42_all_users_of_a_redis_are_logged_out_while_others_log_in() {
    let place = Place::on_redis().await;
    let (mut users, mut visitors) = (Vec::new(), Vec::new());
    for number in 0..300 {
        match number % 3 {
            0 => {
                visitors.push(place.visitor());
                visitors.last().unwrap().fill_cart().await;
            }
            _ => users.push(place.logged_in(&format!("user {}", number % 50)).await),
        }
    }
    let (page, mut pages) = tokio::sync::mpsc::unbounded_channel();
    let sessions = place.sessions();
    let revoking =
        tokio::spawn(async move { sessions.revoke_everybody(|progress| page.send(progress).unwrap()).await });
    let first_pass = async {
        while let Some(progress) = pages.recv().await {
            if progress.pass == 2 || progress.looked_at >= 300 {
                return progress;
            }
        }
        panic!("it ended before all were looked at");
    };
    let progress = first_pass.await;
    assert_eq!((progress.pass, progress.ended), (1, 200), "{progress:?}");
    for user in &users {
        assert_eq!(user.user().await, None);
    }
    for visitor in &visitors {
        assert!(visitor.cart().await.is_some());
    }
    let in_full = std::env::var_os("PEOPLE_FULL").is_some();
    if in_full {
        // A login within what the clocks of two servers may differ by would be one of before.
        tokio::time::sleep(Duration::from_secs(6)).await;
    }
    let later = place.logged_in("user 1").await;
    if in_full {
        assert_eq!(revoking.await.unwrap().unwrap(), 200);
    } else {
        revoking.abort();
    }
    assert_eq!(later.user().await.as_deref(), Some("user 1"), "his login came after");
    assert_eq!(place.sessions().list("user 1").await.unwrap().len(), 1);
}

/// What is at a key and is no record of ours, a downgrade's say, holds up nobody else's end, and hides nobody from a list.
#[tokio::test(flavor = "multi_thread")]
async fn r42_what_cannot_be_understood_holds_up_no_other_end() {
    let place = Place::on_redis().await;
    let redis = place.redis.as_ref().unwrap();
    let mut users = Vec::new();
    for number in 0..30 {
        users.push(place.logged_in(&format!("user {}", number % 3)).await);
    }
    let spoiled = redis.run(&["KEYS", "sess:main:??????????????????????"]).texts();
    assert_eq!(spoiled.len(), 30);
    for key in &spoiled[..2] {
        redis.run(&["HSET", key, "@", "9 of a later version"]);
    }
    let mut listed = 0;
    for user in ["user 0", "user 1", "user 2"] {
        listed += place.list(user).await.len();
    }
    assert_eq!(listed, 28);
    let (page, mut pages) = tokio::sync::mpsc::unbounded_channel();
    let sessions = place.sessions();
    let revoking =
        tokio::spawn(async move { sessions.revoke_everybody(|progress| page.send(progress).unwrap()).await });
    while pages.recv().await.is_some_and(|progress| progress.looked_at < 30) {}
    let after_the_second_try = pages.recv().await.unwrap();
    assert_eq!((after_the_second_try.pass, after_the_second_try.ended), (1, 28));
    assert!(!revoking.is_finished(), "the second pass is still to come");
    revoking.abort();
    // Nor is any of those that ended left in a list, where it would count for a cap.
    let listed = |user: &String| redis.run(&["ZCARD", user]).int();
    assert_eq!(redis.run(&["KEYS", "sess:main:user:*"]).texts().iter().map(listed).sum::<i64>(), 2);
}

/// More than Lua's stack holds: whoever has the password can log in again and again.
#[tokio::test(flavor = "multi_thread")]
async fn r38_all_sessions_of_a_user_end_however_many_they_are() {
    const MANY: u128 = 8_100;
    let redis = RedisServer::start();
    let store = patient(&redis.url(), Duration::from_secs(10)).await;
    let place = Place::around(RedisSessionLayer::with_store(store, KeyRing::random().unwrap()), Some(redis));
    let redis = place.redis.as_ref().unwrap();
    let (first, last) = (place.logged_in("ada").await, place.logged_in("ada").await);
    let [list] = <[String; 1]>::try_from(redis.run(&["KEYS", "sess:main:user:*"]).texts()).unwrap();
    let until = redis.run(&["ZRANGE", &list, "-1", "-1", "WITHSCORES"]).texts()[1].clone();
    for some in (0..MANY).collect::<Vec<_>>().chunks(900) {
        let names: Vec<String> = some.iter().map(|number| URL_SAFE_NO_PAD.encode(number.to_be_bytes())).collect();
        let entries = names.iter().flat_map(|name| [until.as_str(), name]);
        redis.run(&["ZADD", &list].into_iter().chain(entries).collect::<Vec<_>>());
    }
    let revoked = last.visit(async |session| place.sessions().revoke_others(&session).await).await;
    assert_eq!((revoked, first.user().await, last.user().await.as_deref()), (1, None, Some("ada")));
    // The last one, and when the others were ended.
    assert_eq!(redis.run(&["ZCARD", &list]).int(), 2);
}

#[tokio::test]
async fn sessions_are_for_handlers_as_well() {
    let place = Place::in_memory();
    let visitor = place.logged_in("ada").await;
    let answer = visitor
        .request(async |request| {
            let (mut parts, _) = request.into_parts();
            let sessions = Sessions::<Main>::from_request_parts(&mut parts, &()).await?;
            let session = Session::<Untyped>::from_request_parts(&mut parts, &()).await?;
            assert_eq!(sessions.list("ada").await?.len(), 1);
            assert_eq!(sessions.revoke_others(&session).await?, 0);
            Ok::<_, Error>(())
        })
        .await;
    assert_eq!(answer.page.status, 200);
}

#[tokio::test]
async fn r94_what_happens_to_users_is_told_in_its_order() {
    on_both_stores(async |mut place| {
        let saved = Event::Saved { tries: 1 };
        let visitor = place.visitor();
        let told = |expected: &[Event], what: &str| assert_eq!(place.events.take(), expected, "{what}");
        visitor.fill_cart().await;
        told(&[Event::Created], "a cart");
        let before = visitor.copy();
        visitor.log_in("ada").await;
        told(&[saved, Event::LoggedIn], "a login");
        before.log_in("ada").await;
        told(&[Event::Refused(Refusal::Replaced), Event::LoggedIn], "a second click");
        visitor.log_in("ada").await;
        told(&[saved, Event::LoggedIn], "a step-up");
        let other = place.logged_in("ada").await;
        told(&[Event::Created, Event::LoggedIn], "another device");
        visitor.visit(async |session| place.sessions().revoke_others(&session).await).await;
        told(&[Event::Revoked(Reason::Revoked)], "the end of the others");
        other.status().await;
        told(&[Event::Refused(Refusal::Ended)], "who was ended");
        visitor.log_in("bob").await;
        told(&[Event::Revoked(Reason::OtherUser), Event::Created, Event::LoggedIn], "another user");
        let late = visitor.try_visit(async |session| {
            place.sessions().revoke_all("bob").await?;
            session.log_in("bob").await
        });
        assert!(late.await.error.unwrap().is_login_refused());
        told(&[Event::Revoked(Reason::Revoked), Event::LoginRefused], "a login of before a revocation");
        let last = place.logged_in("eve").await;
        told(&[Event::Created, Event::LoggedIn], "a login");
        last.visit(async |session| session.log_out().await).await;
        told(&[Event::LoggedOut], "a logout");
        place.layer = place.layer.clone().sessions_per_user(NonZeroUsize::MIN);
        let (_, _) = (place.logged_in("eve").await, place.logged_in("eve").await);
        let cap = Event::Revoked(Reason::Cap);
        told_in(&place, &[Event::Created, Event::LoggedIn, cap, Event::Created, Event::LoggedIn]);
    })
    .await;
}

fn told_in(place: &Place, expected: &[Event]) {
    assert_eq!(place.events.take(), expected);
}

#[tokio::test]
async fn r113_what_a_request_says_of_its_address_goes_nowhere() {
    on_both_stores(async |place| {
        let Some(redis) = &place.redis else { return };
        let (layer, canary) = (place.layer.clone(), "203.0.113.77");
        let app = axum::Router::new()
            .route("/", axum::routing::get(async |session: Session| session.log_in("ada").await))
            .layer(layer);
        let request = http::Request::get("/")
            .header("x-forwarded-for", canary)
            .header("forwarded", format!("for={canary}"))
            .header("user-agent", "Canary/1.0");
        let page = Browser::new(app).ask(request.body(Default::default()).unwrap()).await;
        assert_eq!(page.status, 200);
        let mut kept = String::new();
        for key in redis.run(&["KEYS", "*"]).texts() {
            kept += &format!("{key} ");
            if redis.run(&["TYPE", &key]).text() == "hash" {
                kept += &format!("{:?} ", redis.run(&["HGETALL", &key]).map());
            }
        }
        assert!(kept.contains("ada") && !kept.contains("203.0.113") && !kept.contains("Canary"), "{kept}");
    })
    .await;
}

#[tokio::test]
async fn r108_r114_another_network_or_browser_is_an_event_and_only_a_keyed_hash_of_it_is_kept() {
    on_both_stores(async |place| {
        let visitor = place.logged_in("ada").await;
        let note = async |client: &str| visitor.visit(async |session| session.note_client(client)).await;
        place.events.take();
        assert!(!note("203.0.113.0/24 Firefox").await);
        assert!(!note("203.0.113.0/24 Firefox").await);
        assert!(!place.events.take().contains(&Event::ClientChanged));
        assert!(note("198.51.100.0/24 Firefox").await);
        assert!(place.events.take().contains(&Event::ClientChanged));
        assert!(!note("198.51.100.0/24 Firefox").await);
        // Nobody is locked out.
        assert_eq!(visitor.user().await.as_deref(), Some("ada"));
        let kept = format!("{:?}", visitor.fields().await);
        assert!(kept.contains("client.mark") && !kept.contains("198.51") && !kept.contains("Firefox"), "{kept}");
        let stranger = place.visitor();
        assert!(!stranger.visit(async |session| session.note_client("a network")).await);
        assert_eq!(stranger.cookie(), None);
    })
    .await;
}
