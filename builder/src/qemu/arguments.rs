//! QEMU's command line, as data.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::Result;
use fs_err as fs;

use super::medium::{Medium, VHD_SIZE};
use super::{Devices, Firmware, MachineOptions, Net};
use crate::exec::{Log, Run};

const OVMF_CODE: &str = "/usr/share/OVMF/OVMF_CODE_4M.fd";
const OVMF_VARS: &str = "/usr/share/OVMF/OVMF_VARS_4M.fd";

/// The files that QEMU opens.
pub struct Disks {
    system: (PathBuf, &'static str),
    data: Option<(PathBuf, &'static str)>,
    /// UEFI's variables; qcow2, because a snapshot needs every writable disk to hold one.
    variables: Option<PathBuf>,
}

/// Makes overlays and a copy of UEFI's variables as far as they are wanted and not there.
pub fn disks(options: &MachineOptions, folder: &Path, log: &Log) -> Result<Disks> {
    let prepare = |medium: &Medium, name: &str| -> Result<(PathBuf, &'static str)> {
        let format = medium.format();
        if !options.overlay && medium.part.is_none() {
            return Ok((medium.path.clone(), format));
        }
        let overlay = folder.join(format!("{name}.qcow2"));
        if !overlay.exists() {
            Run::new(log, "qemu-img")
                .args(["create", "-q", "-f", "qcow2", "-F", format, "-b", &medium.name()?])
                .arg(&overlay)
                .run()?;
        }
        Ok((overlay, "qcow2"))
    };
    let system = prepare(&options.system, "system")?;
    let data = options.data.as_ref().map(|medium| prepare(medium, "data")).transpose()?;
    let variables = match options.firmware {
        Firmware::Bios => None,
        Firmware::Uefi => {
            let path = folder.join("uefi-variables.qcow2");
            if !path.exists() {
                Run::new(log, "qemu-img")
                    .args(["convert", "-f", "raw", "-O", "qcow2", OVMF_VARS])
                    .arg(&path)
                    .run()?;
            }
            Some(path)
        }
    };
    Ok(Disks { system, data, variables })
}

/// The arguments. Addresses of devices are given, so that a snapshot fits the machine that resumes it.
pub fn arguments(
    options: &MachineOptions,
    disks: &Disks,
    folder: &Path,
    sockets: &Path,
) -> Result<Vec<OsString>> {
    if let Some(log) = &options.write_log {
        // QEMU does not make it.
        fs::File::create(log)?;
    }
    let mut all: Vec<OsString> = Vec::new();
    let mut add = |words: &[&str]| all.extend(words.iter().map(OsString::from));
    add(&["-name", &options.name, "-nodefaults", "-display", "none", "-machine", "pc", "-rtc", "base=utc"]);
    add(&options.accelerator.arguments());
    add(&["-smp", &options.cpus.to_string(), "-m", &options.memory_mib.to_string(), "-vga", "std"]);
    if let Some(uuid) = &options.uuid {
        add(&["-uuid", uuid]);
    }
    if let Some(variables) = &disks.variables {
        add(&["-drive", &format!("if=pflash,format=raw,readonly=on,file={OVMF_CODE}")]);
        add(&["-drive", &format!("if=pflash,format=qcow2,file={}", escape(variables))]);
    }
    let serial = format!(
        "socket,id=serial,path={},server=on,wait=off,logfile={},logappend=on",
        escape(&sockets.join("serial")),
        escape(&folder.join("serial.log"))
    );
    add(&["-chardev", &serial, "-serial", "chardev:serial"]);
    add(&["-qmp", &format!("unix:{},server=on,wait=off", escape(&sockets.join("qmp")))]);
    add(&[
        "-device",
        "virtio-serial-pci,addr=0x8",
        "-chardev",
        &format!("socket,id=agent,path={},server=on,wait=off", escape(&sockets.join("agent"))),
        "-device",
        "virtserialport,chardev=agent,name=org.qemu.guest_agent.0",
        "-device",
        "virtio-rng-pci,addr=0x9",
    ]);
    if options.devices == Devices::Vmware {
        add(&["-device", "pvscsi,id=scsi,addr=0x5"]);
    }
    let mut disk = |id: &str, (path, format): &(PathBuf, &str), place: u8, devices: Devices, more: &str| {
        let size = |prefix: &str| match *format {
            "vpc" => format!(",{prefix}{}={}", VHD_SIZE.0, VHD_SIZE.1),
            _ => String::new(),
        };
        let file = match options.write_log.as_ref().filter(|_| id == "data") {
            None => format!("format={format}{},file={}", size(""), escape(path)),
            Some(log) => format!(
                "driver=blklogwrites,log-sector-size=512,log.driver=file,log.filename={},file.driver={format}{},\
                 file.discard=unmap,file.file.driver=file,file.file.filename={}",
                escape(log),
                size("file."),
                escape(path)
            ),
        };
        let drive = format!("if=none,id={id},{file},cache=writeback,discard=unmap{more}");
        let device = match devices {
            Devices::Virtio => format!("virtio-blk-pci,drive={id},serial={id},addr=0x{:x}", 5 + place),
            // vSphere's disks have no serial number that a guest sees.
            Devices::Vmware => format!("scsi-hd,bus=scsi.0,drive={id},scsi-id={place}"),
        };
        // SeaBIOS tries the first disk alone, and without an order it takes a volume on virtio for the first.
        let device = format!("{device},bootindex={place}");
        add(&["-drive", &drive, "-device", &device]);
    };
    disk("system", &disks.system, 0, options.devices, "");
    if let Some(data) = &disks.data {
        disk("data", data, 1, options.devices, "");
    }
    if let Some(volume) = &options.volume {
        let medium = Medium::from(volume.clone());
        disk("volume", &(medium.path.clone(), medium.format()), 2, Devices::Virtio, ",readonly=on");
    }
    if let Some(disc) = &options.cdrom {
        let drive = format!("if=none,id=cdrom,format=raw,file={},readonly=on", escape(disc));
        // An OVA has its drive at the first place of the first IDE controller.
        add(&["-drive", &drive, "-device", "ide-cd,drive=cdrom,bus=ide.0,unit=0"]);
    }
    match &options.net {
        Net::None => {}
        Net::User { forwards } => {
            let mut netdev = String::from("user,id=net,ipv4=on,ipv6=on,ipv6-net=fd00:6d61:7374::/64");
            for (host, guest) in forwards {
                netdev.push_str(&format!(",hostfwd=tcp:127.0.0.1:{host}-:{guest}"));
            }
            add(&["-netdev", &netdev]);
        }
        Net::Tap { interface, .. } => {
            add(&["-netdev", &format!("tap,id=net,ifname={interface},script=no,downscript=no")]);
        }
    }
    if options.net != Net::None {
        let card = match options.devices {
            Devices::Virtio => "virtio-net-pci",
            Devices::Vmware => "vmxnet3",
        };
        add(&["-device", &format!("{card},netdev=net,mac={},addr=0x3", options.mac)]);
    }
    for (index, (name, content)) in options.fw_cfg.iter().enumerate() {
        let file = folder.join(format!("fw-cfg-{index}"));
        write_private(&file, content)?;
        add(&["-fw_cfg", &format!("name={name},file={}", escape(&file))]);
    }
    if let Some(snapshot) = &options.resume {
        add(&["-loadvm", snapshot]);
    }
    Ok(all)
}

/// A configuration may hold a password.
fn write_private(path: &Path, content: &[u8]) -> Result<()> {
    use fs_err::os::unix::fs::OpenOptionsExt as _;
    use std::io::Write as _;
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    Ok(file.write_all(content)?)
}

/// A comma in a value is written twice.
fn escape(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}
