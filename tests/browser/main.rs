//! The example shop as its visitors see it: the program itself, in a real Chromium.

#![allow(clippy::unwrap_used)]

mod accounts;
mod cart;
mod devices;
mod drawer;
mod looks;
mod sharing;
mod shop;
mod start;
