//! Image trees as tar streams: guest paths, what must not be in an image, accounts, units.
//!
//! Nothing here touches a disk's layout or starts a program.

pub mod accounts;
pub mod machine_state;
pub mod path;
pub mod units;
pub mod writer;
