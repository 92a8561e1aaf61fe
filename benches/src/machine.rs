//! What the kernel tells: CPU time and memory of processes, the machine.

use std::fs;

use anyhow::{Context, Result};

/// CPU seconds of this thread, user and system.
pub fn thread_cpu() -> Result<f64> {
    let text = fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanoseconds: f64 = text.split(' ').next().context("schedstat is empty")?.parse()?;
    Ok(nanoseconds / 1e9)
}

/// CPU seconds of all threads of a process, ended ones too, user and system.
pub fn process_cpu(pid: u32) -> Result<f64> {
    ticks(&fs::read_to_string(format!("/proc/{pid}/stat"))?, 11)
}

/// CPU seconds of the processes that this one has started and that have ended, user and system.
pub fn children_cpu() -> Result<f64> {
    ticks(&fs::read_to_string("/proc/self/stat")?, 13)
}

/// The seconds of two fields of a `stat`, which follow so many others behind the name.
fn ticks(stat: &str, skip: usize) -> Result<f64> {
    // The name, in parentheses, may hold blanks.
    let after = stat.rsplit_once(')').context("stat has no name")?.1;
    let ticks: Vec<f64> =
        after.split_whitespace().skip(skip).take(2).filter_map(|t| t.parse().ok()).collect();
    // Linux counts in hundredths of a second on every architecture we build for.
    Ok(ticks.iter().sum::<f64>() / 100.0)
}

/// Resident memory of a process now, and its peak, in MiB.
pub fn memory(pid: u32) -> Result<(f64, f64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let field = |name: &str| -> Result<f64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|line| line.split_whitespace().next()).context("no such field in status")?;
        Ok(kib.parse::<f64>()? / 1024.0)
    };
    Ok((field("VmRSS:")?, field("VmHWM:")?))
}

/// The load of the last minute: others may be at work on the machine.
pub fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or("unknown").to_owned()
}

/// CPU model, cores, memory.
pub fn describe() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let value = |line: &str| line.split_once(':').map(|(_, value)| value.trim().to_owned());
    let model = cpu.lines().find(|line| line.starts_with("model name")).and_then(value);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let memory = read("/proc/meminfo");
    let kib = memory.split_whitespace().nth(1).and_then(|kib| kib.parse::<f64>().ok()).unwrap_or_default();
    format!("{}, {cores} cores, {:.0} GiB", model.unwrap_or_else(|| "unknown CPU".into()), kib / 1048576.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_takes_time_and_memory() {
        let (thread, process) = (thread_cpu().unwrap(), process_cpu(std::process::id()).unwrap());
        let mut sum = 0_u64;
        while thread_cpu().unwrap() - thread < 0.05 {
            sum = (0..100_000).fold(sum, |sum, n| std::hint::black_box(sum ^ n));
        }
        assert!(process_cpu(std::process::id()).unwrap() - process > 0.02);
        let stat = "7 (a (b) c) S 1 7 7 0 -1 4194304 1 2 3 4 150 50 20 5 20 0";
        assert_eq!((ticks(stat, 11).unwrap(), ticks(stat, 13).unwrap()), (2.0, 0.25));
        assert!(children_cpu().unwrap() >= 0.0);
        let (now, peak) = memory(std::process::id()).unwrap();
        assert!(now > 0.5 && peak >= now && process_cpu(u32::MAX).is_err());
    }
}
