//! The settings schema: what the operator says, typed and validated.

/// Placeholder until the schema lands.
#[derive(Debug, Clone)]
pub struct Settings;
