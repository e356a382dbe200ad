//! The program inside the appliance, and the settings schema that it shares with the builder.
//!
//! `settings`, `dotenv` and `facts` are pure data and always built; everything else is behind the feature `appliance`.
//! Data flow: channels -> settings -> steps (observe, apply, observe) -> status and verdict.
#![cfg_attr(
    test,
    allow(clippy::disallowed_methods, reason = "tests set their own scene, in folders that nobody keeps")
)]

#[cfg(all(feature = "faults", not(debug_assertions)))]
compile_error!("the feature `faults` is for tests: what is shipped must not have it");

pub mod dotenv;
pub mod facts;
pub mod settings;

#[cfg(feature = "appliance")]
pub mod acme;
#[cfg(feature = "appliance")]
pub mod block;
#[cfg(feature = "appliance")]
pub mod channels;
#[cfg(feature = "appliance")]
pub mod cli;
#[cfg(feature = "appliance")]
pub mod console;
#[cfg(feature = "appliance")]
pub mod context;
#[cfg(feature = "appliance")]
pub mod daemon;
#[cfg(feature = "appliance")]
pub mod diagnosis;
#[cfg(feature = "appliance")]
pub mod dns;
#[cfg(feature = "appliance")]
pub mod durable;
#[cfg(feature = "appliance")]
pub mod engine;
#[cfg(feature = "appliance")]
pub mod exec;
#[cfg(feature = "appliance")]
pub mod http;
#[cfg(feature = "appliance")]
pub mod notify;
#[cfg(feature = "appliance")]
pub mod passwd;
#[cfg(feature = "appliance")]
pub mod resp;
#[cfg(feature = "appliance")]
pub mod smtp;
#[cfg(feature = "appliance")]
pub mod sql;
#[cfg(feature = "appliance")]
pub mod stamp;
#[cfg(feature = "appliance")]
pub mod status;
#[cfg(feature = "appliance")]
pub mod steps;
#[cfg(feature = "appliance")]
pub mod systemd;
#[cfg(feature = "appliance")]
pub mod tls;
