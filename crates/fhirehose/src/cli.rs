use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use fhirehose_runtime::StartFrom;
use fhirehose_simulate::{DevicesArgs, HospitalArgs};

use crate::commands::validate::Release;
use crate::commands::views::Format;

/// Hospital databases and bedside devices in; FHIR, time series, search index, star schema and cache
/// invalidations out, exactly once.
#[derive(Parser)]
#[command(
    version,
    arg_required_else_help = true,
    after_help = "\
Examples:
  Make topics and schemas, then the tables and search indices
    fhirehose topics apply && fhirehose migrate apply
  Run everything in one process, from the beginning the first time
    fhirehose run all --start-from earliest
  Run one processor with two workers
    fhirehose run normalize-cdc --workers 2

Settings come from fhirehose.toml, then FHIREHOSE__SECTION__KEY in the environment, then flags."
)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Args)]
pub struct Global {
    /// Configuration file; without it ./fhirehose.toml if there is one
    #[arg(long, global = true, env = "FHIREHOSE_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Folder that holds topics/ schemas/ mappings/ views/
    #[arg(long, global = true, value_name = "DIR")]
    pub shapes: Option<PathBuf>,
    /// Any other setting, such as --set breaker.consecutive=50
    #[arg(long, global = true, value_name = "KEY=VALUE", value_parser = key_value)]
    pub set: Vec<(String, String)>,
}

#[derive(Subcommand)]
pub enum Command {
    /// Run processors until SIGTERM
    Run(RunArgs),
    /// List the processors: what each reads, writes and does
    Processors,
    /// Compare the declared topics and schemas with the cluster, and make them so
    #[command(subcommand)]
    Topics(TopicsCommand),
    /// Make the tables of the PostgreSQL stores and the search indices
    #[command(subcommand)]
    Migrate(MigrateCommand),
    /// Build a table of the warehouse anew from its topic, and swap it in
    Rebuild(RebuildArgs),
    /// Check, explain, test and begin mappings, without Kafka
    #[command(subcommand)]
    Mappings(MappingsCommand),
    /// Evaluate a FHIRPath expression on resources
    Fhirpath(FhirpathArgs),
    /// Check resources against FHIR's definitions and terminology
    Validate(ValidateArgs),
    /// Print what an FPML template makes of a document
    Fpml(FpmlArgs),
    /// Check SQL-on-FHIR views, and make tables of files of resources
    #[command(subcommand)]
    Views(ViewsCommand),
    /// Check and show the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Say who wears which device
    #[command(subcommand)]
    Devices(DevicesCommand),
    /// Play a hospital's database, or its devices
    #[command(subcommand)]
    Simulate(SimulateCommand),
}

#[derive(Args)]
#[command(after_help = "\
Examples:
  fhirehose run all --start-from earliest
  fhirehose run alert-emergency
  fhirehose run sink-timescale sink-warehouse --workers 2 --listen 127.0.0.1:9465")]
pub struct RunArgs {
    /// Processor names, or `all`; `fhirehose processors` lists them
    #[arg(required = true, value_name = "PROCESSOR")]
    pub processors: Vec<String>,
    /// Where groups that have never read begin: earliest, latest or an instant (runtime.start_from)
    #[arg(long, value_name = "WHERE")]
    pub start_from: Option<StartFrom>,
    /// Worker threads per processor (runtime.workers)
    #[arg(long, value_name = "N")]
    pub workers: Option<usize>,
    /// Name of this process, unlike that of any other at the same time (runtime.instance)
    #[arg(long, value_name = "NAME")]
    pub instance: Option<String>,
    /// Address of the status page, health and metrics (admin.listen)
    #[arg(long, value_name = "HOST:PORT")]
    pub listen: Option<String>,
}

impl RunArgs {
    /// The flags as settings.
    pub fn flags(&self) -> Vec<(String, String)> {
        let pairs = [
            ("runtime.start_from", self.start_from.map(|from| from.to_string())),
            ("runtime.workers", self.workers.map(|workers| workers.to_string())),
            ("runtime.instance", self.instance.clone()),
            ("admin.listen", self.listen.clone()),
        ];
        pairs.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect()
    }
}

#[derive(Clone, Copy, Subcommand)]
pub enum TopicsCommand {
    /// List the declared topics
    List,
    /// Show what `apply` would do
    Plan,
    /// Create topics, raise partitions, set configurations, register schemas
    Apply,
}

#[derive(Clone, Copy, Subcommand)]
pub enum MigrateCommand {
    /// Show what `apply` would do, with the SQL for declared tables; exit 1 if any of it is refused
    Plan,
    /// Apply pending migrations, bring tables to their declarations, make search templates, indices and the alias
    Apply,
    /// Print the declared tables and their columns in Markdown; no database is needed
    Tables,
}

#[derive(Args)]
#[command(after_help = "\
The new table is filled beside the old one from the beginning of its topic to where sink-warehouse is, which may run
meanwhile. For the swap it must be stopped; the command waits for that. Killed at any time, it goes on where it was.
Examples:
  fhirehose rebuild fact.encounter_fact
  fhirehose rebuild dim.facility_dimension --anew
Exit code: 0 when the tables are swapped; else 1, and the old table is as it was.")]
pub struct RebuildArgs {
    /// A declared table, such as fact.encounter_fact
    #[arg(value_name = "TABLE")]
    pub table: String,
    /// Drop what an earlier run has filled and begin anew
    #[arg(long)]
    pub anew: bool,
    /// Build it although Kafka no longer holds the topic's first records: their rows will be missing
    #[arg(long)]
    pub without_lost: bool,
}

#[derive(Subcommand)]
pub enum MappingsCommand {
    /// Compile all mappings and concept maps; exit 1 on any problem
    Check,
    /// Show what a mapping makes of one record, hole by hole
    #[command(after_help = "\
The file holds {\"key\": …, \"value\": …, \"headers\": {}, \"timestamp\": ms}, as those in examples/ do.
Examples:
  fhirehose mappings explain --record examples/cdc.clinical_data.vital_signs/create-late.json
  fhirehose mappings explain --record sos.json --topic device.kati")]
    Explain(ExplainArgs),
    /// Compare what mappings make of their examples with what was accepted before; exit 1 on any difference
    #[command(after_help = "\
An example is examples/<topic>/<name>.json; what is accepted of it stands beside it in <name>.expected. Each is mapped
as of a source and tenant named example, whose zone is UTC.
Examples:
  fhirehose mappings test
  fhirehose mappings test clinical_data.vital_signs kati
  Look at the difference, then accept it
    fhirehose mappings test kati; fhirehose mappings test kati --update && git diff examples")]
    Test(MappingsTestArgs),
    /// Print a first mapping of a table, made from its columns; guesses are marked
    #[command(after_help = "\
The rows themselves are not read. Lines with `GUESS` are to be looked at: `fhirehose mappings check` finds what is
still wrong.
Examples:
  fhirehose mappings scaffold --from mysql://reader@localhost:3306/clinical_data --table allergies
  fhirehose mappings scaffold --from mysql://reader@db/lab --table results > mappings/cdc/lab/results.yaml
The password may stand in FHIREHOSE_SCAFFOLD_PASSWORD instead of the address.")]
    Scaffold(ScaffoldArgs),
}

#[derive(Args)]
pub struct MappingsTestArgs {
    /// Only examples of topics whose name has one of these in it
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
    /// Accept what the mappings make now
    #[arg(long)]
    pub update: bool,
}

#[derive(Args)]
pub struct ScaffoldArgs {
    /// Address of the database: mysql://user@host:port/database
    #[arg(long, value_name = "URL")]
    pub from: String,
    /// The table
    #[arg(long, value_name = "TABLE")]
    pub table: String,
    #[arg(long, hide = true, env = "FHIREHOSE_SCAFFOLD_PASSWORD", hide_env_values = true)]
    pub password: Option<String>,
}

#[derive(Args)]
pub struct ExplainArgs {
    /// A record in JSON; its values are shown
    #[arg(long, value_name = "FILE")]
    pub record: PathBuf,
    /// Its logical topic; by default the name of the folder the file is in
    #[arg(long)]
    pub topic: Option<String>,
    /// A configured source, for its tenant and time zone
    #[arg(long)]
    pub source: Option<String>,
}

#[derive(Args)]
#[command(after_help = "\
Prints one line per resource: a JSON array of the items found. Of a Bundle, each entry's resource is taken.
Examples:
  fhirehose fhirpath 'Patient.name.given.first()' --in patient.json
  fhirehose fhirpath 'value.ofType(Quantity).value > %limit' --of Observation --var limit=120 --in *.ndjson
  gzip -dc bundle.json.gz | fhirehose fhirpath \"Observation.where(code.coding.exists(code = '8867-4')).subject\" --in -
Exit code: 0; 1 if a file or resource could not be read or evaluated; 2 if the expression is wrong.")]
pub struct FhirpathArgs {
    /// The expression
    #[arg(value_name = "EXPR")]
    pub expression: String,
    /// JSON, NDJSON or Bundle files, also gzipped; `-` is standard input
    #[arg(long = "in", required = true, num_args = 1.., value_name = "FILE")]
    pub input: Vec<PathBuf>,
    /// A variable, %NAME in the expression; VALUE is JSON, or else text
    #[arg(long, value_name = "NAME=VALUE", value_parser = key_value)]
    pub var: Vec<(String, String)>,
    /// Take only resources of this type, and check the expression against its definition
    #[arg(long, value_name = "TYPE")]
    pub of: Option<String>,
    /// Take a Bundle as one resource
    #[arg(long)]
    pub whole: bool,
}

#[derive(Args)]
#[command(after_help = "\
Prints a line per finding: file, line, error or warning, path and rule. A Bundle is checked with all it holds.
Examples:
  fhirehose validate patient.json
  fhirehose validate --version r5 observations.ndjson.gz
  gzip -dc bundle.json.gz | fhirehose validate -
Exit code: 0 if all are valid; 1 if any is not, or could not be read.")]
pub struct ValidateArgs {
    /// JSON, NDJSON or Bundle files, also gzipped; `-` is standard input
    #[arg(required = true, value_name = "FILE")]
    pub input: Vec<PathBuf>,
    /// The release of FHIR: r4 (4.0.1) or r5 (5.0.0)
    #[arg(long, value_enum, default_value = "r4")]
    pub version: Release,
    /// Take warnings for errors
    #[arg(long)]
    pub strict: bool,
}

#[derive(Args)]
#[command(after_help = "\
Files are YAML or JSON. Members of the context are variables: {\"limit\": 5} is %limit. %context is the document.
Examples:
  fhirehose fpml --template appointment.yaml --in response.json
  fhirehose fpml --template observation.yaml --in - --context codes.yaml < row.json
Exit code: 0; 1 if a file could not be read or the template fails on the document; 2 if the template is wrong.")]
pub struct FpmlArgs {
    /// The template; `-` is standard input
    #[arg(long, value_name = "FILE")]
    pub template: PathBuf,
    /// The document it is filled from; `-` is standard input
    #[arg(long = "in", value_name = "FILE")]
    pub input: PathBuf,
    /// Variables
    #[arg(long, value_name = "FILE")]
    pub context: Option<PathBuf>,
    /// Refuse names of the document's members: it is seen through variables only
    #[arg(long)]
    pub strict: bool,
}

#[derive(Subcommand)]
pub enum ViewsCommand {
    /// Compile views; exit 2 on any problem, with file, place and expression
    #[command(after_help = "\
Examples:
  fhirehose views check patients.json
  fhirehose views check views/warehouse/*.json")]
    Check(ViewsCheckArgs),
    /// Make a table of the resources in files
    #[command(after_help = "\
Of a Bundle, each entry's resource is taken; resources of other types than the view's are passed over. Rows come in
the order of the input. Memory is for some batches of input, however long it is.
Examples:
  fhirehose views run patients.json --in bundles/*.json.gz > patients.csv
  fhirehose views run vitals.json --in Observation.ndjson --format parquet --out vitals.parquet
  gzip -dc export.ndjson.gz | fhirehose views run patients.json --in - --format ndjson
Exit code: 0; 1 if anything could not be read or had no rows for an error, the rest is written; 2 if the view is
wrong.")]
    Run(ViewsRunArgs),
}

#[derive(Args)]
pub struct ViewsCheckArgs {
    /// ViewDefinitions in JSON
    #[arg(required = true, value_name = "VIEW")]
    pub views: Vec<PathBuf>,
}

#[derive(Args)]
pub struct ViewsRunArgs {
    /// A ViewDefinition in JSON
    #[arg(value_name = "VIEW")]
    pub view: PathBuf,
    /// JSON, NDJSON or Bundle files, also gzipped; `-` is standard input
    #[arg(long = "in", required = true, num_args = 1.., value_name = "FILE")]
    pub input: Vec<PathBuf>,
    /// What to write
    #[arg(long, value_enum, default_value = "csv")]
    pub format: Format,
    /// Where to; by default standard output
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

#[derive(Subcommand)]
pub enum ConfigCommand {
    /// Check the configuration and the shape files it points to
    Check,
    /// Show the settings in effect, secrets masked
    Show {
        /// Show where each comes from
        #[arg(long)]
        origin: bool,
    },
}

#[derive(Subcommand)]
pub enum DevicesCommand {
    /// Assign a device to a patient for a time
    #[command(after_help = "\
Examples:
  fhirehose devices assign --device D4:36:39:9B:C7:10 --source hospital_a --patient 42 --from 2026-01-31T08:00:00Z
  The same, ended
    fhirehose devices assign --device D436399BC710 --source hospital_a --patient 42 \\
      --from 2026-01-31T08:00:00Z --to 2026-02-03T10:00:00Z")]
    Assign(AssignArgs),
}

#[derive(Args)]
pub struct AssignArgs {
    /// Hardware address, or IMEI
    #[arg(long)]
    pub device: String,
    /// Tenant; by default that of the source
    #[arg(long)]
    pub tenant: Option<String>,
    /// Source whose database holds the patient
    #[arg(long)]
    pub source: String,
    /// Id of the patient's row in clinical_data.patients
    #[arg(long)]
    pub patient: String,
    /// First moment, such as 2026-01-31T08:00:00Z
    #[arg(long)]
    pub from: jiff::Timestamp,
    /// First moment after; without it the assignment lasts
    #[arg(long)]
    pub to: Option<jiff::Timestamp>,
    /// Logical FHIR id of the facility
    #[arg(long)]
    pub facility: Option<String>,
}

#[derive(Subcommand)]
pub enum SimulateCommand {
    /// Fill a MariaDB server with a synthetic hospital and change its rows
    Hospital(HospitalArgs),
    /// Send readings of synthetic devices to Kafka
    Devices(DevicesArgs),
}

fn key_value(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .map(|(key, value)| (key.trim().to_owned(), value.to_owned()))
        .ok_or_else(|| "expected KEY=VALUE".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
        let cli =
            Cli::try_parse_from(["fhirehose", "run", "all", "--start-from", "latest", "--workers", "3"])
                .unwrap();
        let Command::Run(run) = cli.command else { panic!("not run") };
        let flags = run.flags();
        assert!(flags.contains(&("runtime.start_from".into(), "latest".into())));
        assert!(flags.contains(&("runtime.workers".into(), "3".into())));
        assert_eq!(flags.len(), 2);
        assert!(Cli::try_parse_from(["fhirehose", "run", "all", "--start-from", "monday"]).is_err());
    }
}
