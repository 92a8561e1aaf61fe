//! Versions of a dimension and the facts that point at them: what the documented rules say of a member's changes,
//! and what must hold of the rows at any moment.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{Breaches, Invariant};

/// Where the calendar begins: 1900-01-01, in milliseconds since the epoch.
pub const CALENDAR: i64 = -2_208_988_800_000;

/// One change of a member, as it was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    pub source_ts: i64,
    pub version: i64,
    /// Of the tracked values; `None` is a delete.
    pub print: Option<u64>,
}

/// A row of the dimension.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    pub member: String,
    pub from: i64,
    pub to: Option<i64>,
    pub current: bool,
    pub deleted: bool,
    pub source_ts: i64,
    pub version: i64,
    /// As of a change; `None` in a row that is only a delete, or inferred.
    pub print: Option<u64>,
}

/// The rows a member's changes make, whatever their order of arrival. Changes that say the same in a row are one
/// version, of the last of them.
pub fn versions(member: &str, changes: &mut [Change]) -> Vec<Version> {
    changes.sort_by_key(|change| change.source_ts);
    let spans: Vec<(i64, Change)> = changes
        .chunk_by(|a, b| a.print == b.print)
        .filter_map(|span| Some((span.first()?.source_ts, *span.last()?)))
        .collect();
    let mut rows: Vec<Version> = Vec::new();
    for (at, (start, last)) in spans.iter().enumerate() {
        let next = spans.get(at + 1);
        if last.print.is_none() && spans.len() > 1 {
            continue;
        }
        rows.push(Version {
            member: member.to_owned(),
            from: if rows.is_empty() { CALENDAR } else { *start },
            to: if last.print.is_none() { Some(*start) } else { next.map(|(start, _)| *start) },
            current: false,
            deleted: last.print.is_none() || next.is_some_and(|(_, next)| next.print.is_none()),
            source_ts: *start,
            version: last.version,
            print: last.print,
        });
    }
    if let Some(newest) = rows.last_mut() {
        newest.current = true;
    }
    rows
}

/// I6: the dimension's rows are those of the changes; other members are inferred, one row each.
pub fn unlike(name: &str, changes: BTreeMap<String, Vec<Change>>, rows: &[Version], found: &mut Breaches) {
    let mut there: BTreeMap<&str, Vec<&Version>> = BTreeMap::new();
    rows.iter().for_each(|row| there.entry(&row.member).or_default().push(row));
    for (member, mut changes) in changes {
        let wanted = versions(&member, &mut changes);
        let mut rows = there.remove(member.as_str()).unwrap_or_default();
        rows.sort_by_key(|row| row.from);
        if !rows.iter().copied().eq(&wanted) {
            found.add(Invariant::I6, &format!("{name}, versions that the changes do not make"), member);
        }
    }
    for (member, rows) in there {
        let [row] = rows[..] else {
            found.add(Invariant::I6, &format!("{name}, versions of a member without changes"), member);
            continue;
        };
        if row.version != -1 || row.print.is_some() || row.deleted {
            found.add(Invariant::I6, &format!("{name}, a row that no change made"), member);
        }
    }
}

/// I7: a member's intervals are disjoint, without gaps but where it was deleted, and the newest alone is current.
pub fn intervals(name: &str, rows: &[Version], found: &mut Breaches) {
    let mut members: BTreeMap<&str, Vec<&Version>> = BTreeMap::new();
    rows.iter().for_each(|row| members.entry(&row.member).or_default().push(row));
    for (member, mut rows) in members {
        rows.sort_by_key(|row| row.from);
        let mut add = |kind: &str| found.add(Invariant::I7, &format!("{name}, {kind}"), member);
        if rows.first().is_some_and(|first| first.from != CALENDAR) {
            add("a first version that begins late");
        }
        for pair in rows.windows(2) {
            match pair[0].to {
                Some(to) if to == pair[1].from || (to < pair[1].from && pair[0].deleted) => {}
                Some(to) if to < pair[1].from => add("a gap between versions"),
                _ => add("versions that overlap"),
            }
        }
        let (last, earlier) =
            rows.split_last().map_or((None, &rows[..]), |(last, earlier)| (Some(last), earlier));
        if last.is_some_and(|last| last.to.is_some() != last.deleted) {
            add("a newest version that ends without a delete");
        }
        if last.is_none_or(|last| !last.current) || earlier.iter().any(|row| row.current) {
            add("not the newest version alone is current");
        }
    }
}

/// A fact's key to a dimension.
#[derive(Clone, Debug)]
pub struct Pointer {
    pub fact: String,
    /// Whom the fact names.
    pub member: Option<String>,
    pub key: i64,
    /// The fact's own time.
    pub at: i64,
}

/// A dimension's keys, as pointers are to be understood.
#[derive(Default)]
pub struct Keys {
    by_key: HashMap<i64, (String, i64)>,
    begins: HashMap<String, BTreeSet<i64>>,
}

impl Keys {
    pub fn add(&mut self, key: i64, member: &str, from: i64) {
        self.by_key.insert(key, (member.to_owned(), from));
        self.begins.entry(member.to_owned()).or_default().insert(from);
    }

    /// I7: every key names the version of the fact's member that holds at the fact's time.
    pub fn check(&self, name: &str, pointers: &[Pointer], found: &mut Breaches) {
        for pointer in pointers {
            let Some(member) = &pointer.member else {
                if pointer.key != 0 {
                    found.add(Invariant::I7, &format!("{name}, a key though nobody is named"), &pointer.fact);
                }
                continue;
            };
            let holds = self.begins.get(member).and_then(|begins| begins.range(..=pointer.at).next_back());
            match self.by_key.get(&pointer.key) {
                None => found.add(Invariant::I7, &format!("{name}, a key of no row"), &pointer.fact),
                Some((of, _)) if of != member => {
                    found.add(Invariant::I7, &format!("{name}, a key of another member"), &pointer.fact);
                }
                Some((_, from)) if holds != Some(from) => {
                    found.add(
                        Invariant::I7,
                        &format!("{name}, a key of a version of another time"),
                        &pointer.fact,
                    );
                }
                Some(_) => {}
            }
        }
    }
}

/// A stay in hospital, as the table has it.
#[derive(Clone, Debug)]
pub struct Stay {
    pub id: String,
    pub patient: Option<String>,
    /// As inpatient, and not cancelled or entered in error.
    pub counts: bool,
    pub died: bool,
    pub from: Option<i64>,
    pub to: Option<i64>,
    pub readmitted: bool,
}

/// I6: a stay that ended alive and was followed by another of the patient within 30 days is marked, no other is.
pub fn readmissions(stays: &[Stay], found: &mut Breaches) {
    const THIRTY_DAYS: i64 = 30 * 86_400_000;
    let mut begins: BTreeMap<&str, Vec<(i64, &str)>> = BTreeMap::new();
    for stay in stays.iter().filter(|stay| stay.counts) {
        if let (Some(patient), Some(from)) = (&stay.patient, stay.from) {
            begins.entry(patient).or_default().push((from, &stay.id));
        }
    }
    for stay in stays {
        let others = stay.patient.as_deref().and_then(|patient| begins.get(patient)).into_iter().flatten();
        let follows = |to: i64| {
            others.clone().any(|(from, id)| *id != stay.id && (to..=to + THIRTY_DAYS).contains(from))
        };
        let wanted = stay.counts && !stay.died && stay.to.is_some_and(follows);
        if wanted != stay.readmitted {
            found.add(Invariant::I6, "fact.encounter_fact, a readmission that is wrong", &stay.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(check: impl FnOnce(&mut Breaches)) -> Vec<String> {
        let mut found = Breaches::default();
        check(&mut found);
        found.into_vec().into_iter().map(|breach| breach.what).collect()
    }

    fn change(source_ts: i64, print: Option<u64>) -> Change {
        Change { source_ts, version: source_ts, print }
    }

    /// A at 1 and 2, B at 5, deleted at 7, B at 9.
    fn rows() -> Vec<Version> {
        let mut changes =
            [change(9, Some(2)), change(5, Some(2)), change(1, Some(1)), change(7, None), change(2, Some(1))];
        versions("m", &mut changes)
    }

    #[test]
    fn changes_make_the_documented_versions() {
        let rows = rows();
        let spans: Vec<_> =
            rows.iter().map(|row| (row.from, row.to, row.version, row.current, row.deleted)).collect();
        assert_eq!(
            spans,
            [(CALENDAR, Some(5), 2, false, false), (5, Some(7), 5, false, true), (9, None, 9, true, false)]
        );
        let gone = versions("m", &mut [change(3, None), change(4, None)]);
        assert_eq!((gone.len(), gone[0].from, gone[0].to, gone[0].deleted), (1, CALENDAR, Some(3), true));
        let recreated = versions("m", &mut [change(3, None), change(4, Some(1))]);
        assert_eq!((recreated.len(), recreated[0].from, recreated[0].to), (1, CALENDAR, None));
        assert_eq!(told(|found| intervals("d", &rows, found)), Vec::<String>::new());
    }

    #[test]
    fn every_wrong_interval_is_found() {
        let with = |change: &dyn Fn(&mut Vec<Version>)| {
            let mut rows = rows();
            change(&mut rows);
            told(|found| intervals("d", &rows, found))
        };
        assert_eq!(with(&|rows| rows[0].from = 0), ["d, a first version that begins late: m"]);
        assert_eq!(with(&|rows| rows[0].to = Some(4)), ["d, a gap between versions: m"]);
        assert_eq!(with(&|rows| rows[0].to = Some(6)), ["d, versions that overlap: m"]);
        assert_eq!(with(&|rows| rows[0].to = None), ["d, versions that overlap: m"]);
        assert_eq!(
            with(&|rows| rows[2].to = Some(11)),
            ["d, a newest version that ends without a delete: m"]
        );
        assert_eq!(with(&|rows| rows[1].current = true), ["d, not the newest version alone is current: m"]);
        assert_eq!(with(&|rows| drop(rows.pop())), ["d, not the newest version alone is current: m"]);
    }

    #[test]
    fn rows_that_changes_do_not_make_are_found() {
        let changes = || BTreeMap::from([("m".to_owned(), vec![change(1, Some(1)), change(5, Some(2))])]);
        let right = versions("m", &mut changes().remove("m").unwrap());
        let inferred = Version {
            member: "i".into(),
            version: -1,
            print: None,
            current: true,
            to: None,
            ..right[0].clone()
        };
        let with = |rows: Vec<Version>| told(|found| unlike("d", changes(), &rows, found));
        assert_eq!(with([right.clone(), vec![inferred.clone()]].concat()), Vec::<String>::new());
        assert_eq!(with(vec![right[0].clone()]), ["d, versions that the changes do not make: m"], "lost");
        let stale = vec![Version { version: 0, ..right[0].clone() }, right[1].clone()];
        assert_eq!(with(stale), ["d, versions that the changes do not make: m"], "stale");
        let invented = vec![Version { version: 4, ..inferred.clone() }];
        assert_eq!(with([right.clone(), invented].concat()), ["d, a row that no change made: i"]);
        let twice = vec![inferred.clone(), inferred];
        assert_eq!(with([right, twice].concat()), ["d, versions of a member without changes: i"]);
    }

    #[test]
    fn pointers_at_other_members_and_times_are_found() {
        let mut keys = Keys::default();
        [(1, "m", CALENDAR), (2, "m", 5), (3, "n", CALENDAR)]
            .into_iter()
            .for_each(|(k, m, f)| keys.add(k, m, f));
        let with = |member: Option<&str>, key: i64, at: i64| {
            let pointer = Pointer { fact: "f".into(), member: member.map(str::to_owned), key, at };
            told(|found| keys.check("t", &[pointer], found))
        };
        assert_eq!(with(Some("m"), 1, 4), Vec::<String>::new());
        assert_eq!(with(Some("m"), 2, 5), Vec::<String>::new());
        assert_eq!(with(None, 0, 5), Vec::<String>::new());
        assert_eq!(with(Some("m"), 1, 5), ["t, a key of a version of another time: f"]);
        assert_eq!(with(Some("m"), 2, 4), ["t, a key of a version of another time: f"]);
        assert_eq!(with(Some("m"), 3, 4), ["t, a key of another member: f"]);
        assert_eq!(with(Some("m"), 9, 4), ["t, a key of no row: f"]);
        assert_eq!(with(None, 1, 4), ["t, a key though nobody is named: f"]);
    }

    #[test]
    fn a_wrong_readmission_is_found() {
        let day = 86_400_000;
        let stay = |id: &str, from: i64, to: i64, readmitted: bool| Stay {
            id: id.into(),
            patient: Some("p".into()),
            counts: true,
            died: false,
            from: Some(from * day),
            to: Some(to * day),
            readmitted,
        };
        let right = vec![stay("a", 0, 2, true), stay("b", 20, 25, false), stay("c", 90, 91, false)];
        assert_eq!(told(|found| readmissions(&right, found)), Vec::<String>::new());
        let wrong = vec![stay("a", 0, 2, false), right[1].clone(), right[2].clone()];
        assert_eq!(
            told(|found| readmissions(&wrong, found)),
            ["fact.encounter_fact, a readmission that is wrong: a"]
        );
    }
}
