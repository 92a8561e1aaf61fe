use std::process::ExitCode;

use anyhow::{Context, bail};
use fhirehose_codec::AvroEncoder;
use fhirehose_mapping::device_id;
use fhirehose_tape::Tape;

use super::say;
use crate::app::App;
use crate::cli::{AssignArgs, DevicesCommand};

const TOPIC: &str = "device.assignment";
const PATIENTS: &str = "clinical_data.patients";

/// Writes who wears a device from when to when.
pub fn run(app: &App, command: &DevicesCommand) -> anyhow::Result<ExitCode> {
    let DevicesCommand::Assign(args) = command;
    if args.to.is_some_and(|to| to <= args.from) {
        bail!("--to must be after --from");
    }
    let configured = app.config().sources.get(&args.source).map(|source| source.tenant.clone());
    let tenant = match (&args.tenant, configured) {
        (Some(given), Some(configured)) if *given != configured && no_facilities(app, args) => {
            bail!("the source {} belongs to the tenant {configured}", args.source)
        }
        (Some(given), _) => given.clone(),
        (None, Some(configured)) => configured,
        (None, None) => bail!("no [sources.{}] is configured: say --tenant", args.source),
    };
    let device = device_id(&args.device);
    if device.is_empty() {
        bail!("--device is neither a hardware address nor an IMEI");
    }
    let patient = fhirehose_fhir::id(&tenant, &args.source, PATIENTS, &[&args.patient], None).to_string();
    let from = args.from.as_millisecond();
    let topics = app.topics()?;
    let schema = topics.schema(TOPIC).context("device.assignment is not declared")?;
    let registry = app.registry()?;
    let encoder = AvroEncoder::new(schema, registry.id_of(&schema.subject, &schema.json)?)?;
    let mut tape = Tape::new();
    tape.begin_object();
    let texts = [("device_id", Some(&device)), ("tenant", Some(&tenant)), ("patient_id", Some(&patient))];
    for (name, value) in texts.into_iter().chain([("facility_id", args.facility.as_ref())]) {
        if let Some(value) = value {
            tape.key(name);
            tape.string(value);
        }
    }
    for (name, at) in [("valid_from", Some(from)), ("valid_to", args.to.map(|to| to.as_millisecond()))] {
        if let Some(at) = at {
            tape.key(name);
            tape.integer(at);
        }
    }
    tape.end();
    let mut value = Vec::new();
    encoder.encode(tape.root(), &mut value)?;
    let key = format!("{device}/{from}");
    app.clients()?.produce(TOPIC, key.as_bytes(), Some(&value)).map_err(anyhow::Error::msg)?;
    say(format_args!("{device} is assigned to Patient/{patient} of {tenant} from {}", args.from));
    Ok(ExitCode::SUCCESS)
}

/// Whether the source has one tenant only.
fn no_facilities(app: &App, args: &AssignArgs) -> bool {
    app.config().sources.get(&args.source).is_some_and(|source| source.facility_tenants.is_empty())
}
