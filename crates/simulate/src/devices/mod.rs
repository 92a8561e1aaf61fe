//! Synthetic bedside devices and watches: AVA4 gateways with their sensors and Kati watches, worn by the
//! patients of a hospital.

mod assignment;
mod fleet;
mod messages;
mod publish;

use std::io::Write;
use std::path::PathBuf;

use clap::Args;

use crate::{Error, Pace};
pub use fleet::{Fleet, Reading, Sent};
pub use messages::IMPEDANCE;

/// Send readings of synthetic devices worn by a hospital's patients
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  60 devices on patients of a hospital made by `fhirehose simulate hospital`, 20 messages a second
    fhirehose simulate devices --brokers 127.0.0.1:9092 --registry http://127.0.0.1:8081 \\
      --url mysql://root@127.0.0.1:3306 --source hospital_a --tenant khartoum-teaching
  A slow trickle for an hour
    fhirehose simulate devices --url mysql://root@127.0.0.1:3306 --source hospital_a \\
      --tenant khartoum-teaching --rate 2 --seconds 3600

The topics device.ava4, device.kati and device.assignment must exist: run `fhirehose topics apply` first.")]
pub struct DevicesArgs {
    /// Kafka brokers, as host:port,host:port
    #[arg(long, env = "FHIREHOSE__KAFKA__BROKERS")]
    pub brokers: String,
    /// Schema registry (Confluent API)
    #[arg(long, env = "FHIREHOSE__REGISTRY__URL")]
    pub registry: String,
    /// Directory that holds topics/ and schemas/
    #[arg(long, default_value = ".", env = "FHIREHOSE__SHAPES__DIR")]
    pub shapes: PathBuf,
    /// MariaDB server of the hospital whose patients wear the devices
    #[arg(long, env = "FHIREHOSE_SIMULATE_URL", hide_env_values = true)]
    pub url: String,
    /// The hospital's source name in the configuration of `fhirehose run`
    #[arg(long)]
    pub source: String,
    /// The hospital's tenant in the configuration of `fhirehose run`
    #[arg(long)]
    pub tenant: String,
    /// Devices in use
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(2..=100_000))]
    pub devices: u32,
    /// The same seed makes the same devices and the same order of messages
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Messages per second; a device sends at most one a second
    #[arg(long, default_value_t = 20.0)]
    pub rate: f64,
    #[arg(long, default_value_t = 60)]
    pub seconds: u64,
    /// Time zone of the hospital and of its watches' clocks
    #[arg(long, default_value = "Africa/Khartoum")]
    pub zone: String,
}

/// Assigns the devices and sends their messages; progress goes to `out`.
pub fn run(args: &DevicesArgs, out: &mut dyn Write) -> Result<(), Error> {
    if !args.rate.is_finite() || args.rate <= 0.0 || args.rate > f64::from(args.devices) / 2.0 {
        return Err(Error::Usage(format!(
            "--rate must be above 0 and at most half the number of devices ({})",
            args.devices
        )));
    }
    let mut fleet = Fleet::open(args)?;
    writeln!(out, "{} devices assigned to patients of {}", args.devices, args.source)?;
    let mut pace = Pace::new(args.rate, args.seconds);
    let (mut messages, mut said) = (0_u64, 0);
    while pace.wait() {
        fleet.step(pace.elapsed())?;
        pace.did(1);
        messages += 1;
        let seconds = pace.elapsed().as_secs();
        if seconds >= said + 5 {
            said = seconds;
            writeln!(out, "{seconds:>4} s  {messages} messages sent")?;
        }
    }
    fleet.finish()?;
    writeln!(out, "done: {messages} messages sent")?;
    Ok(())
}
