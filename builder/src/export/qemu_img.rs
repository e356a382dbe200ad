//! Conversions by qemu-img, with its percentage as progress.

use std::path::Path;

use anyhow::Result;

use crate::context::Context;
use crate::exec::Run;
use crate::report::Unit;

/// A compressed qcow2.
pub fn qcow2(source: &Path, target: &Path, context: &Context) -> Result<()> {
    // The target exists as an empty temp file; qemu-img replaces its content.
    convert(&["-O", "qcow2", "-c", "-W", "-m", "4", "-o", "compression_type=zstd"], source, target, context)
}

/// A streamOptimized VMDK.
pub fn vmdk(source: &Path, target: &Path, context: &Context) -> Result<()> {
    convert(&["-O", "vmdk", "-o", "subformat=streamOptimized,adapter_type=lsilogic"], source, target, context)
}

fn convert(options: &[&str], source: &Path, target: &Path, context: &Context) -> Result<()> {
    let run = Run::new(&context.log, "qemu-img")
        .args(["convert", "-p", "-f", "raw"])
        .args(options)
        .arg(source)
        .arg(target);
    run.on_line(|line| {
        if let Some(percent) = percent(line) {
            context.reporter.progress(percent, 100, Unit::Items);
        }
    })
    .run()
}

/// `    (12.34/100%)`.
fn percent(line: &str) -> Option<u64> {
    line.trim().strip_prefix('(')?.split(['.', '/']).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    #[test]
    fn percentages() {
        assert_eq!(super::percent("    (12.34/100%)"), Some(12));
        assert_eq!(super::percent("qemu-img: error"), None);
    }
}
