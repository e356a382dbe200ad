//! VMware's streamOptimized disk (VMDK version 3), as in VMware's "Virtual Disk Format 5.0".
//!
//! ```text
//! header | descriptor | grain, grain, ... table | grain, ... table | directory | footer | end of stream
//! ```
//!
//! A grain is 64 KiB of the disk, compressed by itself. 512 grains have one table, all tables one directory. Everything lies on
//! sectors of 512 bytes; each part but a grain is announced by a marker of one sector.

pub mod descriptor;
pub mod header;
pub mod read;
pub mod write;
