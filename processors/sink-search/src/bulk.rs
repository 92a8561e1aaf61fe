use std::thread;
use std::time::Duration;

use fhirehose_faultpoint::{planted, point};
use fhirehose_stream::{Fault, Reason, Rejection, Verdict};
use serde_json::Value as Json;
use ureq::http::Method;

use crate::client::{Client, error_type};

/// Bytes of one bulk request; servers take 10 to 100 MB and like 5 to 15.
const REQUEST_BYTES: usize = 5 << 20;
/// Times a busy server is asked again for items before the whole batch is put off.
const RETRIES: u32 = 4;
/// What of the answer is needed: no reasons, which quote documents.
const PATH: &str = "/_bulk?filter_path=items.*.status,items.*.error.type,items.*.error.caused_by.type";

/// A write, in bulk form: action line and document line.
pub(crate) struct Item {
    /// Position of its record in the batch.
    pub record: usize,
    pub lines: Vec<u8>,
}

enum Outcome {
    Done(Verdict),
    Busy,
}

/// Writes all items and hands the verdict of each to `resolve`. Items a busy server turned away are asked
/// again, those alone; a fault leaves some written, which writing again does not change.
pub(crate) fn write(
    client: &Client,
    items: Vec<Item>,
    mut resolve: impl FnMut(usize, Verdict),
) -> Result<(), Fault> {
    let mut waiting = items;
    for attempt in 0..=RETRIES {
        if attempt > 0 {
            // 100 ms doubling, between half and the whole of it.
            let ceiling = 50u64 << attempt;
            thread::sleep(Duration::from_millis(rand::random_range(ceiling / 2..=ceiling)));
        }
        let mut busy = Vec::new();
        let mut rest = waiting.into_iter().peekable();
        while rest.peek().is_some() {
            let mut bytes = 0;
            let mut chunk = Vec::new();
            while let Some(item) =
                rest.next_if(|item| bytes == 0 || bytes + item.lines.len() <= REQUEST_BYTES)
            {
                bytes += item.lines.len();
                chunk.push(item);
            }
            send(client, chunk, &mut resolve, &mut busy)?;
        }
        if busy.is_empty() {
            return Ok(());
        }
        waiting = busy;
    }
    Err(Fault::transient(format!("search turned {} documents away as too busy", waiting.len())))
}

fn send(
    client: &Client,
    chunk: Vec<Item>,
    resolve: &mut impl FnMut(usize, Verdict),
    busy: &mut Vec<Item>,
) -> Result<(), Fault> {
    let body: Vec<u8> = chunk.iter().flat_map(|item| &item.lines).copied().collect();
    let answer = client.send(Method::POST, PATH, "application/x-ndjson", &body)?;
    point("search.bulk_sent");
    if answer.status == 413 {
        let mut chunk = chunk;
        if let [item] = chunk.as_slice() {
            resolve(item.record, Rejection::new(Reason::TooLarge, "beyond the search server's limit").into());
            return Ok(());
        }
        let second = chunk.split_off(chunk.len() / 2);
        send(client, chunk, resolve, busy)?;
        return send(client, second, resolve, busy);
    }
    if answer.status != 200 {
        return Err(Fault::fatal(format!(
            "search refuses bulk: {} {}",
            answer.status,
            error_type(&answer.body)
        )));
    }
    let outcomes = answer.body.get("items").and_then(Json::as_array).map(Vec::as_slice).unwrap_or_default();
    if outcomes.len() != chunk.len() {
        return Err(Fault::transient("search answered for fewer documents than it was sent"));
    }
    for (item, outcome) in chunk.into_iter().zip(outcomes) {
        match judge(outcome)? {
            Outcome::Done(verdict) => resolve(item.record, verdict),
            Outcome::Busy => busy.push(item),
        }
    }
    Ok(())
}

fn judge(outcome: &Json) -> Result<Outcome, Fault> {
    let outcome = outcome.as_object().and_then(|action| action.values().next()).unwrap_or(outcome);
    let status = outcome.get("status").and_then(Json::as_u64).unwrap_or(0);
    let kind = error_type(outcome);
    Ok(match status {
        // Planted: the request was answered, so all is well.
        _ if planted("bulk-item-errors-ignored") => Outcome::Done(Verdict::Emit(1)),
        // Planted: what the store holds already is taken for refused.
        409 if planted("conflict-is-an-error") => {
            Outcome::Done(Rejection::new(Reason::StoreRejected, kind).into())
        }
        // A delete of what is not there.
        404 if planted("delete-without-tombstone") => Outcome::Done(Verdict::Emit(1)),
        200 | 201 => Outcome::Done(Verdict::Emit(1)),
        // The server holds a newer version.
        409 => Outcome::Done(Verdict::Drop(Reason::StaleVersion)),
        429 | 500.. => Outcome::Busy,
        403 if kind == "cluster_block_exception" => Outcome::Busy,
        404 => return Err(Fault::fatal("a search index is missing: run `fhirehose migrate apply`")),
        400 | 413 => Outcome::Done(Rejection::new(Reason::StoreRejected, kind).into()),
        status => return Err(Fault::transient(format!("search answered a document with {status} {kind}"))),
    })
}
