//! What a power cut does to a disk, and what is left on it.
//!
//! Killing QEMU alone only loses the guest's memory: what the guest has written is in the host's cache, flushed or not. So QEMU
//! records every write and flush of a disk ([`write_log`]), and the disk is made anew as it may have been at any moment, with
//! writes dropped or torn that no flush had made durable. [`remains`] then asks other people's programs what they find.

mod dice;
pub mod remains;
pub mod write_log;

pub use dice::Dice;
