//! The `esker` program: what belongs to the process, then [`esker::cli`].

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Read};
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use esker::cli::{Context, OnInterrupt, run};
use esker::world::World;
use rustix::process::{DumpableBehavior, Resource, Rlimit};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

fn main() -> ExitCode {
    harden();
    let env: std::collections::BTreeMap<_, _> = std::env::vars_os().collect();
    let uid = rustix::process::getuid();
    let user = nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(uid.as_raw())).ok().flatten();
    // With something piped in there may still be a terminal to type a password at.
    let has_terminal = io::stdin().is_terminal() || (io::stderr().is_terminal() && File::open("/dev/tty").is_ok());
    let context = Context {
        world: World::system(),
        env,
        cwd: std::env::current_dir().unwrap_or_else(|_| ".".into()),
        user: user.map_or_else(|| uid.as_raw().to_string(), |user| user.name),
        host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        time_zone: jiff::tz::TimeZone::system(),
        stdin: stdin(),
        stdout: Box::new(BufWriter::new(io::stdout())),
        stderr: Box::new(io::stderr()),
        stdout_is_terminal: io::stdout().is_terminal(),
        stderr_is_terminal: io::stderr().is_terminal(),
        prompt: has_terminal.then(|| -> esker::cli::Prompt { Box::new(esker::cli::ask_on_terminal) }),
        memory: None,
        on_interrupt: on_interrupt(),
    };
    ExitCode::from(run(std::env::args_os(), context))
}

/// What is piped in, without a buffer, since it may be a password.
fn stdin() -> Box<dyn Read + Send> {
    match io::stdin().as_fd().try_clone_to_owned() {
        Ok(stdin) => Box::new(File::from(stdin)),
        // It is closed, and reading says so.
        Err(_) => Box::new(io::stdin()),
    }
}

/// No secret in a core dump or for a debugger, and as many open files as allowed.
///
/// None of it is worth failing for.
fn harden() {
    let _ = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable);
    let _ = rustix::process::setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    let files = rustix::process::getrlimit(Resource::Nofile);
    let _ = rustix::process::setrlimit(Resource::Nofile, Rlimit { current: files.maximum, maximum: files.maximum });
}

/// At the first signal the work in hand is asked to stop, at the second the program ends.
///
/// Signals are watched from the first work on: before, while a password is typed, they end the
/// program as always.
fn on_interrupt() -> OnInterrupt {
    type Stop = Option<Box<dyn Fn() + Send>>;
    let in_hand: Arc<Mutex<Stop>> = Arc::default();
    let watching = std::sync::Once::new();
    Box::new(move |stop| {
        *in_hand.lock().unwrap_or_else(PoisonError::into_inner) = Some(stop);
        let in_hand = in_hand.clone();
        watching.call_once(|| {
            let Ok(mut signals) = Signals::new([SIGINT, SIGTERM, SIGHUP]) else { return };
            std::thread::spawn(move || {
                for (number, _) in signals.forever().enumerate() {
                    if number > 0 {
                        std::process::exit(130);
                    }
                    if let Some(stop) = &*in_hand.lock().unwrap_or_else(PoisonError::into_inner) {
                        stop();
                    }
                }
            });
        });
    })
}
