//! The ordered list of steps.
