//! placeholder

pub mod testing;
