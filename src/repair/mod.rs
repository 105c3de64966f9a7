//! Repair, which only adds: an index of what is there, and snapshots of what is whole.
//!
//! Nothing is believed that was not looked at, and nothing damaged is passed on. What stands in
//! `repo::repair` needs no key: second copies of the configuration and of access statements.

pub mod index;
pub mod snapshots;
