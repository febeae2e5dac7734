//! Models of the cores: loom runs each in every interleaving, up to a bound on preemptions.
//!
//! `../.ci/loom.sh` runs them, and then each of the mutants in `mutants/`, which a model must find.
#![cfg(all(test, errgroup_loom))]

mod close;
mod context;
mod fan_out;
mod group;
mod reserve;

use loom::model::Builder;

/// Runs a model with at most this many preemptions. Two find nearly all defects, and a model ends
/// in seconds. (M. Musuvathi and S. Qadeer, *Iterative Context Bounding for Systematic Testing of
/// Multithreaded Programs*, PLDI 2007.)
fn check(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 10_000;
    builder.check(model);
}

/// The errors of the models are strings.
type Group = errgroup::Group<String>;

fn block_on<F: Future>(future: F) -> F::Output {
    loom::future::block_on(future)
}
