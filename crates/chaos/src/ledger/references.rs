//! Compares enriched records with the resources they were made of. When a target is read is up to the processor;
//! what it may copy, how often it may emit and what must stand in the end is not.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::{Breaches, Invariant};

/// `Type/id` of the subject and of the encounter.
pub type References = [Option<String>; 2];

/// One version of a resource.
#[derive(Clone, Debug, Default)]
pub struct Fact {
    /// Partition and offset of the input.
    pub at: (i32, i64),
    /// `None` for a delete.
    pub content: Option<u64>,
    pub references: References,
}

/// The versions of one key, in order.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    pub versions: Vec<Fact>,
    /// Offsets of inputs whose transaction was aborted.
    pub aborted: HashSet<i64>,
}

/// An enriched record.
#[derive(Clone, Debug, Default)]
pub struct Emission {
    /// Partition and offset of the output.
    pub at: (i32, i64),
    pub version: i64,
    pub content: Option<u64>,
    pub copied: [Copied; 2],
}

impl Emission {
    /// Of the input it was made of.
    fn offset(&self) -> i64 {
        (self.version >> 8) & 0xffff_ffff_ffff
    }

    /// How often the input had been emitted before.
    fn sequence(&self) -> i64 {
        self.version & 0xff
    }

    fn resolved(&self) -> usize {
        self.copied.iter().filter(|copied| copied.resolved).count()
    }
}

/// What a record has of one target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    pub resolved: bool,
    pub version: Option<String>,
}

/// The versions every target had, in order.
#[derive(Debug, Default)]
pub struct History(BTreeMap<String, HashMap<String, Written>>);

#[derive(Clone, Copy, Debug)]
struct Written {
    number: usize,
    aborted: bool,
}

impl History {
    pub fn add(&mut self, target: &str, version: &str, aborted: bool) {
        let versions = self.0.entry(target.to_owned()).or_default();
        let number = versions.len();
        versions.insert(version.to_owned(), Written { number, aborted });
    }

    fn of(&self, target: &str, version: &str) -> Option<Written> {
        self.0.get(target)?.get(version).copied()
    }

    fn came(&self, target: &str) -> bool {
        self.0.get(target).is_some_and(|versions| versions.values().any(|written| !written.aborted))
    }
}

/// Everything about one key.
pub fn compare(key: &str, facts: &Facts, emissions: &[Emission], targets: &History, breaches: &mut Breaches) {
    let place = |emission: &Emission| format!("{key} at [{}] {}", emission.at.0, emission.at.1);
    let mut of: BTreeMap<i64, Vec<&Emission>> = BTreeMap::new();
    let known: HashMap<i64, &Fact> = facts.versions.iter().map(|fact| (fact.at.1, fact)).collect();
    for emission in emissions {
        match known.get(&emission.offset()) {
            Some(_) => of.entry(emission.offset()).or_default().push(emission),
            None if facts.aborted.contains(&emission.offset()) => {
                breaches.add(Invariant::I5, "output of an aborted input", place(emission));
            }
            None => breaches.add(Invariant::I2, "output that no input explains", place(emission)),
        }
    }
    for fact in &facts.versions {
        one_version(key, fact, of.get(&fact.at.1).map_or(&[], Vec::as_slice), breaches);
    }
    for pair in emissions.windows(2) {
        if pair[0].version > pair[1].version {
            breaches.add(Invariant::I3, "version that falls", place(&pair[1]));
        }
    }
    copied(key, &known, emissions, targets, breaches);
    let Some(last) = facts.versions.last() else { return };
    let stands = emissions.last().filter(|emission| emission.offset() == last.at.1);
    if stands.is_none_or(|emission| emission.content != last.content) {
        breaches.add(Invariant::I6, "last value is another", key);
    }
    for (reference, copied) in last.references.iter().zip(stands.iter().flat_map(|stands| &stands.copied)) {
        if reference.as_deref().is_some_and(|target| targets.came(target)) && !copied.resolved {
            let what = format!("{key} of input [{}] {}", last.at.0, last.at.1);
            breaches.add(Invariant::I1, "waits for a target that came", what);
        }
    }
}

/// First once for each input, and again only when that adds something.
fn one_version(key: &str, fact: &Fact, emissions: &[&Emission], breaches: &mut Breaches) {
    let place = |emission: &Emission| format!("{key} at [{}] {}", emission.at.0, emission.at.1);
    let mut next = 0;
    for emission in emissions {
        let sequence = emission.sequence();
        if sequence < next {
            breaches.add(Invariant::I2, "output twice", place(emission));
        } else if sequence > next {
            let what = if next == 0 { "output missing" } else { "emission missing" };
            breaches.add(Invariant::I1, what, format!("{} number {next}", place(emission)));
        }
        next = next.max(sequence + 1);
        if emission.content != fact.content {
            breaches.add(Invariant::I6, "output with wrong values", place(emission));
        }
    }
    if emissions.is_empty() {
        let what = format!("{key} of input [{}] {}", fact.at.0, fact.at.1);
        breaches.add(Invariant::I1, "output missing", what);
    }
    for pair in emissions.windows(2) {
        if pair[1].sequence() > pair[0].sequence() && pair[1].resolved() <= pair[0].resolved() {
            breaches.add(Invariant::I2, "emitted again for nothing", place(pair[1]));
        }
    }
}

/// What was copied is what the target was at some time, and later records never have an earlier version of it.
fn copied(
    key: &str,
    facts: &HashMap<i64, &Fact>,
    emissions: &[Emission],
    targets: &History,
    breaches: &mut Breaches,
) {
    let mut furthest: HashMap<&str, usize> = HashMap::new();
    for emission in emissions {
        let Some(fact) = facts.get(&emission.offset()) else { continue };
        let references = fact.references.iter().zip(&emission.copied);
        for (target, copied) in references.filter_map(|(r, copied)| Some((r.as_deref()?, copied))) {
            let place = format!("{key} at [{}] {} of {target}", emission.at.0, emission.at.1);
            let written = copied.version.as_deref().map(|version| targets.of(target, version));
            match (copied.resolved, written) {
                (false, None) if furthest.contains_key(target) => {
                    breaches.add(Invariant::I7, "target that was known is not", place);
                }
                (false, None) => {}
                (true, Some(Some(Written { aborted: true, .. }))) => {
                    breaches.add(Invariant::I5, "copied from an aborted input", place);
                }
                (true, Some(Some(Written { number, .. }))) => {
                    let furthest = furthest.entry(target).or_insert(number);
                    if number < *furthest {
                        breaches.add(Invariant::I7, "copied an earlier version than before", place);
                    }
                    *furthest = number.max(*furthest);
                }
                _ => breaches.add(Invariant::I6, "copied what the target never was", place),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fact(offset: i64) -> Fact {
        let references = [Some("Patient/p1".to_owned()), None];
        Fact { at: (0, offset), content: Some(offset.unsigned_abs()), references }
    }

    fn emission(offset: i64, sequence: i64, version: Option<&str>) -> Emission {
        let subject = Copied { resolved: version.is_some(), version: version.map(str::to_owned) };
        Emission {
            at: (0, 0),
            version: 1 << 56 | offset << 8 | sequence,
            content: Some(offset.unsigned_abs()),
            copied: [subject, Copied::default()],
        }
    }

    fn told(emissions: &[Emission]) -> Vec<(Invariant, String)> {
        let facts = Facts { versions: vec![fact(5), fact(9)], aborted: HashSet::from([7]) };
        let mut targets = History::default();
        for (version, aborted) in [("1", false), ("2", true), ("3", false)] {
            targets.add("Patient/p1", version, aborted);
        }
        let mut breaches = Breaches::default();
        compare("k", &facts, emissions, &targets, &mut breaches);
        let told = |what: &str| what.split(':').next().unwrap().to_owned();
        breaches.into_vec().iter().map(|breach| (breach.invariant, told(&breach.what))).collect()
    }

    fn breach(invariant: Invariant, what: &str) -> (Invariant, String) {
        (invariant, what.to_owned())
    }

    #[test]
    fn emitted_without_its_target_and_again_with_it() {
        assert_eq!(told(&[emission(5, 0, None), emission(5, 1, Some("1")), emission(9, 0, Some("3"))]), []);
        // The first was replaced before its target came.
        assert_eq!(told(&[emission(5, 0, None), emission(9, 0, None), emission(9, 1, Some("1"))]), []);
    }

    #[test]
    fn a_lost_a_doubled_and_a_reordered_output_are_told() {
        let (one, two) = (emission(5, 0, Some("1")), emission(9, 0, Some("3")));
        assert_eq!(told(std::slice::from_ref(&two)), [breach(Invariant::I1, "output missing")]);
        assert_eq!(told(&[one.clone(), one.clone(), two.clone()]), [breach(Invariant::I2, "output twice")]);
        let swapped = told(&[two.clone(), one.clone()]);
        assert!(swapped.contains(&breach(Invariant::I3, "version that falls")), "{swapped:?}");
        assert!(swapped.contains(&breach(Invariant::I6, "last value is another")), "{swapped:?}");
        let again = emission(9, 1, Some("3"));
        assert_eq!(told(&[one, two, again]), [breach(Invariant::I2, "emitted again for nothing")]);
    }

    #[test]
    fn a_forgotten_target_and_a_lost_emission_are_told() {
        let one = emission(5, 0, Some("1"));
        assert_eq!(
            told(&[one.clone(), emission(9, 0, None)]),
            [
                breach(Invariant::I7, "target that was known is not"),
                breach(Invariant::I1, "waits for a target that came")
            ]
        );
        let skipped = [emission(5, 0, None), emission(9, 1, Some("1"))];
        assert_eq!(told(&skipped), [breach(Invariant::I1, "output missing")]);
    }

    #[test]
    fn aborted_inputs_and_targets_are_told() {
        let (one, two) = (emission(5, 0, Some("1")), emission(9, 0, Some("3")));
        assert_eq!(
            told(&[one.clone(), emission(7, 0, Some("1")), two]),
            [breach(Invariant::I5, "output of an aborted input")]
        );
        let copied = told(&[one, emission(9, 0, Some("2"))]);
        assert_eq!(copied, [breach(Invariant::I5, "copied from an aborted input")]);
    }

    #[test]
    fn what_is_copied_never_goes_back() {
        let found = told(&[emission(5, 0, Some("3")), emission(9, 0, Some("1"))]);
        assert_eq!(found, [breach(Invariant::I7, "copied an earlier version than before")]);
        let found = told(&[emission(5, 0, Some("1")), emission(9, 0, Some("77"))]);
        assert_eq!(found, [breach(Invariant::I6, "copied what the target never was")]);
    }
}
