//! What the whole-system tests share: a cluster of real processes, the demonstration, a record of what
//! clients saw, and a real browser.
#![allow(dead_code, unreachable_pub, reason = "each test program uses its own part")]

pub mod browser;
pub mod cluster;
pub mod demo;
pub mod record;
