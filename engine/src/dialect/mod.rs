//! The databases: all SQL of the project stands below here, and nowhere else. Dynamic SQL is built by pure functions
//! that quote identifiers and bind values.

mod any;
mod canonical;
pub mod meta;
pub mod postgres;
pub mod sqlite;
