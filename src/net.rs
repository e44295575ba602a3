//! Other machines: what they have, and how it is brought here.
//!
//! - [`caps`]: how much may be sent and received in a second, shared by all that send and receive.

pub mod caps;
