//! Keeps one target served: observe, decide, act.
//!
//! Whatever woke the function (a lifecycle hook, a command's status, a tick), [`observe`] reads the world, [`decide`] says what to do
//! about it without doing anything, and [`act`] does it. Nothing is remembered between invocations but what stands in the
//! services and in the repository, so a lost, late, doubled or reordered event changes nothing but latency, and a crash
//! anywhere is taken up by the next invocation.
//!
//! | module | owns |
//! |---|---|
//! | [`world`] | what can be seen, as plain data |
//! | [`observe`] | reading it |
//! | [`run_state`] | how a restore or final backup stands |
//! | [`decide`] | the decision: pure, tested as a table and by simulation |
//! | [`act`] | carrying it out; every step may be repeated |
//! | [`reconcile`] | observe, decide and act until nothing is left to do |

pub mod act;
pub mod decide;
pub mod observe;
pub mod reconcile;
pub mod run_state;
pub mod world;
