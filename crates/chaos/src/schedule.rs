//! What a seed means: which flow, which fault, when and how. Pure, so that the same seed always means the same.

use anyhow::{Result, bail};
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::flow::Target;
use crate::matrix::{FAULTS, Fault, Moment};

/// A flow as the schedule sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subject {
    pub flow: &'static str,
    pub target: Target,
}

/// A square of the matrix.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cell {
    pub subject: Subject,
    pub fault: &'static Fault,
    /// The fault point or the network leg, for faults that have several; else empty.
    pub variant: &'static str,
}

/// Narrows the matrix down.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// A fault, or one variant of it as `kill-at:transact.sent`.
    pub fault: Option<String>,
    pub flow: Option<String>,
    pub moment: Option<Moment>,
}

/// One run, in full. Numbers a fault has no use for are drawn all the same, so that one seed gives every fault
/// the same ones.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    pub seed: u64,
    pub cell: Cell,
    pub moment: Moment,
    /// From the begin of the load to the moment.
    pub after_ms: u64,
    /// From the begin of the rebalance or the commit to the blow.
    pub into_ms: u64,
    pub lasts_ms: u64,
    /// Which of the two instances is struck: the one that has more to do, or the other.
    pub idler: bool,
    /// Which of the three brokers is struck.
    pub broker: usize,
    /// The how-manieth passing of a fault point is struck.
    pub hit: u64,
    /// Share of requests struck, for faults that strike some.
    pub share: f64,
    /// Share of the input that must be rejected.
    pub poison: f64,
}

/// All squares that make sense, in the order of the table.
pub fn cells(subjects: &[Subject], filter: &Filter) -> Result<Vec<Cell>> {
    let all = FAULTS.iter().flat_map(|fault| {
        subjects.iter().flat_map(move |subject| {
            let variants = fault.variants(*subject);
            variants.into_iter().map(move |variant| Cell { subject: *subject, fault, variant })
        })
    });
    let of_fault =
        |cell: &Cell| match filter.fault.as_deref().map(|name| name.split_once(':').unwrap_or((name, ""))) {
            Some((name, variant)) => {
                name == cell.fault.name && (variant.is_empty() || variant == cell.variant)
            }
            // What takes minutes is run when asked for, and in its own time in long profiles.
            None => true,
        };
    let of_flow = |cell: &Cell| filter.flow.as_deref().is_none_or(|flow| flow == cell.subject.flow);
    let of_moment = |cell: &Cell| filter.moment.is_none_or(|moment| cell.fault.at.contains(&moment));
    let cells: Vec<_> = all.filter(|cell| of_fault(cell) && of_flow(cell) && of_moment(cell)).collect();
    if cells.is_empty() {
        bail!("nothing in the matrix is meant by this; --list shows what there is");
    }
    Ok(cells)
}

/// The run of a seed: rising seeds walk through all squares, in another order every time round.
pub fn plan(seed: u64, cells: &[Cell], filter: &Filter) -> Plan {
    let count = cells.len() as u64;
    let round = seed / count;
    let mut order: Vec<usize> = (0..cells.len()).collect();
    order.shuffle(&mut ChaCha8Rng::seed_from_u64(round));
    let cell = cells[order[(seed % count) as usize]];
    draw(seed, cell, filter.moment)
}

fn draw(seed: u64, cell: Cell, moment: Option<Moment>) -> Plan {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let drawn = cell.fault.at[random.random_range(0..cell.fault.at.len())];
    let (shortest, longest) = cell.fault.lasts_ms;
    let poison: &[f64] = if cell.fault.clean { &[0.0] } else { &[0.0, 0.001, 0.01] };
    Plan {
        seed,
        cell,
        moment: moment.unwrap_or(drawn),
        after_ms: random.random_range(2_500..6_000),
        into_ms: random.random_range(0..1_500),
        lasts_ms: random.random_range(shortest..=longest),
        idler: random.random_bool(0.2),
        broker: random.random_range(0..3),
        hit: random.random_range(1..=12),
        share: random.random_range(0.2..0.9),
        poison: poison[random.random_range(0..poison.len())],
    }
}

/// Days of the week, and so slices of the quick profile.
pub const SLICES: u64 = 7;

/// The runs of one slice: every fault meets every kind of target in one of the seven. Which of the target's
/// flows, which variant and which moment it is, turns with the fault's place in the table.
pub fn quick(cells: &[Cell], slice: u64) -> Vec<Plan> {
    let mut pairs: Vec<(&str, Target, Vec<Cell>)> = Vec::new();
    for cell in cells.iter().filter(|cell| !cell.fault.slow) {
        let pair = pairs
            .iter_mut()
            .find(|(fault, target, _)| *fault == cell.fault.name && *target == cell.subject.target);
        match pair {
            Some((_, _, alike)) => alike.push(*cell),
            None => pairs.push((cell.fault.name, cell.subject.target, vec![*cell])),
        }
    }
    (0_u64..)
        .zip(pairs)
        .filter(|(number, _)| number % SLICES == slice)
        .map(|(number, (.., alike))| draw(number, alike[number as usize % alike.len()], None))
        .collect()
}

impl Cell {
    /// As in `--only`.
    pub fn fault_name(&self) -> String {
        match self.variant {
            "" => self.fault.name.to_owned(),
            variant => format!("{}:{variant}", self.fault.name),
        }
    }
}

impl Plan {
    /// The arguments that make this very run again.
    pub fn again(&self) -> String {
        format!(
            "--runs 1 --seed {} --only {} --processor {} --moment {}",
            self.seed,
            self.cell.fault_name(),
            self.cell.subject.flow,
            self.moment
        )
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const SUBJECTS: &[Subject] = &[
        Subject { flow: "normalize-cdc", target: Target::Kafka },
        Subject { flow: "enrich", target: Target::Kafka },
        Subject { flow: "sink-timescale", target: Target::Postgres },
        Subject { flow: "sink-search", target: Target::Search },
        Subject { flow: "sink-redis", target: Target::Redis },
    ];

    fn all() -> Vec<Cell> {
        cells(SUBJECTS, &Filter::default()).unwrap()
    }

    #[test]
    fn the_same_seed_makes_the_same_run() {
        let (cells, filter) = (all(), Filter::default());
        for seed in 0..200 {
            assert_eq!(plan(seed, &cells, &filter), plan(seed, &cells, &filter));
        }
    }

    #[test]
    fn the_arguments_told_after_a_failure_make_the_same_run() {
        let cells_of_all = all();
        for seed in 0..200 {
            let first = plan(seed, &cells_of_all, &Filter::default());
            let filter = Filter {
                fault: Some(first.cell.fault_name()),
                flow: Some(first.cell.subject.flow.into()),
                moment: Some(first.moment),
            };
            assert_eq!(plan(seed, &cells(SUBJECTS, &filter).unwrap(), &filter), first);
        }
    }

    #[test]
    fn rising_seeds_meet_every_square_once_a_round() {
        let cells = all();
        let walked: BTreeSet<String> = (0..cells.len() as u64)
            .map(|seed| plan(seed, &cells, &Filter::default()).cell)
            .map(|cell| format!("{} {}", cell.fault_name(), cell.subject.flow))
            .collect();
        assert_eq!(walked.len(), cells.len());
    }

    #[test]
    fn a_week_of_quick_slices_brings_every_fault_to_every_target() {
        let cells = all();
        let wanted: BTreeSet<(&str, Target)> =
            cells.iter().filter(|c| !c.fault.slow).map(|c| (c.fault.name, c.subject.target)).collect();
        let slices: Vec<Vec<Plan>> = (0..SLICES).map(|slice| quick(&cells, slice)).collect();
        let met: BTreeSet<_> =
            slices.iter().flatten().map(|p| (p.cell.fault.name, p.cell.subject.target)).collect();
        assert_eq!(met, wanted);
        let (least, most) = (slices.iter().map(Vec::len).min(), slices.iter().map(Vec::len).max());
        assert!(most.unwrap() - least.unwrap() <= 1, "{least:?} to {most:?}");
    }

    #[test]
    fn what_is_nowhere_in_the_matrix_is_refused() {
        let filter = Filter { fault: Some("nonsense".into()), ..Filter::default() };
        assert!(cells(SUBJECTS, &filter).is_err());
    }
}
