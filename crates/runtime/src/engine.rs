use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use fhirehose_decide::Backoff;
use fhirehose_faultpoint::planted;
use fhirehose_stream::{Fault, FaultKind, Interrupter, Processor, Sink};
use rdkafka::consumer::{BaseConsumer, Consumer};

use crate::admin::AdminServer;
use crate::clients::{Clients, Logged};
use crate::config::Config;
use crate::instance::Instance;
use crate::spec::{Inputs, Spec};
use crate::status::{Doing, ProcessorStatus};
use crate::stop::Stop;
use crate::store::StoreLoop;
use crate::transact::TransactLoop;
use crate::worker::Worker;

/// A worker that ran this long before it failed starts its backoff anew.
const STEADY: Duration = Duration::from_secs(60);
/// Topics that were made a moment ago are known to every broker after this time.
const SETTLED: Duration = Duration::from_secs(5);

/// Why the engine did not start, or did not end well.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Topics that should be there.
    #[error("topics are missing: {}; run `fhirehose topics apply`", .0.join(", "))]
    MissingTopics(Vec<String>),
    /// The address of the admin server cannot be had.
    #[error(
        "cannot listen on {address}: {error}; give each process its own --listen, port 0 takes a free one"
    )]
    Listen { address: std::net::SocketAddr, error: std::io::Error },
    /// No name for this process.
    #[error("no instance name: {0}")]
    Instance(std::io::Error),
    /// A system thread or signal handler.
    #[error("cannot start: {0}")]
    System(String),
    /// Workers that cannot go on.
    #[error("{}", .0.join("\n"))]
    Failed(Vec<String>),
}

/// A worker in its thread.
struct Working {
    /// Ends with why the worker cannot go on, if so.
    thread: JoinHandle<Option<String>>,
    interrupter: Arc<Mutex<Option<Interrupter>>>,
}

type Runner = Arc<dyn Fn(&Worker) -> Result<(), Fault> + Send + Sync>;

/// Runs processors until asked to stop.
pub struct Engine {
    config: Arc<Config>,
    clients: Clients,
    instance: Instance,
    stop: Stop,
    processors: Vec<(Arc<ProcessorStatus>, Runner)>,
}

impl Engine {
    pub fn new(config: Arc<Config>) -> Result<Self, StartError> {
        // Before any processor is added: meters made without a recorder count nothing.
        crate::admin::recorder();
        let instance = Instance::take(&config.runtime.instance).map_err(StartError::Instance)?;
        let clients = Clients::new(config.clone());
        Ok(Engine { config, clients, instance, stop: Stop::default(), processors: Vec::new() })
    }

    /// Adds a Kafka-to-Kafka processor; `make` is called with a worker's number, once per worker
    /// and again when it starts anew.
    pub fn transact(
        &mut self,
        spec: Spec,
        make: impl Fn(usize) -> Result<Box<dyn Processor>, Fault> + Send + Sync + 'static,
    ) {
        self.add(spec, Arc::new(move |worker: &Worker| TransactLoop::run(worker, make(worker.index)?)));
    }

    /// Adds a store; `make` as for [`Engine::transact`].
    pub fn store(
        &mut self,
        spec: Spec,
        make: impl Fn(usize) -> Result<Box<dyn Sink>, Fault> + Send + Sync + 'static,
    ) {
        self.add(spec, Arc::new(move |worker: &Worker| StoreLoop::run(worker, make(worker.index)?)));
    }

    fn add(&mut self, spec: Spec, run: Runner) {
        let status = Arc::new(ProcessorStatus::new(spec, self.config.runtime.workers));
        self.processors.push((status, run));
    }

    /// Ask it to stop the run.
    pub fn stop(&self) -> Stop {
        self.stop.clone()
    }

    /// Runs until SIGTERM, SIGINT or [`Stop::request`]; every worker then finishes its batch, commits and
    /// leaves its group. Fails when a worker cannot go on and no other can either.
    pub fn run(self) -> Result<(), StartError> {
        let statuses: Vec<_> = self.processors.iter().map(|(status, _)| status.clone()).collect();
        stop_on_signals(&self.stop)?;
        let admin = AdminServer::start(self.config.admin.listen, statuses.clone())?;
        tracing::info!(
            instance = self.instance.name(),
            address = %admin.address(),
            processors = %statuses.iter().map(|s| s.spec.name).collect::<Vec<_>>().join(","),
            version = env!("CARGO_PKG_VERSION"),
            "started"
        );
        self.check_topics()?;
        let mut workers = Vec::new();
        for (status, run) in &self.processors {
            for index in 0..self.config.runtime.workers {
                workers.push(self.spawn(status.clone(), run.clone(), index)?);
            }
        }
        self.watch(&statuses, &workers, &admin);
        let failed = ended(workers, Duration::from_millis(self.config.runtime.stop_timeout_ms));
        admin.stop();
        tracing::info!("stopped");
        if failed.is_empty() { Ok(()) } else { Err(StartError::Failed(failed.into_iter().collect())) }
    }

    /// Samples rates until there is nothing left to run.
    fn watch(&self, statuses: &[Arc<ProcessorStatus>], workers: &[Working], admin: &AdminServer) {
        let mut seconds = 0_u64;
        while !self.stop.requested() && !workers.iter().all(|worker| worker.thread.is_finished()) {
            self.stop.sleep(Duration::from_secs(1));
            seconds += 1;
            statuses.iter().for_each(|status| status.sample(seconds.is_multiple_of(30)));
            if seconds.is_multiple_of(5) {
                admin.upkeep();
            }
        }
    }

    fn spawn(&self, status: Arc<ProcessorStatus>, run: Runner, index: usize) -> Result<Working, StartError> {
        let mut transactional_id = format!("{}-{}-{index}", status.spec.group, self.instance.name());
        // Planted: a name per start, which fences nobody off.
        if planted("fence-skipped") {
            let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos();
            transactional_id.push_str(&format!("-{now}"));
        }
        let worker = Worker {
            index,
            transactional_id,
            spec: status.spec.clone(),
            config: self.config.clone(),
            clients: self.clients.clone(),
            status,
            stop: self.stop.clone(),
            interrupter: Arc::default(),
        };
        let interrupter = worker.interrupter.clone();
        thread::Builder::new()
            .name(format!("{}-{index}", worker.spec.name))
            .spawn(move || supervise(&worker, &*run))
            .map(|thread| Working { thread, interrupter })
            .map_err(|error| StartError::System(error.to_string()))
    }

    /// Every topic must be there, dead letters included. Waits while Kafka cannot be reached.
    fn check_topics(&self) -> Result<(), StartError> {
        let consumer: BaseConsumer<Logged> = self
            .clients
            .plain()
            .create_with_context(Logged)
            .map_err(|error| StartError::System(format!("kafka client: {error}")))?;
        let mut backoff = Backoff::default();
        let mut answered = None;
        while !self.stop.requested() {
            match consumer.fetch_metadata(None, Duration::from_secs(5)) {
                Ok(metadata) => {
                    let known: BTreeSet<&str> = metadata.topics().iter().map(|topic| topic.name()).collect();
                    let wanted: BTreeSet<String> =
                        self.processors.iter().flat_map(|(status, _)| wanted(&status.spec)).collect();
                    let missing: Vec<_> =
                        wanted.into_iter().filter(|topic| !known.contains(topic.as_str())).collect();
                    if missing.is_empty() {
                        return Ok(());
                    }
                    if answered.get_or_insert_with(Instant::now).elapsed() > SETTLED {
                        return Err(StartError::MissingTopics(missing));
                    }
                    self.stop.sleep(Duration::from_millis(200));
                }
                Err(error) => {
                    let time = backoff.next(rand::random());
                    if backoff.worth_telling() {
                        tracing::warn!(
                            brokers = self.config.kafka.brokers,
                            why = %error,
                            "kafka does not answer; check kafka.brokers and that it runs; it is tried again"
                        );
                    }
                    self.stop.sleep(time);
                }
            }
        }
        Ok(())
    }
}

/// Waits for the workers; tells of each that failed or does not end. What a store does not finish in three fifths of the
/// time is interrupted, and so undone before the process ends: a database left in the middle of a statement would see only
/// after it that nobody is there, and hold its locks until then.
fn ended(workers: Vec<Working>, limit: Duration) -> BTreeSet<String> {
    let begun = Instant::now();
    await_all(&workers, begun + limit * 3 / 5);
    for worker in workers.iter().filter(|worker| !worker.thread.is_finished()) {
        interrupt(worker);
    }
    await_all(&workers, begun + limit);
    let mut failed = BTreeSet::new();
    for worker in workers {
        let name = worker.thread.thread().name().unwrap_or_default().to_owned();
        if !worker.thread.is_finished() {
            failed.insert(format!("{name} did not stop within {limit:?} (runtime.stop_timeout_ms)"));
        } else if let Ok(result) = worker.thread.join() {
            failed.extend(result);
        } else {
            failed.insert(format!("{name} panicked"));
        }
    }
    failed
}

fn await_all(workers: &[Working], until: Instant) {
    while !workers.iter().all(|worker| worker.thread.is_finished()) && Instant::now() < until {
        thread::sleep(Duration::from_millis(20));
    }
}

/// In a thread of its own, for the server may not answer.
fn interrupt(worker: &Working) {
    let taken = worker.interrupter.lock().unwrap_or_else(PoisonError::into_inner).take();
    let Some(interrupter) = taken else { return };
    let name = worker.thread.thread().name().unwrap_or_default().to_owned();
    tracing::warn!(worker = name, "the batch takes too long to be finished before the stop: it is given up");
    thread::spawn(move || {
        if let Err(fault) = interrupter() {
            tracing::warn!(worker = name, why = fault.what, "the store cannot be interrupted");
        }
    });
}

/// The topics a processor cannot do without.
fn wanted(spec: &Spec) -> Vec<String> {
    let mut wanted: Vec<String> = spec.outputs.iter().chain(&spec.tables).map(ToString::to_string).collect();
    wanted.extend(spec.changelog.iter().map(ToString::to_string));
    match &spec.inputs {
        Inputs::Topics(topics) => {
            wanted.extend(topics.iter().map(ToString::to_string));
            wanted.extend(topics.iter().map(|topic| (spec.dead_letters)(topic).to_string()));
        }
        // Which topics match is known when they come to be; the dead letters of those nobody declared have
        // one topic.
        Inputs::Pattern(_) => wanted.push((spec.dead_letters)("").to_string()),
    }
    wanted
}

/// Runs a worker, and again after a fault. Returns why it cannot go on, if so.
fn supervise(worker: &Worker, run: &(dyn Fn(&Worker) -> Result<(), Fault> + Send + Sync)) -> Option<String> {
    let mut backoff = Backoff::default();
    while !worker.stop.requested() {
        worker.doing(Doing::Starting);
        let started = Instant::now();
        let result = catch_unwind(AssertUnwindSafe(|| run(worker)))
            .unwrap_or_else(|_| Err(Fault::transient("the worker panicked")));
        worker.status.forget_lag(worker.index);
        let Err(fault) = result else { break };
        if worker.stop.requested() {
            break;
        }
        if fault.kind == FaultKind::Fatal {
            tracing::error!(
                processor = worker.spec.name,
                worker = worker.index,
                why = fault.what,
                "the worker cannot go on"
            );
            worker.doing(Doing::Failed(fault.what.clone()));
            return Some(format!("{}: {}", worker.spec.name, fault.what));
        }
        if started.elapsed() > STEADY {
            backoff.success();
        }
        let time = backoff.next(rand::random());
        tracing::warn!(
            processor = worker.spec.name,
            worker = worker.index,
            why = fault.what,
            seconds = time.as_secs_f64(),
            "the worker starts anew"
        );
        worker.doing(Doing::Waiting(fault.what));
        worker.stop.sleep(time);
    }
    worker.doing(Doing::Stopped);
    None
}

/// The first signal asks to stop, the second ends the process at once.
fn stop_on_signals(stop: &Stop) -> Result<(), StartError> {
    use signal_hook::consts::{SIGINT, SIGTERM};
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM])
        .map_err(|error| StartError::System(format!("signals: {error}")))?;
    let stop = stop.clone();
    thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            for signal in signals.forever() {
                if stop.requested() {
                    tracing::warn!(signal, "stopped at once");
                    std::process::exit(130);
                }
                tracing::info!(signal, "stopping: batches are finished, offsets committed, groups left");
                stop.request();
            }
        })
        .map(|_| ())
        .map_err(|error| StartError::System(error.to_string()))
}
