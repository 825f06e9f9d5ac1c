//! Timed renewal of a user's id, on both stores: nobody notices, and a copy of an old cookie is noticed.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use redis_session::{Event, Expiry, IfReused, Observer, Reason, Session, Status};

use crate::visitor::{Place, Visitor, on_both_stores};

const MINUTE: Duration = Duration::from_secs(60);

fn renewing(mut place: Place) -> Place {
    place.layer = place.layer.expiry(Expiry::default().new_id_every(10 * MINUTE));
    place
}

/// A visitor whose id is due to be renewed.
async fn old_enough(place: &Place) -> Visitor {
    let visitor = place.visitor();
    visitor.visit(async |session| session.log_in("ada").await).await;
    place.pass(11 * MINUTE);
    visitor
}

async fn user(visitor: &Visitor) -> Option<String> {
    visitor.visit(async |session| session.user()).await
}

async fn count(visitor: &Visitor) -> u64 {
    visitor
        .visit(async |session| {
            session.increment("visits", 1)?;
            Ok(session.get("visits")?.unwrap_or(0))
        })
        .await
}

#[tokio::test]
async fn r36_a_user_gets_a_new_id_once_it_is_due_and_the_old_one_works_until_it_was_seen_and_a_minute_longer() {
    on_both_stores(async |place| {
        let place = renewing(place);
        let visitor = old_enough(&place).await;
        let (old, before) = (visitor.copy(), visitor.cookie());
        assert_eq!(user(&visitor).await.as_deref(), Some("ada"));
        assert_ne!(visitor.cookie(), before);
        let new = visitor.cookie();
        // Tabs that were opened before.
        assert_eq!((count(&old.copy()).await, count(&old.copy()).await), (1, 2));
        place.pass(20 * MINUTE);
        assert_eq!(count(&old.copy()).await, 3);
        // The new one is seen; it is renewed again only when that is due.
        assert_eq!((count(&visitor).await, visitor.cookie()), (4, new));
        place.pass(MINUTE / 2);
        assert_eq!(count(&old.copy()).await, 5);
        place.pass(MINUTE);
        assert_eq!(old.copy().visit(async |session| Ok(session.status())).await, Status::Replaced);
        assert_eq!(count(&visitor).await, 6);
    })
    .await;
}

#[tokio::test]
async fn r36_a_lost_answer_is_made_good_by_the_next_request() {
    on_both_stores(async |place| {
        let place = renewing(place);
        let visitor = old_enough(&place).await;
        let lost = visitor.copy();
        assert_eq!(count(&lost).await, 1);
        place.pass(5 * MINUTE);
        assert_eq!(count(&visitor).await, 2);
        assert_eq!(visitor.cookie(), lost.cookie());
        assert_eq!(count(&visitor).await, 3);
    })
    .await;
}

#[tokio::test]
async fn r36_tabs_that_renew_at_once_get_the_same_id() {
    on_both_stores(async |place| {
        let place = renewing(place);
        let visitor = old_enough(&place).await;
        let (one, two) = (visitor.copy(), visitor.copy());
        one.visit(async |session| {
            assert_eq!(count(&two).await, 1);
            session.increment("visits", 1)
        })
        .await;
        assert_eq!(one.cookie(), two.cookie());
        assert_ne!(one.cookie(), visitor.cookie());
        assert_eq!((count(&one).await, count(&two).await), (3, 4));
    })
    .await;
}

#[tokio::test]
async fn r36_the_old_id_does_not_rotate() {
    on_both_stores(async |place| {
        let place = renewing(place);
        let visitor = old_enough(&place).await;
        let old = visitor.copy();
        count(&visitor).await;
        let answer = old.try_visit(async |session| session.rotate().await).await;
        assert!(answer.error.unwrap().is_gone());
        visitor.visit(async |session| session.rotate().await).await;
        assert_eq!(user(&visitor).await.as_deref(), Some("ada"));
        assert_eq!(old.visit(async |session| Ok(session.status())).await, Status::Replaced);
    })
    .await;
}

#[tokio::test]
async fn r36_who_is_not_logged_in_keeps_his_id() {
    on_both_stores(async |place| {
        let place = renewing(place);
        let visitor = place.visitor();
        count(&visitor).await;
        let cookie = visitor.cookie();
        place.pass(20 * MINUTE);
        assert_eq!((count(&visitor).await, visitor.cookie()), (2, cookie));
    })
    .await;
}

#[tokio::test]
async fn r36_an_answer_whose_edits_are_dropped_renews_nothing() {
    on_both_stores(async |place| {
        let place = renewing(place);
        let visitor = old_enough(&place).await;
        let cookie = visitor.cookie();
        visitor
            .request(async |request| {
                let session: Session = Session::from_extensions(request.extensions()).await.unwrap();
                session.insert("a", &1).unwrap();
                http::StatusCode::BAD_GATEWAY
            })
            .await;
        assert_eq!(visitor.cookie(), cookie);
        assert_eq!(user(&visitor).await.as_deref(), Some("ada"));
        assert_ne!(visitor.cookie(), cookie);
    })
    .await;
}

/// Whose old cookies turned up.
#[derive(Clone, Default)]
struct Reused(Arc<Mutex<Vec<String>>>);

impl Observer for Reused {
    fn observe(&self, _: Event) {}

    fn reused(&self, user: &str) {
        self.0.lock().unwrap().push(user.to_owned());
    }
}

#[tokio::test]
async fn r36_a_copy_of_an_old_cookie_is_told_and_ends_the_session_where_that_was_chosen() {
    on_both_stores(async |place| {
        let mut place = renewing(place);
        let layer = place.layer.clone();
        for if_reused in [IfReused::Tell, IfReused::EndSession] {
            let reused = Reused::default();
            place.layer = layer.clone().observer(reused.clone()).if_reused(if_reused);
            let visitor = old_enough(&place).await;
            let thief = visitor.copy();
            count(&visitor).await;
            count(&visitor).await;
            place.pass(2 * MINUTE);
            place.events.take();
            assert_eq!(user(&thief).await, None);
            let ended = [Event::Revoked(Reason::Reused)];
            let ended = if if_reused == IfReused::EndSession { &ended[..] } else { &[] };
            assert_eq!(place.events.take(), [&[Event::Reused], ended].concat());
            assert_eq!(*reused.0.lock().unwrap(), ["ada"]);
            let status = visitor.visit(async |session| Ok(session.status())).await;
            let (wanted, listed) = match if_reused {
                IfReused::Tell => (Status::Alive, 1),
                IfReused::EndSession => (Status::Ended(Reason::Reused), 0),
            };
            assert_eq!((status, place.layer.sessions().list("ada").await.unwrap().len()), (wanted, listed));
            place.layer.sessions().revoke_all("ada").await.unwrap();
            place.pass(MINUTE);
        }
    })
    .await;
}
