//! tower-sessions 0.14: handlers and crates that extract its `Session` (axum-login 0.18, axum-messages 0.8) work unchanged
//! on our layer, with [`TowerSessionsLayer`] inside it.

mod bridge;
mod from;
mod layer;
mod names;
mod turns;
mod under;

pub use from::FromTowerSessions;
pub use layer::{ResponseFuture, TowerSessions, TowerSessionsLayer};
pub use under::UnderTowerSessions;
