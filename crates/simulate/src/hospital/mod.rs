//! A synthetic hospital in a MariaDB server: six tables, an initial load, and a stream of changes.

mod changes;
mod load;
mod roster;
mod rows;
mod server;

use std::io::Write;

use clap::Args;

use crate::{Error, Pace};
pub use changes::{Changes, Done, Touched};
pub use server::Hospital;

/// Fill a MariaDB server with a synthetic hospital and keep changing it
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  Create a hospital of 500 patients, then change 50 rows a second for a minute
    fhirehose simulate hospital --url mysql://root@127.0.0.1:3306 --patients 500 --rate 50 --seconds 60
  The same hospital again, from nothing
    fhirehose simulate hospital --url mysql://root@127.0.0.1:3306 --seed 1 --reset
  Only changes, one in twenty vital signs impossible
    fhirehose simulate hospital --url mysql://root@127.0.0.1:3306 --rate 20 --bad-share 0.05

The server must be empty of the six tables or hold a hospital made by this command.")]
pub struct HospitalArgs {
    /// MariaDB server, as mysql://user:password@host:port
    #[arg(long, env = "FHIREHOSE_SIMULATE_URL", hide_env_values = true)]
    pub url: String,
    /// Patients in the initial load
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub patients: u32,
    /// The same seed makes the same hospital and the same changes
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Row changes per second after the load
    #[arg(long, default_value_t = 50.0)]
    pub rate: f64,
    /// How long to go on changing rows; 0 only loads
    #[arg(long, default_value_t = 60)]
    pub seconds: u64,
    /// Share of inserted vital signs that are impossible, so that the product must reject them
    #[arg(long, default_value_t = 0.0)]
    pub bad_share: f64,
    /// Time zone of the hospital's clocks, in which its DATETIME columns are written
    #[arg(long, default_value = "Africa/Khartoum")]
    pub zone: String,
    /// Drop the simulated hospital on this server first
    #[arg(long)]
    pub reset: bool,
}

/// Loads the hospital if the server holds none, then changes it; progress goes to `out`.
pub fn run(args: &HospitalArgs, out: &mut dyn Write) -> Result<(), Error> {
    if !(0.0..=1.0).contains(&args.bad_share) {
        return Err(Error::Usage("--bad-share is a share: between 0 and 1".into()));
    }
    if !args.rate.is_finite() || args.rate <= 0.0 {
        return Err(Error::Usage("--rate must be more than 0 rows a second".into()));
    }
    let mut hospital = Hospital::open(&args.url, &args.zone)?;
    if args.reset {
        hospital.drop()?;
    }
    if hospital.create()? {
        let rows = hospital.load(args.patients, args.seed, args.seed)?;
        writeln!(out, "loaded {rows} rows: {} patients and what happened to them", args.patients)?;
    } else {
        writeln!(out, "the server holds a simulated hospital already: changing it (--reset starts afresh)")?;
    }
    if args.seconds == 0 {
        return Ok(());
    }
    let mut changes = hospital.changes(args.seed, args.bad_share)?;
    let mut pace = Pace::new(args.rate, args.seconds);
    let (mut rows, mut transactions, mut said) = (0_u64, 0_u64, 0);
    while pace.wait() {
        let done = changes.step()?;
        pace.did(done.rows);
        rows += u64::from(done.rows);
        transactions += 1;
        let seconds = pace.elapsed().as_secs();
        if seconds >= said + 5 {
            said = seconds;
            writeln!(out, "{seconds:>4} s  {rows} rows changed in {transactions} transactions")?;
        }
    }
    writeln!(out, "done: {rows} rows changed in {transactions} transactions")?;
    Ok(())
}
