use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::bufread::MultiGzDecoder;

use super::split::Splitter;
use crate::resources::STANDARD_INPUT;

/// Bytes of the input that were read, and of how many; the latter is not known of standard input.
#[derive(Default)]
pub struct Progress {
    pub read: AtomicU64,
    pub of: Option<u64>,
}

impl Progress {
    /// Of files, all of which must be there.
    pub fn of(paths: &[impl AsRef<Path>]) -> io::Result<Self> {
        let mut of = Some(0);
        for path in paths.iter().map(AsRef::as_ref) {
            if is_standard_input(path) {
                of = None;
                continue;
            }
            let found = path.metadata().and_then(|found| match found.is_dir() {
                true => Err(io::Error::from(io::ErrorKind::IsADirectory)),
                false => Ok(found.len()),
            });
            let length = found
                .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
            of = of.map(|of| of + length);
        }
        Ok(Progress { read: AtomicU64::new(0), of })
    }
}

fn is_standard_input(path: &Path) -> bool {
    path.to_str() == Some(STANDARD_INPUT)
}

/// The documents of a file, Bundles cut into entries unless they are taken whole. Gzip is told by its first bytes,
/// NDJSON by the name or the first line.
pub fn documents<'p>(
    path: &Path,
    whole: bool,
    progress: &'p Progress,
) -> io::Result<Splitter<Box<dyn Read + 'p>>> {
    let source: Box<dyn Read> =
        if is_standard_input(path) { Box::new(io::stdin()) } else { Box::new(File::open(path)?) };
    let mut source = BufReader::with_capacity(1 << 16, Counted { source, progress });
    let is_gzip = source.fill_buf()?.starts_with(&[0x1f, 0x8b]);
    let read: Box<dyn Read + 'p> =
        if is_gzip { Box::new(MultiGzDecoder::new(source)) } else { Box::new(source) };
    let name = path.to_string_lossy();
    let name = name.strip_suffix(".gz").unwrap_or(&name);
    let is_ndjson = name.ends_with(".ndjson") || name.ends_with(".jsonl");
    Ok(Splitter::new(read, is_ndjson, whole))
}

/// A reader that tells how far it is.
struct Counted<'p> {
    source: Box<dyn Read>,
    progress: &'p Progress,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        self.progress.read.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}
