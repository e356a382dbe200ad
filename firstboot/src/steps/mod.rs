//! The ordered lists of steps.

pub mod certificate;
pub mod database;
pub mod environment;
pub mod nginx;
pub mod owner;
pub mod postgresql;
pub mod redis;
pub mod secrets;
pub mod units;
