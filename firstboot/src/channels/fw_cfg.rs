//! QEMU's firmware configuration: `-fw_cfg name=opt/org.mastodon/config,file=config.toml`.

use std::path::Path;

use anyhow::Result;

use super::{Offer, read_offered};
use crate::exec::Run;

/// Where the kernel's `qemu_fw_cfg` shows it.
pub(super) const RAW: &str = "/sys/firmware/qemu_fw_cfg/by_name/opt/org.mastodon/config/raw";

pub(super) fn look(root: &Path) -> Result<Option<Offer>> {
    if root == Path::new("/") && !Path::new("/sys/firmware/qemu_fw_cfg").exists() {
        // A machine that is not QEMU's, or a kernel without the module, simply has no such channel.
        Run::new("modprobe", &["-q", "qemu_fw_cfg"]).succeeds();
    }
    let source = "QEMU's fw_cfg entry opt/org.mastodon/config";
    let text = read_offered(&root.join(&RAW[1..]), source)?;
    Ok(text.map(|text| Offer { source: source.to_owned(), text }))
}
