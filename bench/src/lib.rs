//! Measuring side by side: rounds in turns, medians with their spread, and a report that machines can read.
//!
//! Figures of one run are compared with each other and with nothing else. What is measured is the shipped program, driven as its
//! users drive it.

pub mod answers;
pub mod cell;
pub mod cpu;
pub mod outcome;
pub mod report;
pub mod rounds;
pub mod scanner;
pub mod stage;
pub mod subjects;
pub mod workloads;
