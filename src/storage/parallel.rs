//! Several requests at once, for storages that are far away.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Calls `work` for each item on at most `at_once` threads and gives the results in the order
/// of the items.
///
/// After an error no more items are begun; of several errors the one of the earliest item is
/// given. What is no reason to stop belongs into `U`. With `at_once` of 1 this is a plain loop.
pub fn try_map<T, U, E>(at_once: usize, items: &[T], work: impl Fn(&T) -> Result<U, E> + Sync) -> Result<Vec<U>, E>
where
    T: Sync,
    U: Send,
    E: Send,
{
    let threads = at_once.min(items.len());
    if threads <= 1 {
        return items.iter().map(work).collect();
    }
    let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let results: Mutex<Vec<Option<Result<U, E>>>> = Mutex::new(items.iter().map(|_| None).collect());
    let run = || {
        while !failed.load(Ordering::Relaxed) {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(index) else { return };
            let result = work(item);
            if result.is_err() {
                failed.store(true, Ordering::Relaxed);
            }
            results.lock().unwrap_or_else(PoisonError::into_inner)[index] = Some(result);
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            // Fewer threads do as well.
            let _ = std::thread::Builder::new().name("esker-get".into()).spawn_scoped(scope, run);
        }
        run();
    });
    // Items are begun in order, so before one that was not begun there is an error.
    results.into_inner().unwrap_or_else(PoisonError::into_inner).into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    #[test]
    fn results_are_in_the_order_of_the_items() {
        let items: Vec<u32> = (0..100).collect();
        for at_once in [0, 1, 2, 7, 200] {
            let doubled = try_map(at_once, &items, |item| Ok::<_, ()>(item * 2)).unwrap();
            assert!(doubled.iter().zip(&items).all(|(doubled, item)| *doubled == item * 2), "{at_once}");
            assert_eq!(doubled.len(), 100);
        }
        assert!(try_map(5, &[] as &[u32], |_| Ok::<_, ()>(())).unwrap().is_empty());
    }

    /// Four calls that wait for each other return only if they are under way at once.
    #[test]
    fn as_many_are_under_way_as_may_be() {
        let meet = Barrier::new(4);
        try_map(4, &[(); 8], |()| {
            meet.wait();
            Ok::<_, ()>(())
        })
        .unwrap();
    }

    #[test]
    fn the_earliest_error_wins_and_nothing_is_begun_after_it() {
        let meet = Barrier::new(2);
        let begun = AtomicUsize::new(0);
        // The later of two that run at once fails first or last: the earlier is told.
        let result = try_map(2, &[1, 2, 3, 4, 5, 6], |item| {
            begun.fetch_add(1, Ordering::Relaxed);
            if *item <= 2 {
                meet.wait();
                return Err(*item);
            }
            Ok(())
        });
        assert_eq!(result, Err(1));
        assert!(begun.load(Ordering::Relaxed) <= 3);
    }
}
