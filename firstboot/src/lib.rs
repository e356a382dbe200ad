//! The program inside the appliance, and the settings schema that it shares with the builder.
//!
//! `settings` and `facts` are pure data and always built; everything else is behind the feature `appliance`.
//! Data flow: channels -> settings -> steps (observe, apply, observe) -> status and verdict.

pub mod facts;
pub mod settings;

#[cfg(feature = "appliance")]
pub mod channels;
#[cfg(feature = "appliance")]
pub mod context;
#[cfg(feature = "appliance")]
pub mod durable;
#[cfg(feature = "appliance")]
pub mod engine;
#[cfg(feature = "appliance")]
pub mod exec;
#[cfg(feature = "appliance")]
pub mod status;
#[cfg(feature = "appliance")]
pub mod steps;
