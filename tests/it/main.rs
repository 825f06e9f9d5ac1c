//! What a visitor and an application could notice, on both stores: by HTTP, through the whole way of a request.

#![allow(clippy::unwrap_used)]

mod chaos;
mod closing;
mod cookies;
mod csrf;
mod durability;
mod edits;
mod ended;
mod expiry;
mod failures;
mod faults;
mod figures;
mod flash;
mod guards;
mod interleavings;
mod layers;
mod life;
mod logging;
mod people;
mod pressure;
mod regression;
mod renewals;
mod replicas;
mod requests;
mod responses;
mod state;
mod tenants;
mod unavailable;
mod visitor;
mod watched;
