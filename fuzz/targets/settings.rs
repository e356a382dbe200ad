//! Bytes as a configuration in TOML; see README.md.
#![no_main]

use rooms::channels::readers::{Reader, check};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| check(Reader::Settings, bytes));
