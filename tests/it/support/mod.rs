//! What the tests stand on.

#![allow(dead_code)] // not every test uses every helper

pub mod capture;
pub mod checks;
pub mod naive;
pub mod process;
pub mod records;
pub mod shell;
pub mod world;
