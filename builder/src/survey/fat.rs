//! How full a FAT file system is: its table counted (Microsoft's FAT specification of 2004).

use anyhow::{Result, ensure};

use super::source::{Source, u16_at, u32_at};

/// Largest table that is counted: 64 MiB, the table of a FAT32 of 512 GiB.
const TABLE: u64 = 64 << 20;

/// All and free bytes of a FAT file system; `None` when it is none.
pub fn usage(source: &mut Source) -> Result<Option<(u64, u64)>> {
    let mut boot = [0; 512];
    if source.length() < 512 {
        return Ok(None);
    }
    source.look(0, &mut boot)?;
    let sector = u64::from(u16_at(&boot, 11));
    let (per_cluster, copies) = (u64::from(boot[13]), u64::from(boot[16]));
    let is_fat = u16_at(&boot, 510) == 0xaa55
        && [512, 1024, 2048, 4096].contains(&sector)
        && per_cluster.is_power_of_two()
        && (1..=2).contains(&copies);
    if !is_fat {
        return Ok(None);
    }
    let either = |small: usize, large: usize| match u16_at(&boot, small) {
        0 => u64::from(u32_at(&boot, large)),
        number => u64::from(number),
    };
    let (sectors, table) = (either(19, 32), either(22, 36));
    let reserved = u64::from(u16_at(&boot, 14));
    let root = (u64::from(u16_at(&boot, 17)) * 32).div_ceil(sector);
    let data = sectors.checked_sub(reserved + copies * table + root);
    let clusters = data.unwrap_or(0) / per_cluster;
    let bits = if clusters < 4085 {
        12
    } else if clusters < 65525 {
        16
    } else {
        32
    };
    ensure!(
        clusters > 0
            && sectors * sector <= source.length()
            && (clusters + 2) * bits <= table * sector * 8
            && table * sector <= TABLE,
        "its FAT file system is damaged"
    );
    let mut bytes = vec![0; usize::try_from(table * sector)?];
    source.read(reserved * sector, &mut bytes)?;
    let entry = |index: usize| match bits {
        12 => u32::from(u16_at(&bytes, index * 3 / 2) >> (index % 2 * 4)) & 0xfff,
        16 => u32::from(u16_at(&bytes, index * 2)),
        _ => u32_at(&bytes, index * 4) & 0x0fff_ffff,
    };
    let free = (2..usize::try_from(clusters)? + 2).filter(|index| entry(*index) == 0).count() as u64;
    let cluster = per_cluster * sector;
    Ok(Some((clusters * cluster, free * cluster)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_counted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("esp");
        for (mib, option) in [(4, "12"), (16, "16"), (40, "32")] {
            fs_err::File::create(&path).unwrap().set_len(mib << 20).unwrap();
            let log = crate::exec::Log::create(&folder.path().join("log")).unwrap();
            crate::exec::Run::new(&log, "mkfs.vfat").args(["-F", option]).arg(&path).run().unwrap();
            let (all, free) = usage(&mut Source::of_file(&path).unwrap()).unwrap().unwrap();
            // FAT32 keeps its root folder in a cluster.
            assert!(all > (mib << 20) * 9 / 10 && all - free <= 4096, "FAT{option}: {free} of {all}");
            fs_err::write(folder.path().join("file"), vec![1; 100_000]).unwrap();
            crate::exec::Run::new(&log, "mcopy")
                .arg("-i")
                .arg(&path)
                .arg(folder.path().join("file"))
                .arg("::/")
                .run()
                .unwrap();
            let (_, less) = usage(&mut Source::of_file(&path).unwrap()).unwrap().unwrap();
            assert!((100_000..100_000 + 20_000).contains(&(free - less)), "FAT{option}: {}", free - less);
        }
        fs_err::write(&path, vec![0; 4096]).unwrap();
        assert_eq!(usage(&mut Source::of_file(&path).unwrap()).unwrap(), None);
    }
}
