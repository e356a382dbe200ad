//! Bytes as an HTTP answer of EC2's metadata service; see README.md.
#![no_main]

use rooms::channels::readers::{Reader, check};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| check(Reader::Metadata, bytes));
