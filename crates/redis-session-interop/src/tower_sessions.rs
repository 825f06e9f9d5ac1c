//! tower-sessions 0.14: handlers and crates that extract its `Session` (axum-login 0.18, axum-messages 0.8) work unchanged
//! on our layer, with [`TowerSessionsLayer`] inside it.
//!
//! | what there is | what is wanted |
//! | --- | --- |
//! | their layer, a store of theirs | our layer: [`TowerSessionsLayer`], and [`OldTowerSessions`] so that nobody is logged out |
//! | their layer, to be kept | our store under it: [`UnderTowerSessions`] |
//! | a store of theirs, to be kept | our layer on it: [`FromTowerSessions`] |

mod bridge;
mod from;
mod layer;
mod names;
mod old;
mod turns;
mod under;

pub use from::FromTowerSessions;
pub use layer::{ResponseFuture, TowerSessions, TowerSessionsLayer};
pub use old::{IfNotUnderstood, OldTowerSessions};
pub use under::UnderTowerSessions;
