//! What the whole-system tests share: a cluster of real processes, a record of what
//! clients saw of it, and a real browser.
#![allow(dead_code, unreachable_pub, reason = "each test program uses its own part")]

pub mod browser;
pub mod cluster;
pub mod record;
