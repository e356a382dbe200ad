//! The ordered lists of steps.

pub mod certificate;
pub mod clock;
pub mod clone;
pub mod configuration;
pub mod database;
pub mod environment;
pub mod firewall;
pub mod hostname;
pub mod identity;
pub mod mail;
pub mod modes;
pub mod network;
pub mod nginx;
pub mod owner;
pub mod postgresql;
pub mod redis;
pub mod secrets;
pub mod space;
pub mod ssh;
pub mod storage;
pub mod swap;
pub mod units;

use crate::engine::Step;

/// Before anything that keeps state starts, and before the application does.
pub const EARLY: &[Step] = &[storage::STEP, identity::STEP, modes::STEP, firewall::STEP];

/// Everything, in order. The early steps are looked at again, so that whatever they wait for holds back the rest.
pub const STEPS: &[Step] = &[
    storage::STEP,
    // Holds nothing back, and must not be held back by what a full disk breaks.
    space::STEP,
    swap::STEP,
    identity::STEP,
    modes::STEP,
    configuration::STEP,
    firewall::STEP,
    network::STEP,
    hostname::STEP,
    ssh::STEP,
    clock::STEP,
    // Behind all that is needed to log in and answer it, and before all that an instance is.
    clone::STEP,
    secrets::STEP,
    postgresql::STEP,
    redis::STEP,
    environment::STEP,
    database::STEP,
    nginx::STEP,
    // Needs nginx alone: a certificate must not run out because a service or the owner's account is not well.
    certificate::STEP,
    units::STEP,
    owner::STEP,
    // Last: a relay that lets us wait must not let the instance wait.
    mail::STEP,
];
