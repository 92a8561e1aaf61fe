use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::{Context, bail};
use fhirehose_tape::{Tape, Value};
use fhirehose_views::{Scratch, View};

use super::input::{Progress, documents};
use super::table::{Format, Layout, Rows, Sink};
use super::told::Told;
use crate::cli::ViewsRunArgs;
use crate::resources::STANDARD_INPUT;

/// Bytes of documents that a worker gets at a time.
const BATCH: usize = 1 << 18;
/// Batches under way, per worker.
const AHEAD: usize = 4;
const BUNDLE: &str = "Bundle";

/// Documents of one file, in order.
struct Batch<'f> {
    file: &'f Path,
    bytes: Vec<u8>,
    documents: Vec<Span>,
    /// Why the file is not read further, and the line.
    broken: Option<(u64, String)>,
}

/// A document of a batch, which ends where the next begins.
struct Span {
    end: usize,
    line: u64,
    entry: Option<u64>,
}

/// What became of a batch.
pub struct Part {
    pub rows: Rows,
    /// Resources of the view's type that had their rows, if any.
    pub resources: u64,
    /// Resources of other types.
    pub others: u64,
    /// What had no rows, and why.
    pub broken: Vec<String>,
}

type Job<'f> = (Batch<'f>, SyncSender<Part>);

/// Runs a view: a thread reads and cuts, as many as there are cores make rows, this one writes them in order.
pub fn run(view: &View, args: &ViewsRunArgs) -> anyhow::Result<ExitCode> {
    let layout = Layout::of(view, args.format).map_err(anyhow::Error::msg)?;
    let progress = Progress::of(&args.input)?;
    let mut sink = Sink::begin(view, &layout, output(args)?)?;
    let workers = thread::available_parallelism().map_or(1, usize::from);
    let mut told = Told::new(&progress);
    let (to_workers, jobs) = sync_channel::<Job<'_>>(workers * AHEAD);
    let (in_order, parts) = sync_channel::<Receiver<Part>>(workers * AHEAD);
    let jobs = Mutex::new(jobs);
    let written = thread::scope(|scope| {
        let (jobs, layout, progress) = (&jobs, &layout, &progress);
        scope.spawn(move || read(&args.input, is_of_bundles(view), progress, &to_workers, &in_order));
        for _ in 0..workers {
            scope.spawn(move || {
                let (mut tape, mut scratch) = (Tape::new(), Scratch::default());
                // A receiver is one thread's at a time; what was taken is worked on when it is free again.
                let next = || jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
                while let Ok((batch, reply)) = next() {
                    // Nobody waits where the output failed.
                    drop(reply.send(work(view, layout, &mut tape, &mut scratch, &batch)));
                }
            });
        }
        for part in parts {
            let part = part.recv().context("a worker ended before its work")?;
            told.count(&part);
            sink.write(part.rows)?;
        }
        sink.finish().map_err(anyhow::Error::from)
    });
    told.end();
    match written {
        // The reader went away, as `head` does.
        Err(error) if broken_pipe(&error) => return Ok(ExitCode::SUCCESS),
        written => written.context("writing the rows")?,
    }
    told.summary();
    Ok(if told.broken() > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

fn output(args: &ViewsRunArgs) -> anyhow::Result<Box<dyn Write + Send>> {
    match args.out.as_deref().filter(|path| path.to_str() != Some(STANDARD_INPUT)) {
        Some(path) => {
            let file = File::create(path).with_context(|| path.display().to_string())?;
            Ok(Box::new(BufWriter::with_capacity(1 << 16, file)))
        }
        None if args.format == Format::Parquet && io::stdout().is_terminal() => {
            bail!("Parquet is not for terminals: say --out FILE")
        }
        None => Ok(Box::new(BufWriter::with_capacity(1 << 16, io::stdout()))),
    }
}

/// Whether a view is of Bundles themselves, which are not cut then.
fn is_of_bundles(view: &View) -> bool {
    view.resource() == BUNDLE
}

/// Reads all files into batches, in order.
fn read<'f>(
    files: &'f [PathBuf],
    whole: bool,
    progress: &Progress,
    to_workers: &SyncSender<Job<'f>>,
    in_order: &SyncSender<Receiver<Part>>,
) {
    // A send fails where the output failed: nobody reads on then.
    let give = |batch: Batch<'f>| {
        let (reply, part) = sync_channel(1);
        in_order.send(part).is_ok() && to_workers.send((batch, reply)).is_ok()
    };
    for file in files {
        let empty = || Batch { file, bytes: Vec::new(), documents: Vec::new(), broken: None };
        let mut batch = empty();
        let mut found = match documents(file, whole, progress) {
            Ok(found) => found,
            Err(error) => {
                batch.broken = Some((0, error.to_string()));
                if give(batch) {
                    continue;
                }
                return;
            }
        };
        while let Some(next) = found.next() {
            match next {
                Ok(document) => {
                    batch.bytes.extend_from_slice(document.json);
                    let end = batch.bytes.len();
                    batch.documents.push(Span { end, line: document.line, entry: document.entry });
                }
                Err(broken) => batch.broken = Some((broken.line, broken.why)),
            }
            if batch.bytes.len() >= BATCH && !give(std::mem::replace(&mut batch, empty())) {
                return;
            }
        }
        if !give(batch) {
            return;
        }
    }
}

/// Makes the rows of a batch.
fn work(view: &View, layout: &Layout, tape: &mut Tape, scratch: &mut Scratch, batch: &Batch<'_>) -> Part {
    let mut part = Part { rows: layout.rows(), resources: 0, others: 0, broken: Vec::new() };
    let mut start = 0;
    for Span { end, line, entry } in &batch.documents {
        let json = &batch.bytes[std::mem::replace(&mut start, *end)..*end];
        let place = |entry: Option<u64>| place(batch.file, *line, entry);
        if let Err(error) = tape.parse_json(json) {
            part.broken.push(format!("{}: {error}", place(*entry)));
            continue;
        }
        let root = tape.root();
        if entry.is_some() {
            part.entry(view, layout, scratch, root, || place(*entry));
        } else if resource_type(root) == Some(BUNDLE) && !is_of_bundles(view) {
            // One that was not cut into its entries: a line of NDJSON, or its type stands behind them.
            for (index, entry) in (0..).zip(root.get("entry").into_iter().flat_map(Value::elements)) {
                part.entry(view, layout, scratch, entry, || place(Some(index)));
            }
        } else {
            part.resource(view, layout, scratch, root, || place(None));
        }
    }
    if let Some((line, why)) = &batch.broken {
        part.broken
            .push(format!("{}: {why}; the rest of the file is left out", place(batch.file, *line, None)));
    }
    part
}

impl Part {
    /// An entry of a Bundle, which may be without a resource.
    fn entry(
        &mut self,
        view: &View,
        layout: &Layout,
        scratch: &mut Scratch,
        entry: Value<'_>,
        place: impl Fn() -> String,
    ) {
        if let Some(resource) = entry.get("resource") {
            self.resource(view, layout, scratch, resource, place);
        }
    }

    fn resource(
        &mut self,
        view: &View,
        layout: &Layout,
        scratch: &mut Scratch,
        resource: Value<'_>,
        place: impl Fn() -> String,
    ) {
        if resource_type(resource).is_some_and(|of| of != view.resource()) {
            self.others += 1;
            return;
        }
        match self.rows.add(view, layout, |mut emit| view.rows_in(scratch, resource, &mut emit)) {
            Ok(()) => self.resources += 1,
            Err(error) => self.broken.push(format!("{}: {error}", place())),
        }
    }
}

fn resource_type(value: Value<'_>) -> Option<&str> {
    value.get("resourceType")?.as_str()
}

/// `file:line`, and the entry of a Bundle, from 0 on.
fn place(file: &Path, line: u64, entry: Option<u64>) -> String {
    let file = file.display();
    match (line, entry) {
        (0, _) => format!("{file}"),
        (_, None) => format!("{file}:{line}"),
        (_, Some(entry)) => format!("{file}:{line}: entry {entry}"),
    }
}
