//! Whole calls against the model, through its public interface alone.

mod addresses;
mod imds;
mod listing;
mod operation;
mod over_time;
mod random_calls;
mod region;
