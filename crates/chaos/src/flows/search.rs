//! sink-search: documents of patients, practitioners and conditions; versions in and out of order, deletes that
//! older versions follow, and poison.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result};
use serde_json::Value;

use super::avro::{Schemas, Shape};
use super::search_inputs::{Canaries, Generator, Index, judge};
use super::stores::{Inbox, at_ends, load, locked, now_ms};
use crate::flow::{Flow, Halt, Live, Run, Target};
use crate::ledger::search::{Search, personal};
use crate::ledger::state::Want;
use crate::ledger::topics::{Group, Topics};
use crate::ledger::{Breaches, Invariant, Violation};
use crate::world::World;

const NAME: &str = "sink-search";
const TOPICS: [&str; 3] = ["enriched.patient", "enriched.practitioner", "enriched.condition"];
/// What searches use; it hides deleted documents.
const ALIAS: &str = "clinical_search";

pub struct SearchFlow;

impl Flow for SearchFlow {
    fn name(&self) -> &'static str {
        NAME
    }

    fn target(&self) -> Target {
        Target::Search
    }

    fn inputs(&self) -> Vec<String> {
        TOPICS.map(str::to_owned).to_vec()
    }

    fn open(&self, world: &World, run: &Run) -> Result<Box<dyn Live>> {
        let mut schemas = Schemas::default();
        let mut indices = Vec::new();
        for topic in TOPICS {
            let (id, text) = schemas.add(&world.registry, topic)?;
            indices.push(index(&world.root, topic, Shape::of(id, &text)?)?);
        }
        let indices = Arc::new(indices);
        let judging = indices.clone();
        let judge = Box::new(move |topic: &str, record: &_| judge(topic, record, &judging, &schemas));
        let inbox = Inbox::open(world, run, NAME, &TOPICS, &[], TOPICS.len(), judge)?;
        let canaries = fs::read_to_string(world.root.join("examples/canaries.txt"))?;
        Ok(Box::new(Running {
            partitions: Topics::connect(world)?.partitions(TOPICS[0])?,
            world: world.clone(),
            run: run.clone(),
            indices,
            canaries: Canaries::of(&canaries),
            search: Search::new(&world.search),
            watching: Group::connect(world, NAME)?,
            asking: Group::connect(world, NAME)?,
            inbox,
            unseen: Mutex::new(BTreeSet::new()),
        }))
    }
}

struct Running {
    world: World,
    run: Run,
    partitions: i32,
    indices: Arc<Vec<Index>>,
    canaries: Canaries,
    search: Search,
    watching: Group,
    asking: Group,
    inbox: Inbox,
    /// Documents whose inputs lie before the committed offset and that were not looked at since.
    unseen: Mutex<BTreeSet<(usize, Arc<str>)>>,
}

impl Running {
    /// I4: what lies before the committed offset is in the index. Versions only rise, so a document may be
    /// ahead of it, never behind.
    fn look(&self, found: &mut Breaches) -> Result<()> {
        let committed = self.watching.committed(self.inbox.starts().keys())?;
        let mut unseen = locked(&self.unseen);
        let mut books = locked(&self.inbox.books);
        self.inbox.follow(&mut books, &committed);
        books.fold_to(&committed, |_, entry| {
            if let Want::Put { table, key, .. } = &entry.want {
                unseen.insert((*table, key.clone()));
            }
        });
        for (table, index) in self.indices.iter().enumerate() {
            let keys: Vec<Arc<str>> =
                unseen.iter().filter(|(of, _)| *of == table).map(|(_, key)| key.clone()).collect();
            let documents = self.search.documents(&index.name, keys.iter().map(|key| &**key))?;
            let rows = documents.iter().map(|document| document.row());
            books.behind(table, &index.name, &keys, rows, found);
            personal(&documents, &self.canaries.never, &self.canaries.named, found);
            unseen.retain(|(of, _)| *of != table);
        }
        Ok(())
    }
}

impl Live for Running {
    fn load(&self, stop: &Halt) -> Result<u64> {
        let run = &self.run;
        let canaries = self.canaries.clone();
        let mut inputs =
            Generator::new(run.seed, &run.tag, run.poison, &self.indices, canaries, self.partitions);
        load(&self.world, run, stop, || inputs.next(now_ms()))
    }

    fn watch(&self) -> Vec<Violation> {
        let mut found = Breaches::default();
        // A server that cannot be asked is no breach; what was not looked at is looked at next time.
        drop(self.look(&mut found));
        found.into_vec()
    }

    fn progress(&self) -> Result<BTreeMap<String, i64>> {
        self.asking.progress(self.inbox.starts().keys())
    }

    fn check(&self) -> Result<Vec<Violation>> {
        let mut found = Breaches::default();
        let mut books = locked(&self.inbox.books);
        let ends = self.inbox.finish(&mut books)?;
        at_ends(&self.asking.committed(ends.keys())?, &ends, &mut found);
        books.fold_to(&ends, |_, _| {});
        let mut living = 0;
        for (table, index) in self.indices.iter().enumerate() {
            let documents = self.search.documents(&index.name, books.keys(table).map(|key| &**key))?;
            books.differences(
                table,
                &index.name,
                documents.iter().map(|document| document.row()),
                None,
                &mut found,
            );
            personal(&documents, &self.canaries.never, &self.canaries.named, &mut found);
            let there = self.search.count(&index.name, &self.run.tag)?;
            if there != documents.len() as u64 {
                let counts = format!("{} of {there} documents are known", documents.len());
                found.add(Invariant::I6, "documents that no input made", format!("{}: {counts}", index.name));
            }
            living += documents.iter().filter(|document| document.is_living()).count() as u64;
        }
        let shown = self.search.count(ALIAS, &self.run.tag)?;
        if shown != living {
            found.add(Invariant::I6, "the alias does not show what lives", format!("{shown} of {living}"));
        }
        self.inbox.check_letters(&books, &mut found)?;
        Ok(found.into_vec())
    }
}

/// The index that `schemas/search` declares for a topic.
fn index(root: &Path, topic: &str, shape: Shape) -> Result<Index> {
    for file in fs::read_dir(root.join("schemas/search"))? {
        let path = file?.path();
        if path.extension().is_none_or(|ext| ext != "json") {
            continue;
        }
        let json: Value = serde_json::from_str(&fs::read_to_string(&path)?)?;
        let meta = |name: &str| json["_meta"][name].as_str().unwrap_or_default().to_owned();
        if meta("topic") == topic {
            let columns = json["template"]["mappings"]["properties"].as_object().context("no properties")?;
            let columns = columns.keys().cloned().collect();
            return Ok(Index {
                topic: topic.into(),
                kind: meta("kind"),
                name: meta("index"),
                columns,
                shape,
            });
        }
    }
    anyhow::bail!("no search index is declared for {topic}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::topics::Record;

    /// Each kind of input is judged as it was meant, and the bytes are those of the schemas.
    #[test]
    fn inputs_are_judged_as_meant() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let mut schemas = Schemas::default();
        let mut indices = Vec::new();
        for (id, topic) in (1..).zip(TOPICS) {
            let text = fs::read_to_string(root.join(format!("schemas/avro/{topic}-value.avsc"))).unwrap();
            schemas.know(&id.into(), &text).unwrap();
            indices.push(index(&root, topic, Shape::of(id, &text).unwrap()).unwrap());
        }
        let canaries = Canaries::of(&fs::read_to_string(root.join("examples/canaries.txt")).unwrap());
        assert!(canaries.named.len() > 5 && canaries.never.len() > 5);
        for (poison, bad) in [(0.0, false), (1.0, true)] {
            let mut inputs = Generator::new(5, "t", poison, &indices, canaries.clone(), 6);
            for offset in 0..1_000 {
                let input = inputs.next(1_700_000_000_000);
                let record = Record {
                    offset,
                    key: String::from_utf8(input.key).unwrap(),
                    value: input.value,
                    headers: input
                        .headers
                        .into_iter()
                        .map(|(name, value)| (name.to_owned(), value))
                        .collect(),
                    ..Record::default()
                };
                let want = judge(&input.topic, &record, &indices, &schemas);
                assert_eq!(matches!(want, Want::Reject(_)), bad, "offset {offset}");
                assert!(bad || matches!(want, Want::Put { .. }), "offset {offset}");
            }
        }
    }
}
