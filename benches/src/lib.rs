//! What `fhirehose-bench` and `fhirehose-bench-steady` share: our engines at work on records held in memory. The
//! first takes their time, the second counts what they allocate; an allocator that counts would be in the
//! first one's way.

pub mod encounter;
pub mod resources;
pub mod work;
