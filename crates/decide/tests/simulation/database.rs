//! A store: rows and offsets in one transaction, fenced by an epoch as PostgreSQL does it, or rows that may be
//! written again.

use std::collections::BTreeMap;

use crate::kafka::{Part, Record};

/// An advance of one partition: the epoch, the offset before, the offset after.
pub type Advance = (Part, u64, i64, i64);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// Somebody else's transaction holds the offset.
    Locked,
    /// Somebody else owns the partition.
    Fenced,
}

/// What will become of an open transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Its owner says.
    Open,
    /// Its owner is gone.
    Orphan,
    /// Its owner has asked for a commit, and is gone.
    CommitUnderWay,
}

#[derive(Clone, Debug)]
struct Staged {
    session: u64,
    rows: Vec<Record>,
    advance: Vec<Advance>,
    fate: Fate,
}

#[derive(Clone, Debug)]
pub struct Database {
    rows: BTreeMap<Record, u32>,
    offsets: Vec<Option<(u64, Option<i64>)>>,
    staged: Vec<Staged>,
    last_session: u64,
    /// Whether an advance is checked.
    pub fencing: bool,
}

impl Database {
    pub fn new(partitions: usize) -> Self {
        Database {
            rows: BTreeMap::new(),
            offsets: vec![None; partitions],
            staged: Vec::new(),
            last_session: 0,
            fencing: true,
        }
    }

    pub fn connect(&mut self) -> u64 {
        self.last_session += 1;
        self.last_session
    }

    fn locked(&self, part: Part, session: u64) -> bool {
        let holds =
            |staged: &Staged| staged.session != session && staged.advance.iter().any(|(of, ..)| *of == part);
        self.staged.iter().any(holds)
    }

    /// Bumps the epochs; waits for open transactions, which is an error here.
    pub fn claim(&mut self, session: u64, parts: &[Part]) -> Result<Vec<(u64, Option<i64>)>, Denied> {
        if parts.iter().any(|part| self.locked(*part, session)) {
            return Err(Denied::Locked);
        }
        let claim = |part: &Part| {
            let (epoch, next) = self.offsets[*part].unwrap_or((0, None));
            *self.offsets[*part].insert((epoch + 1, next))
        };
        Ok(parts.iter().map(claim).collect())
    }

    pub fn start(&mut self, part: Part, epoch: u64, offset: i64) -> Result<(), Denied> {
        if self.offsets[part] != Some((epoch, None)) {
            return Err(Denied::Fenced);
        }
        self.offsets[part] = Some((epoch, Some(offset)));
        Ok(())
    }

    pub fn stage(&mut self, session: u64, rows: Vec<Record>, advance: Vec<Advance>) -> Result<(), Denied> {
        for (part, epoch, before, _) in &advance {
            if self.locked(*part, session) {
                return Err(Denied::Locked);
            }
            if self.fencing && self.offsets[*part] != Some((*epoch, Some(*before))) {
                return Err(Denied::Fenced);
            }
        }
        self.staged.push(Staged { session, rows, advance, fate: Fate::Open });
        Ok(())
    }

    pub fn commit(&mut self, session: u64) {
        while let Some(index) = self.staged.iter().position(|staged| staged.session == session) {
            self.settle(index, true);
        }
    }

    pub fn rollback(&mut self, session: u64) {
        self.staged.retain(|staged| staged.session != session);
    }

    /// The owner is gone, having asked for a commit or not.
    pub fn abandon(&mut self, session: u64, commit: bool) {
        let fate = if commit { Fate::CommitUnderWay } else { Fate::Orphan };
        let of = self.staged.iter_mut().filter(|staged| staged.session == session);
        of.for_each(|staged| staged.fate = fate);
    }

    /// Numbers of transactions whose owners are gone.
    pub fn abandoned(&self) -> impl Iterator<Item = usize> {
        (0..self.staged.len()).filter(|index| self.staged[*index].fate != Fate::Open)
    }

    pub fn settle_abandoned(&mut self, index: usize) {
        self.settle(index, self.staged[index].fate == Fate::CommitUnderWay);
    }

    fn settle(&mut self, index: usize, commit: bool) {
        let staged = self.staged.remove(index);
        if !commit {
            return;
        }
        for row in staged.rows {
            *self.rows.entry(row).or_default() += 1;
        }
        for (part, _, _, next) in staged.advance {
            if let Some((_, offset)) = &mut self.offsets[part] {
                *offset = Some(next);
            }
        }
    }

    /// Writes rows that may be there already.
    pub fn put(&mut self, rows: &[Record]) {
        self.rows.extend(rows.iter().map(|row| (*row, 1)));
    }

    pub fn count(&self, row: &Record) -> u32 {
        self.rows.get(row).copied().unwrap_or(0)
    }

    pub fn next(&self, part: Part) -> Option<i64> {
        self.offsets[part]?.1
    }
}
