//! Certificates: what they say, where they lie, one of our own, and which one is served.
//!
//! Nothing here orders a certificate; that is [`crate::acme`].

pub mod certificate;
pub mod moment;
pub mod probe;
pub mod selfsigned;
pub mod store;
