//! Bytes as `user-data` of a config volume or of EC2; see README.md.
#![no_main]

use rooms::channels::readers::{Reader, check};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| check(Reader::UserData, bytes));
