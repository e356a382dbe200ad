//! Bytes as a qcow2.
#![no_main]
// The rooms have more than is used here.
#![allow(dead_code)]

#[path = "../../builder/src/error.rs"]
mod error;
#[path = "../../builder/src/formats/mod.rs"]
mod formats;
mod reading;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    reading::read(bytes, |part| formats::qcow2::read::open(part).map(Some));
});
