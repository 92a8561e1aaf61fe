//! What both PostgreSQL sinks share: reads batches, writes rows and the offsets they end at in one transaction,
//! so each record takes effect exactly once. Promises: a worker that lost its partitions cannot commit
//! (epoch-fenced offsets), a record the database refuses for what it holds is found and rejected alone, no
//! value of a record is ever in an error. Never: talks to Kafka, or uses `ON CONFLICT` to be exactly once.

mod column;
mod connect;
mod copy;
mod error;
pub mod migrate;
mod numeric;
mod offsets;
mod sink;
mod straight;
mod table;

pub use column::{ColumnType, Datum, WrongType};
pub use connect::Connector;
pub use copy::{CopyRows, Mark};
pub use error::{StoreError, fault};
pub use postgres;
pub use sink::{PgSink, Tables};
pub use straight::Straight;
pub use table::{Column, TableShape};
