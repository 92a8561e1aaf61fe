//! The build for the harness.

use std::collections::HashMap;
use std::process::{Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Action {
    Kill,
    Stop,
    Sleep(Duration),
    /// As `Sleep`, and at every hit after it.
    Drag(Duration),
}

#[derive(Debug, PartialEq)]
struct Armed {
    action: Action,
    at_hit: u64,
}

fn armed() -> &'static HashMap<String, Armed> {
    static ARMED: OnceLock<HashMap<String, Armed>> = OnceLock::new();
    ARMED.get_or_init(|| std::env::var("FHIREHOSE_FAULTPOINTS").map(|text| parse(&text)).unwrap_or_default())
}

/// What cannot be read is left out and told: a harness that armed nothing must not look as if it had.
fn parse(text: &str) -> HashMap<String, Armed> {
    let mut armed = HashMap::new();
    for entry in text.split(';').filter(|entry| !entry.is_empty()) {
        match read(entry) {
            Some((name, one)) => drop(armed.insert(name, one)),
            None => tell(&format!("faultpoint not understood: {entry}")),
        }
    }
    armed
}

fn read(entry: &str) -> Option<(String, Armed)> {
    let (name, rest) = entry.split_once('=')?;
    let (action, at_hit) = match rest.split_once('@') {
        Some((action, hit)) => (action, hit.parse().ok()?),
        None => (rest, 1),
    };
    let action = match action.split_once(':') {
        Some(("sleep", ms)) => Action::Sleep(Duration::from_millis(ms.parse().ok()?)),
        Some(("drag", ms)) => Action::Drag(Duration::from_millis(ms.parse().ok()?)),
        None if action == "kill" => Action::Kill,
        None if action == "stop" => Action::Stop,
        _ => return None,
    };
    Some((name.to_owned(), Armed { action, at_hit }))
}

pub(crate) fn hit(name: &'static str) {
    static HITS: OnceLock<Mutex<HashMap<&'static str, u64>>> = OnceLock::new();
    let Some(one) = armed().get(name) else { return };
    let hits = {
        let mut all = HITS.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
        let hits = all.entry(name).or_default();
        *hits += 1;
        *hits
    };
    let again = matches!(one.action, Action::Drag(_)) && hits > one.at_hit;
    if hits != one.at_hit && !again {
        return;
    }
    match one.action {
        Action::Kill => {
            tell(&format!("faultpoint {name} kill"));
            signal("-KILL");
        }
        Action::Stop => {
            tell(&format!("faultpoint {name} stop"));
            signal("-STOP");
        }
        Action::Sleep(time) => {
            tell(&format!("faultpoint {name} sleep"));
            std::thread::sleep(time);
        }
        Action::Drag(time) => {
            tell(&format!("faultpoint {name} drag"));
            std::thread::sleep(time);
        }
    }
}

pub(crate) fn planted(bug: &'static str) -> bool {
    static PLANTED: OnceLock<Option<String>> = OnceLock::new();
    PLANTED.get_or_init(|| std::env::var("FHIREHOSE_PLANTED_BUG").ok()).as_deref() == Some(bug)
}

/// By the `kill` command: the workspace has no unsafe code for the sake of a test.
fn signal(signal: &str) {
    let id = std::process::id().to_string();
    let done = Command::new("kill").args([signal, &id]).stdin(Stdio::null()).status();
    if !done.is_ok_and(|status| status.success()) {
        tell("faultpoint: no signal could be sent");
    }
}

#[expect(clippy::print_stderr, reason = "the harness reads it, and the log may be another thread's")]
fn tell(text: &str) {
    eprintln!("{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions_are_read_and_nonsense_is_left_out() {
        let read = parse("a.b=kill@3;c=sleep:250;d=stop;e=jump;f;g=drag:9@2");
        assert_eq!(read.len(), 4);
        assert_eq!(read["a.b"], Armed { action: Action::Kill, at_hit: 3 });
        assert_eq!(read["c"], Armed { action: Action::Sleep(Duration::from_millis(250)), at_hit: 1 });
        assert_eq!(read["d"], Armed { action: Action::Stop, at_hit: 1 });
        assert_eq!(read["g"], Armed { action: Action::Drag(Duration::from_millis(9)), at_hit: 2 });
    }
}
