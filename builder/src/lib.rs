//! The builder: recipe -> lock -> base tree -> application layer -> image tree -> disk -> artifacts -> verified.
//!
//! `pipeline` is the table of contents. Each stage's output can be made by its own module alone; the store is the only cache;
//! `exec` is the only file that starts programs; nothing here prints but `commands`.

pub mod app;
pub mod appliance;
pub mod atomic;
mod bars;
pub mod cli;
pub mod commands;
pub mod context;
pub mod digest;
pub mod disk;
pub mod error;
pub mod exec;
pub mod export;
pub mod fetch;
pub mod formats;
pub mod initramfs;
pub mod mastodon;
pub mod overlay;
pub mod pipeline;
pub mod preflight;
pub mod project;
pub mod qemu;
pub mod recipe;
pub mod repo;
pub mod report;
pub mod repro;
pub mod resolve;
pub mod rootfs;
pub mod rpm;
pub mod sandbox;
pub mod store;
pub mod survey;
pub mod tools;
pub mod transfer;
pub mod tree;
pub mod verify;
pub mod view;
