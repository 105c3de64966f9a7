//! Wiping what no `drop` can: the stack.
//!
//! A value that is moved, an array that was returned, a register that was spilled and the insides
//! of a library leave copies in frames that nobody owns any more. They stay until something else
//! is written over them, which may be never.

use zeroize::Zeroize;

/// How far below its caller the stack is wiped: twice what all of a command was seen to use of it.
const STACK_BYTES: usize = 256 << 10;

/// Does work with secrets, then wipes the stack it used.
///
/// What `work` gives back must keep its own secrets on the heap, as
/// [`SecretKey`](super::key::SecretKey) does.
pub fn after<T>(work: impl FnOnce() -> T) -> T {
    let value = apart(work);
    stack();
    value
}

/// Keeps the frames of `work` below that of [`after`].
#[inline(never)]
fn apart<T>(work: impl FnOnce() -> T) -> T {
    work()
}

#[inline(never)]
fn stack() {
    let mut below = [0u8; STACK_BYTES];
    below.zeroize();
    std::hint::black_box(&mut below);
}
