//! Formats of disks: a sparse disk in, a file of another format out, and back.
//!
//! Nothing here knows of recipes, the network or a program of the host. A writer reads every byte of data once and no hole, and
//! gives the same bytes whatever the number of cores. A reader takes nothing that a file says of itself for granted.

mod cache;
pub mod chunks;
pub mod disk;
pub mod identity;
mod mapped;
pub mod part;
pub mod qcow2;
pub mod sparse;
pub mod tar;
pub mod vhd;
pub mod vmdk;

pub use identity::Identity;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod written;
