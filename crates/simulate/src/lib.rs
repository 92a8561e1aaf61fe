//! Synthetic hospitals and devices. Writes rows into a MariaDB server that plays a hospital and readings into
//! `device.*` topics, from a seed, at a steady rate. Promises that every value is one the product accepts,
//! save the share of bad rows asked for. Never touches a database it did not create, and reads no output of
//! the product.

mod diagnoses;
mod error;
mod ids;
mod pace;
mod people;
mod vitals;

pub mod devices;
pub mod hospital;

pub use devices::DevicesArgs;
pub use error::Error;
pub use hospital::HospitalArgs;
pub use pace::Pace;
