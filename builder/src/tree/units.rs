//! What `systemctl enable` would do, on data: the links that a unit's `[Install]` section asks for.

/// Links to make for a unit: path of the link, its target.
pub fn install_links(unit: &str, path: &str, text: &str) -> Vec<(String, String)> {
    let mut links = Vec::new();
    let mut in_install = false;
    for line in text.lines().map(str::trim) {
        if line.starts_with('[') {
            in_install = line == "[Install]";
            continue;
        }
        let Some((key, value)) = line.split_once('=').filter(|_| in_install) else { continue };
        for name in value.split_whitespace() {
            match key.trim() {
                "WantedBy" => {
                    links.push((format!("/etc/systemd/system/{name}.wants/{unit}"), path.to_owned()));
                }
                "RequiredBy" => {
                    links.push((format!("/etc/systemd/system/{name}.requires/{unit}"), path.to_owned()));
                }
                "Alias" => links.push((format!("/etc/systemd/system/{name}"), path.to_owned())),
                _ => {}
            }
        }
    }
    links
}

/// Whether a path is where units live, so that its text is worth keeping.
pub fn is_unit_path(path: &str) -> bool {
    ["/lib/systemd/system/", "/usr/lib/systemd/system/", "/etc/systemd/system/"]
        .iter()
        .any(|folder| path.strip_prefix(folder).is_some_and(|name| !name.contains('/') && name.contains('.')))
}

/// Whether a link in the tree enables the unit: it lies in a `.wants`/`.requires` folder of `/etc/systemd/system` or is an
/// alias there.
pub fn enables(link: &str, target: &str, unit: &str) -> bool {
    let Some(rest) = link.strip_prefix("/etc/systemd/system/") else { return false };
    match rest.rsplit_once('/') {
        Some((folder, name)) => (folder.ends_with(".wants") || folder.ends_with(".requires")) && name == unit,
        None => target.rsplit('/').next() == Some(unit),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_of_an_install_section() {
        let text = "[Unit]\nWantedBy=nothing\n[Install]\nWantedBy=multi-user.target\nAlias=redis.service\n";
        let links = install_links("redis-server.service", "/lib/systemd/system/redis-server.service", text);
        assert_eq!(links[0].0, "/etc/systemd/system/multi-user.target.wants/redis-server.service");
        assert_eq!(links[1].0, "/etc/systemd/system/redis.service");
        assert_eq!(links.len(), 2);
    }

    #[test]
    fn links_that_enable() {
        let unit = "redis-server.service";
        assert!(enables("/etc/systemd/system/multi-user.target.wants/redis-server.service", "/lib/x", unit));
        assert!(enables(
            "/etc/systemd/system/redis.service",
            "/lib/systemd/system/redis-server.service",
            unit
        ));
        assert!(!enables("/lib/systemd/system/redis.service", "redis-server.service", unit));
    }
}
