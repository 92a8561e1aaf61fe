use std::fs::{self, File};
use std::io;
use std::path::PathBuf;

/// The name of this process among those of its consumer groups. Transactions are bound to it: whoever starts
/// under a name ends the open transactions of the one before, and shuts it out.
#[derive(Debug)]
pub struct Instance {
    name: String,
    /// Held locked while the process lives; the kernel frees it however the process ends.
    _lock: Option<File>,
}

impl Instance {
    /// The configured name, or, without one, the host's name and the first number no other process of this
    /// host holds. The same processes so get the same names again after a restart.
    pub fn take(configured: &str) -> io::Result<Instance> {
        if !configured.is_empty() {
            return Ok(Instance { name: configured.to_owned(), _lock: None });
        }
        let folder = std::env::temp_dir().join("fhirehose-instances");
        fs::create_dir_all(&folder)?;
        Instance::numbered(&host(), &folder)
    }

    fn numbered(host: &str, folder: &std::path::Path) -> io::Result<Instance> {
        for number in 0..1024 {
            let path: PathBuf = folder.join(format!("{number}.lock"));
            let file = match File::options().create(true).truncate(false).write(true).open(path) {
                Ok(file) => file,
                // Another user's.
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => continue,
                Err(error) => return Err(error),
            };
            match file.try_lock() {
                Ok(()) => return Ok(Instance { name: format!("{host}-{number}"), _lock: Some(file) }),
                Err(fs::TryLockError::WouldBlock) => {}
                Err(fs::TryLockError::Error(error)) => return Err(error),
            }
        }
        Err(io::Error::other("all of 1024 instance numbers of this host are taken: set runtime.instance"))
    }

    pub fn name(&self) -> &str {
        &self.name
    }
}

fn host() -> String {
    let from_file = || fs::read_to_string("/etc/hostname").ok();
    let name = std::env::var("HOSTNAME").ok().or_else(from_file).unwrap_or_default();
    let name: String = name.trim().chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').collect();
    if name.is_empty() { "host".into() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_of_a_host_get_numbers_and_freed_ones_come_back() {
        let dir = tempfile::tempdir().unwrap();
        let take = || Instance::numbered("h", dir.path()).unwrap();
        let (first, second) = (take(), take());
        assert_eq!((first.name(), second.name()), ("h-0", "h-1"));
        drop(first);
        assert_eq!(take().name(), "h-0");
        assert_eq!(Instance::take("mine").unwrap().name(), "mine");
    }
}
