//! Where things are: the stack's folder, its ports, the cache of downloads, the lock against two at once.
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::process::Process;
use super::services::{Service, all};

/// One stack on this machine: everything it writes is under `dir`; downloads are shared under `cache`.
pub struct Stack {
    pub root: PathBuf,
    pub dir: PathBuf,
    pub cache: PathBuf,
    /// Brokers of its Kafka cluster, 1 or 3: chosen before the first start, since a cluster does not grow by itself.
    pub brokers: u8,
    ports: BTreeMap<String, u16>,
}

impl Stack {
    /// The stack of this repository, or the one `FHIREHOSE_STACK_DIR` names.
    pub fn open() -> Result<Stack> {
        match std::env::var_os("FHIREHOSE_STACK_DIR") {
            Some(dir) if !dir.is_empty() => Stack::open_at(std::path::absolute(dir)?),
            _ => Stack::open_at(repository()?.join(".stack")),
        }
    }

    /// The stack whose data is in this folder.
    pub fn open_at(dir: PathBuf) -> Result<Stack> {
        let root = repository()?;
        let cache = cache_dir()?;
        for made in [&dir, &dir.join("run"), &dir.join("logs"), &dir.join("data"), &cache] {
            fs::create_dir_all(made).with_context(|| format!("cannot create {}", made.display()))?;
        }
        let ports = read_ports(&dir.join("ports"))?;
        let brokers = read_brokers(&dir.join("brokers"))?;
        Ok(Stack { root, dir, cache, brokers, ports })
    }

    /// Says how many brokers this stack has; it must be empty, or have so many already.
    pub fn choose_brokers(&mut self, brokers: u8) -> Result<()> {
        if brokers == self.brokers {
            return Ok(());
        }
        if ![1, 3].contains(&brokers) {
            bail!("a stack has 1 broker or 3, not {brokers}");
        }
        if self.data("kafka").exists() {
            bail!(
                "the stack in {} has {} broker(s); `cargo xtask stack reset` empties it, then choose again",
                self.dir.display(),
                self.brokers
            );
        }
        fs::write(self.dir.join("brokers"), format!("{brokers}\n"))?;
        self.brokers = brokers;
        Ok(())
    }

    /// The servers that this stack has.
    pub fn services(&self) -> Vec<&'static dyn Service> {
        all().iter().copied().filter(|service| service.belongs_to(self)).collect()
    }

    /// Held while the stack is changed, so that two `up` at once do not start everything twice.
    pub fn lock(&self) -> Result<File> {
        lock(&self.dir.join("lock"), "another `cargo xtask stack` works on this stack; waiting for it")
    }

    pub fn data(&self, service: &str) -> PathBuf {
        self.dir.join("data").join(service)
    }

    /// A service's data folder, filled by `make` at the first start. It is filled under another name, so that an
    /// interrupted first start leaves nothing that looks complete.
    pub fn data_made_by(&self, service: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
        let data = self.data(service);
        if data.exists() {
            return Ok(data);
        }
        let partial = data.with_extension("partial");
        if partial.exists() {
            fs::remove_dir_all(&partial)?;
        }
        fs::create_dir_all(&partial)?;
        make(&partial)?;
        fs::rename(&partial, &data)?;
        Ok(data)
    }

    pub fn log(&self, service: &str) -> PathBuf {
        self.dir.join("logs").join(format!("{service}.log"))
    }

    pub fn env_file(&self) -> PathBuf {
        self.dir.join("env")
    }

    /// The port of that name. Every name a service lists is allotted before anything starts.
    pub fn port(&self, name: &str) -> Result<u16> {
        self.ports
            .get(name)
            .copied()
            .with_context(|| format!("no port allotted to {name}; run `cargo xtask stack up`"))
    }

    /// Gives every service its ports: the remembered ones, unless somebody else took them meanwhile.
    /// Returns the services whose ports are new, for those that were told the old ones.
    pub fn allot_ports(&mut self) -> Result<Vec<&'static str>> {
        let mut changed = Vec::new();
        for service in self.services() {
            for name in service.set_aside() {
                if !self.ports.contains_key(*name) {
                    let port = self.free_port(service.port_range())?;
                    self.ports.insert((*name).to_owned(), port);
                }
            }
            let runs = Process::of(&self.dir, service.name()).is_some();
            for name in service.ports() {
                if self.ports.get(*name).is_some_and(|port| runs || is_free(*port)) {
                    continue;
                }
                let port = self.free_port(service.port_range())?;
                self.ports.insert((*name).to_owned(), port);
                if !runs {
                    changed.push(service.name());
                }
            }
        }
        let text: String = self.ports.iter().map(|(name, port)| format!("{name}={port}\n")).collect();
        fs::write(self.dir.join("ports"), text)?;
        Ok(changed)
    }

    /// Starts looking at a place that depends on the folder, so that two stacks seldom meet.
    fn free_port(&self, range: std::ops::Range<u16>) -> Result<u16> {
        let mut hasher = DefaultHasher::new();
        self.dir.hash(&mut hasher);
        let size = u64::from(range.end - range.start);
        let first = hasher.finish() % size;
        (0..size)
            .map(|step| range.start + ((first + step) % size) as u16)
            .find(|port| !self.ports.values().any(|taken| taken == port) && is_free(*port))
            .with_context(|| format!("no free port from {} to {} on 127.0.0.1", range.start, range.end - 1))
    }
}

pub fn repository() -> Result<PathBuf> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().map(Path::to_path_buf).context("xtask lies outside the repository")
}

pub fn cache_dir() -> Result<PathBuf> {
    let base = match (std::env::var_os("XDG_CACHE_HOME"), std::env::var_os("HOME")) {
        (Some(dir), _) if !dir.is_empty() => PathBuf::from(dir),
        (_, Some(home)) => PathBuf::from(home).join(".cache"),
        _ => bail!("neither XDG_CACHE_HOME nor HOME is set: nowhere to keep downloads"),
    };
    Ok(base.join("fhirehose"))
}

/// Waits for the file's lock; says so once when somebody else has it. Freed when the handle is dropped.
pub fn lock(path: &Path, waiting: &str) -> Result<File> {
    let file = File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
    if file.try_lock().is_err() {
        println!("{waiting}");
        file.lock()?;
    }
    Ok(file)
}

fn is_free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok()
}

fn read_brokers(path: &Path) -> Result<u8> {
    match fs::read_to_string(path) {
        Ok(text) => text.trim().parse().with_context(|| format!("{} is damaged", path.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(1),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

fn read_ports(path: &Path) -> Result<BTreeMap<String, u16>> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    text.lines()
        .map(|line| {
            let (name, port) = line.split_once('=').context("a line without '='")?;
            Ok((name.to_owned(), port.parse()?))
        })
        .collect::<Result<_>>()
        .with_context(|| format!("{} is damaged; `cargo xtask stack reset` makes a new one", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_remembered_until_somebody_takes_one() {
        let dir = std::env::temp_dir().join(format!("xtask-ports-{}", std::process::id()));
        let mut stack = Stack::open_at(dir.clone()).unwrap();
        assert!(!stack.allot_ports().unwrap().is_empty());
        let (redis, kafka) = (stack.port("redis").unwrap(), stack.port("kafka").unwrap());

        let mut again = Stack::open_at(dir.clone()).unwrap();
        assert!(again.allot_ports().unwrap().is_empty());
        assert_eq!(again.port("redis").unwrap(), redis);

        let foreigner = TcpListener::bind(("127.0.0.1", redis)).unwrap();
        assert_eq!(again.allot_ports().unwrap(), ["redis"]);
        assert_ne!(again.port("redis").unwrap(), redis);
        assert_eq!(again.port("kafka").unwrap(), kafka);
        drop(foreigner);

        fs::write(dir.join("ports"), "redis=many\n").unwrap();
        assert!(Stack::open_at(dir.clone()).is_err());
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn the_number_of_brokers_is_chosen_once() {
        let dir = std::env::temp_dir().join(format!("xtask-brokers-{}", std::process::id()));
        let names = |stack: &Stack| stack.services().iter().map(|service| service.name()).collect::<Vec<_>>();
        let mut stack = Stack::open_at(dir.clone()).unwrap();
        assert!(names(&stack).contains(&"kafka") && !names(&stack).contains(&"kafka-2"));
        assert!(stack.choose_brokers(2).is_err());
        stack.choose_brokers(3).unwrap();
        let mut again = Stack::open_at(dir.clone()).unwrap();
        assert!(names(&again).contains(&"kafka-3"));

        // A proxy's port stays what clients were told, although the proxy listens there.
        again.allot_ports().unwrap();
        let proxy = again.port("kafka-2_proxy").unwrap();
        let _proxy = TcpListener::bind(("127.0.0.1", proxy)).unwrap();
        assert!(again.allot_ports().unwrap().is_empty());
        assert_eq!(again.port("kafka-2_proxy").unwrap(), proxy);

        fs::create_dir_all(again.data("kafka")).unwrap();
        again.choose_brokers(3).unwrap();
        assert!(again.choose_brokers(1).is_err());
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn data_made_halfway_is_made_anew() {
        let dir = std::env::temp_dir().join(format!("xtask-data-{}", std::process::id()));
        let stack = Stack::open_at(dir.clone()).unwrap();
        let half = |data: &Path| {
            fs::write(data.join("half"), "").map_err(Into::into).and_then(|()| bail!("interrupted"))
        };
        assert!(stack.data_made_by("x", half).is_err());
        assert!(!stack.data("x").exists());
        let data = stack.data_made_by("x", |data| Ok(fs::write(data.join("whole"), "")?)).unwrap();
        assert!(data.join("whole").exists() && !data.join("half").exists());
        stack.data_made_by("x", |_| bail!("made twice")).unwrap();
        fs::remove_dir_all(dir).unwrap();
    }
}
