//! Who listens on a port: from /proc, where there is one.

use std::{fs, path::Path};

/// A process that listens.
pub(super) struct Listener {
    pub(super) pid: u32,
    pub(super) name: String,
}

/// The process that listens on the TCP port of this machine, if it can be seen.
pub(super) fn listener(port: u16) -> Option<Listener> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"];
    let sockets: Vec<String> = tables
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok())
        .flat_map(|table| inodes(&table, port))
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    if sockets.is_empty() {
        return None;
    }
    let processes = fs::read_dir("/proc").ok()?.flatten();
    processes
        .filter(|process| holds(&process.path(), &sockets))
        .find_map(|process| {
            let pid = process.file_name().to_str()?.parse().ok()?;
            let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            let name = name.trim().to_owned();
            Some(Listener { pid, name })
        })
}

/// The inodes of the sockets in a table of the kernel's that listen on the port.
fn inodes(table: &str, port: u16) -> Vec<u64> {
    const LISTENING: &str = "0A";
    let inode = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (_, hex) = fields.get(1)?.rsplit_once(':')?;
        let same = u16::from_str_radix(hex, 16).ok()? == port && *fields.get(3)? == LISTENING;
        if same {
            fields.get(9)?.parse().ok()
        } else {
            None
        }
    };
    table.lines().filter_map(inode).collect()
}

/// Whether the process has one of the sockets open. Other users' processes do not tell.
fn holds(process: &Path, sockets: &[String]) -> bool {
    let Ok(files) = fs::read_dir(process.join("fd")) else {
        return false;
    };
    let targets = files
        .flatten()
        .filter_map(|file| fs::read_link(file.path()).ok());
    let mut names = targets.filter_map(|target| target.into_os_string().into_string().ok());
    names.any(|name| sockets.contains(&name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_kernels_table() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
             0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 12345 1 0 100 0 0 10 0\n\
             1: 0100007F:1F90 0100007F:9999 01 00000000:00000000 00:00000000 00000000  1000        0 777 1 0 100 0 0 10 0\n\
             2: 00000000000000000000000000000000:1F91 0:0 0A 0:0 00:0 0  1000        0 999 1\n";
        assert_eq!(inodes(table, 8080), [12345]);
        assert_eq!(inodes(table, 8081), [999]);
        assert!(inodes(table, 8082).is_empty());
    }

    #[test]
    fn finds_this_process() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let found = listener(socket.local_addr().unwrap().port()).unwrap();
        assert_eq!(found.pid, std::process::id());
        assert!(!found.name.is_empty());
    }
}
