//! Redis, with every write in its append-only file, so that a restart keeps the cache.
use std::fs;
use std::process::Command;

use anyhow::Result;

use super::Service;
use crate::shell;
use crate::stack::layout::Stack;

pub struct Redis;

impl Service for Redis {
    fn name(&self) -> &'static str {
        "redis"
    }
    fn about(&self) -> &'static str {
        "Redis 7.0"
    }
    fn debian_packages(&self) -> &'static [&'static str] {
        &["redis-server"]
    }
    fn ports(&self) -> &'static [&'static str] {
        &["redis"]
    }

    fn command(&self, stack: &Stack) -> Result<Command> {
        let data = stack.data("redis");
        fs::create_dir_all(&data)?;
        let mut command = Command::new("/usr/bin/redis-server");
        command
            .current_dir(&data)
            .args(["--port", &stack.port("redis")?.to_string(), "--bind", "127.0.0.1"])
            .args(["--appendonly", "yes", "--save", "", "--daemonize", "no"]);
        Ok(command)
    }

    fn is_ready(&self, stack: &Stack) -> Result<bool> {
        let port = stack.port("redis")?.to_string();
        Ok(shell::capture(Command::new("redis-cli").args(["-h", "127.0.0.1", "-p", &port, "ping"]))
            .is_ok_and(|answer| answer.trim() == "PONG"))
    }

    fn env(&self, stack: &Stack) -> Result<Vec<(&'static str, String)>> {
        Ok(vec![("FHIREHOSE__REDIS__URL", format!("redis://127.0.0.1:{}", stack.port("redis")?))])
    }
}
