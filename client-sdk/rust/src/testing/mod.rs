//! A hub and a leaf in memory, with one table of `id` and `name`, that fail where a test wants them to.
#![allow(clippy::unwrap_used)]

mod faults;
mod hub;
mod leaf;
mod rows;

pub(crate) use faults::{Fault, Faults};
pub(crate) use hub::FakeHub;
pub(crate) use leaf::FakeLeaf;
pub(crate) use rows::SCOPE;
