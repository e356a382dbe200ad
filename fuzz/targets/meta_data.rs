//! Bytes as `meta-data` of a config volume; see README.md.
#![no_main]

use rooms::channels::readers::{Reader, check};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| check(Reader::MetaData, bytes));
