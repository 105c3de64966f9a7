//! Patterns that leave entries out, with restic's rules.
//!
//! A pattern is a run of components joined by `/`. It matches a path when some run of whole
//! components of the path matches it, wherever that run stands; after a leading `/` it must
//! stand at the top. So whatever lies below a matching directory matches too. In a component
//! `*` stands for any characters, `?` for one, `[a-z]` and `[^a-z]` for one of (or not of) a
//! set, `\` takes the next one literally. A component `**` stands for any number of components,
//! also none. A leading `!` takes back what earlier patterns matched; the last match wins. The
//! pattern `/` matches the top itself and nothing in it. `~` is a character like any other.
//!
//! Names are bytes: what is not UTF-8 counts as one character a byte, matched by `?` and `*`.

use crate::path::{TreePath, display_bytes};

/// A pattern that means nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{pattern}` is not a pattern: {fault}")]
pub struct PatternError {
    pattern: String,
    fault: &'static str,
}

/// Whether upper and lower case differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Case {
    /// `A` is not `a`.
    Sensitive,
    /// `A` is `a`.
    Insensitive,
}

/// What to leave out. The two cases are separate lists: an entry is left out when either says so,
/// and `!` takes back only within its list.
#[derive(Debug, Clone, Default)]
pub struct Patterns {
    sensitive: Vec<Pattern>,
    insensitive: Vec<Pattern>,
}

impl Patterns {
    /// Patterns that leave nothing out.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a pattern after the others. An empty one is ignored.
    pub fn add(&mut self, pattern: &[u8], case: Case) -> Result<(), PatternError> {
        if pattern.is_empty() {
            return Ok(());
        }
        match case {
            Case::Sensitive => self.sensitive.push(Pattern::parse(pattern)?),
            Case::Insensitive => self.insensitive.push(Pattern::parse(&lower(pattern))?),
        }
        Ok(())
    }

    /// Adds the patterns of a file, one a line. White space around them, blank lines and lines
    /// that begin with `#` are ignored. `$NAME` and `${NAME}` are what `variable` says, nothing
    /// where it says `None`; `$$` is a dollar.
    pub fn add_lines(
        &mut self,
        text: &[u8],
        case: Case,
        variable: &dyn Fn(&[u8]) -> Option<Vec<u8>>,
    ) -> Result<(), PatternError> {
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        for line in text.split(|&b| b == b'\n') {
            let line = line.trim_ascii();
            if !line.starts_with(b"#") {
                self.add(&expand(line, variable), case)?;
            }
        }
        Ok(())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.sensitive.is_empty() && self.insensitive.is_empty()
    }

    /// Whether the patterns match `path`.
    pub fn matches(&self, path: &TreePath) -> bool {
        list_matches(&self.sensitive, path.as_bytes())
            || (!self.insensitive.is_empty() && list_matches(&self.insensitive, &lower(path.as_bytes())))
    }

    /// Whether the patterns match just `path`: an entry below one that they match does not count for that.
    pub fn matches_itself(&self, path: &TreePath) -> bool {
        let says = |patterns: &[Pattern], path: &[u8]| {
            let names: Vec<&[u8]> = components(path).collect();
            patterns.iter().rev().find(|pattern| pattern.matches_itself(&names)).is_some_and(|last| !last.negated)
        };
        says(&self.sensitive, path.as_bytes())
            || (!self.insensitive.is_empty() && says(&self.insensitive, &lower(path.as_bytes())))
    }

    /// Whether something below the directory `path` may be matched by itself.
    pub fn may_match_itself_below(&self, path: &TreePath) -> bool {
        let may = |patterns: &[Pattern], path: &[u8]| {
            let names: Vec<&[u8]> = components(path).collect();
            patterns.iter().any(|pattern| !pattern.negated && pattern.may_match_below(&names))
        };
        may(&self.sensitive, path.as_bytes())
            || (!self.insensitive.is_empty() && may(&self.insensitive, &lower(path.as_bytes())))
    }

    /// Whether [`Self::matches_itself`] depends on an entry's name alone, wherever it is.
    pub fn ask_for_names_only(&self) -> bool {
        self.sensitive.iter().chain(&self.insensitive).all(Pattern::asks_for_a_name)
    }

    /// Whether something below the directory `path` may match: for patterns that say what to
    /// take, a directory for which this is false need not be entered.
    pub fn may_match_below(&self, path: &TreePath) -> bool {
        list_may_match_below(&self.sensitive, path.as_bytes())
            || (!self.insensitive.is_empty() && list_may_match_below(&self.insensitive, &lower(path.as_bytes())))
    }
}

fn list_matches(patterns: &[Pattern], path: &[u8]) -> bool {
    if patterns.is_empty() {
        return false;
    }
    let names: Vec<&[u8]> = components(path).collect();
    // The last match wins, so the first from the end decides.
    patterns.iter().rev().find(|pattern| pattern.matches(&names)).is_some_and(|pattern| !pattern.negated)
}

fn list_may_match_below(patterns: &[Pattern], path: &[u8]) -> bool {
    let names: Vec<&[u8]> = components(path).collect();
    let mut may = false;
    for pattern in patterns {
        if pattern.negated {
            // What takes back a directory takes back all below it; only `/` stands for itself alone.
            may = may && (pattern.parts.is_empty() || !pattern.matches(&names));
        } else {
            may = may || pattern.may_match_below(&names);
        }
    }
    may
}

fn components(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|&b| b == b'/').filter(|name| !name.is_empty())
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Pattern {
    negated: bool,
    anchored: bool,
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    /// `**`
    Any,
    /// Without anything special in it.
    Exact(Vec<u8>),
    /// One component.
    Glob(Vec<Token>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Char(u32),
    AnyChar,
    AnyRun,
    Set { negated: bool, ranges: Vec<(u32, u32)> },
}

impl Pattern {
    fn parse(text: &[u8]) -> Result<Self, PatternError> {
        let fault = |fault| PatternError { pattern: display_bytes(text), fault };
        let (negated, body) = match text.strip_prefix(b"!") {
            Some(body) => (true, body),
            None => (false, text),
        };
        if body.is_empty() {
            return Err(fault("nothing follows the `!`"));
        }
        let anchored = body.starts_with(b"/");
        let mut parts = Vec::new();
        for name in components(body) {
            match name {
                b"." => {}
                b".." if parts.is_empty() && anchored => {}
                b".." if parts.is_empty() => return Err(fault("it begins with `..`")),
                b".." => drop(parts.pop()),
                b"**" => parts.push(Part::Any),
                _ if name.iter().any(|b| b"\\[]*?".contains(b)) => parts.push(Part::Glob(tokens(name).map_err(fault)?)),
                _ => parts.push(Part::Exact(name.to_vec())),
            }
        }
        if parts.is_empty() && !anchored {
            return Err(fault("it names nothing"));
        }
        Ok(Self { negated, anchored, parts })
    }

    fn matches(&self, names: &[&[u8]]) -> bool {
        if self.parts.is_empty() {
            return names.is_empty();
        }
        let last_start = if self.anchored { 0 } else { names.len() };
        (0..=last_start).any(|start| run_matches(&self.parts, &names[start..], Rest::MayFollow))
    }

    fn matches_itself(&self, names: &[&[u8]]) -> bool {
        if self.parts.is_empty() {
            return names.is_empty();
        }
        let last_start = if self.anchored { 0 } else { names.len() };
        (0..=last_start).any(|start| run_matches(&self.parts, &names[start..], Rest::MustNotBe))
    }

    fn asks_for_a_name(&self) -> bool {
        !self.anchored && self.parts.len() == 1 && self.parts[0] != Part::Any
    }

    fn may_match_below(&self, names: &[&[u8]]) -> bool {
        if !self.anchored {
            return true;
        }
        let fixed = self.parts.iter().position(|part| *part == Part::Any).unwrap_or(self.parts.len());
        let shared = fixed.min(names.len());
        self.parts[..shared].iter().zip(names).all(|(part, name)| part.matches(name))
    }
}

/// Whether names may be left over behind those that a pattern matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rest {
    MayFollow,
    MustNotBe,
}

/// Whether `parts` match `names` from its beginning.
///
/// Goes back only to the last `**`: what an earlier one could take, the last can take as well.
fn run_matches(parts: &[Part], names: &[&[u8]], rest: Rest) -> bool {
    let (mut part, mut name) = (0, 0);
    let mut retry = None;
    loop {
        match parts.get(part) {
            None if rest == Rest::MayFollow || name == names.len() => return true,
            Some(Part::Any) => {
                part += 1;
                retry = Some((part, name));
            }
            Some(one) if name < names.len() && one.matches(names[name]) => {
                part += 1;
                name += 1;
            }
            _ => match retry {
                Some((after, from)) if from < names.len() => {
                    part = after;
                    name = from + 1;
                    retry = Some((after, from + 1));
                }
                _ => return false,
            },
        }
    }
}

impl Part {
    fn matches(&self, name: &[u8]) -> bool {
        match self {
            Part::Any => true,
            Part::Exact(text) => text == name,
            Part::Glob(tokens) => glob_matches(tokens, name),
        }
    }
}

fn glob_matches(tokens: &[Token], name: &[u8]) -> bool {
    let (mut token, mut rest) = (0, name);
    let mut retry: Option<(usize, &[u8])> = None;
    loop {
        let step = match tokens.get(token) {
            None if rest.is_empty() => return true,
            None => None,
            Some(Token::AnyRun) => {
                token += 1;
                retry = Some((token, rest));
                continue;
            }
            Some(one) => next_char(rest).filter(|(char, _)| one.accepts(*char)).map(|(_, left)| left),
        };
        if let Some(left) = step {
            token += 1;
            rest = left;
        } else if let Some((after, (_, left))) = retry.and_then(|(after, from)| Some((after, next_char(from)?))) {
            token = after;
            rest = left;
            retry = Some((after, left));
        } else {
            return false;
        }
    }
}

impl Token {
    fn accepts(&self, char: u32) -> bool {
        match self {
            Token::Char(own) => *own == char,
            Token::AnyChar => true,
            Token::AnyRun => false,
            Token::Set { negated, ranges } => {
                ranges.iter().any(|(low, high)| (*low..=*high).contains(&char)) != *negated
            }
        }
    }
}

/// A byte that belongs to no UTF-8 character, as a number no character has.
const STRAY: u32 = 0x11_0000;

/// The first character, or stray byte, and what follows it.
fn next_char(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let first = *bytes.first()?;
    if first < 0x80 {
        return Some((u32::from(first), &bytes[1..]));
    }
    let ahead = &bytes[..bytes.len().min(4)];
    let valid = ahead.utf8_chunks().next().map_or("", |chunk| chunk.valid());
    Some(match valid.chars().next() {
        Some(char) => (u32::from(char), &bytes[char.len_utf8()..]),
        None => (STRAY + u32::from(first), &bytes[1..]),
    })
}

fn tokens(name: &[u8]) -> Result<Vec<Token>, &'static str> {
    let mut tokens = Vec::new();
    let mut rest = name;
    while let Some((char, after)) = next_char(rest) {
        rest = after;
        let token = match u8::try_from(char) {
            Ok(b'*') => Token::AnyRun,
            Ok(b'?') => Token::AnyChar,
            Ok(b'[') => set(&mut rest)?,
            Ok(b'\\') => Token::Char(literal(&mut rest, "a `\\` at the end")?),
            _ => Token::Char(char),
        };
        if !(token == Token::AnyRun && tokens.last() == Some(&Token::AnyRun)) {
            tokens.push(token);
        }
    }
    Ok(tokens)
}

fn literal(rest: &mut &[u8], fault: &'static str) -> Result<u32, &'static str> {
    let (char, after) = next_char(rest).ok_or(fault)?;
    *rest = after;
    Ok(char)
}

/// Parses a set after its `[`.
fn set(rest: &mut &[u8]) -> Result<Token, &'static str> {
    const OPEN: &str = "a `[` without `]`";
    let negated = rest.first() == Some(&b'^');
    if negated {
        *rest = &rest[1..];
    }
    let mut ranges = Vec::new();
    loop {
        if rest.first() == Some(&b']') && !ranges.is_empty() {
            *rest = &rest[1..];
            return Ok(Token::Set { negated, ranges });
        }
        let low = set_char(rest)?;
        let mut high = low;
        if rest.first() == Some(&b'-') {
            *rest = &rest[1..];
            high = set_char(rest)?;
        }
        ranges.push((low, high));
    }

    fn set_char(rest: &mut &[u8]) -> Result<u32, &'static str> {
        match rest.first() {
            Some(b'-' | b']') => Err("`-` or `]` without `\\` in a set"),
            Some(b'\\') => {
                *rest = &rest[1..];
                literal(rest, OPEN)
            }
            _ => literal(rest, OPEN),
        }
    }
}

/// A pattern for one name.
#[derive(Debug)]
pub(super) struct Glob(Part);

impl Glob {
    pub(super) fn parse(name: &[u8]) -> Result<Self, PatternError> {
        if !name.iter().any(|b| b"\\[]*?".contains(b)) {
            return Ok(Self(Part::Exact(name.to_vec())));
        }
        let tokens = tokens(name).map_err(|fault| PatternError { pattern: display_bytes(name), fault })?;
        Ok(Self(Part::Glob(tokens)))
    }

    /// The name, where only one can match.
    pub(super) fn literal(&self) -> Option<&[u8]> {
        if let Part::Exact(name) = &self.0 { Some(name) } else { None }
    }

    pub(super) fn matches(&self, name: &[u8]) -> bool {
        self.0.matches(name)
    }
}

/// A line with its variables filled in, by the rules of Go's `os.Expand`, which restic uses.
fn expand(line: &[u8], variable: &dyn Fn(&[u8]) -> Option<Vec<u8>>) -> Vec<u8> {
    let mut out = Vec::with_capacity(line.len());
    let mut rest = line;
    while let Some(dollar) = rest.iter().position(|&b| b == b'$') {
        out.extend_from_slice(&rest[..dollar]);
        rest = &rest[dollar + 1..];
        let is_word = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_';
        let (name, used) = match rest.first() {
            None => {
                out.push(b'$');
                break;
            }
            // Braces that do not close, or hold nothing, disappear.
            Some(b'{') => match rest.iter().position(|&b| b == b'}') {
                Some(end) => (&rest[1..end], end + 1),
                None => (&rest[..0], 1),
            },
            // One digit or sign is a name by itself.
            Some(b'0'..=b'9' | b'*' | b'#' | b'$' | b'@' | b'!' | b'?' | b'-') => (&rest[..1], 1),
            Some(_) => match rest.iter().position(|b| !is_word(b)).unwrap_or(rest.len()) {
                0 => {
                    out.push(b'$');
                    continue;
                }
                end => (&rest[..end], end),
            },
        };
        if name == b"$" {
            out.push(b'$');
        } else if !name.is_empty() {
            out.extend(variable(name).unwrap_or_default());
        }
        rest = &rest[used..];
    }
    out.extend_from_slice(rest);
    out
}

/// In lower case, where that is a matter of characters; stray bytes stay.
fn lower(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        out.extend_from_slice(chunk.valid().to_lowercase().as_bytes());
        out.extend_from_slice(chunk.invalid());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patterns(list: &[&[u8]], case: Case) -> Patterns {
        let mut patterns = Patterns::new();
        list.iter().for_each(|pattern| patterns.add(pattern, case).unwrap());
        patterns
    }

    fn path(bytes: &[u8]) -> TreePath {
        TreePath::from_bytes(bytes).unwrap()
    }

    /// What restic's own documentation and behaviour lead its users to expect.
    /// Found by fuzzing: a restore with these entered no directory.
    #[test]
    fn taking_back_the_top_takes_back_nothing_below_it() {
        let mut patterns = Patterns::new();
        patterns.add_lines(b"**\n!/\n", Case::Sensitive, &|_: &[u8]| None).unwrap();
        let path = |text: &str| TreePath::from_bytes(text.as_bytes()).unwrap();
        assert!(patterns.matches(&path("/a/b")) && !patterns.matches(&path("/")));
        assert!(patterns.may_match_below(&path("/")) && patterns.may_match_below(&path("/a")));
    }

    #[test]
    fn one_pattern_matches_as_in_restic() {
        const GO: &str = "/foo/bar/test.go";
        let table = [
            ("*.go", GO, true),
            ("*.c", GO, false),
            ("*", GO, true),
            ("**", GO, true),
            ("/**", GO, true),
            ("/", GO, false),
            ("/", "/", true),
            ("foo*", GO, true),
            ("bar*", GO, true),
            ("/bar*", GO, false),
            ("bar/*", GO, true),
            ("baz/*", GO, false),
            ("bar/test.go", GO, true),
            ("ba*/*.go", GO, true),
            ("bb*/*.go", GO, false),
            ("tesT.*", GO, false),
            ("bar", "/foo/bar", true),
            ("/foo/bar/", "/foo/bar", true),
            ("/foo/bar", "/foo/baz", false),
            ("/foo///bar", "/foo/bar", true),
            ("/foo/../bar", "/foo/bar", false),
            ("/foo/../bar", "/bar", true),
            ("./bar", "/foo/bar", true),
            ("/foo", "/foo/baz", true),
            ("/foo", "/x/foo", false),
            ("/foo/*", "/foo", false),
            ("/foo/*", "/foo/baz", true),
            ("foo/**", "/x/foo", true),
            ("bar", GO, true),
            ("ba", GO, false),
            ("/foo/*test.*", GO, false),
            ("/foo/*/test.*", GO, true),
            ("/foo/*/bar/test.*", GO, false),
            ("/*/*/baz/test.*", "/foo/bar/baz/test.go", true),
            ("sdk", "/foo/bar/sdk/test/sdk_foo.go", true),
            ("sdk/*/cpp/*/*vars*.html", "/usr/share/doc/sdk/docs/cpp/ref/a00517.html", false),
            ("sdk/*/cpp/*/*vars*.html", "/usr/share/doc/sdk/docs/cpp/ref/globvars_1.html", true),
            ("foo/**/bar/*.go", "/home/user/foo/work/special/project/bar/test.go", true),
            ("foo/**/bar/*.go", "/home/user/foo/bar/test.go", true),
            ("foo/**/bar/*.go", "/foo/bar/baz/bar/test.go", true),
            ("foo/**/bar/*.go", "/home/user/foo/test.c", false),
            ("foo/**/bar/*.go", "/bar/foo/main.go", false),
            ("foo/**/bar", "/home/user/foo/x/y/bar/main.go", true),
            ("foo/**/bar/**/x", "/home/user/foo/bar/x", true),
            ("foo/**/bar/**/x", "/home/user/foo/blaaa/blaz/bar/shared/work/x", true),
            ("user/**/important*", "/home/user/work/x/y/hidden/x", false),
            ("user/**/hidden*/**/c", "/home/user/work/x/y/hidden/z/a/b/c", true),
            ("/home/[uU]ser/?.go", "/home/user/F.go", true),
            ("[a-c]x", "/bx", true),
            ("[^a-c]x", "/bx", false),
            ("[^a-c]x", "/dx", true),
            (r"[\]\-]x", "/-x", true),
            (r"a\*b", "/a*b", true),
            (r"a\*b", "/acb", false),
            (r"\!x", "/!x", true),
            ("a*b*c", "/aXbYbZc", true),
            ("a*b*c", "/aXbYbZ", false),
            ("caf?", "/café", true),
            ("caf??", "/café", false),
            ("[à-ü]", "/é", true),
        ];
        for (pattern, at, expected) in table {
            let found = patterns(&[pattern.as_bytes()], Case::Sensitive).matches(&path(at.as_bytes()));
            assert_eq!(found, expected, "`{pattern}` and {at}");
        }
    }

    #[test]
    fn names_that_are_not_text_are_matched_as_bytes() {
        for (pattern, at, expected) in [
            (&b"a\xffb"[..], &b"/a\xffb"[..], true),
            (b"a\xffb", b"/a\xfeb", false),
            (b"a?b", b"/a\xffb", true),
            (b"a?b", b"/a\xff\xfeb", false),
            (b"a*b", b"/a\xff\xfe\xc3b", true),
            (b"a[^x]b", b"/a\xffb", true),
            (b"a[\xf0-\xff]b", b"/a\xfeb", true),
            (b"*.log", b"/\n\xff.log", true),
        ] {
            assert_eq!(patterns(&[pattern], Case::Sensitive).matches(&path(at)), expected, "{pattern:?} {at:?}");
            assert_eq!(patterns(&[pattern], Case::Insensitive).matches(&path(at)), expected, "{pattern:?} {at:?}");
        }
    }

    #[test]
    fn the_last_match_wins() {
        let list = patterns(&[b"*.log", b"!keep.log", b"/tmp/keep.log"], Case::Sensitive);
        assert!(list.matches(&path(b"/a/b.log")));
        assert!(!list.matches(&path(b"/a/keep.log")));
        assert!(list.matches(&path(b"/tmp/keep.log")));
        assert!(!list.matches(&path(b"/a/other")));
        let list = patterns(&[b"/home/u/*", b"!/home/u/docs"], Case::Sensitive);
        assert!(list.matches(&path(b"/home/u/music")) && !list.matches(&path(b"/home/u/docs/a")));
        assert!(!patterns(&[b"!a"], Case::Sensitive).matches(&path(b"/b")));
    }

    #[test]
    fn case_is_ignored_only_when_asked() {
        assert!(patterns(&[b"*.JPG"], Case::Insensitive).matches(&path(b"/a/B.jpg")));
        assert!(patterns(&["ÄRGER".as_bytes()], Case::Insensitive).matches(&path("/ärger".as_bytes())));
        assert!(!patterns(&[b"*.JPG"], Case::Sensitive).matches(&path(b"/a/B.jpg")));
        let mut both = patterns(&[b"*.jpg"], Case::Insensitive);
        both.add(b"!keep.jpg", Case::Sensitive).unwrap();
        assert!(both.matches(&path(b"/keep.jpg")), "`!` takes back only within its list");
    }

    #[test]
    fn a_file_of_patterns_has_comments_and_blank_lines() {
        let mut list = Patterns::new();
        let text = b"\xef\xbb\xbf# all logs\r\n*.log\r\n\r\n   \n  a b \t\n #x\n$HOME/x\n!k.log";
        let home = |name: &[u8]| (name == b"HOME").then(|| b"/home/u".to_vec());
        list.add_lines(text, Case::Sensitive, &home).unwrap();
        assert_eq!(list.sensitive.len(), 4);
        for (at, expected) in
            [("/x.log", true), ("/k.log", false), ("/a b", true), ("/#x", false), ("/home/u/x", true), ("/v/x", false)]
        {
            assert_eq!(list.matches(&path(at.as_bytes())), expected, "{at}");
        }
    }

    #[test]
    fn variables_are_filled_in_as_restic_does() {
        let variable = |name: &[u8]| match name {
            b"HOME" => Some(b"/home/u".to_vec()),
            b"A_1" => Some(b"one".to_vec()),
            _ => None,
        };
        for (line, expected) in [
            ("$HOME/x", "/home/u/x"),
            ("${HOME}x", "/home/ux"),
            ("a-$A_1-b", "a-one-b"),
            ("$NONE/x", "/x"),
            ("a$$b", "a$b"),
            ("a$", "a$"),
            ("a$/b", "a$/b"),
            ("${HOME", "HOME"),
            ("x${}y", "xy"),
            ("$1x", "x"),
            ("~/x", "~/x"),
        ] {
            assert_eq!(expand(line.as_bytes(), &variable), expected.as_bytes(), "{line}");
        }
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for bad in ["[", "a/[b", "[]", "[^]", "[a-]", "[-a]", "x\\", "!", "..", "../x", ".", "a/.."] {
            assert!(Patterns::new().add(bad.as_bytes(), Case::Sensitive).is_err(), "{bad}");
        }
        assert_eq!(
            Patterns::new().add(b"a/[b", Case::Sensitive).unwrap_err().to_string(),
            "`a/[b` is not a pattern: a `[` without `]`"
        );
        let mut none = Patterns::new();
        none.add(b"", Case::Sensitive).unwrap();
        assert!(none.is_empty() && !none.matches(&path(b"/a")));
    }

    #[test]
    fn directories_that_cannot_lead_to_a_match_are_told() {
        for (pattern, at, expected) in [
            ("foo/bar", "/foo", true),
            ("baz", "/foo/bar", true),
            ("/foo/bar/baz", "/foo", true),
            ("/foo/bar/baz", "/foo/bar", true),
            ("/foo/bar/baz", "/foo/baz", false),
            ("/foo/**/qux", "/foo/bar/baz/boo", true),
            ("/foo/*/qux", "/foo/bar", true),
            ("/foo/*/qux", "/foo/bar/boo", false),
            ("/baz/bar", "/foo", false),
            ("/foo", "/foo/bar", true),
            ("/*/**", "/foo", true),
            ("/bar/*", "/foo", false),
            ("/foo/*/baz", "/bar/baz", false),
            ("/**/bar", "/foo/bar", true),
        ] {
            let found = patterns(&[pattern.as_bytes()], Case::Sensitive).may_match_below(&path(at.as_bytes()));
            assert_eq!(found, expected, "`{pattern}` below {at}");
        }
    }

    #[test]
    fn hostile_patterns_do_not_take_for_ever() {
        let glob = "*a".repeat(120) + "b";
        let stars = "**/a/".repeat(60) + "b";
        let list = patterns(&[glob.as_bytes(), stars.as_bytes()], Case::Sensitive);
        let name = "a".repeat(255);
        assert!(!list.matches(&path(format!("/{name}{}", "/a".repeat(500)).as_bytes())));
    }
}
