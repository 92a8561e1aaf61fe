//! Sinks of the model: what they keep of their store, and how they claim, stage and commit.

use std::collections::BTreeMap;

use fhirehose_decide::Offsets;
use fhirehose_decide::store::{Origin, origin};
use fhirehose_stream::Fault;

use crate::database::{Database, Denied};
use crate::explore::{Kind, Mutant, Setup};
use crate::kafka::{Part, Record};
use crate::producer::Trouble;

#[derive(Clone, Debug, Default)]
pub struct Sink {
    session: u64,
    owned: BTreeMap<Part, (u64, i64)>,
    rows: Vec<Record>,
    advance: BTreeMap<Part, i64>,
}

pub fn trouble() -> Fault {
    Fault::transient("trouble")
}

impl Sink {
    pub fn connect(database: &mut Database) -> Self {
        Sink { session: database.connect(), ..Sink::default() }
    }

    /// The process is gone.
    pub fn die(&self, database: &mut Database) {
        database.abandon(self.session, false);
    }

    pub fn forget(&mut self, parts: &[Part]) {
        self.owned.retain(|part, _| !parts.contains(part));
    }

    /// As a sink with offsets of its own claims, and begins what nobody has read.
    pub fn claim(
        &mut self,
        setup: &Setup,
        database: &mut Database,
        marks: &[(Part, Option<i64>)],
        happens: Trouble,
    ) -> Result<Offsets, Fault> {
        if happens == Trouble::RequestLost {
            return Err(trouble());
        }
        database.rollback(self.session);
        let parts: Vec<_> = marks.iter().map(|(part, _)| *part).collect();
        let claims = database.claim(self.session, &parts).map_err(denied)?;
        if happens != Trouble::No {
            return Err(trouble());
        }
        let mut offsets = Vec::new();
        for ((part, mark), (epoch, next)) in marks.iter().zip(claims) {
            let told = if setup.mutant == Some(Mutant::ClaimIgnored) { next.and(*mark) } else { next };
            let offset = match origin(told, *mark, true) {
                Origin::At(offset) | Origin::Behind { stored: offset, .. } => offset,
                Origin::Fresh => {
                    if next.is_none() {
                        database.start(*part, epoch, 0).map_err(denied)?;
                    }
                    0
                }
                Origin::Emptied(_) => return Err(Fault::fatal("an operator has told where to begin")),
            };
            self.owned.insert(*part, (epoch, next.unwrap_or(0)));
            offsets.push((setup.at[*part].clone(), offset));
        }
        Ok(offsets)
    }

    pub fn rollback(&mut self, database: &mut Database) {
        database.rollback(self.session);
        self.rows.clear();
        self.advance.clear();
    }

    pub fn stage(
        &mut self,
        setup: &Setup,
        database: &mut Database,
        batch: &[Record],
        fenced: bool,
    ) -> Result<(), Fault> {
        self.rollback(database);
        let emitted = |record: &&Record| setup.kind(**record) == Kind::Emit;
        let rows: Vec<_> = batch.iter().filter(emitted).copied().collect();
        if !fenced {
            self.rows = rows;
            return Ok(());
        }
        let mut advance: BTreeMap<Part, (u64, i64, i64)> = BTreeMap::new();
        for (part, offset) in batch {
            let owned = self.owned.get(part).ok_or_else(|| Fault::fenced("not claimed"))?;
            let (_, _, next) = advance.entry(*part).or_insert((owned.0, owned.1, owned.1));
            if *offset < *next {
                return Err(Fault::fenced("it was read"));
            }
            *next = offset + 1;
        }
        self.advance = advance.iter().map(|(part, (_, _, next))| (*part, *next)).collect();
        let advance =
            advance.into_iter().map(|(part, (epoch, before, next))| (part, epoch, before, next)).collect();
        database.stage(self.session, rows, advance).map_err(denied)
    }

    pub fn commit(&mut self, database: &mut Database, happens: Trouble) -> Result<(), Fault> {
        let session = self.session;
        match happens {
            Trouble::No => {
                database.commit(session);
                for (part, next) in std::mem::take(&mut self.advance) {
                    if let Some(owned) = self.owned.get_mut(&part) {
                        owned.1 = next;
                    }
                }
                return Ok(());
            }
            Trouble::RequestLost => database.abandon(session, false),
            Trouble::Late => database.abandon(session, true),
            _ => database.commit(session),
        }
        // The connection is lost.
        self.session = database.connect();
        Err(trouble())
    }

    pub fn put(&mut self, database: &mut Database, happens: Trouble) -> Result<(), Fault> {
        let rows = std::mem::take(&mut self.rows);
        match happens {
            Trouble::No => {
                database.put(&rows);
                return Ok(());
            }
            Trouble::RequestLost => {}
            Trouble::Late => database.put(&rows[..rows.len() / 2]),
            _ => database.put(&rows),
        }
        Err(trouble())
    }
}

fn denied(denied: Denied) -> Fault {
    match denied {
        Denied::Locked => Fault::transient("a row is locked"),
        Denied::Fenced => Fault::fenced("another owner"),
    }
}
