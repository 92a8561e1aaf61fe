//! What a fault is: where it makes sense, when it falls, and what is expected after it. All there are: `matrix.rs`.

use std::fmt;

use anyhow::Result;
use clap::ValueEnum;

use crate::faults::Field;
use crate::flow::{Flow, Target};
use crate::points::points;
use crate::product::Fleet;
use crate::schedule::Subject;
use crate::world::World;

/// When the blow falls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Moment {
    /// Before the load begins.
    Idle,
    Load,
    /// While a third instance joins, under load.
    Rebalance,
    /// While an instance stands still in the middle of a commit, under load.
    Commit,
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Moment::Idle => "idle",
            Moment::Load => "load",
            Moment::Rebalance => "rebalance",
            Moment::Commit => "commit",
        })
    }
}

/// Which flows a fault makes sense for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum On {
    All,
    Targets(&'static [Target]),
    Flows(&'static [&'static str]),
    /// Every fault point that a flow passes.
    Points,
    /// Every network leg of a flow.
    Legs,
}

/// What is done to topics and stores while no process runs.
pub type AtRest = fn(&World, &dyn Flow, &Fleet) -> Result<()>;

#[derive(Debug)]
pub struct Fault {
    pub name: &'static str,
    pub what: &'static str,
    pub expects: &'static str,
    pub on: On,
    pub at: &'static [Moment],
    /// From the blow to healing, at least and at most, where it takes time.
    pub lasts_ms: (u64, u64),
    /// Within how many seconds of healing every partition must move again. 30, or the reason is beside it.
    pub moves_within_s: u64,
    /// Takes minutes: not in the quick profile.
    pub slow: bool,
    /// With good records alone: one of the largest makes the buffers of a process grow, and they stay.
    pub clean: bool,
    /// Somebody goes on who has been taken for dead.
    pub zombie: bool,
    /// A first load is done and judged, and all processes have stopped; then this happens, and the run begins with
    /// the group where it is.
    pub between: Option<AtRest>,
    pub strike: fn(&mut Field<'_>) -> Result<()>,
    /// Undoes after the account what healing cannot, so that the next run finds the stack as ever.
    pub undo: AtRest,
}

impl PartialEq for Fault {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Fault {
    /// The ways a flow can meet this fault; none where it makes no sense.
    pub fn variants(&self, subject: Subject) -> Vec<&'static str> {
        let plain = |applies: bool| if applies { vec![""] } else { Vec::new() };
        match self.on {
            On::All => plain(true),
            On::Targets(targets) => plain(targets.contains(&subject.target)),
            On::Flows(flows) => plain(flows.contains(&subject.flow)),
            On::Points => points(subject),
            On::Legs => match subject.target {
                Target::Kafka => vec!["kafka"],
                Target::Postgres => vec!["kafka", "postgres"],
                Target::Search => vec!["kafka", "search"],
                Target::Redis => vec!["kafka", "redis"],
            },
        }
    }
}
