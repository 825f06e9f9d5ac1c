//! What a visitor and an application could notice, on both stores: by HTTP, through the whole way of a request.

#![allow(clippy::unwrap_used)]

mod edits;
mod expiry;
mod figures;
mod regression;
mod requests;
mod state;
mod visitor;
