//! What the tests of this workspace share: the reference replica, and histories to drive it and real databases with.

pub mod histories;
pub mod oracle;
pub mod random;
#[cfg(test)]
mod tests;
