//! The ids of topics, as Kafka gives them at creation: one that was deleted and made anew has the name of the other and
//! none of its offsets.
#![expect(unsafe_code, reason = "rdkafka does not describe topics; librdkafka does")]

use std::collections::{BTreeSet, HashMap};
use std::ffi::{CStr, CString, c_char};
use std::ptr::{self, NonNull};
use std::slice;
use std::time::Duration;

use fhirehose_stream::Fault;
use rdkafka::bindings as native;
use rdkafka::client::{Client, ClientContext};
use rdkafka::types::{RDKafkaErrorCode, RDKafkaRespErr};

/// How long the brokers may take.
const ASK: Duration = Duration::from_secs(5);

/// Something of librdkafka's that is ours to end.
struct Owned<T>(NonNull<T>, unsafe extern "C" fn(*mut T));

impl<T> Owned<T> {
    fn new(of: *mut T, end: unsafe extern "C" fn(*mut T)) -> Result<Owned<T>, Fault> {
        NonNull::new(of).map(|of| Owned(of, end)).ok_or_else(|| Fault::transient("librdkafka gave nothing"))
    }

    fn get(&self) -> *mut T {
        self.0.as_ptr()
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: it was given to us by the function this one belongs to, and is ended once.
        unsafe { (self.1)(self.get()) }
    }
}

/// The ids of these topics, by name, in the form in which Kafka's tools show them. Empty where the brokers are too old
/// to have any.
pub(crate) fn topic_ids<C: ClientContext>(
    client: &Client<C>,
    topics: &BTreeSet<&str>,
) -> Result<HashMap<String, String>, Fault> {
    let client = client.native_ptr();
    let names = topics.iter().map(|topic| CString::new(*topic)).collect::<Result<Vec<_>, _>>();
    let names = names.map_err(|_| Fault::fatal("the name of a topic holds a zero byte"))?;
    let mut pointers: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
    let timeout = i32::try_from(ASK.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: all that is passed lives to the end of the block; what is given is ended by the function that
    // belongs to it, the event last, since descriptions, names and ids are parts of it.
    unsafe {
        let asked = native::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len());
        let asked = Owned::new(asked, native::rd_kafka_TopicCollection_destroy)?;
        let operation = native::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS;
        let options = native::rd_kafka_AdminOptions_new(client, operation);
        let options = Owned::new(options, native::rd_kafka_AdminOptions_destroy)?;
        native::rd_kafka_AdminOptions_set_request_timeout(options.get(), timeout, ptr::null_mut(), 0);
        let queue = Owned::new(native::rd_kafka_queue_new(client), native::rd_kafka_queue_destroy)?;
        native::rd_kafka_DescribeTopics(client, asked.get(), options.get(), queue.get());
        let event = native::rd_kafka_queue_poll(queue.get(), timeout.saturating_add(1_000));
        let event = NonNull::new(event).ok_or_else(|| not_told("the brokers do not answer"))?;
        let event = Owned(event, native::rd_kafka_event_destroy);
        sound(native::rd_kafka_event_error(event.get()))?;
        let result = native::rd_kafka_event_DescribeTopics_result(event.get());
        if result.is_null() {
            return Err(not_told("another answer came"));
        }
        let mut count = 0;
        let found = native::rd_kafka_DescribeTopics_result_topics(result, &raw mut count);
        let found = if found.is_null() { &[] } else { slice::from_raw_parts(found, count) };
        let mut ids = HashMap::new();
        for topic in found {
            let error = native::rd_kafka_TopicDescription_error(*topic);
            if !error.is_null() {
                sound(native::rd_kafka_error_code(error))?;
            }
            let name = CStr::from_ptr(native::rd_kafka_TopicDescription_name(*topic));
            let id = native::rd_kafka_TopicDescription_topic_id(*topic);
            let bits = (
                native::rd_kafka_Uuid_most_significant_bits(id),
                native::rd_kafka_Uuid_least_significant_bits(id),
            );
            if bits != (0, 0) {
                let id = CStr::from_ptr(native::rd_kafka_Uuid_base64str(id));
                ids.insert(name.to_string_lossy().into_owned(), id.to_string_lossy().into_owned());
            }
        }
        Ok(ids)
    }
}

fn sound(code: RDKafkaRespErr) -> Result<(), Fault> {
    match code {
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(()),
        code => Err(not_told(&RDKafkaErrorCode::from(code).to_string().to_lowercase())),
    }
}

fn not_told(why: &str) -> Fault {
    Fault::transient(format!("topics could not be described: {why}"))
}
