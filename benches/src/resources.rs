//! Resources of the Synthea bundles, which lie beside the repository.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, bail};
use fhirehose_tape::{Tape, Value};
use flate2::read::MultiGzDecoder;

/// Where the bundles are, from the repository's root.
pub const BUNDLES: &str = "../shared/data/synthea";
/// Resources of a type that are taken: contestants a thousand times slower must make whole passes, too.
pub const TAKEN: usize = 400;

/// Resources by type, as JSON texts in the order of the bundles.
pub struct Resources(BTreeMap<String, Vec<String>>);

impl Resources {
    /// Reads all bundles.
    pub fn load(root: &Path) -> Result<Resources> {
        let folder = root.join(BUNDLES);
        let missing =
            || format!("{}: views and expressions are measured over these bundles", folder.display());
        let entries = std::fs::read_dir(&folder).with_context(missing)?;
        let mut files = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
        files.retain(|file| file.extension().is_some_and(|extension| extension == "gz"));
        files.sort();
        if files.is_empty() {
            bail!("{}", missing());
        }
        let (mut found, mut tape, mut text) = (BTreeMap::<_, Vec<_>>::new(), Tape::new(), Vec::new());
        for file in files {
            let name = || file.display().to_string();
            text.clear();
            let mut bundle = MultiGzDecoder::new(File::open(&file).with_context(name)?);
            bundle.read_to_end(&mut text).with_context(name)?;
            tape.parse_json(&text).with_context(name)?;
            let entries = tape.root().get("entry").into_iter().flat_map(Value::elements);
            for resource in entries.filter_map(|entry| entry.get("resource")) {
                let of = resource.get("resourceType").and_then(Value::as_str).unwrap_or_default();
                let mut json = Vec::new();
                resource.write_json(&mut json);
                found.entry(of.to_owned()).or_default().push(String::from_utf8(json)?);
            }
        }
        Ok(Resources(found))
    }

    /// Resources of a type, evenly from all there are.
    pub fn of(&self, of: &str) -> Result<Vec<String>> {
        let all = self.0.get(of).with_context(|| format!("no {of} in {BUNDLES}"))?;
        Ok(evenly(all, TAKEN).cloned().collect())
    }
}

fn evenly<T>(all: &[T], count: usize) -> impl Iterator<Item = &T> {
    let count = count.min(all.len());
    (0..count).filter_map(move |n| all.get(n * all.len() / count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_are_taken_from_everywhere_and_none_twice() {
        let all: Vec<u32> = (0..10).collect();
        assert_eq!(evenly(&all, 5).copied().collect::<Vec<_>>(), [0, 2, 4, 6, 8]);
        assert_eq!(evenly(&all, 50).copied().collect::<Vec<_>>(), all);
        assert_eq!(evenly::<u32>(&[], 5).count(), 0);
    }

    #[test]
    fn what_is_missing_is_told_with_what_it_is_for() {
        let error = Resources::load(Path::new("/nowhere")).err().unwrap().to_string();
        assert_eq!(
            error,
            "/nowhere/../shared/data/synthea: views and expressions are measured over these bundles"
        );
    }
}
