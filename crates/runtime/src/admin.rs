use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use axum::Router;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use serde_json::json;
use tokio::sync::oneshot;

use crate::engine::StartError;
use crate::page;
use crate::status::{ProcessorStatus, View};

const SECONDS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
const AGES: &[f64] =
    &[0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 3600.0, 86400.0];

/// Health, metrics, status page; on a small runtime of its own, so that a busy worker never delays it.
pub(crate) struct AdminServer {
    address: SocketAddr,
    prometheus: Option<PrometheusHandle>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

#[derive(Clone)]
struct Shared {
    processors: Arc<Vec<Arc<ProcessorStatus>>>,
    prometheus: Option<PrometheusHandle>,
    started: Instant,
}

/// Installs the metrics recorder, once per process.
pub(crate) fn recorder() -> Option<PrometheusHandle> {
    static HANDLE: OnceLock<Option<PrometheusHandle>> = OnceLock::new();
    let install = || {
        let handle = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Full("fhirehose_end_to_end_seconds".into()), AGES)
            .and_then(|builder| builder.set_buckets(SECONDS))
            .and_then(|builder| builder.install_recorder())
            .map_err(|error| tracing::warn!(%error, "no metrics recorder"))
            .ok()?;
        describe();
        Some(handle)
    };
    HANDLE.get_or_init(install).clone()
}

fn describe() {
    use metrics::{Unit, describe_counter, describe_gauge, describe_histogram, gauge};
    describe_counter!("fhirehose_records_in_total", "Records read and done with.");
    describe_counter!("fhirehose_records_emitted_from_total", "Records that became outputs or rows.");
    describe_counter!("fhirehose_records_out_total", "Records produced, or rows written.");
    describe_counter!("fhirehose_records_dropped_total", "Records that need nothing done, by reason.");
    describe_counter!("fhirehose_records_rejected_total", "Records dead-lettered, by reason.");
    describe_counter!(
        "fhirehose_records_parked_total",
        "Records kept until what they wait for arrives, by reason."
    );
    describe_counter!("fhirehose_dead_letters_total", "Dead letters written.");
    describe_counter!("fhirehose_violations_total", "Guarantees that did not hold; must stay 0.");
    describe_counter!(
        "fhirehose_unknown_commits_total",
        "Commits without an answer, looked up before going on."
    );
    describe_histogram!("fhirehose_batch_seconds", Unit::Seconds, "From a batch's first step to its commit.");
    describe_histogram!("fhirehose_commit_seconds", Unit::Seconds, "Producing or writing, and committing.");
    describe_histogram!(
        "fhirehose_end_to_end_seconds",
        Unit::Seconds,
        "From the change at its source to the commit of this processor."
    );
    describe_gauge!("fhirehose_lag_records", "Records not yet done, over the partitions of this process.");
    describe_gauge!("fhirehose_lag_seconds", Unit::Seconds, "How old the oldest record not yet done can be.");
    describe_gauge!("fhirehose_build_info", "1, with the version as label.");
    gauge!("fhirehose_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
}

impl AdminServer {
    pub(crate) fn start(
        listen: SocketAddr,
        processors: Vec<Arc<ProcessorStatus>>,
    ) -> Result<Self, StartError> {
        let failed = |error| StartError::Listen { address: listen, error };
        let listener = std::net::TcpListener::bind(listen).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| StartError::System(error.to_string()))?;
        let prometheus = recorder();
        let processors = Arc::new(processors);
        let shared = Shared { processors, prometheus: prometheus.clone(), started: Instant::now() };
        let routes = Router::new()
            .route("/", get(status_page))
            .route("/livez", get(async || "ok\n"))
            .route("/readyz", get(ready))
            .route("/metrics", get(exposition))
            .route("/admin/status", get(status))
            .route("/admin/resume", post(resume))
            .with_state(shared);
        let (stop, stopped) = oneshot::channel::<()>();
        let serve = move || {
            runtime.block_on(async {
                let serving = async {
                    match tokio::net::TcpListener::from_std(listener) {
                        Ok(listener) => axum::serve(listener, routes).await,
                        Err(error) => Err(error),
                    }
                };
                tokio::select! {
                    ended = serving => if let Err(error) = ended {
                        tracing::error!(%error, "the admin server ended");
                    },
                    _ = stopped => {}
                }
            });
        };
        let thread = std::thread::Builder::new()
            .name("admin".into())
            .spawn(serve)
            .map_err(|error| StartError::System(error.to_string()))?;
        Ok(AdminServer { address, prometheus, stop: Some(stop), thread: Some(thread) })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Folds what was measured into buckets. Without it, and with nobody asking for metrics, every measurement
    /// would be kept.
    pub(crate) fn upkeep(&self) {
        if let Some(handle) = &self.prometheus {
            handle.run_upkeep();
        }
    }

    pub(crate) fn stop(mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::warn!("the admin server did not end well");
        }
    }
}

impl Shared {
    fn views(&self) -> Vec<View> {
        self.processors.iter().map(|processor| processor.view()).collect()
    }

    fn ready(&self) -> bool {
        self.processors.iter().all(|processor| processor.ready())
    }
}

async fn status_page(State(shared): State<Shared>) -> Html<String> {
    Html(page::render(&shared.views(), shared.started.elapsed()).into_string())
}

async fn ready(State(shared): State<Shared>) -> Response {
    if shared.ready() {
        return "ready\n".into_response();
    }
    let waiting: BTreeMap<_, _> = shared
        .processors
        .iter()
        .filter(|processor| !processor.ready())
        .map(|processor| (processor.spec.name, processor.view().workers))
        .collect();
    (StatusCode::SERVICE_UNAVAILABLE, axum::Json(json!({ "not_ready": waiting }))).into_response()
}

async fn exposition(State(shared): State<Shared>) -> Response {
    match &shared.prometheus {
        Some(handle) => {
            handle.run_upkeep();
            ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], handle.render()).into_response()
        }
        None => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

async fn status(State(shared): State<Shared>) -> Response {
    axum::Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_seconds": shared.started.elapsed().as_secs(),
        "ready": shared.ready(),
        "processors": shared.views(),
    }))
    .into_response()
}

/// `?processor=name`, or all.
async fn resume(State(shared): State<Shared>, Query(query): Query<BTreeMap<String, String>>) -> Response {
    let wanted = query.get("processor");
    let mut resumed = Vec::new();
    for processor in shared.processors.iter() {
        if wanted.is_none_or(|name| name == processor.spec.name) {
            processor.resume();
            resumed.push(processor.spec.name);
        }
    }
    match resumed.is_empty() {
        true => (StatusCode::NOT_FOUND, "no such processor\n").into_response(),
        false => axum::Json(json!({ "resumed": resumed })).into_response(),
    }
}
