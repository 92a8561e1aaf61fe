//! Our engines and their peers on the same cases: what they make is compared first, then all have their turns.

use anyhow::{Context, Result, bail};
use fhirehose_benches::work::{Work, made};
use serde_json::Value as Json;

use super::difference::difference;
use super::peer::{Peer, Turn};
use crate::figure::{Figure, Goal, Spread, Unit};
use crate::machine::thread_cpu;

/// How long it is measured.
#[derive(Clone, Copy)]
pub struct Effort {
    pub rounds: usize,
    /// CPU seconds of a turn, at least.
    pub seconds: f64,
}

/// What all contestants do.
pub struct Case {
    pub name: String,
    pub ours: Box<dyn Work>,
    /// What ours makes.
    pub made: Vec<Json>,
}

/// What came of a case.
pub struct Outcome {
    name: String,
    /// Things made per CPU second, of each round.
    ours: Vec<f64>,
    peers: Vec<(String, Vec<f64>)>,
}

impl Case {
    pub fn new(name: impl Into<String>, mut ours: Box<dyn Work>) -> Result<Case> {
        let (name, made) = (name.into(), made(&mut *ours)?);
        if made.is_empty() {
            bail!("{name}: nothing is made, so there is nothing to measure");
        }
        Ok(Case { name, ours, made })
    }
}

/// One turn of ours.
pub fn turn(work: &mut dyn Work, out: &mut Vec<u8>, seconds: f64) -> Result<Turn> {
    let begun = thread_cpu()?;
    let mut turn = Turn { count: 0.0, cpu: 0.0 };
    // Asking for the time must not take much of it.
    let mut passes = 1;
    while turn.cpu < seconds {
        for _ in 0..passes {
            out.clear();
            turn.count += work.pass(out)? as f64;
        }
        turn.cpu = thread_cpu()? - begun;
        if turn.cpu < seconds / 10.0 {
            passes *= 2;
        }
    }
    Ok(turn)
}

/// Measures, and tells which peer is not counted in which case, and why.
pub fn hold(
    mut cases: Vec<Case>,
    peers: &mut [Box<dyn Peer>],
    effort: Effort,
) -> Result<(Vec<Outcome>, Vec<String>)> {
    let mut told = Vec::new();
    // The peers that count, of each case.
    let mut counted = Vec::new();
    for (number, case) in cases.iter().enumerate() {
        let mut of_case = Vec::new();
        for (at, peer) in peers.iter_mut().enumerate() {
            let why = match peer.made(number) {
                Ok(made) => {
                    difference(&case.made, &made).map(|place| format!("makes something else: {place}"))
                }
                Err(error) => Some(format!("fails: {error}")),
            };
            match why {
                None => of_case.push(at),
                Some(why) => told.push(format!("{} on {}: {why}", peer.name(), case.name)),
            }
        }
        counted.push(of_case);
    }
    let mut outcomes: Vec<Outcome> = cases
        .iter()
        .zip(&counted)
        .map(|(case, counted)| Outcome {
            name: case.name.clone(),
            ours: Vec::new(),
            peers: counted.iter().map(|at| (peers[*at].name().to_owned(), Vec::new())).collect(),
        })
        .collect();
    let mut out = Vec::new();
    // The first round warms all up.
    for round in 0..=effort.rounds {
        for (number, case) in cases.iter_mut().enumerate() {
            let outcome = &mut outcomes[number];
            let mut turns = vec![turn(&mut *case.ours, &mut out, effort.seconds)?];
            for at in &counted[number] {
                let peer = &mut peers[*at];
                let turn = peer.turn(number, effort.seconds);
                turns.push(turn.with_context(|| format!("{} on {}", peer.name(), case.name))?);
            }
            let all = std::iter::once(&mut outcome.ours);
            let all = all.chain(outcome.peers.iter_mut().map(|(_, rates)| rates));
            if round > 0 {
                all.zip(turns).for_each(|(rates, turn)| rates.push(turn.count / turn.cpu));
            }
        }
    }
    Ok((outcomes, told))
}

/// Ours over theirs, round by round.
pub fn ratios(ours: &[f64], theirs: &[f64]) -> Spread {
    Spread::of(&ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect::<Vec<_>>())
}

impl Outcome {
    /// A line for each peer; `goal` is what is wanted against the fastest.
    pub fn figures(&self, things: &str, goal: Goal) -> Vec<Figure> {
        let median = |rates: &[f64]| Spread::of(rates).median;
        let fastest = self.peers.iter().map(|(_, rates)| median(rates)).fold(0.0, f64::max);
        let figure = |(name, rates): &(String, Vec<f64>)| Figure {
            what: format!("{} / {name}", self.name.replace('|', "\\|")),
            measured: format!(
                "{:.0} against {:.0} {things} per core-second",
                median(&self.ours),
                median(rates)
            ),
            value: ratios(&self.ours, rates),
            unit: Unit::Times,
            goal: if median(rates) == fastest { goal } else { Goal::None },
        };
        self.peers.iter().map(figure).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Makes so many numbers, each pass.
    struct Numbers(usize);

    impl Work for Numbers {
        fn records(&self) -> usize {
            self.0
        }

        fn pass(&mut self, out: &mut Vec<u8>) -> Result<usize> {
            (0..self.0).for_each(|number| out.extend(format!("{number}\n").bytes()));
            Ok(self.0)
        }
    }

    struct Fixed(&'static str, Result<Vec<Json>, String>, f64);

    impl Peer for Fixed {
        fn name(&self) -> &str {
            self.0
        }

        fn made(&mut self, _: usize) -> Result<Vec<Json>, String> {
            self.1.clone()
        }

        fn turn(&mut self, _: usize, seconds: f64) -> Result<Turn> {
            assert!(self.1.is_ok(), "only those that count have turns");
            Ok(Turn { count: self.2, cpu: seconds })
        }
    }

    #[test]
    fn who_makes_something_else_does_not_count_and_the_goal_is_against_the_fastest() {
        let right = Ok(vec![json!(0), json!(1)]);
        let mut peers: Vec<Box<dyn Peer>> = vec![
            Box::new(Fixed("slow", right.clone(), 1e-6)),
            Box::new(Fixed("fast", right, 2e-6)),
            Box::new(Fixed("broken", Err("TypeError".into()), 9.0)),
        ];
        let cases = vec![Case::new("numbers", Box::new(Numbers(2))).unwrap()];
        let effort = Effort { rounds: 2, seconds: 0.001 };
        let (outcomes, told) = hold(cases, &mut peers, effort).unwrap();
        assert_eq!(told, ["broken on numbers: fails: TypeError"]);
        let figures = outcomes[0].figures("numbers", Goal::AtLeast(10.0));
        let goals: Vec<_> = figures.iter().map(|figure| (&*figure.what, figure.goal)).collect();
        assert_eq!(goals, [("numbers / slow", Goal::None), ("numbers / fast", Goal::AtLeast(10.0))]);
        assert_eq!((outcomes[0].ours.len(), outcomes[0].peers[1].1.len()), (2, 2));
        assert!(figures.iter().all(|figure| figure.value.least > 10.0));

        let mut wrong: Vec<Box<dyn Peer>> = vec![Box::new(Fixed("wrong", Ok(vec![json!(0)]), 1.0))];
        let cases = vec![Case::new("numbers", Box::new(Numbers(2))).unwrap()];
        let (outcomes, told) = hold(cases, &mut wrong, effort).unwrap();
        assert_eq!(told, ["wrong on numbers: makes something else: 1 instead of 2"]);
        assert!(outcomes[0].figures("numbers", Goal::None).is_empty());
        assert!(Case::new("nothing", Box::new(Numbers(0))).is_err());
    }

    #[test]
    fn ratios_are_of_the_same_round() {
        assert_eq!(
            ratios(&[4.0, 9.0, 8.0], &[2.0, 3.0, 8.0]),
            Spread { median: 2.0, least: 1.0, greatest: 3.0 }
        );
    }
}
