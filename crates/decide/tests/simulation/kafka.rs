//! Kafka as far as exactly-once rests on it: a group with generations and cooperative rebalances, transactions
//! with epochs, offsets inside and outside of them, and requests that arrive late.

use std::collections::BTreeMap;

pub type Part = usize;

/// A record of the input, by partition and offset.
pub type Record = (Part, i64);

/// What an answer is when there is none, or a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    Committed,
    Aborted,
}

#[derive(Clone, Debug)]
struct Transaction {
    state: State,
    /// With their places in the log of offsets.
    offsets: Vec<(Part, i64, u64)>,
}

/// What the transaction coordinator knows of one transactional id.
#[derive(Clone, Debug, Default)]
struct Coordinator {
    epoch: u32,
    ongoing: Option<usize>,
    /// How the last transaction ended, for requests that come twice.
    committed: Option<bool>,
}

/// A member as the group knows it, by id and the generation it was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Membership {
    pub member: u32,
    pub generation: u32,
}

/// Where a request comes from: an incarnation of an instance, which may wait for the answer.
pub type Sender = (usize, u32);

/// A request under way.
#[derive(Clone, Debug)]
pub enum Request {
    End { id: usize, epoch: u32, commit: bool },
    Offsets { from: Sender, membership: Membership, offsets: Vec<(Part, i64)> },
}

#[derive(Clone, Debug)]
pub struct Kafka {
    generation: u32,
    last_member: u32,
    /// Instances of the members.
    members: BTreeMap<u32, usize>,
    owner: Vec<Option<u32>>,
    target: Vec<Option<u32>>,
    /// The group's offsets, with their places in the log of offsets.
    committed: Vec<Option<(i64, u64)>>,
    place: u64,
    coordinators: Vec<Coordinator>,
    transactions: Vec<Transaction>,
    outputs: Vec<(Record, usize)>,
    letters: Vec<(Record, usize)>,
    pub under_way: Vec<Request>,
    /// Whether transactions and offset commits are checked against the group.
    pub fencing: bool,
}

impl Kafka {
    pub fn new(partitions: usize, instances: usize) -> Self {
        Kafka {
            generation: 0,
            last_member: 0,
            members: BTreeMap::new(),
            owner: vec![None; partitions],
            target: vec![None; partitions],
            committed: vec![None; partitions],
            place: 0,
            coordinators: vec![Coordinator::default(); instances],
            transactions: Vec::new(),
            outputs: Vec::new(),
            letters: Vec::new(),
            under_way: Vec::new(),
            fencing: true,
        }
    }

    // The group.

    pub fn join(&mut self, instance: usize) -> u32 {
        self.last_member += 1;
        self.members.insert(self.last_member, instance);
        self.rebalance();
        self.last_member
    }

    /// A member has left, or its session has timed out.
    pub fn remove(&mut self, member: u32) {
        if self.members.remove(&member).is_some() {
            self.owner.iter_mut().filter(|owner| **owner == Some(member)).for_each(|owner| *owner = None);
            self.rebalance();
        }
    }

    fn is_member(&self, member: u32) -> bool {
        self.members.contains_key(&member)
    }

    /// An instance that died leaves members behind.
    pub fn oldest_member(&self, instance: usize) -> Option<u32> {
        self.members.iter().find(|(_, of)| **of == instance).map(|(member, _)| *member)
    }

    /// Spreads the partitions anew; which member begins changes, so that they move.
    fn rebalance(&mut self) {
        self.generation += 1;
        let members: Vec<u32> = self.members.keys().copied().collect();
        for (part, target) in self.target.iter_mut().enumerate() {
            let turn = part + self.generation as usize;
            *target = if members.is_empty() { None } else { Some(members[turn % members.len()]) };
        }
    }

    /// What a member would learn now: its generation, partitions it is to give up, and those it is given. `None`
    /// when it is no member any more.
    pub fn news(&self, member: u32) -> Option<(u32, Vec<Part>, Vec<Part>)> {
        let of = |wanted: fn(bool, bool, bool) -> bool| {
            let owned = |part: &Part| (self.owner[*part] == Some(member), self.owner[*part].is_none());
            let mine = |part: &Part| self.target[*part] == Some(member);
            let wanted = move |part: &Part| wanted(owned(part).0, owned(part).1, mine(part));
            (0..self.owner.len()).filter(wanted).collect::<Vec<_>>()
        };
        let revoked = of(|owned, _, mine| owned && !mine);
        let assigned = of(|_, free, mine| free && mine);
        self.is_member(member).then_some((self.generation, revoked, assigned))
    }

    /// A member's background thread asks; what it is given is its own from then on.
    pub fn heartbeat(&mut self, member: u32) -> Option<(u32, Vec<Part>, Vec<Part>)> {
        let news = self.news(member)?;
        news.2.iter().for_each(|part| self.owner[*part] = Some(member));
        Some(news)
    }

    /// A member has given partitions up; whoever gets them does so in a new generation.
    pub fn give_up(&mut self, member: u32, parts: &[Part]) {
        for part in parts {
            if self.owner[*part] == Some(member) {
                self.owner[*part] = None;
                self.generation += 1;
            }
        }
    }

    fn admits(&self, membership: Membership) -> bool {
        !self.fencing || (self.is_member(membership.member) && membership.generation == self.generation)
    }

    /// The group's stable offset: refused while a transaction that would move it is open.
    pub fn committed(&self, part: Part) -> Result<Option<i64>, Refused> {
        let moves = |transaction: &&Transaction| {
            transaction.state == State::Open && transaction.offsets.iter().any(|(of, ..)| *of == part)
        };
        match self.transactions.iter().find(moves) {
            Some(_) => Err(Refused),
            None => Ok(self.committed[part].map(|(offset, _)| offset)),
        }
    }

    /// Commits offsets outside of a transaction.
    pub fn commit(&mut self, membership: Membership, offsets: &[(Part, i64)]) -> Result<(), Refused> {
        if !self.admits(membership) {
            return Err(Refused);
        }
        for (part, offset) in offsets {
            self.place += 1;
            self.committed[*part] = Some((*offset, self.place));
        }
        Ok(())
    }

    // Transactions.

    /// A new producer takes over, and ends the transaction of the one before.
    pub fn init(&mut self, id: usize) -> u32 {
        self.end_ongoing(id, false);
        self.coordinators[id].epoch += 1;
        self.coordinators[id].committed = None;
        self.coordinators[id].epoch
    }

    pub fn has_ongoing(&self, id: usize) -> bool {
        self.coordinators[id].ongoing.is_some()
    }

    /// The transaction was open for too long.
    pub fn time_out(&mut self, id: usize) {
        if self.end_ongoing(id, false) {
            self.coordinators[id].epoch += 1;
        }
    }

    /// The ongoing transaction, or a new one: a partition or the group was added to it.
    fn ongoing(&mut self, id: usize, epoch: u32) -> Result<usize, Refused> {
        let coordinator = &mut self.coordinators[id];
        if coordinator.epoch != epoch {
            return Err(Refused);
        }
        Ok(*coordinator.ongoing.get_or_insert_with(|| {
            self.transactions.push(Transaction { state: State::Open, offsets: Vec::new() });
            self.transactions.len() - 1
        }))
    }

    pub fn produce(&mut self, id: usize, epoch: u32, record: Record, letter: bool) -> Result<(), Refused> {
        let transaction = self.ongoing(id, epoch)?;
        let log = if letter { &mut self.letters } else { &mut self.outputs };
        log.push((record, transaction));
        Ok(())
    }

    pub fn send_offsets(
        &mut self,
        id: usize,
        epoch: u32,
        membership: Membership,
        offsets: &[(Part, i64)],
    ) -> Result<(), Refused> {
        let transaction = self.ongoing(id, epoch)?;
        if !self.admits(membership) {
            return Err(Refused);
        }
        for (part, offset) in offsets {
            self.place += 1;
            self.transactions[transaction].offsets.push((*part, *offset, self.place));
        }
        Ok(())
    }

    pub fn end(&mut self, id: usize, epoch: u32, commit: bool) -> Result<(), Refused> {
        if self.coordinators[id].epoch != epoch {
            return Err(Refused);
        }
        if self.end_ongoing(id, commit) || self.coordinators[id].committed == Some(commit) {
            return Ok(());
        }
        Err(Refused)
    }

    fn end_ongoing(&mut self, id: usize, commit: bool) -> bool {
        let Some(index) = self.coordinators[id].ongoing.take() else { return false };
        self.coordinators[id].committed = Some(commit);
        let transaction = &mut self.transactions[index];
        transaction.state = if commit { State::Committed } else { State::Aborted };
        for (part, offset, place) in transaction.offsets.iter().filter(|_| commit) {
            // What was appended later stands, whichever took effect later.
            if self.committed[*part].is_none_or(|(_, later)| later < *place) {
                self.committed[*part] = Some((*offset, *place));
            }
        }
        true
    }

    /// A late request arrives. Returns whose offset commit it was, and whether it was taken.
    pub fn deliver(&mut self, index: usize) -> Option<(Sender, bool)> {
        match self.under_way.remove(index) {
            Request::End { id, epoch, commit } => {
                // Nobody waits for this one's answer.
                let _ = self.end(id, epoch, commit);
                None
            }
            Request::Offsets { from, membership, offsets } => {
                Some((from, self.commit(membership, &offsets).is_ok()))
            }
        }
    }

    // What a reader of committed records sees, in order.

    pub fn outputs(&self) -> impl Iterator<Item = Record> {
        self.visible(&self.outputs)
    }

    pub fn letters(&self) -> impl Iterator<Item = Record> {
        self.visible(&self.letters)
    }

    fn visible(&self, log: &[(Record, usize)]) -> impl Iterator<Item = Record> {
        log.iter()
            .filter(|(_, transaction)| self.transactions[*transaction].state == State::Committed)
            .map(|(record, _)| *record)
    }
}
