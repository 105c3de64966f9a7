//! Risk: a change that nobody was told of; a backup that sees itself read; a watch that is lost and believed to be there. Method: the
//! kernel's own events on real directories. An event is queued before the call that causes it returns, so that what was and what was
//! not seen is known at once, without waiting; time is a number that is passed in. What the thread does is waited for.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use super::*;

struct Scene {
    dir: tempfile::TempDir,
    eyes: Eyes,
    now: Instant,
}

fn watch(paths: &[PathBuf], include: &[&str], exclude: &[&str]) -> Watch {
    Watch {
        paths: paths.to_vec(),
        include: include.iter().map(|text| (*text).to_owned()).collect(),
        exclude: exclude.iter().map(|text| (*text).to_owned()).collect(),
        debounce: Duration::ZERO,
        delay_max: Duration::ZERO,
    }
}

impl Scene {
    /// One job that watches `root` in a new directory, where `make` was done before.
    fn new(root: &str, include: &[&str], exclude: &[&str], make: impl FnOnce(&Path)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        make(dir.path());
        let eyes = Eyes::new(&[("job".to_owned(), watch(&[dir.path().join(root)], include, exclude))]).unwrap();
        let mut scene = Self { dir, eyes, now: Instant::now() };
        scene.changed();
        scene
    }

    fn at(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn write(&self, path: &str) {
        fs::write(self.at(path), "text").unwrap();
    }

    /// Whether a change is seen that was not before.
    fn changed(&mut self) -> bool {
        self.changed_of(0)
    }

    fn changed_of(&mut self, job: usize) -> bool {
        while self.eyes.look(self.now).is_some_and(|again| again <= self.now) {}
        self.eyes.take_changed(job)
    }

    fn later(&mut self, secs: u64) {
        self.now += Duration::from_secs(secs);
        while self.eyes.look(self.now).is_some_and(|again| again <= self.now) {}
    }

    fn lost(&mut self) -> Option<String> {
        while self.eyes.look(self.now).is_some_and(|again| again <= self.now) {}
        let root = self.dir.path().display().to_string();
        self.eyes.lost(0).map(|why| why.replace(&root, "DIR"))
    }
}

fn mv(from: &Path, to: &Path) {
    assert!(Command::new("mv").arg("-T").arg(from).arg(to).status().unwrap().success());
}

type Way<'a> = (&'a str, Box<dyn Fn() + 'a>);

#[test]
fn each_way_to_change_a_file_is_seen_once_and_reading_is_not() {
    let mut scene = Scene::new("root", &[], &[], |dir| {
        fs::create_dir_all(dir.join("root/deep/er")).unwrap();
        for file in ["a", "b", "c", "d", "deep/er/e"] {
            fs::write(dir.join("root").join(file), "before").unwrap();
        }
        fs::write(dir.join("outside"), "before").unwrap();
    });
    let root = scene.at("root");
    let outside = scene.at("outside");
    let append = |path: PathBuf| {
        use std::io::Write as _;
        fs::OpenOptions::new().append(true).open(path).unwrap().write_all(b"more").unwrap();
    };
    let ways: [Way<'_>; 14] = [
        ("write", Box::new(|| fs::write(root.join("a"), "after").unwrap())),
        ("append", Box::new(|| append(root.join("deep/er/e")))),
        // All that is told of a write through a memory map.
        ("close", Box::new(|| drop(fs::File::options().write(true).open(root.join("a")).unwrap()))),
        ("create", Box::new(|| drop(fs::File::create(root.join("new")).unwrap()))),
        ("truncate", Box::new(|| fs::File::options().write(true).open(root.join("b")).unwrap().set_len(1).unwrap())),
        ("mode", Box::new(|| fs::set_permissions(root.join("b"), fs::Permissions::from_mode(0o600)).unwrap())),
        ("time", Box::new(|| fs::File::open(root.join("b")).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap())),
        (
            "rename over",
            Box::new(|| {
                fs::write(root.join("tmp"), "after").unwrap();
                mv(&root.join("tmp"), &root.join("c"));
            }),
        ),
        ("move in", Box::new(|| mv(&outside, &root.join("in")))),
        ("move out", Box::new(|| mv(&root.join("in"), &outside))),
        ("hard link", Box::new(|| fs::hard_link(&outside, root.join("link")).unwrap())),
        ("symbolic link", Box::new(|| symlink("/nowhere", root.join("deep/sym")).unwrap())),
        ("delete", Box::new(|| fs::remove_file(root.join("d")).unwrap())),
        ("delete a tree", Box::new(|| fs::remove_dir_all(root.join("deep")).unwrap())),
    ];
    for (name, way) in ways {
        way();
        assert!(scene.changed(), "{name}");
        assert!(!scene.changed(), "{name}: seen twice");
        for entry in fs::read_dir(&root).unwrap().map(Result::unwrap) {
            let _ =
                (fs::metadata(entry.path()), fs::read(entry.path()), fs::read_dir(entry.path()).map(Iterator::count));
        }
        assert!(!scene.changed(), "reading was seen");
    }
    assert_eq!(scene.lost(), None);
}

#[test]
fn what_is_in_new_directories_before_they_are_watched_counts_and_after_that_too() {
    let mut scene = Scene::new("root", &["*.tfstate"], &[], |dir| fs::create_dir(dir.join("root")).unwrap());
    fs::create_dir_all(scene.at("root/a/b/c")).unwrap();
    scene.write("root/a/b/c/x.tfstate");
    assert!(scene.changed());
    scene.write("root/a/b/c/other");
    assert!(!scene.changed(), "not included");
    scene.write("root/a/b/c/x.tfstate");
    assert!(scene.changed());
}

#[test]
fn directories_that_move_are_known_by_where_they_are() {
    let mut scene = Scene::new("root", &[], &["dull"], |dir| {
        fs::create_dir_all(dir.join("root/live/in")).unwrap();
        fs::create_dir_all(dir.join("away/tree")).unwrap();
    });
    mv(&scene.at("root/live"), &scene.at("root/dull"));
    assert!(scene.changed());
    scene.write("root/dull/in/x");
    assert!(!scene.changed(), "what is left out goes on to be left out under its new name");
    mv(&scene.at("root/dull"), &scene.at("root/other"));
    assert!(scene.changed());
    scene.write("root/other/in/x");
    assert!(scene.changed());
    mv(&scene.at("root/other"), &scene.at("away/other"));
    assert!(scene.changed());
    scene.write("away/other/in/x");
    assert!(!scene.changed(), "it is elsewhere");
    mv(&scene.at("away/tree"), &scene.at("root/tree"));
    assert!(scene.changed());
    scene.write("root/tree/x");
    assert!(scene.changed());
    // Two that change places.
    fs::create_dir(scene.at("root/swap")).unwrap();
    mv(&scene.at("root/tree"), &scene.at("root/old"));
    mv(&scene.at("root/swap"), &scene.at("root/tree"));
    mv(&scene.at("root/old"), &scene.at("root/swap"));
    assert!(scene.changed());
    scene.write("root/tree/y");
    assert!(scene.changed());
    scene.write("root/swap/y");
    assert!(scene.changed());
    fs::create_dir(scene.at("root/dull")).unwrap();
    scene.write("root/dull/y");
    assert!(!scene.changed());
}

#[test]
fn a_file_by_itself_is_watched_through_replacement_and_links_and_its_neighbours_are_not() {
    let mut scene = Scene::new("link", &[], &[], |dir| {
        fs::create_dir_all(dir.join("real")).unwrap();
        fs::write(dir.join("real/state"), "1").unwrap();
        symlink("real/state", dir.join("link")).unwrap();
    });
    scene.write("real/neighbour");
    assert!(!scene.changed());
    scene.write("real/state");
    assert!(scene.changed());
    scene.write("real/tmp");
    assert!(!scene.changed());
    mv(&scene.at("real/tmp"), &scene.at("real/state"));
    assert!(scene.changed());
    scene.write("real/state");
    assert!(scene.changed());
    fs::remove_file(scene.at("real/state")).unwrap();
    assert!(scene.changed());
    scene.later(4);
    assert_eq!(scene.lost().unwrap(), "`DIR/link` is not there");
    scene.write("real/state");
    scene.later(4);
    assert_eq!(scene.lost(), None);
    assert!(scene.changed(), "nobody knows what happened meanwhile");
}

/// As Kubernetes replaces a volume of configuration.
#[test]
fn a_root_that_is_a_link_is_followed_to_where_it_is_pointed() {
    let mut scene = Scene::new("data", &[], &[], |dir| {
        fs::create_dir_all(dir.join("v1/sub")).unwrap();
        fs::create_dir_all(dir.join("v2/sub")).unwrap();
        symlink("v1", dir.join("data")).unwrap();
    });
    scene.write("v1/sub/x");
    assert!(scene.changed());
    symlink("v2", scene.at("new")).unwrap();
    mv(&scene.at("new"), &scene.at("data"));
    scene.later(4);
    assert!(scene.changed());
    scene.write("v2/sub/x");
    assert!(scene.changed());
    scene.write("v1/sub/x");
    assert!(!scene.changed());
}

#[test]
fn a_root_that_is_not_there_is_told_and_waited_for_and_one_that_goes_is_told() {
    let mut scene = Scene::new("root/in", &[], &[], |_| {});
    assert_eq!(scene.lost().unwrap(), "`DIR/root/in` is not there");
    fs::create_dir_all(scene.at("root/in/deep")).unwrap();
    scene.later(4);
    assert_eq!(scene.lost(), None);
    assert!(scene.changed());
    scene.write("root/in/deep/x");
    assert!(scene.changed());
    fs::remove_dir_all(scene.at("root")).unwrap();
    assert_eq!(scene.lost().unwrap(), "`DIR/root/in` is gone");
    fs::create_dir_all(scene.at("root/in")).unwrap();
    scene.later(4);
    scene.changed();
    mv(&scene.at("root/in"), &scene.at("elsewhere"));
    assert_eq!(scene.lost().unwrap(), "`DIR/root/in` is gone");
    scene.write("elsewhere/x");
    assert!(!scene.changed());
    assert!(scene.eyes.look(scene.now).is_some(), "it is looked for");
}

#[test]
fn jobs_that_watch_the_same_are_each_told_by_their_own_patterns() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("a/b")).unwrap();
    let root = dir.path().to_owned();
    let jobs = [
        ("all".to_owned(), watch(std::slice::from_ref(&root), &[], &["*.tmp"])),
        ("part".to_owned(), watch(&[root.join("a"), root.join("missing")], &["*.db"], &[])),
    ];
    let mut scene = Scene { eyes: Eyes::new(&jobs).unwrap(), dir, now: Instant::now() };
    assert!(scene.changed() && scene.changed_of(1));
    for (path, expected) in
        [("x", [true, false]), ("a/x.db", [true, true]), ("a/b/x.tmp", [false, false]), ("a/b/y.db", [true, true])]
    {
        scene.write(path);
        assert_eq!([scene.changed_of(0), scene.changed_of(1)], expected, "{path}");
    }
    assert!(scene.eyes.lost(0).is_none() && scene.eyes.lost(1).unwrap().ends_with("missing` is not there"));
    let error = Eyes::new(&[("x".to_owned(), watch(&[root], &["["], &[]))]).unwrap_err();
    assert_eq!(error, "job `x`: `[` is not a pattern: a `[` without `]`");
}

/// The real queue, with nobody reading it.
#[test]
fn when_the_queue_overflows_it_is_told_and_watching_begins_anew() {
    let mut scene = Scene::new("root", &[], &[], |dir| {
        fs::create_dir(dir.join("root")).unwrap();
        fs::write(dir.join("root/a"), "").unwrap();
        fs::write(dir.join("root/b"), "").unwrap();
    });
    let most: u32 = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap().trim().parse().unwrap();
    for at in 0..=most {
        let file = scene.at(["root/a", "root/b"][at as usize % 2]);
        fs::set_permissions(file, fs::Permissions::from_mode(0o600 + at % 7)).unwrap();
    }
    fs::create_dir(scene.at("root/unseen")).unwrap();
    assert_eq!(scene.lost().unwrap(), "more happened at once than the kernel keeps");
    scene.later(1);
    assert_eq!(scene.lost(), None);
    assert!(scene.changed());
    scene.write("root/unseen/x");
    assert!(scene.changed());
    assert!(!scene.changed());
}

/// What needs a kernel of its own to be limited: this test runs itself again in one, and says so where that is not allowed.
#[test]
#[allow(clippy::print_stderr)]
fn more_directories_than_may_be_watched_and_unmounting_are_told() {
    if std::env::var_os("ESKER_TEST_LIMITED").is_some() {
        return limited();
    }
    let script = "echo 10 > /proc/sys/user/max_inotify_watches && exec \"$0\" --exact \"$1\" --nocapture";
    let name = std::thread::current().name().unwrap().to_owned();
    let unshare = |script: &str| {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "sh", "-c", script]);
        command.arg(std::env::current_exe().unwrap()).arg(&name).env("ESKER_TEST_LIMITED", "1");
        command.output().unwrap()
    };
    if !unshare("echo 10 > /proc/sys/user/max_inotify_watches").status.success() {
        eprintln!("not tested: no user namespaces here");
        return;
    }
    let output = unshare(script);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}{}", String::from_utf8_lossy(&output.stderr));
}

fn limited() {
    let mut scene = Scene::new("root", &[], &[], |dir| {
        for at in 0..12 {
            fs::create_dir_all(dir.join(format!("root/d{at}"))).unwrap();
        }
    });
    let limit = "more directories than the kernel lets one user watch; raise fs.inotify.max_user_watches";
    assert_eq!(scene.lost().unwrap(), limit);
    (0..6).for_each(|at| fs::remove_dir(scene.at(&format!("root/d{at}"))).unwrap());
    scene.later(61);
    assert_eq!(scene.lost(), None);
    assert!(scene.changed());
    scene.write("root/d7/x");
    assert!(scene.changed());
    fs::create_dir_all(scene.at("root/a/b/c/d/e/f")).unwrap();
    assert_eq!(scene.lost().unwrap(), limit);
    drop(scene);

    let mount = |args: &[&str]| assert!(Command::new(args[0]).args(&args[1..]).status().unwrap().success());
    let mut scene = Scene::new("root", &[], &[], |dir| {
        fs::create_dir(dir.join("root")).unwrap();
        mount(&["mount", "-t", "tmpfs", "none", dir.join("root").to_str().unwrap()]);
    });
    scene.write("root/x");
    assert!(scene.changed());
    mount(&["umount", scene.at("root").to_str().unwrap()]);
    assert_eq!(scene.lost().unwrap(), "`DIR/root` was unmounted");
    scene.later(4);
    assert_eq!(scene.lost(), None, "what is below the mount is watched until it is mounted again");
    mount(&["mount", "-t", "tmpfs", "none", scene.at("root").to_str().unwrap()]);
    scene.later(4);
    assert!(scene.changed());
    scene.write("root/y");
    assert!(scene.changed());
}

const PATIENCE: Duration = Duration::from_secs(60);

fn until(receiver: &crossbeam_channel::Receiver<Change>, what: &What) -> Change {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let change = receiver.recv_deadline(deadline).unwrap_or_else(|_| panic!("never told: {what:?}"));
        if change.what == *what {
            return change;
        }
    }
}

#[test]
fn the_thread_tells_what_is_seen_in_order_and_ends_when_it_is_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    let (sender, receiver) = crossbeam_channel::bounded(16);
    let watcher =
        Watcher::start(&[("job".to_owned(), watch(std::slice::from_ref(&root), &[], &[]))], sender, || 7).unwrap();
    let told = receiver.recv_timeout(PATIENCE).unwrap();
    assert_eq!(told.what, What::Lost(format!("`{}` is not there", root.display())));
    fs::create_dir(&root).unwrap();
    until(&receiver, &What::Fine);
    assert_eq!(until(&receiver, &What::Changed), Change { job: "job".to_owned(), at_ms: 7, what: What::Changed });
    fs::write(root.join("x"), "text").unwrap();
    until(&receiver, &What::Changed);
    drop(watcher);
    while receiver.recv_timeout(PATIENCE).is_ok() {}
    assert_eq!(receiver.try_recv(), Err(crossbeam_channel::TryRecvError::Disconnected));
}

#[test]
fn a_storm_of_changes_is_a_few_tellings_and_the_last_change_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let (sender, receiver) = crossbeam_channel::bounded(2);
    let _watcher =
        Watcher::start(&[("job".to_owned(), watch(&[dir.path().to_owned()], &[], &[]))], sender, || 7).unwrap();
    until(&receiver, &What::Fine);
    let mut told = 0;
    let begun = Instant::now();
    for at in 0..5000 {
        fs::write(dir.path().join(format!("f{}", at % 10)), "text").unwrap();
        told += receiver.try_iter().count();
    }
    let most = begun.elapsed().as_millis() / TELL.as_millis() + 3;
    assert!(told as u128 <= most, "{told} tellings in {most} times 50 ms");
    // Whatever was told until now may have been of earlier changes.
    receiver.try_iter().for_each(drop);
    fs::write(dir.path().join("last"), "text").unwrap();
    until(&receiver, &What::Changed);
}
