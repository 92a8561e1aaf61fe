//! Named places in the engine where the chaos harness may kill, freeze or delay this process, and switches for
//! the bugs it plants to prove that it can fail. Without the feature `chaos` every call is an empty inline
//! function. Reads two environment variables; never changes what the product does in a build that ships.

#[cfg(all(feature = "chaos", not(debug_assertions)))]
compile_error!(
    "the feature `chaos` plants bugs: it builds only where debug assertions are on, as in `--profile chaos`"
);

#[cfg(feature = "chaos")]
mod armed;

/// A place where the harness may strike. `FHIREHOSE_FAULTPOINTS` says where and how:
/// `<point>=<action>[@<hit>]` separated by `;`, where the action is `kill` (SIGKILL), `stop` (SIGSTOP) or
/// `sleep:<ms>`, done at that hit of the point in this process (1, the first, if none is named), or `drag:<ms>`,
/// which sleeps at that hit and at every one after it. What was done is told on standard error as
/// `faultpoint <point> <action>`.
#[inline(always)]
pub fn point(name: &'static str) {
    #[cfg(feature = "chaos")]
    armed::hit(name);
    #[cfg(not(feature = "chaos"))]
    let _ = name;
}

/// Whether the harness has planted this bug: the value of `FHIREHOSE_PLANTED_BUG`. Always false in a build that
/// ships, so that the compiler removes the wrong code.
#[inline(always)]
pub fn planted(bug: &'static str) -> bool {
    #[cfg(feature = "chaos")]
    return armed::planted(bug);
    #[cfg(not(feature = "chaos"))]
    {
        let _ = bug;
        false
    }
}
