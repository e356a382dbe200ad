//! QEMU's disk, qcow2, of versions 2 and 3, as in QEMU's `docs/interop/qcow2.rst`.
//!
//! ```text
//! header, extensions | first-level table | second-level tables | clusters, whole or compressed | reference counts
//! ```
//!
//! A cluster is 512 bytes to 2 MiB of the disk. The first-level table names the second-level tables, those name the clusters. A
//! compressed cluster begins at any byte and runs over whole sectors of 512 bytes. All numbers are big-endian.

pub mod header;
pub mod read;
pub mod write;
