//! Counts what a thread allocates, so that a target can say what a decoder may take.
//!
//! Memory taken before a length was compared with what is there shows here as a peak far above
//! the input's size, whether or not the system would have given it.

#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicIsize, Ordering};

thread_local! {
    /// Bytes this thread has taken and not given back. Below zero when it gave back another's.
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

/// The system's allocator, counted.
pub(crate) struct Counted;

// SAFETY: every call is passed on to the system's allocator as it came, and what that returns is
// returned. The counters are cells of the thread that neither allocate nor have destructors.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size().cast_signed());
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size().cast_signed());
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(-layout.size().cast_signed());
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Both may be there for a moment.
        count(size.cast_signed());
        count(-layout.size().cast_signed());
        unsafe { System.realloc(at, layout, size) }
    }
}

/// The same of all threads together.
static LIVE_OF_ALL: AtomicIsize = AtomicIsize::new(0);
static PEAK_OF_ALL: AtomicIsize = AtomicIsize::new(0);

fn count(bytes: isize) {
    let live = LIVE_OF_ALL.fetch_add(bytes, Ordering::Relaxed) + bytes;
    PEAK_OF_ALL.fetch_max(live, Ordering::Relaxed);
    // A thread that ends has no counters any more.
    let _ = LIVE.try_with(|live| {
        live.set(live.get() + bytes);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(live.get())));
    });
}

/// The most that `run` had at one moment beyond what there was before it.
pub(crate) fn peak_of(run: impl FnOnce()) -> usize {
    let before = LIVE.with(Cell::get);
    PEAK.with(|peak| peak.set(before));
    run();
    (PEAK.with(Cell::get) - before).max(0).cast_unsigned()
}

/// The same of all threads, whatever else they do meanwhile.
pub(crate) fn peak_of_all(run: impl FnOnce()) -> usize {
    let before = LIVE_OF_ALL.load(Ordering::Relaxed);
    PEAK_OF_ALL.store(before, Ordering::Relaxed);
    run();
    (PEAK_OF_ALL.load(Ordering::Relaxed) - before).max(0).cast_unsigned()
}
