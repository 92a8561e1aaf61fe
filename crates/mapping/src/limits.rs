//! What a mapping may cost. Mappings and templates are written by others, and records come from outside: what
//! neither needs is refused, with an error, before it costs memory or time. Expressions have limits of their own
//! ([`fhirehose_fhirpath::limits`]).

/// Bytes of a mapping or template file.
pub const MAX_FILE: usize = 1 << 20;

/// Lists and maps nested deeper are refused: the compiler and the renderer recurse.
pub const MAX_DEPTH: usize = 64;

/// Scalars, lists and maps of a file, those that aliases repeat included.
pub const MAX_NODES: usize = 100_000;

/// Bytes of what one record becomes, and of the variables made on the way.
pub const MAX_OUTPUT: usize = 1 << 24;

/// Steps that one record may take: parts of templates written, and the steps of their expressions. All of them
/// take some seconds.
pub const MAX_STEPS: u64 = 20_000_000;
