//! Sessions for Axum, kept in Redis: no lost write, no session that comes back, no cost before it is used.
