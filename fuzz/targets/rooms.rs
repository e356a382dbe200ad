//! The rooms of first boot that its channels need; nothing else of it is compiled.
// The rooms have more than is used here.
#![allow(dead_code, unused_imports)]

#[path = "../../firstboot/src/channels/mod.rs"]
pub mod channels;
#[path = "../../firstboot/src/context.rs"]
mod context;
#[path = "../../firstboot/src/dotenv.rs"]
mod dotenv;
#[path = "../../firstboot/src/durable.rs"]
mod durable;
#[path = "../../firstboot/src/exec.rs"]
mod exec;
#[path = "../../firstboot/src/facts.rs"]
mod facts;
#[path = "../../firstboot/src/settings/mod.rs"]
mod settings;
#[path = "../../firstboot/src/stamp.rs"]
mod stamp;
#[path = "../../firstboot/src/steps"]
mod steps {
    #[path = "network"]
    pub mod network {
        pub mod interface;

        /// Brings an adapter up, which no target wants.
        pub fn raise(_: &std::path::Path) -> Option<String> {
            None
        }
    }
}
