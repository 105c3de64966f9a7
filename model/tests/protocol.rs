//! Risk: some order of steps, of two backups and two collections, loses what a snapshot needs.
//! Method: every state of the small scenes is looked at. What each scene is there for must have come about
//! in it, or it would hold for want of anything that happens.

use esker_model::claims::MARKS;
use esker_model::explore::explore;
use esker_model::scenes::{Size, all};

#[test]
fn nothing_is_lost_in_any_order_of_steps() {
    let mut marks = esker_model::set::Set::EMPTY;
    for (name, _, scene) in all().into_iter().filter(|(_, size, _)| *size == Size::Ci) {
        let report = explore(&scene, 20_000_000);
        println!("{name}: {} states to depth {}", report.states, report.depth);
        if let Some((claim, way)) = report.broken {
            way.iter().for_each(|action| println!("{action}"));
            panic!("{name}: {claim}");
        }
        assert!(report.complete, "{name}: more states than expected");
        marks |= report.marks;
    }
    // Where everybody keeps the rules, nothing live is ever missing, and no collection refuses.
    let never: Vec<_> = (0..MARKS.len()).filter(|&mark| !marks.has(mark)).map(|mark| MARKS[mark]).collect();
    assert_eq!(never, ["a collection refused"]);
}
