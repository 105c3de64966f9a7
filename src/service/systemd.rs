//! What the service tells systemd: that it is ready, reloading, stopping, alive, and what it does.
//!
//! A datagram to the socket that `NOTIFY_SOCKET` names, as sd_notify(3) describes it; without the variable nothing is told. What goes
//! wrong here stops nothing.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// What to tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tell<'a> {
    /// The work has begun, or goes on after a reload.
    Ready,
    /// The configuration is being read again; [`Tell::Ready`] follows.
    Reloading,
    /// The end has begun.
    Stopping,
    /// Still alive. To be told oftener than [`watchdog`] says.
    Alive,
    /// What is being done, a line for `systemctl status`.
    Status(&'a str),
}

/// Tells systemd, if it started this process.
pub fn tell(what: Tell<'_>) {
    if let Some(socket) = std::env::var_os("NOTIFY_SOCKET") {
        let _ = tell_at(&socket, what);
    }
}

/// Tells who listens at a socket: a path, or a name that begins with `@`.
///
/// # Errors
///
/// When nobody listens there.
pub fn tell_at(socket: &OsStr, what: Tell<'_>) -> io::Result<()> {
    let message = match what {
        Tell::Ready => "READY=1".to_owned(),
        Tell::Reloading => {
            let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
            format!("RELOADING=1\nMONOTONIC_USEC={}", now.tv_sec * 1_000_000 + now.tv_nsec / 1000)
        }
        Tell::Stopping => "STOPPING=1".to_owned(),
        Tell::Alive => "WATCHDOG=1".to_owned(),
        Tell::Status(line) => format!("STATUS={}", line.replace('\n', " ")),
    };
    let address = match socket.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(socket)?,
    };
    let from = UnixDatagram::unbound()?;
    // A full queue is not waited for: the next word comes.
    from.set_nonblocking(true)?;
    from.send_to_addr(message.as_bytes(), &address)?;
    Ok(())
}

/// How often to tell that the service is alive: half of what systemd waits for. `None` when it does not wait.
pub fn watchdog() -> Option<Duration> {
    let variable = |name| std::env::var(name).ok();
    interval(variable("WATCHDOG_USEC").as_deref(), variable("WATCHDOG_PID").as_deref(), std::process::id())
}

fn interval(usec: Option<&str>, pid: Option<&str>, ours: u32) -> Option<Duration> {
    let usec: u64 = usec?.parse().ok().filter(|usec| *usec > 0)?;
    let is_ours = pid.is_none_or(|pid| pid.parse() == Ok(ours));
    is_ours.then(|| Duration::from_micros(usec / 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 200];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    #[test]
    fn words_arrive_at_a_path_and_at_an_abstract_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let by_path = UnixDatagram::bind(&path).unwrap();
        tell_at(path.as_os_str(), Tell::Ready).unwrap();
        assert_eq!(told(&by_path), "READY=1");
        tell_at(path.as_os_str(), Tell::Status("two jobs\nrun")).unwrap();
        assert_eq!(told(&by_path), "STATUS=two jobs run");

        let name = format!("esker-test-{}", std::process::id());
        let by_name = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        tell_at(OsStr::new(&format!("@{name}")), Tell::Reloading).unwrap();
        let word = told(&by_name);
        let usec = word.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
        assert!(usec.parse::<u64>().unwrap() > 0);
    }

    #[test]
    fn nobody_listening_is_an_error_and_no_panic() {
        assert!(tell_at(OsStr::new("/nowhere/notify"), Tell::Alive).is_err());
        assert!(tell_at(OsStr::new(""), Tell::Alive).is_err());
        assert!(tell_at(OsStr::new(&"x".repeat(500)), Tell::Alive).is_err());
    }

    #[test]
    fn the_watchdog_is_fed_twice_as_often_as_it_asks_and_only_by_whom_it_asks() {
        assert_eq!(interval(Some("30000000"), Some("7"), 7), Some(Duration::from_secs(15)));
        assert_eq!(interval(Some("30000000"), None, 7), Some(Duration::from_secs(15)));
        assert_eq!(interval(Some("30000000"), Some("8"), 7), None);
        assert_eq!(interval(Some("nonsense"), None, 7), None);
        assert_eq!(interval(None, None, 7), None);
    }
}
