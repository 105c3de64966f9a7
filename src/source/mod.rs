//! Reading a file system for a backup: everything relative to open directories, links never followed.
//!
//! | file | what |
//! |---|---|
//! | [`dir`] | an open directory; everything below it is reached through it, so that renames and long paths do no harm |
//! | [`stat`] | what `statx` says about an entry |
//! | [`roots`] | the paths asked for, made absolute and folded into one tree |
//! | [`walk`] | every entry below the roots in one fixed order, directories listed ahead by threads |
//! | [`exclude`], [`tag`] | patterns, and files in a directory, that leave entries out |
//! | [`mod@file`] | the bytes and holes of one file |
//! | [`meta`] | extended attributes, link targets, owners' names |
//! | [`links`] | which group of hard links a file is of |
//! | [`files_from`] | lists of paths, and patterns for paths, from files |
//! | [`stream`] | bytes that come from another program or through stdin |
//!
//! Nothing here knows of repositories. What cannot be read is reported as such and never taken
//! for empty.

pub mod dir;
pub mod exclude;
pub mod file;
pub mod files_from;
pub mod links;
pub mod meta;
pub mod roots;
pub mod stat;
pub mod stream;
pub mod tag;
pub mod walk;

mod ahead;
mod list;
mod names;
mod node;
#[cfg(test)]
mod testing;
