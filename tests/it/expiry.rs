//! When sessions end: idle, absolute and remembered timeouts, touches, and policies that change, on both stores.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::http::StatusCode;
use redis_session::{Cookie, Error, Event, Expiry, Reason, RedisSessionLayer, Renew, Session, Status};
use redis_session_testkit::{Proxy, RedisServer};

use crate::visitor::{Answer, Place, Visitor, on_both_stores};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// A visitor who has a session now, of an application with this policy.
async fn visitor(place: &Place, expiry: Expiry) -> Visitor {
    let visitor = place.visitor().before(&place.layer.clone().expiry(expiry));
    visitor.visit(async |session| session.insert("visits", &1)).await;
    place.events.take();
    visitor
}

async fn status(visitor: &Visitor) -> Status {
    visitor.visit(async |session| Ok(session.status())).await
}

async fn is_alive(visitor: &Visitor) -> bool {
    status(visitor).await == Status::Alive
}

/// The seconds for which the only cookie of an answer is to be kept. `None`: until the browser ends.
fn max_age<V>(answer: &Answer<V>) -> Option<u64> {
    let [line] = answer.page.set_cookies().try_into().unwrap();
    let (_, rest) = line.split_once("Max-Age=")?;
    Some(rest.split(';').next()?.parse().unwrap())
}

/// Whether a cookie is kept for so long, but for the moment that its request took.
fn keeps_for<V>(answer: &Answer<V>, time: Duration) -> bool {
    max_age(answer).is_some_and(|age| (age..=age + 2).contains(&time.as_secs()))
}

fn touches(place: &Place) -> usize {
    let events = place.events.take();
    assert!(events.iter().all(|event| *event == Event::Touched), "{events:?}");
    events.len()
}

mod idle {
    //! Gone so long after the last request, by the server's clock.

    use super::*;

    #[tokio::test]
    async fn r50_a_session_is_gone_so_long_after_its_last_request_and_each_request_renews_it() {
        on_both_stores(async |place| {
            let visitor = visitor(&place, Expiry::default()).await;
            for _ in 0..3 {
                place.pass(30 * MINUTE - SECOND);
                assert!(is_alive(&visitor).await);
            }
            assert_eq!(touches(&place), 3);
            place.pass(31 * MINUTE + SECOND);
            assert_eq!(status(&visitor).await, Status::Ended(Reason::Expired));
            assert_eq!(visitor.fields().await, []);
        })
        .await;
    }

    #[tokio::test]
    async fn r58_throttled_touches_never_shorten_the_idle_time_and_lengthen_it_by_one_interval_at_most() {
        on_both_stores(async |place| {
            for spacing in [0, 1, 10, 30, 59, 61, 90].map(Duration::from_secs) {
                let (lives, dies) =
                    (visitor(&place, Expiry::default()).await, visitor(&place, Expiry::default()).await);
                for visitor in [&lives, &dies] {
                    place.pass(spacing);
                    assert!(is_alive(visitor).await);
                }
                // The one has been silent for just less than the timeout, the other for just more than it is given.
                place.pass(30 * MINUTE - spacing - 2 * SECOND);
                assert!(is_alive(&lives).await, "{spacing:?}");
                place.pass(MINUTE + 4 * SECOND + spacing);
                assert!(!is_alive(&dies).await, "{spacing:?}");
            }
        })
        .await;
    }

    #[tokio::test]
    async fn reading_writes_nothing_until_a_touch_is_due_and_then_once() {
        on_both_stores(async |place| {
            let visitor = visitor(&place, Expiry::default()).await;
            for _ in 0..5 {
                place.pass(11 * SECOND);
                assert!(is_alive(&visitor).await);
            }
            assert_eq!(touches(&place), 0);
            place.pass(6 * SECOND);
            for _ in 0..5 {
                assert!(is_alive(&visitor).await);
            }
            assert_eq!(touches(&place), 1);
            // A write renews the timeout as well.
            place.pass(50 * SECOND);
            visitor.visit(async |session| session.increment("visits", 1)).await;
            assert_eq!(place.events.take(), [Event::Saved { tries: 1 }]);
            place.pass(50 * SECOND);
            assert!(is_alive(&visitor).await);
            assert_eq!(touches(&place), 0);
        })
        .await;
    }

    #[tokio::test]
    async fn the_interval_is_a_tenth_of_a_short_timeout_and_what_is_set_otherwise() {
        on_both_stores(async |place| {
            for (expiry, interval) in [
                (Expiry::idle(MINUTE), 6 * SECOND),
                (Expiry::idle(10 * HOUR), MINUTE),
                (Expiry::idle(10 * HOUR).touch_every(20 * MINUTE), 20 * MINUTE),
                (Expiry::idle(10 * HOUR).touch_every(3 * HOUR), HOUR),
            ] {
                let visitor = visitor(&place, expiry).await;
                place.pass(interval - 2 * SECOND);
                assert!(is_alive(&visitor).await);
                assert_eq!(touches(&place), 0, "{expiry:?}");
                place.pass(4 * SECOND);
                assert!(is_alive(&visitor).await);
                assert_eq!(touches(&place), 1, "{expiry:?}");
            }
        })
        .await;
    }

    #[tokio::test]
    async fn touch_every_zero_writes_with_each_request_that_reads_its_session() {
        on_both_stores(async |place| {
            let expiry = Expiry::idle(10 * MINUTE).touch_every(Duration::ZERO);
            let visitor = visitor(&place, expiry).await;
            for _ in 0..4 {
                assert!(is_alive(&visitor).await);
            }
            assert_eq!(touches(&place), 4);
            place.pass(10 * MINUTE - SECOND);
            assert!(is_alive(&visitor).await);
            place.pass(10 * MINUTE + SECOND);
            assert!(!is_alive(&visitor).await);
        })
        .await;
    }

    #[tokio::test]
    async fn a_save_without_edits_renews_the_timeout_at_once() {
        on_both_stores(async |place| {
            let visitor = visitor(&place, Expiry::default()).await;
            visitor.visit(async |session| session.save().await).await;
            assert_eq!(touches(&place), 1);
        })
        .await;
    }

    #[tokio::test]
    async fn a_response_that_failed_renews_nothing() {
        on_both_stores(async |place| {
            let visitor = visitor(&place, Expiry::default()).await;
            place.pass(2 * MINUTE);
            let answer = visitor
                .request(async |request| {
                    let _: Session = Session::from_extensions(request.extensions()).await?;
                    Ok::<_, Error>(StatusCode::INTERNAL_SERVER_ERROR)
                })
                .await;
            assert_eq!((answer.page.status, touches(&place)), (StatusCode::INTERNAL_SERVER_ERROR, 0));
        })
        .await;
    }
}

mod renewal {
    //! Which requests renew the timeout.

    use super::*;

    /// Ten requests of handlers that never ask, over an hour; whether the session lives after it.
    async fn an_hour_elsewhere(place: &Place, renew: Renew) -> (bool, usize) {
        let layer = place.layer.clone().renew(renew);
        let visitor = visitor(place, Expiry::default()).await.before(&layer);
        for _ in 0..10 {
            place.pass(6 * MINUTE);
            let answer = visitor.request(async |_| "a page for everybody").await;
            assert_eq!(answer.page.body, "a page for everybody");
            assert_eq!(answer.page.set_cookies().len(), 0);
        }
        let touches = touches(place);
        (is_alive(&visitor).await, touches)
    }

    #[tokio::test]
    async fn a_request_that_never_asks_renews_nothing_unless_every_request_is_to() {
        on_both_stores(async |place| {
            assert_eq!(an_hour_elsewhere(&place, Renew::WhenAsked).await, (false, 0));
            place.events.take();
            assert_eq!(an_hour_elsewhere(&place, Renew::OnEveryRequest).await, (true, 10));
        })
        .await;
    }

    #[tokio::test]
    async fn renewal_with_every_request_reads_once_and_writes_when_due() {
        let redis = RedisServer::start();
        let proxy = Proxy::start(redis.address());
        let keys = redis_session::KeyRing::random().unwrap();
        let layer = RedisSessionLayer::connect(&proxy.url(), keys).await.unwrap().renew(Renew::OnEveryRequest);
        let place = Place::around(layer, Some(redis));
        let visitor = place.visitor();
        visitor.visit(async |session| session.insert("visits", &1)).await;
        let commands = async |visitor: &Visitor| {
            proxy.reset_counts();
            visitor.request(async |_| "a page for everybody").await;
            (proxy.count("HGETALL"), proxy.count("EVALSHA") + proxy.count("EVAL"))
        };
        // A script that Redis does not know is sent twice, so both are made known first.
        place.pass(2 * MINUTE);
        commands(&visitor).await;
        assert_eq!(commands(&visitor).await, (1, 0));
        place.pass(2 * MINUTE);
        assert_eq!(commands(&visitor).await, (1, 1));
        assert_eq!(commands(&visitor).await, (1, 0));
        assert_eq!(commands(&place.visitor()).await, (0, 0));
    }
}

mod absolute {
    //! Gone so long after it began, whatever its visitor does.

    use super::*;

    #[tokio::test]
    async fn r51_neither_activity_nor_saves_nor_rotations_move_the_absolute_deadline() {
        on_both_stores(async |place| {
            let visitor = visitor(&place, Expiry::default()).await;
            for quarter in 1..48 {
                place.pass(15 * MINUTE);
                visitor
                    .visit(async |session| {
                        assert_eq!(session.status(), Status::Alive);
                        session.increment("visits", 1)?;
                        if quarter % 4 == 0 { session.rotate().await } else { Ok(()) }
                    })
                    .await;
            }
            place.pass(15 * MINUTE - 5 * SECOND);
            assert!(is_alive(&visitor).await);
            place.pass(6 * SECOND);
            assert_eq!(status(&visitor).await, Status::Ended(Reason::Expired));
        })
        .await;
    }

    #[tokio::test]
    async fn r51_a_persistent_cookie_promises_what_remains_to_it() {
        on_both_stores(async |place| {
            let layer = place.layer.clone().cookie(Cookie::default().persistent());
            let visitor = place.visitor().before(&layer);
            let answer = visitor.try_visit(async |session| session.insert("visits", &1)).await;
            assert!(keeps_for(&answer, 12 * HOUR));
            place.pass(20 * MINUTE);
            let answer = visitor.try_visit(async |session| session.rotate().await).await;
            assert!(keeps_for(&answer, 12 * HOUR - 20 * MINUTE));
        })
        .await;
    }

    #[tokio::test]
    async fn r53_presets_hold_what_they_promise() {
        for (preset, idle, absolute) in
            [(Expiry::AAL1, 7 * DAY, 30 * DAY), (Expiry::AAL2, HOUR, DAY), (Expiry::AAL3, 15 * MINUTE, 12 * HOUR)]
        {
            on_both_stores(async |place| {
                let (active, silent) = (visitor(&place, preset).await, visitor(&place, preset).await);
                let mut passed = Duration::ZERO;
                let mut pass = |time: Duration| {
                    place.pass(time);
                    passed += time;
                    passed
                };
                pass(idle - SECOND);
                assert!(is_alive(&active).await && is_alive(&silent).await, "{preset:?}");
                let step = idle - MINUTE;
                while pass(step) + step < absolute {
                    assert!(is_alive(&active).await, "{preset:?}");
                }
                assert!(!is_alive(&silent).await, "{preset:?}");
                assert!(is_alive(&active).await, "{preset:?}");
                pass(step);
                assert!(!is_alive(&active).await, "{preset:?}");
            })
            .await;
        }
    }
}

mod remembered {
    //! Alive for as long as was promised, without a request and through the end of the browser.

    use super::*;

    #[tokio::test]
    async fn a_remembered_session_lives_through_its_timeouts_and_the_end_of_the_browser() {
        on_both_stores(async |place| {
            let visitor = visitor(&place, Expiry::default()).await;
            let answer = visitor.try_visit(async |session| session.remember(7 * DAY).await).await;
            assert!(keeps_for(&answer, 7 * DAY));
            visitor.browser.jar().end_browser_session();
            let pass = |time| {
                place.pass(time);
                visitor.browser.jar().advance(time);
            };
            pass(6 * DAY);
            assert!(is_alive(&visitor).await);
            // No request prolongs it.
            pass(DAY - 5 * SECOND);
            assert!(is_alive(&visitor).await);
            let thief = visitor.copy();
            pass(6 * SECOND);
            assert_eq!(visitor.cookie(), None);
            assert_eq!(status(&thief).await, Status::Ended(Reason::Expired));
        })
        .await;
    }

    #[tokio::test]
    async fn nobody_is_remembered_for_longer_than_the_policy_allows() {
        on_both_stores(async |place| {
            let visitor = visitor(&place, Expiry::default().remembered(2 * DAY)).await;
            let answer = visitor.try_visit(async |session| session.remember(Duration::MAX).await).await;
            assert!(keeps_for(&answer, 2 * DAY));
            place.pass(2 * DAY + SECOND);
            assert!(!is_alive(&visitor).await);
        })
        .await;
    }

    #[tokio::test]
    async fn a_rotation_is_remembered_too_and_none_ends_it() {
        on_both_stores(async |place| {
            let visitor = visitor(&place, Expiry::default()).await;
            visitor.visit(async |session| session.remember(DAY).await).await;
            place.pass(HOUR);
            let answer = visitor.try_visit(async |session| session.rotate().await).await;
            assert!(keeps_for(&answer, 23 * HOUR));
            let answer = visitor.try_visit(async |session| session.remember(None).await).await;
            assert_eq!(max_age(&answer), None);
            place.pass(29 * MINUTE);
            assert!(is_alive(&visitor).await);
            place.pass(32 * MINUTE);
            assert!(!is_alive(&visitor).await);
        })
        .await;
    }

    #[tokio::test]
    async fn a_visitor_without_a_session_gets_one_to_be_remembered_by() {
        on_both_stores(async |place| {
            let visitor = place.visitor();
            visitor
                .visit(async |session| {
                    session.insert("visits", &1)?;
                    session.remember(DAY).await
                })
                .await;
            assert_eq!(place.events.take(), [Event::Created, Event::Remembered]);
            place.pass(23 * HOUR);
            assert_eq!(visitor.fields().await.len(), 1);
        })
        .await;
    }
}

mod own {
    //! A session's own idle timeout, which stays with it.

    use super::*;

    #[tokio::test]
    async fn a_timeout_of_its_own_lasts_whoever_serves_the_session_later() {
        on_both_stores(async |place| {
            let (long, short) = (visitor(&place, Expiry::default()).await, visitor(&place, Expiry::default()).await);
            long.visit(async |session| session.expire_after(2 * HOUR)).await;
            short.visit(async |session| session.expire_after(MINUTE)).await;
            place.pass(MINUTE - SECOND);
            assert!(is_alive(&short).await);
            place.pass(MINUTE + 7 * SECOND);
            assert!(!is_alive(&short).await && is_alive(&long).await);
            for _ in 0..3 {
                place.pass(2 * HOUR - SECOND);
                assert!(is_alive(&long).await);
            }
            long.visit(async |session| session.increment("visits", 1)).await;
            place.pass(2 * HOUR + MINUTE + SECOND);
            assert!(!is_alive(&long).await);
        })
        .await;
    }

    #[tokio::test]
    async fn none_gives_it_the_layers_again_and_the_absolute_timeout_holds_all_the_same() {
        on_both_stores(async |place| {
            let (back, capped) = (visitor(&place, Expiry::default()).await, visitor(&place, Expiry::default()).await);
            back.visit(async |session| session.expire_after(2 * HOUR)).await;
            capped.visit(async |session| session.expire_after(100 * DAY)).await;
            place.pass(HOUR);
            back.visit(async |session| session.expire_after(None)).await;
            place.pass(32 * MINUTE);
            assert!(!is_alive(&back).await);
            place.pass(10 * HOUR + 27 * MINUTE);
            assert!(is_alive(&capped).await);
            place.pass(2 * MINUTE);
            assert!(!is_alive(&capped).await);
        })
        .await;
    }

    #[tokio::test]
    async fn it_can_be_given_with_the_first_edit_and_begins_no_session_by_itself() {
        on_both_stores(async |place| {
            let visitor = place.visitor();
            visitor.visit(async |session| session.expire_after(2 * HOUR)).await;
            assert_eq!((visitor.cookie(), place.events.take()), (None, vec![]));
            visitor
                .visit(async |session| {
                    session.expire_after(2 * HOUR)?;
                    session.insert("visits", &1)
                })
                .await;
            place.pass(2 * HOUR - SECOND);
            assert!(is_alive(&visitor).await);
        })
        .await;
    }

    #[tokio::test]
    async fn it_falls_with_the_edits_of_a_request_that_failed() {
        on_both_stores(async |place| {
            let visitor = visitor(&place, Expiry::default()).await;
            visitor
                .request(async |request| {
                    let session: Session = Session::from_extensions(request.extensions()).await?;
                    session.expire_after(2 * HOUR)?;
                    Ok::<_, Error>(StatusCode::INTERNAL_SERVER_ERROR)
                })
                .await;
            place.pass(32 * MINUTE);
            assert!(!is_alive(&visitor).await);
        })
        .await;
    }

    #[tokio::test]
    async fn r52_neither_an_endless_nor_an_empty_one_can_be_asked_for() {
        on_both_stores(async |place| {
            let visitor = visitor(&place, Expiry::default()).await;
            visitor
                .visit(async |session| {
                    for timeout in [Duration::MAX, 401 * DAY, Duration::ZERO, Duration::from_millis(99)] {
                        assert!(session.expire_after(timeout).unwrap_err().is_config(), "{timeout:?}");
                    }
                    Ok(())
                })
                .await;
            assert_eq!(place.events.take(), []);
        })
        .await;
    }
}

mod record {
    //! The record's own deadline counts, and not what Redis or a cookie says of it.

    use super::*;

    fn key(redis: &RedisServer) -> String {
        let [key] = redis.run(&["KEYS", "sess:*"]).texts().try_into().unwrap();
        key
    }

    #[tokio::test]
    async fn r54_a_record_that_redis_was_told_to_keep_ends_at_its_deadline() {
        let place = Place::on_redis().await;
        let redis = place.redis.as_ref().unwrap();
        let visitor = visitor(&place, Expiry::default()).await;
        let key = key(redis);
        redis.run(&["PERSIST", &key]);
        place.pass(32 * MINUTE);
        assert_eq!(redis.run(&["PTTL", &key]).int(), -1);
        visitor
            .visit(async |session| {
                assert_eq!((session.status(), session.fields()?), (Status::Ended(Reason::Expired), vec![]));
                Ok(())
            })
            .await;
        assert_eq!(place.events.take(), [Event::Expired]);
        // What is left of it says why, and goes too.
        assert_eq!(redis.run(&["HKEYS", &key]).texts(), ["@ended"]);
        assert!((1..=60_000).contains(&redis.run(&["PTTL", &key]).int()));
    }

    #[tokio::test]
    async fn r54_no_write_renews_a_record_past_its_deadline() {
        let place = Place::on_redis().await;
        let redis = place.redis.as_ref().unwrap();
        let visitor = visitor(&place, Expiry::default()).await;
        let key = key(redis);
        let answer = visitor
            .try_visit(async |session| {
                redis.run(&["PERSIST", &key]);
                place.pass(32 * MINUTE);
                session.increment("visits", 1)?;
                assert!(session.save().await.unwrap_err().is_gone());
                Ok(())
            })
            .await;
        assert_eq!((answer.page.status, answer.page.set_cookies()), (StatusCode::OK, vec![]));
        assert_eq!(redis.run(&["HGET", &key, "visits"]).text(), "1");
    }

    #[tokio::test]
    async fn r55_a_living_record_gets_its_time_to_live_back_with_the_next_touch_or_save() {
        let place = Place::on_redis().await;
        let redis = place.redis.as_ref().unwrap();
        let visitor = visitor(&place, Expiry::default()).await;
        let key = key(redis);
        let repaired = || (30 * 60_000..=31 * 60_000).contains(&redis.run(&["PTTL", &key]).int());
        redis.run(&["PERSIST", &key]);
        place.pass(2 * MINUTE);
        assert!(is_alive(&visitor).await);
        assert!(repaired());
        redis.run(&["PERSIST", &key]);
        visitor.visit(async |session| session.increment("visits", 1)).await;
        assert!(repaired());
    }

    #[tokio::test]
    async fn expires_at_says_when_the_store_drops_it() {
        let place = Place::on_redis().await;
        let redis = place.redis.as_ref().unwrap();
        let visitor = visitor(&place, Expiry::default()).await;
        let key = key(redis);
        for wish in [None, Some(2 * HOUR), Some(100 * DAY)] {
            visitor.visit(async |session| session.expire_after(wish)).await;
            let says = visitor.visit(async |session| Ok(session.expires_at().unwrap())).await;
            let drops = u64::try_from(redis.run(&["PEXPIRETIME", &key]).int()).unwrap();
            assert_eq!(says, UNIX_EPOCH + Duration::from_millis(drops), "{wish:?}");
        }
    }

    #[tokio::test]
    async fn expires_at_follows_the_wish_of_the_request_itself() {
        on_both_stores(async |place| {
            let visitor = visitor(&place, Expiry::default()).await;
            visitor
                .visit(async |session| {
                    let by_layer = session.expires_at().unwrap();
                    session.expire_after(2 * HOUR)?;
                    assert_eq!(session.expires_at().unwrap().duration_since(by_layer).unwrap(), 90 * MINUTE);
                    Ok(())
                })
                .await;
            let stranger = place.visitor();
            assert_eq!(stranger.visit(async |session| Ok(session.expires_at())).await, None::<SystemTime>);
        })
        .await;
    }
}

mod policies {
    //! The layer's policy counts when a session is loaded, so a deployment changes it for the living too.

    use super::*;

    fn with(place: &Place, expiry: Expiry) -> RedisSessionLayer {
        place.layer.clone().expiry(expiry)
    }

    #[tokio::test]
    async fn a_shorter_policy_reaches_living_sessions() {
        on_both_stores(async |place| {
            for shorter in [Expiry::idle(5 * MINUTE), Expiry::default().absolute(9 * MINUTE)] {
                let visitor = visitor(&place, Expiry::default()).await;
                place.pass(10 * MINUTE);
                let deployed = visitor.before(&with(&place, shorter));
                assert_eq!(status(&deployed).await, Status::Ended(Reason::Expired));
                assert_eq!(place.events.take()[0], Event::Expired);
                // It ended for servers of the old kind as well.
                assert_eq!(status(&visitor).await, Status::Ended(Reason::Expired));
            }
        })
        .await;
    }

    #[tokio::test]
    async fn a_longer_policy_reaches_sessions_with_their_next_touch() {
        on_both_stores(async |place| {
            let (seen, unseen) = (visitor(&place, Expiry::default()).await, visitor(&place, Expiry::default()).await);
            let longer = with(&place, Expiry::idle(2 * HOUR));
            place.pass(20 * MINUTE);
            assert!(is_alive(&seen.before(&longer)).await);
            place.pass(2 * HOUR - SECOND);
            assert!(is_alive(&seen.before(&longer)).await);
            assert!(!is_alive(&unseen.before(&longer)).await);
        })
        .await;
    }

    #[tokio::test]
    async fn who_is_remembered_keeps_what_was_promised() {
        on_both_stores(async |place| {
            let visitor = visitor(&place, Expiry::default()).await;
            visitor.visit(async |session| session.remember(10 * DAY).await).await;
            let shorter = with(&place, Expiry::idle(MINUTE).absolute(HOUR).remembered(DAY));
            place.pass(9 * DAY);
            assert!(is_alive(&visitor.before(&shorter)).await);
        })
        .await;
    }

    #[test]
    fn r52_a_policy_that_cannot_be_kept_is_refused_at_start() {
        let layer = Place::in_memory().layer;
        for (expiry, names) in [
            (Expiry::idle(Duration::MAX), "idle"),
            (Expiry::idle(Duration::ZERO), "idle"),
            (Expiry::default().absolute(401 * DAY), "absolute"),
            (Expiry::default().remembered(Duration::MAX), "remembered"),
        ] {
            let error = layer.clone().expiry(expiry).check().unwrap_err();
            assert!(error.is_config() && error.to_string().contains(names), "{error}");
        }
    }
}
