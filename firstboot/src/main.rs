//! `appliance`.
fn main() {}
