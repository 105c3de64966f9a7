//! Something typed at the terminal that nobody is to see: not beside the keyboard, nor later in
//! memory.
//!
//! Own, and not a library's: a text that grows letter by letter leaves its beginnings all over the
//! heap. Here each byte goes straight to its place in the one buffer that is wiped.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};

use rustix::process::{Signal, getpid, kill_process};
use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

/// More than anybody types.
const TYPED_BYTES_MAX: usize = 4096;

/// Asks on the terminal, whatever stdin and stdout are, and gives the line that was typed.
pub fn ask(prompt: &str) -> io::Result<Zeroizing<String>> {
    let terminal = OpenOptions::new().read(true).write(true).open("/dev/tty")?;
    let silent = Silent::begin(&terminal)?;
    (&terminal).write_all(prompt.as_bytes())?;
    let typed = line(&terminal);
    (&terminal).write_all(b"\n")?;
    drop(silent);
    match typed? {
        Typed::Line(bytes) => match std::str::from_utf8(&bytes) {
            Ok(text) => Ok(Zeroizing::new(text.to_owned())),
            Err(_) => Err(io::Error::new(io::ErrorKind::InvalidData, "what was typed is not UTF-8")),
        },
        Typed::Interrupt => {
            // As if the terminal had sent it.
            kill_process(getpid(), Signal::INT)?;
            Err(io::ErrorKind::Interrupted.into())
        }
    }
}

/// Shows nothing of what is typed, and hands it on at once, until dropped.
struct Silent<'t> {
    terminal: &'t File,
    before: Termios,
}

impl<'t> Silent<'t> {
    fn begin(terminal: &'t File) -> io::Result<Self> {
        let before = tcgetattr(terminal)?;
        let mut modes = before.clone();
        modes.local_modes -= LocalModes::ECHO | LocalModes::ECHONL | LocalModes::ICANON | LocalModes::ISIG;
        modes.special_codes[SpecialCodeIndex::VMIN] = 1;
        modes.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(terminal, OptionalActions::Now, &modes)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Silent<'_> {
    fn drop(&mut self) {
        let _ = tcsetattr(self.terminal, OptionalActions::Now, &self.before);
    }
}

enum Typed {
    Line(Zeroizing<Vec<u8>>),
    Interrupt,
}

/// Reads a line, doing what a terminal would: erase a letter, a word or all, interrupt, end.
fn line(mut keys: impl Read) -> io::Result<Typed> {
    let mut typed = Zeroizing::new(Vec::with_capacity(TYPED_BYTES_MAX));
    let mut key = || {
        let mut key = [0];
        keys.read_exact(&mut key).map(|()| key[0])
    };
    loop {
        match key() {
            Ok(b'\n' | b'\r') => return Ok(Typed::Line(typed)),
            Ok(0x03) => return Ok(Typed::Interrupt),
            Ok(0x04) if typed.is_empty() => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(0x08 | 0x7f) => erase_letter(&mut typed),
            Ok(0x15) => typed.clear(),
            Ok(0x17) => {
                while typed.last() == Some(&b' ') {
                    typed.pop();
                }
                while typed.last().is_some_and(|last| *last != b' ') {
                    typed.pop();
                }
            }
            // An arrow or the like: ESC, `[` or `O`, and all up to a letter or a `~`.
            Ok(0x1b) => {
                if matches!(key()?, b'[' | b'O') {
                    while !(0x40..=0x7e).contains(&key()?) {}
                }
            }
            Ok(other) if other.is_ascii_control() => {}
            Ok(_) if typed.len() == TYPED_BYTES_MAX => {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "what was typed is too long"));
            }
            Ok(other) => typed.push(other),
            // A terminal that is gone, or a last line without an end.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof && !typed.is_empty() => {
                return Ok(Typed::Line(typed));
            }
            Err(error) => return Err(error),
        }
    }
}

/// Takes back the last letter, of however many bytes.
fn erase_letter(typed: &mut Vec<u8>) {
    while let Some(last) = typed.pop() {
        // Bytes 10xxxxxx go on with a letter that begins before them.
        if last & 0xc0 != 0x80 {
            break;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(keys: &[u8]) -> Option<String> {
        match line(keys).ok()? {
            Typed::Line(bytes) => Some(String::from_utf8(bytes.to_vec()).unwrap()),
            Typed::Interrupt => Some("^C".to_owned()),
        }
    }

    #[test]
    fn a_line_is_what_a_terminal_would_make_of_it() {
        for (keys, expected) in [
            (&b"secret\nnext"[..], Some("secret")),
            (b"secret\r", Some("secret")),
            (b"secret", Some("secret")),
            (b"\n", Some("")),
            (b"secrex\x7ft\n", Some("secret")),
            (b"\x08\x08x\n", Some("x")),
            ("grö\u{7f}oß\u{7f}\u{7f}\u{7f}\u{7f}\u{7f}\u{7f}ü\n".as_bytes(), Some("ü")),
            (b"two words\x17\n", Some("two ")),
            (b"two words  \x17\x17\n", Some("")),
            (b"wrong\x15right\n", Some("right")),
            (b"a\x1b[Db\x1bOHc\x1b[3~d\x1bxe\n", Some("abcde")),
            (b"a\tb\0c\x01\n", Some("abc")),
            (b"half\x04 more\n", Some("half more")),
            (b"\x04", None),
            (b"", None),
            (b"half\x03", Some("^C")),
        ] {
            assert_eq!(typed(keys).as_deref(), expected, "{:?}", String::from_utf8_lossy(keys));
        }
        assert_eq!(typed(&[b'x'; TYPED_BYTES_MAX]).map(|typed| typed.len()), Some(TYPED_BYTES_MAX));
        assert_eq!(typed(&[b'x'; TYPED_BYTES_MAX + 1]), None);
    }
}
