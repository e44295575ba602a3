//! cidfs: a FUSE-mounted, content-addressed filesystem.
//!
//! Any program reads IPFS data below a mountpoint as if it were on the local disk. The library is built in floors; a
//! module imports only from floors below its own. `docs/architecture.md` holds the plan of the house and its invariants.

#![deny(unsafe_code)]

pub mod block;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod dag;
pub mod fetch;
#[allow(unsafe_code)]
pub mod fuse;
pub mod import;
pub mod limits;
pub mod metrics;
pub mod net;
pub mod prefetch;
pub mod store;
pub mod tree;
