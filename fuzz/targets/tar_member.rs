//! Bytes as a tar, of which the first file whose name ends with an x is taken.
#![no_main]
// The rooms have more than is used here.
#![allow(dead_code)]

#[path = "../../builder/src/error.rs"]
mod error;
#[path = "../../builder/src/formats/mod.rs"]
mod formats;
mod reading;

use formats::disk::{Raw, ReadDisk};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    reading::read(bytes, |part| {
        let Some(member) = formats::tar::first_member(&part, |name| name.ends_with('x'))? else { return Ok(None) };
        Ok(Some(Box::new(Raw::open(member)?) as Box<dyn ReadDisk>))
    });
});
