//! `cargo xtask stack`: the servers that Fhirehose works with, as native processes of this machine.
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

mod connector;
mod http;
pub mod install;
mod java;
pub mod layout;
mod process;
mod services;
mod timescale;

use crate::shell;
use layout::Stack;
use process::Process;
use services::Service;

const HELP: &str = "\
Kafka, the schema registry, Connect with Debezium, two hospitals' MariaDB servers, PostgreSQL with TimescaleDB,
OpenSearch and Redis, as native processes. Data, logs and ports live in .stack (or FHIREHOSE_STACK_DIR), downloads
in the user's cache. Servers that it did not start are never touched.

Usage: cargo xtask stack <command> [service…]

Commands:
  up [service…]       install what is missing, start what does not run, wait until it is healthy, write .stack/env
  down [service…]     stop; data stays
  restart [service…]  down, then up
  kill <service…>     kill -9, to see what the product makes of it
  status              one line per service
  logs [service…]     the end of the logs
  reset [service…]    down, and remove the data
  connector <hospital…>  register the Debezium connector of a hospital (hospital-a: Avro, hospital-b: JSON)
  env                 print the env file

Services: kafka registry postgres opensearch redis connect hospital-a hospital-b (none named: all)
`up --brokers 3` makes an empty stack one with three brokers, kafka-2 and kafka-3 among its services, for good.

Examples:
  cargo xtask stack up
  cargo xtask stack up kafka postgres
  cargo xtask stack kill kafka && cargo xtask stack up kafka
  set -a; . .stack/env; set +a; cargo run -p fhirehose -- run all
  FHIREHOSE_STACK_DIR=/tmp/second cargo xtask stack up redis";

const READY_LIMIT: Duration = Duration::from_secs(180);

pub fn main(arguments: &[String]) -> Result<()> {
    if arguments.is_empty() || arguments.iter().any(|argument| argument == "-h" || argument == "--help") {
        println!("{HELP}");
        return Ok(());
    }
    let (command, names) = (arguments[0].as_str(), &arguments[1..]);
    let mut stack = Stack::open()?;
    let names = match (command, names) {
        ("up", [flag, brokers, rest @ ..]) if flag == "--brokers" => {
            stack.choose_brokers(brokers.parse().with_context(|| format!("--brokers {brokers}"))?)?;
            rest
        }
        _ => names,
    };
    let wanted = named(&stack, names);
    match command {
        "up" => up(&mut stack, &wanted?),
        "down" => down(&stack, &wanted?),
        "restart" => {
            let wanted = wanted?;
            down(&stack, &wanted)?;
            up(&mut stack, &wanted)
        }
        "kill" if names.is_empty() => bail!("kill whom? `cargo xtask stack kill <service…>`"),
        "kill" => kill(&stack, &wanted?),
        "status" => status(&stack),
        "logs" => logs(&stack, &wanted?),
        "reset" => reset(&stack, &wanted?),
        "connector" if names.is_empty() => {
            bail!("whose? `cargo xtask stack connector hospital-a hospital-b`")
        }
        "connector" => register_connectors(&stack, &names.iter().map(String::as_str).collect::<Vec<_>>()),
        "env" => env(&stack),
        other => bail!("no command 'stack {other}'; `cargo xtask stack --help` lists them"),
    }
}

/// The services of these names, all of them for none.
fn named(stack: &Stack, names: &[String]) -> Result<Vec<&'static dyn Service>> {
    if names.is_empty() {
        return Ok(stack.services());
    }
    names.iter().map(|name| find(stack, name)).collect()
}

fn find(stack: &Stack, name: &str) -> Result<&'static dyn Service> {
    let services = stack.services();
    let found = services.iter().find(|service| service.name() == name);
    found.copied().with_context(|| {
        let names: Vec<&str> = services.iter().map(|service| service.name()).collect();
        format!("no service '{name}'; there are: {}", names.join(" "))
    })
}

/// Brings all of it up; for commands that need it.
pub fn up_all(stack: &mut Stack) -> Result<()> {
    up(stack, &stack.services())
}

/// Brings up these services and what they need.
pub fn up_named(stack: &mut Stack, names: &[&str]) -> Result<()> {
    let wanted = names.iter().map(|name| find(stack, name)).collect::<Result<Vec<_>>>()?;
    up(stack, &wanted)
}

/// Stops all of it; data stays.
pub fn down_all(stack: &Stack) -> Result<()> {
    down(stack, &stack.services())
}

/// Stops all of it and removes its data.
pub fn reset_all(stack: &Stack) -> Result<()> {
    reset(stack, &stack.services())
}

fn up(stack: &mut Stack, wanted: &[&'static dyn Service]) -> Result<()> {
    let _lock = stack.lock()?;
    let mut wanted = with_needs(stack, wanted);
    install(stack, &wanted)?;
    let moved = stack.allot_ports()?;
    for service in stack.services() {
        // It runs, but was told a port that somebody else has taken since.
        if Process::of(&stack.dir, service.name()).is_some()
            && service.needs().iter().any(|need| moved.contains(need))
        {
            stop(stack, service)?;
            wanted = with_needs(stack, &[&wanted[..], &[service]].concat());
        }
    }
    let names: Vec<&str> = wanted.iter().map(|service| service.name()).collect();
    let mut done: Vec<&str> = Vec::new();
    while done.len() < wanted.len() {
        let is_next = |service: &&&'static dyn Service| {
            let mut needs = service.needs().iter();
            !done.contains(&service.name()) && needs.all(|need| done.contains(need) || !names.contains(need))
        };
        let wave: Vec<&'static dyn Service> = wanted.iter().filter(is_next).copied().collect();
        together(&wave, |service| start(stack, service))?;
        done.extend(wave.iter().map(|service| service.name()));
    }
    write_env(stack)?;
    println!("addresses: {}", stack.env_file().display());
    Ok(())
}

/// These and everything they need of what the stack has, in the table's order.
fn with_needs(stack: &Stack, wanted: &[&'static dyn Service]) -> Vec<&'static dyn Service> {
    let mut names: BTreeSet<&str> = wanted.iter().map(|service| service.name()).collect();
    let mut before = 0;
    while before != names.len() {
        before = names.len();
        for service in stack.services() {
            if names.contains(service.name()) {
                names.extend(service.needs());
            }
        }
    }
    stack.services().into_iter().filter(|service| names.contains(service.name())).collect()
}

/// Debian's packages first, since Maven is one of them; then downloads and the one build side by side.
fn install(stack: &Stack, wanted: &[&'static dyn Service]) -> Result<()> {
    let _lock = layout::lock(&stack.cache.join("lock"), "another stack is being installed; waiting for it")?;
    install::debian_packages(
        &wanted.iter().flat_map(|service| service.debian_packages()).copied().collect(),
    )?;
    let (built, fetched): (Vec<_>, Vec<_>) =
        wanted.iter().copied().partition(|service| service.artifacts().is_empty());
    std::thread::scope(|scope| {
        let build = scope.spawn(|| built.iter().try_for_each(|service| service.install(stack)));
        let fetch = fetched.iter().try_for_each(|service| {
            install::artifacts(&service.artifacts(), &stack.cache)?;
            service.java().map_or(Ok(()), |minimum| java::install(minimum, &stack.cache))?;
            service.install(stack)
        });
        fetch.and(joined(build.join()))
    })
}

/// Does the same for each of them at once; the first error wins.
fn together(
    services: &[&'static dyn Service],
    work: impl Fn(&'static dyn Service) -> Result<()> + Sync,
) -> Result<()> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = services.iter().map(|service| scope.spawn(|| work(*service))).collect();
        let results: Vec<Result<()>> = threads.into_iter().map(|thread| joined(thread.join())).collect();
        results.into_iter().collect()
    })
}

fn joined(result: std::thread::Result<Result<()>>) -> Result<()> {
    result.unwrap_or_else(|_| bail!("a thread of xtask panicked"))
}

fn start(stack: &Stack, service: &'static dyn Service) -> Result<()> {
    let name = service.name();
    let begin = Instant::now();
    let mut child = match Process::of(&stack.dir, name) {
        Some(_) => None,
        None => {
            println!("  {name} … starting {}", service.about());
            Some(process::start(stack, name, &service.command(stack)?)?)
        }
    };
    let was_running = child.is_none();
    loop {
        if service.is_ready(stack)? {
            break;
        }
        if let Some(status) = child.as_mut().map(|child| child.try_wait()).transpose()?.flatten() {
            process::forget(stack, name);
            bail!(failure(stack, service, &format!("ended while starting ({status})")));
        }
        if begin.elapsed() > READY_LIMIT {
            bail!(failure(stack, service, &format!("is not healthy after {} s", READY_LIMIT.as_secs())));
        }
        sleep(Duration::from_millis(100));
    }
    // Where this program goes on beside it: a server that was killed is gone for others only when it has been waited
    // for, and PostgreSQL does not start while its lock file names a process that is there.
    if let Some(mut child) = child {
        std::thread::spawn(move || child.wait());
    }
    service.after_start(stack).with_context(|| format!("{name} runs, but could not be set up"))?;
    let port = stack.port(service.ports()[0])?;
    match was_running {
        true => println!("  {name} … runs already, port {port}"),
        false => println!("  {name} … up in {:.1} s, port {port}", begin.elapsed().as_secs_f64()),
    }
    Ok(())
}

fn failure(stack: &Stack, service: &dyn Service, what: &str) -> String {
    let (name, log) = (service.name(), stack.log(service.name()));
    format!(
        "{name} {what}. The end of {}:\n{}\n\nWhat to do: mend what the log names and run `cargo xtask stack up {name}` \
         again; if the data is damaged, `cargo xtask stack reset {name}` starts it empty; memory: `free -m`, disk: `df -h`.",
        log.display(),
        shell::tail_of(&log, 20)
    )
}

fn write_env(stack: &Stack) -> Result<()> {
    let mut text = String::new();
    for service in stack.services() {
        for (name, value) in service.env(stack)? {
            writeln!(text, "{name}={value}")?;
        }
    }
    let partial = stack.dir.join("env.partial");
    fs::write(&partial, text)?;
    fs::rename(partial, stack.env_file())?;
    Ok(())
}

fn env(stack: &Stack) -> Result<()> {
    let file = stack.env_file();
    print!("{}", fs::read_to_string(file).context("no stack here yet; run `cargo xtask stack up`")?);
    Ok(())
}

/// Registers the Debezium connectors of these hospitals and waits until they run.
pub fn register_connectors(stack: &Stack, hospitals: &[&str]) -> Result<()> {
    hospitals.iter().try_for_each(|name| connector::register(stack, name))
}

/// The env file's lines, for the environment of a program that talks to the stack.
pub fn env_lines(stack: &Stack) -> Result<Vec<(String, String)>> {
    let text = fs::read_to_string(stack.env_file())?;
    Ok(text
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(n, v)| (n.to_owned(), v.to_owned()))
        .collect())
}

fn down(stack: &Stack, wanted: &[&'static dyn Service]) -> Result<()> {
    let _lock = stack.lock()?;
    stop_all(stack, wanted)
}

/// Those that need others go first, so that nobody logs errors about a lost server.
fn stop_all(stack: &Stack, wanted: &[&'static dyn Service]) -> Result<()> {
    let (users, used): (Vec<_>, Vec<_>) =
        wanted.iter().copied().partition(|service| !service.needs().is_empty());
    together(&users, |service| stop(stack, service))?;
    together(&used, |service| stop(stack, service))
}

fn stop(stack: &Stack, service: &'static dyn Service) -> Result<()> {
    let name = service.name();
    if let Some(process) = Process::of(&stack.dir, name) {
        let killed = process.stop(service.stop_signal(), service.stop_grace())?;
        println!("  {name} … stopped{}", if killed { " (had to be killed)" } else { "" });
    }
    process::forget(stack, name);
    Ok(())
}

fn kill(stack: &Stack, wanted: &[&'static dyn Service]) -> Result<()> {
    let _lock = stack.lock()?;
    for service in wanted {
        let process = Process::of(&stack.dir, service.name());
        process.with_context(|| format!("{} does not run", service.name()))?.kill()?;
        process::forget(stack, service.name());
        println!("  {} … killed", service.name());
    }
    Ok(())
}

fn reset(stack: &Stack, wanted: &[&'static dyn Service]) -> Result<()> {
    let _lock = stack.lock()?;
    stop_all(stack, wanted)?;
    for service in wanted {
        let log = stack.log(service.name());
        remove(&stack.data(service.name()))?;
        remove(&log.with_extension("log.1"))?;
        remove(&log)?;
    }
    if wanted.len() == stack.services().len() {
        remove(&stack.env_file())?;
        remove(&stack.dir.join("brokers"))?;
        remove(&stack.dir.join("ports"))?;
    }
    Ok(())
}

fn remove(path: &std::path::Path) -> Result<()> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

fn status(stack: &Stack) -> Result<()> {
    println!(
        "{:<11} {:<9} {:>8} {:>6} {:>9} {:>9}  what",
        "service", "state", "pid", "port", "uptime", "memory"
    );
    for service in stack.services() {
        let port = stack.port(service.ports()[0]).map_or_else(|_| "-".to_owned(), |port| port.to_string());
        let (state, pid, uptime, memory) = match Process::of(&stack.dir, service.name()) {
            None => ("down", "-".to_owned(), "-".to_owned(), "-".to_owned()),
            Some(process) => (
                if service.is_ready(stack)? { "healthy" } else { "unhealthy" },
                process.pid.to_string(),
                process.uptime().map_or_else(|| "-".to_owned(), duration),
                format!("{} MiB", process.memory()),
            ),
        };
        println!(
            "{:<11} {state:<9} {pid:>8} {port:>6} {uptime:>9} {memory:>9}  {}",
            service.name(),
            service.about()
        );
    }
    Ok(())
}

fn duration(seconds: f64) -> String {
    match seconds as u64 {
        s @ 0..60 => format!("{s} s"),
        s @ 60..3600 => format!("{} min", s / 60),
        s => format!("{} h {} min", s / 3600, s / 60 % 60),
    }
}

fn logs(stack: &Stack, wanted: &[&'static dyn Service]) -> Result<()> {
    let lines = if wanted.len() == 1 { 200 } else { 10 };
    for service in wanted {
        let log = stack.log(service.name());
        println!("==> {} <==\n{}", log.display(), shell::tail_of(&log, lines));
    }
    Ok(())
}
