//! The processor the tests of the transactions run, and what they ask of its output.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use fhirehose_runtime::{Config, Engine, Spec, StartError, Stop};
use fhirehose_stream::{Batch, Fault, Outputs, Processor, Reason, Record, Rejection, Verdict, Verdicts};

use super::{Bench, number};

/// Copies values; rejects multiples of `reject`; slow on request; faults on request.
pub struct Copier {
    pub output: Arc<str>,
    pub reject: u64,
    pub nap: Duration,
    pub faults: Arc<AtomicU32>,
}

impl Processor for Copier {
    fn process(&mut self, batch: &Batch, out: &mut Outputs) -> Result<Verdicts, Fault> {
        thread::sleep(self.nap);
        let verdicts = batch.judge(|record| {
            let n = value(record);
            if self.reject > 0 && n.is_multiple_of(self.reject) {
                return Ok(Rejection::new(Reason::UnknownCode, "a.path").of_shape("copy@1").into());
            }
            out.to(&self.output, record.key().unwrap_or_default())
                .partition(record.partition())
                .header("from", record.offset().to_string().as_bytes())
                .value(|bytes| write(bytes, record.value().unwrap_or_default()))?;
            Ok(Verdict::Emit(1))
        });
        let left = self.faults.load(Ordering::SeqCst);
        if left > 0 {
            self.faults.store(left - 1, Ordering::SeqCst);
            return Err(Fault::transient("asked for by the test"));
        }
        verdicts
    }
}

pub fn write(bytes: &mut Vec<u8>, text: &[u8]) -> Result<(), Fault> {
    bytes.extend_from_slice(text);
    Ok(())
}

pub fn value(record: Record<'_>) -> u64 {
    std::str::from_utf8(record.value().unwrap()).unwrap().parse().unwrap()
}

pub fn start(
    config: Config,
    spec: Spec,
    make: impl Fn() -> Box<dyn Processor> + Send + Sync + 'static,
) -> (Stop, JoinHandle<Result<(), StartError>>) {
    let mut engine = Engine::new(Arc::new(config)).unwrap();
    engine.transact(spec, move |_| Ok(make()));
    let stop = engine.stop();
    (stop, thread::spawn(move || engine.run()))
}

pub fn copier(output: &str, reject: u64) -> impl Fn() -> Box<dyn Processor> + Send + Sync + use<> {
    let output: Arc<str> = output.into();
    move || Box::new(Copier { output: output.clone(), reject, nap: Duration::ZERO, faults: Arc::default() })
}

/// 0 missing, 0 doubled, and each partition in its order.
pub fn assert_exactly_once(
    bench: &Bench,
    output: &str,
    partitions: u64,
    expected: impl Iterator<Item = u64>,
) {
    let found = bench.read(output);
    let mut numbers: Vec<_> = found.iter().map(number).collect();
    for partition in 0..partitions {
        let of: Vec<_> = found.iter().filter(|f| f.partition as u64 == partition).map(number).collect();
        assert!(of.windows(2).all(|pair| pair[0] < pair[1]), "partition {partition} is out of order");
    }
    numbers.sort_unstable();
    let expected: Vec<_> = expected.collect();
    let missing = expected.iter().filter(|n| numbers.binary_search(n).is_err()).count();
    let doubled = numbers.windows(2).filter(|pair| pair[0] == pair[1]).count();
    assert_eq!((missing, doubled, numbers.len()), (0, 0, expected.len()), "missing, doubled, in all");
}

/// A topic of a test's own.
pub fn topic(spec: &Spec, name: &str) -> String {
    format!("{}-{name}", spec.group)
}
