//! Risk: a message that is lost, told for ever, or that holds up others. Method: [`Line`] by hand, with times of our own; then
//! the threads, with deliveries that succeed, fail, panic or block. Nothing sleeps.

use std::sync::mpsc;

use super::*;
use crate::service::alerts::{Alert, Severity, State};
use crate::service::notify::Signal;
use crate::service::plan::{Found, Hooks, When};

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn message(summary: &str) -> Message {
    let alert = Alert::new(Rule::Failed, "db", Severity::Warning, summary, "").label("job", "db");
    Message { state: State::Fired, alert, since_ms: 0, until_ms: 0, at_ms: 0 }
}

fn ping() -> Ping {
    Ping { job: "db".to_owned(), signal: Signal::Start, run: "r".to_owned(), body: String::new() }
}

fn item(summary: &str) -> Item {
    Item::Message(Box::new(message(summary)))
}

/// Tries the front of `line` whenever it may, with `fails` for each; gives when each try was and how the last ended.
fn tries(item: Item, fails: impl Fn() -> Failure) -> (Vec<u64>, Settled) {
    let (mut line, mut now, mut at) = (Line::default(), secs(100), Vec::new());
    line.push(item, now);
    loop {
        match line.next(now, false) {
            Next::Wait(wait) => now += wait,
            Next::Idle => unreachable!("it was given up or waits"),
            Next::Try(waiting) => {
                at.push(now.as_secs() - 100);
                match line.settle(waiting, Err(fails()), now, false) {
                    Settled::Later => {}
                    last => return (at, last),
                }
            }
        }
    }
}

#[test]
fn what_fails_is_tried_again_after_longer_and_longer_and_given_up() {
    let down = || Failure::later("down");
    let given_up = Settled::GivenUp(down());
    assert_eq!(tries(item("a"), down), (vec![0, 5, 20, 65, 200, 605, 1505, 2405], given_up));
    assert_eq!(tries(Item::Ping(ping()), down).0, [0, 1, 3, 7]);
    assert_eq!(tries(item("a"), || Failure::never("404")).0, [0]);
    let asked = |after: u64| move || Failure { again: Again::After(secs(after)), ..Failure::later("busy") };
    assert_eq!(tries(item("a"), asked(60)).0, [0, 60, 120, 180, 240, 300, 360, 420]);
    assert_eq!(tries(item("a"), asked(0)).0[..2], [0, 5], "at once is too soon");
    assert_eq!(tries(item("a"), asked(u64::MAX)).0, [0, 900, 1800, 2700, 3600], "nobody waits for ever");
}

#[test]
fn what_waited_for_an_hour_is_tried_once() {
    let mut line = Line::default();
    for text in ["a", "b", "c"] {
        line.push(item(text), secs(0));
    }
    for _ in 0..3 {
        let Next::Try(waiting) = line.next(secs(3600), false) else { panic!("it is tried") };
        assert!(matches!(line.settle(waiting, Err(Failure::later("down")), secs(3600), false), Settled::GivenUp(_)));
    }
    assert_eq!(line.next(secs(3600), false), Next::Idle);
}

#[test]
fn what_is_told_is_told_in_order() {
    let mut line = Line::default();
    line.push(item("a"), secs(0));
    line.push(item("b"), secs(0));
    let Next::Try(waiting) = line.next(secs(0), false) else { panic!("it is tried") };
    assert_eq!(line.settle(waiting, Err(Failure::later("down")), secs(0), false), Settled::Later);
    assert_eq!(line.next(secs(4), false), Next::Wait(secs(1)));
    let Next::Try(first) = line.next(secs(4), true) else { panic!("at the end nothing is put off") };
    assert_eq!(first.item, item("a"));
}

#[test]
fn a_line_that_is_full_takes_nothing_more() {
    let mut line = Line::default();
    assert_eq!((0..300).filter(|_| line.push(item("a"), secs(0))).count(), LINE_MAX);
}

fn notifier(channel: Channel) -> Notifier {
    Notifier { channel, least: Severity::Warning, template: None, ca_file: None }
}

fn named(names: &[&str]) -> BTreeMap<String, Notifier> {
    names.iter().map(|name| ((*name).to_owned(), notifier(Channel::Command(Vec::new())))).collect()
}

fn job(notify: Option<Vec<String>>) -> Job {
    Job {
        name: "db".to_owned(),
        kind: Kind::Backup,
        args: Vec::new(),
        repository: "usb".to_owned(),
        target: None,
        tier: None,
        of: None,
        when: When::default(),
        retries: 0,
        retry_wait: Duration::ZERO,
        timeout: None,
        nice: None,
        hooks: Hooks::default(),
        notify,
        enabled: true,
    }
}

fn text_of(item: &Item) -> String {
    match item {
        Item::Message(message) => message.alert.summary.clone(),
        Item::Ping(ping) => format!("{:?}", ping.signal),
    }
}

#[test]
fn a_notifier_that_hangs_or_panics_holds_up_nobody() {
    let (tell, told) = mpsc::channel();
    let (release, hangs) = mpsc::channel::<()>();
    let hangs = Mutex::new(Some(hangs));
    let queue = Queue::with(&named(&["hangs", "panics", "well"]), &World::system(), move |name| {
        let (tell, name) = (tell.clone(), name.to_owned());
        let hang = (name == "hangs").then(|| hangs.lock().unwrap().take()).flatten();
        Box::new(move |_, item| {
            if let Some(hang) = &hang {
                let _ = hang.recv();
            }
            assert_ne!(name, "panics");
            tell.send(format!("{name} {}", text_of(item))).map_err(|_| Failure::never("nobody listens"))
        })
    });
    queue.tell(&message("one"), &Plan::default());
    queue.tell(&message("two"), &Plan::default());
    assert_eq!([told.recv().unwrap(), told.recv().unwrap()], ["well one", "well two"]);
    release.send(()).unwrap();
    assert_eq!(told.recv().unwrap(), "hangs one");
    drop(release);
    assert_eq!(told.recv().unwrap(), "hangs two");
    let lanes: Vec<_> = queue.lanes.values().cloned().collect();
    assert_eq!(queue.finish(secs(60)), 0);
    let facts: Vec<_> = lanes.iter().map(|lane| lane.lock().facts.clone()).collect();
    assert_eq!(facts.iter().map(|f| (f.delivered, f.given_up)).collect::<Vec<_>>(), [(2, 0), (0, 2), (2, 0)]);
    assert_eq!(facts[1].error.as_deref(), Some("telling it panicked, which is a bug"));
    assert_eq!(facts[2].error, None);
}

#[test]
fn the_end_tries_all_that_waits_once_more_and_waits_no_longer_than_it_may() {
    let (tell, tried) = mpsc::channel();
    let queue = Queue::with(&named(&["ops"]), &World::system(), move |_| {
        let (tell, mut down) = (tell.clone(), true);
        Box::new(move |_, item| {
            tell.send(text_of(item)).unwrap();
            if std::mem::take(&mut down) { Err(Failure::later("down")) } else { Ok(()) }
        })
    });
    queue.tell(&message("one"), &Plan::default());
    assert_eq!(tried.recv().unwrap(), "one");
    queue.tell(&message("two"), &Plan::default());
    assert_eq!(queue.finish(secs(60)), 0);
    assert_eq!(tried.try_iter().collect::<Vec<_>>(), ["one", "two"]);

    let (_keep, hang) = mpsc::channel::<()>();
    let hang = Mutex::new(Some(hang));
    let queue = Queue::with(&named(&["hangs"]), &World::system(), move |_| {
        let hang = hang.lock().unwrap().take();
        Box::new(move |_, _| hang.as_ref().map_or(Ok(()), |hang| hang.recv().map_err(|_| Failure::never("gone"))))
    });
    queue.tell(&message("one"), &Plan::default());
    queue.tell(&message("two"), &Plan::default());
    assert_eq!(queue.finish(Duration::ZERO), 2, "it does not wait for what hangs");
}

#[test]
fn who_hears_is_a_matter_of_weight_and_of_the_job() {
    let heard = |change: &dyn Fn(&mut Message, &mut Notifier, &mut Plan)| {
        let mut plan = Plan::default();
        plan.jobs.insert("db".to_owned(), job(None));
        let (mut message, mut notifier) = (message("a"), notifier(Channel::Command(Vec::new())));
        change(&mut message, &mut notifier, &mut plan);
        hears("ops", &notifier, &message, &plan)
    };
    assert!(heard(&|_, _, _| {}));
    assert!(!heard(&|message, _, _| message.alert.severity = Severity::Info));
    assert!(!heard(&|_, notifier, _| notifier.least = Severity::Critical));
    assert!(!heard(&|_, notifier, _| notifier.channel = Channel::Ping { url: Found::Text(String::new()) }));
    let told = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        heard(&move |_, _, plan| plan.jobs.get_mut("db").unwrap().notify = Some(names.clone()))
    };
    assert!(told(&["ops", "others"]));
    assert!(!told(&["others"]));
    assert!(!told(&[]));
    let failing = |name: &'static str| {
        move |message: &mut Message, _: &mut Notifier, _: &mut Plan| {
            message.alert = Alert::new(Rule::Notifier, name, Severity::Warning, "", "");
        }
    };
    assert!(heard(&failing("mail")));
    assert!(!heard(&failing("ops")), "it is not told of itself");
}

#[test]
fn pings_go_to_dead_mans_switches_of_backups_only() {
    let (tell, told) = mpsc::channel();
    let mut notifiers = named(&["ops"]);
    notifiers.insert("hc".to_owned(), notifier(Channel::Ping { url: Found::Text(String::new()) }));
    let queue = Queue::with(&notifiers, &World::system(), move |name| {
        let (tell, name) = (tell.clone(), name.to_owned());
        Box::new(move |_, item| tell.send(format!("{name} {}", text_of(item))).map_err(|_| Failure::never("gone")))
    });
    queue.ping(&job(None), &ping());
    queue.ping(&Job { kind: Kind::Check, ..job(None) }, &ping());
    queue.ping(&job(Some(vec!["ops".to_owned()])), &ping());
    queue.finish(secs(60));
    assert_eq!(told.iter().collect::<Vec<_>>(), ["hc Start"]);
}

#[test]
fn a_reload_takes_effect_for_what_waits() {
    let (tell, told) = mpsc::channel();
    let mut queue = Queue::with(&named(&["gone", "ops"]), &World::system(), move |name| {
        let (tell, name) = (tell.clone(), name.to_owned());
        Box::new(move |notifier, item| {
            let sent = tell.send(format!("{name} {} {}", notifier.template.is_some(), text_of(item)));
            sent.map_err(|_| Failure::never("gone"))
        })
    });
    queue.tell(&message("one"), &Plan::default());
    let mut first = [told.recv().unwrap(), told.recv().unwrap()];
    first.sort();
    assert_eq!(first, ["gone false one", "ops false one"]);
    let mut notifiers = named(&["ops"]);
    notifiers.get_mut("ops").unwrap().template = Some(String::new());
    queue.reload(&notifiers);
    queue.tell(&message("two"), &Plan::default());
    assert_eq!(told.recv().unwrap(), "ops true two");
    assert_eq!(queue.facts().iter().map(|facts| facts.name.as_str()).collect::<Vec<_>>(), ["ops"]);
    queue.finish(secs(60));
    assert_eq!(told.iter().count(), 0);
}
