//! Bytes as VMware's guestinfo, its encoding in the first line; see README.md.
#![no_main]

use rooms::channels::readers::{Reader, check};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| check(Reader::Guestinfo, bytes));
