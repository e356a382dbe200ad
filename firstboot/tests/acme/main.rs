//! Certificates from real authorities on loopback: Pebble, with DNS answers from pebble-challtestsrv, and the test kit's stub for what
//! Pebble cannot be brought to say.
//!
//! The name has an AAAA record alone, so Pebble looks over IPv6, as an authority does at an instance that has no IPv4.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]
#![allow(clippy::disallowed_methods, reason = "tests set their own scene, in folders that nobody keeps")]

mod diversion;
mod faults;
mod order;
mod pebble;

const DOMAIN: &str = "v6don.example.net";
