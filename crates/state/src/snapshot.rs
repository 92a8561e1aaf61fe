use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::Path;

use fhirehose_stream::TopicPartition;

use crate::{ReferenceStore, reference::Target};

const MAGIC: &[u8; 8] = b"fhref\x00\x00\x01";

/// Why a snapshot cannot be used. None is serious: the topics hold everything, the store is read from them.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    #[error("snapshot: {0}")]
    Io(#[from] io::Error),
    #[error("snapshot was cut off or is not of this version")]
    Damaged,
    #[error("snapshot holds other values than are declared now")]
    OtherDeclaration,
    #[error("snapshot is {age_seconds} s old, the topics keep deletes for {max_seconds} s")]
    TooOld { age_seconds: i64, max_seconds: i64 },
}

/// Writes the store and the next offsets of its tables, then renames: a crash leaves the old snapshot.
/// `declaration` names the snapshot values held, `now_seconds` is the time since the epoch.
pub fn save(
    path: &Path,
    store: &ReferenceStore,
    next_offsets: &[(TopicPartition, i64)],
    declaration: &str,
    now_seconds: i64,
) -> Result<(), SnapshotError> {
    // Processes that share the folder must not write into one another's file; either's snapshot serves both.
    let part = path.with_extension(format!("part-{}", std::process::id()));
    let mut out = BufWriter::new(File::create(&part)?);
    out.write_all(MAGIC)?;
    put_str(&mut out, declaration)?;
    put_i64(&mut out, now_seconds)?;
    put_i64(&mut out, next_offsets.len() as i64)?;
    for (at, offset) in next_offsets {
        put_str(&mut out, &at.topic)?;
        put_i64(&mut out, at.partition.into())?;
        put_i64(&mut out, *offset)?;
    }
    put_i64(&mut out, store.len() as i64)?;
    for (name, target) in store.iter() {
        put_str(&mut out, name)?;
        put_i64(&mut out, target.offset)?;
        out.write_all(&[target.active.into()])?;
        put_str(&mut out, target.joined())?;
    }
    fhirehose_faultpoint::point("snapshot.half");
    out.write_all(MAGIC)?;
    out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    Ok(fs::rename(part, path)?)
}

/// Reads a snapshot, unless it is damaged, of another declaration, or older than `max_seconds`: a compacted
/// topic forgets a delete after its `delete.retention.ms`, and the store would then keep what is gone.
pub fn load(
    path: &Path,
    declaration: &str,
    now_seconds: i64,
    max_seconds: i64,
) -> Result<(ReferenceStore, Vec<(TopicPartition, i64)>), SnapshotError> {
    let mut input = BufReader::new(File::open(path)?);
    magic(&mut input)?;
    if get_str(&mut input)? != declaration {
        return Err(SnapshotError::OtherDeclaration);
    }
    let age_seconds = now_seconds - get_i64(&mut input)?;
    if !(0..=max_seconds).contains(&age_seconds) {
        return Err(SnapshotError::TooOld { age_seconds, max_seconds });
    }
    let mut next_offsets = Vec::new();
    for _ in 0..get_i64(&mut input)? {
        let topic = get_str(&mut input)?.into();
        let partition = i32::try_from(get_i64(&mut input)?).map_err(|_| SnapshotError::Damaged)?;
        next_offsets.push((TopicPartition { topic, partition }, get_i64(&mut input)?));
    }
    let mut store = ReferenceStore::default();
    for _ in 0..get_i64(&mut input)? {
        let name = get_str(&mut input)?;
        let offset = get_i64(&mut input)?;
        let mut active = [0];
        exact(&mut input, &mut active)?;
        store.insert_named(&name, Target::from_joined(offset, active[0] != 0, &get_str(&mut input)?));
    }
    magic(&mut input)?;
    Ok((store, next_offsets))
}

fn put_i64(out: &mut impl Write, value: i64) -> io::Result<()> {
    out.write_all(&value.to_le_bytes())
}

fn put_str(out: &mut impl Write, text: &str) -> io::Result<()> {
    put_i64(out, text.len() as i64)?;
    out.write_all(text.as_bytes())
}

fn exact(input: &mut impl Read, bytes: &mut [u8]) -> Result<(), SnapshotError> {
    input.read_exact(bytes).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => SnapshotError::Damaged,
        _ => error.into(),
    })
}

fn magic(input: &mut impl Read) -> Result<(), SnapshotError> {
    let mut found = [0; 8];
    exact(input, &mut found)?;
    if &found == MAGIC { Ok(()) } else { Err(SnapshotError::Damaged) }
}

fn get_i64(input: &mut impl Read) -> Result<i64, SnapshotError> {
    let mut bytes = [0; 8];
    exact(input, &mut bytes)?;
    Ok(i64::from_le_bytes(bytes))
}

fn get_str(input: &mut impl Read) -> Result<String, SnapshotError> {
    let length = u64::try_from(get_i64(input)?).map_err(|_| SnapshotError::Damaged)?;
    let mut bytes = Vec::new();
    if input.take(length).read_to_end(&mut bytes)? as u64 != length {
        return Err(SnapshotError::Damaged);
    }
    String::from_utf8(bytes).map_err(|_| SnapshotError::Damaged)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TargetKey;

    #[test]
    fn a_snapshot_comes_back_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("references");
        let mut store = ReferenceStore::default();
        for n in 0..100 {
            let key = TargetKey { tenant: "a", resource_type: "Patient", id: &n.to_string() };
            store.put(key, Target::new(n, n % 3 != 0, [Some("name"), None].into_iter()));
        }
        let offsets = vec![(TopicPartition { topic: "fhir.patient".into(), partition: 2 }, 100)];
        save(&path, &store, &offsets, "Patient: name", 1000).unwrap();
        assert_eq!(load(&path, "Patient: name", 1010, 60).unwrap(), (store, offsets));
        assert!(matches!(load(&path, "Patient: mrn", 1010, 60), Err(SnapshotError::OtherDeclaration)));
        assert!(matches!(load(&path, "Patient: name", 2000, 60), Err(SnapshotError::TooOld { .. })));
        assert!(matches!(load(&path, "Patient: name", 900, 60), Err(SnapshotError::TooOld { .. })));
        let whole = fs::read(&path).unwrap();
        for cut in 0..whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            assert!(load(&path, "Patient: name", 1010, 60).is_err(), "cut at {cut}");
        }
    }
}
