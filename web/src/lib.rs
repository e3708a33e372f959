//! The browser's side: a tab that is a node, and the dashboard that shows the cluster.
//!
//! ```text
//!   page (bin/app.rs)                         worker (bin/node.rs)
//!   draws, asks, never runs the protocol ◀──▶ driver: the core, its sockets and its journal
//!          │        bridge: batches of bytes           │
//!          ▼                                           ▼
//!   trace sockets of the servers                links to two servers, which relay
//! ```
//!
//! `model` with what it keeps in `epochs`, `rounds` and `rumour`, `draw`, `explain`, `ownership`, `namespaces`,
//! `overlap`, `stale`, `i18n` and `recording` are pure: they know neither page nor worker, and their tests run natively.

pub mod bridge;
pub mod draw;
pub mod epochs;
pub mod explain;
pub mod i18n;
pub mod model;
pub mod namespaces;
pub mod overlap;
pub mod ownership;
pub mod recording;
pub mod rounds;
pub mod rumour;
pub mod stale;

#[cfg(target_arch = "wasm32")]
pub mod app;
#[cfg(target_arch = "wasm32")]
pub mod canvas;
#[cfg(target_arch = "wasm32")]
pub mod cluster;
#[cfg(target_arch = "wasm32")]
pub mod components;
#[cfg(target_arch = "wasm32")]
pub mod driver;
#[cfg(target_arch = "wasm32")]
pub mod pages;
#[cfg(target_arch = "wasm32")]
pub mod socket;
#[cfg(target_arch = "wasm32")]
pub mod store;
