//! One binary, a module a hazard. A test's name is the sentence that it proves.

mod context_after_func;
mod context_cancel;
mod context_deadline;
mod context_display;
mod context_done;
mod context_errors;
mod context_merge;
mod context_model;
mod context_reentrancy;
mod context_run;
#[cfg(feature = "tokio-util")]
mod context_token;
mod context_tree;
mod context_values;
mod fan_out_fetch_all;
mod group_abort;
mod group_drop;
mod group_first_error;
mod group_lending;
mod group_limit;
mod group_model;
mod group_never_started;
mod group_new;
mod group_order;
mod group_outside_runtime;
mod group_panic;
mod group_reap;
mod group_spawner;
mod group_stress;
mod group_support;
mod group_traits;
mod group_try_go;
mod support;
