use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use fhirehose_faultpoint::{planted, point};
use fhirehose_stream::{Batch, Fault, Interrupter, OffsetsIn, Sink, TopicPartition, Verdict, Verdicts};
use postgres::{CancelToken, Client, Statement};

use crate::offsets::{Advance, Offsets};
use crate::{Connector, StoreError, fault};

/// What a sink writes; [`PgSink`] does the rest.
pub trait Tables: Send {
    /// Called on every new connection: check the tables, create temporary ones, prepare statements.
    fn connected(&mut self, client: &mut Client) -> Result<(), StoreError>;

    /// Writes the records inside the open transaction and judges each, in order. Must not begin or end the
    /// transaction. Where the database refuses what a record holds it returns that error: the caller finds
    /// the record.
    fn write(&mut self, client: &mut Client, batch: &Batch) -> Result<Vec<Verdict>, StoreError>;

    /// Makes ready for another [`Tables::write`] in the same transaction: empties temporary tables.
    fn again(&mut self, client: &mut Client) -> Result<(), StoreError>;

    /// Housekeeping between batches, outside of a transaction; at most once a minute.
    fn maintain(&mut self, client: &mut Client) -> Result<(), StoreError> {
        let _ = client;
        Ok(())
    }
}

/// A sink whose offsets are rows beside its data, committed with it.
pub struct PgSink<T> {
    connector: Connector,
    pipeline: String,
    tables: T,
    offsets: Offsets,
    session: Option<Session>,
    /// Of the session's connection, or of an earlier one.
    cancel: Arc<Mutex<Option<CancelToken>>>,
    staged: Option<Advance>,
    /// Ids of the topics that are claimed next.
    topics: HashMap<String, String>,
}

struct Session {
    client: Client,
    advance: Statement,
}

impl<T: Tables> PgSink<T> {
    /// `pipeline` names the offsets' owner: the consumer group. Connects when it is first used.
    pub fn new(connector: Connector, pipeline: &str, tables: T) -> Self {
        PgSink {
            connector,
            pipeline: pipeline.to_owned(),
            tables,
            offsets: Offsets::default(),
            session: None,
            cancel: Arc::default(),
            staged: None,
            topics: HashMap::new(),
        }
    }

    /// Runs something on the connection, which is made if there is none, and dropped where another may do better.
    fn with_session<R>(
        &mut self,
        what: &str,
        run: impl FnOnce(&mut Session, &mut T, &mut Offsets, &str) -> Result<R, StoreError>,
    ) -> Result<R, Fault> {
        if self.session.as_ref().is_none_or(|session| session.client.is_closed()) {
            self.session = None;
            let mut client = self.connector.connect()?;
            *self.cancel.lock().unwrap_or_else(PoisonError::into_inner) = Some(client.cancel_token());
            self.tables.connected(&mut client).map_err(|error| error.into_fault("checking the tables"))?;
            let advance = Advance::prepare(&mut client).map_err(|error| {
                fault(&error, "reading fhirehose.sink_offsets (run `fhirehose migrate apply`)")
            })?;
            self.session = Some(Session { client, advance });
        }
        let Some(session) = &mut self.session else {
            return Err(Fault::transient("no connection to postgres"));
        };
        let result = run(session, &mut self.tables, &mut self.offsets, &self.pipeline);
        if result.as_ref().is_err_and(StoreError::is_of_session) {
            self.session = None;
        }
        result.map_err(|error| error.into_fault(what))
    }
}

impl<T: Tables> Sink for PgSink<T> {
    fn offsets_in(&self) -> OffsetsIn {
        OffsetsIn::Store
    }

    fn identify(&mut self, topics: HashMap<String, String>) {
        self.topics = topics;
    }

    fn claim(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Option<i64>>, Fault> {
        self.rollback();
        let topics = &self.topics.clone();
        self.with_session("claiming partitions", |session, _, offsets, pipeline| {
            offsets.claim(&mut session.client, pipeline, partitions, topics)
        })
    }

    fn start(&mut self, partitions: &[(TopicPartition, i64)]) -> Result<(), Fault> {
        self.with_session("storing the first offsets", |session, _, offsets, pipeline| {
            offsets.start(&mut session.client, pipeline, partitions)
        })
    }

    fn stage(&mut self, batch: &Batch) -> Result<Verdicts, Fault> {
        self.rollback();
        let advance = self.offsets.advance(batch)?;
        point("pg.begin");
        let staged = self.with_session("writing a batch", |session, tables, _, pipeline| {
            let verdicts = write(&mut session.client, tables, batch)?;
            // Planted: the offsets follow the data in a transaction of their own.
            if !planted("offsets-in-own-transaction") {
                advance.write(&mut session.client, &session.advance, pipeline)?;
            }
            Ok(verdicts)
        });
        // Whatever happened, a transaction may be open now.
        self.staged = Some(advance);
        let mut verdicts = match staged {
            Ok(verdicts) => verdicts.into_iter(),
            Err(fault) => {
                self.rollback();
                return Err(fault);
            }
        };
        batch.judge(|_| verdicts.next().ok_or_else(|| Fault::fatal("the tables judged too few records")))
    }

    fn commit(&mut self) -> Result<(), Fault> {
        let Some(advance) = self.staged.take() else { return Err(Fault::fatal("nothing is staged")) };
        let Some(session) = &mut self.session else {
            return Err(Fault::transient("the connection was lost"));
        };
        // COMMIT of a failed transaction answers ROLLBACK without an error; `simple_query` cannot tell them
        // apart, but a failed statement is never followed by `commit`: `stage` returned its error.
        point("pg.before_commit");
        let mut committed = session.client.batch_execute("COMMIT");
        point("pg.after_commit");
        if planted("offsets-in-own-transaction") && committed.is_ok() {
            advance
                .write(&mut session.client, &session.advance, &self.pipeline)
                .map_err(|error| error.into_fault("committing offsets"))?;
        }
        // Planted: nobody asks what became of it.
        if planted("failed-commit-taken-for-done") && committed.is_err() {
            self.session = None;
            committed = Ok(());
        }
        match committed {
            Ok(()) => {
                self.offsets.committed(&advance);
                Ok(())
            }
            Err(error) => {
                // Whether it took effect is unknown: a claim on a new connection waits for it and tells.
                self.session = None;
                Err(fault(&error, "committing a batch"))
            }
        }
    }

    fn rollback(&mut self) {
        if self.staged.take().is_none() {
            return;
        }
        let rolled_back = self.session.as_mut().map(|session| session.client.batch_execute("ROLLBACK"));
        if !matches!(rolled_back, Some(Ok(()))) {
            self.session = None;
        }
    }

    fn revoked(&mut self, partitions: &[TopicPartition]) {
        self.rollback();
        self.offsets.forget(partitions);
    }

    fn maintain(&mut self) -> Result<(), Fault> {
        if self.staged.is_some() {
            return Ok(());
        }
        self.with_session("housekeeping", |session, tables, _, _| tables.maintain(&mut session.client))
    }

    fn interrupter(&self) -> Option<Interrupter> {
        let (connector, cancel) = (self.connector.clone(), self.cancel.clone());
        Some(Box::new(move || {
            let token = cancel.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let cancelled = token.map_or(Ok(()), |token| connector.cancel(&token));
            cancelled.map_err(|error| fault(&error, "cancelling a statement"))
        }))
    }
}

/// Writes the batch in a new transaction; where a record is refused, the others are written without it.
fn write<T: Tables>(client: &mut Client, tables: &mut T, batch: &Batch) -> Result<Vec<Verdict>, StoreError> {
    client.batch_execute("BEGIN")?;
    match tables.write(client, batch) {
        Err(error) if error.of_row().is_some() => {
            client.batch_execute("ROLLBACK; BEGIN")?;
            let mut verdicts = Vec::with_capacity(batch.len());
            write_halves(client, tables, batch, &mut verdicts)?;
            Ok(verdicts)
        }
        other => other,
    }
}

/// Writes the batch inside a savepoint; where it is refused halves it, down to the record at fault.
fn write_halves<T: Tables>(
    client: &mut Client,
    tables: &mut T,
    batch: &Batch,
    verdicts: &mut Vec<Verdict>,
) -> Result<(), StoreError> {
    client.batch_execute("SAVEPOINT piece")?;
    let error = match tables.write(client, batch) {
        Ok(judged) => {
            verdicts.extend(judged);
            tables.again(client)?;
            client.batch_execute("RELEASE SAVEPOINT piece")?;
            return Ok(());
        }
        Err(error) => error,
    };
    let Some(rejection) = error.of_row() else { return Err(error) };
    client.batch_execute("ROLLBACK TO SAVEPOINT piece; RELEASE SAVEPOINT piece")?;
    if batch.len() <= 1 {
        verdicts.extend(batch.iter().map(|_| Verdict::from(rejection.clone())));
        return Ok(());
    }
    let middle = batch.len() / 2;
    for half in [0..middle, middle..batch.len()] {
        let mut piece = Batch::default();
        for record in half.filter_map(|index| batch.get(index)) {
            piece.push_record(&record);
        }
        write_halves(client, tables, &piece, verdicts)?;
    }
    Ok(())
}
