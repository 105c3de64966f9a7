//! Which keys a configuration can have: those of the command line, and no list of its own.
//!
//! A key is a flag's long name; a verb's list of paths has the name `paths`, its only argument a name of its own (`snapshot`). What a key takes,
//! what it excludes and which variable of the environment stands for it is asked of the clap
//! definition, so a flag that is added tomorrow can be configured tomorrow.

use clap::builder::ValueParser;
use clap::{Arg, ArgAction, Command, CommandFactory};

use crate::cli::args::Cli;

/// Flags that make no sense in a file: those that choose it, and what is decided anew each time.
const TYPED_ONLY: [&str; 8] =
    ["config", "profile", "password-fd", "to-password-fd", "accept-rollback", "help", "version", "repo"];

/// What a key takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// `true` or `false`.
    Switch,
    /// How often the flag is given.
    Count,
    /// One value.
    One,
    /// A list, or one value.
    Many,
}

impl Shape {
    pub(super) fn of(arg: &Arg) -> Self {
        match arg.get_action() {
            ArgAction::SetTrue | ArgAction::SetFalse => Self::Switch,
            ArgAction::Count => Self::Count,
            ArgAction::Append => Self::Many,
            _ => Self::One,
        }
    }

    /// For people who wrote something else.
    pub(super) fn expected(self) -> &'static str {
        match self {
            Self::Switch => "true or false",
            Self::Count => "a small number",
            Self::One => "one value",
            Self::Many => "a list of values",
        }
    }
}

/// The command line as a set of keys.
#[derive(Debug)]
pub(super) struct Schema {
    root: Command,
}

impl Schema {
    pub(super) fn new() -> Self {
        let mut root = Cli::command();
        root.build();
        Self { root }
    }

    /// A verb, `["key", "add"]`; the empty one is the program itself.
    pub(super) fn command<S: AsRef<str>>(&self, verb: &[S]) -> Option<&Command> {
        verb.iter()
            .try_fold(&self.root, |command, name| command.get_subcommands().find(|sub| sub.get_name() == name.as_ref()))
    }

    /// The argument a key means in a verb's table, or at the top of a profile.
    pub(super) fn arg<S: AsRef<str>>(&self, verb: &[S], key: &str) -> Option<&Arg> {
        let command = self.command(verb)?;
        command.get_arguments().find(|arg| key_of(command, arg).as_deref() == Some(key))
    }

    /// The argument of that id.
    pub(super) fn by_id<S: AsRef<str>>(&self, verb: &[S], id: &str) -> Option<&Arg> {
        self.command(verb)?.get_arguments().find(|arg| arg.get_id() == id)
    }

    /// All keys and the names of verbs that can stand in a verb's table.
    pub(super) fn keys<S: AsRef<str>>(&self, verb: &[S]) -> Vec<String> {
        let Some(command) = self.command(verb) else { return Vec::new() };
        let verbs = command.get_subcommands().map(|sub| sub.get_name().to_owned());
        command.get_arguments().filter_map(|arg| key_of(command, arg)).chain(verbs).collect()
    }

    /// Whether of two arguments of a verb only one can be given: what is typed then takes the
    /// place of what is configured. That goes for arguments that conflict, and for those of one
    /// named group (all say in their own way what is to be backed up, say).
    pub(super) fn are_rivals<S: AsRef<str>>(&self, verb: &[S], one: &str, other: &str) -> bool {
        let Some(command) = self.command(verb) else { return false };
        let (Some(first), Some(second)) = (self.by_id(verb, one), self.by_id(verb, other)) else { return false };
        let excludes = |arg, id: &str| command.get_arg_conflicts_with(arg).iter().any(|rival| rival.get_id() == id);
        one == other
            || excludes(first, other)
            || excludes(second, one)
            || command.get_groups().any(|group| {
                // Derived groups bear the name of their type and only say where a flag was written down.
                let named = group.get_id().as_str().starts_with(|c: char| c.is_ascii_lowercase());
                let has = |id: &str| group.get_args().any(|member| member == id);
                named && has(one) && has(other)
            })
    }

    /// The same commands with nothing required: for looking at what was typed, before the
    /// configuration adds to it.
    pub(super) fn lenient() -> Command {
        fn relax(command: Command) -> Command {
            command.mut_args(|arg| arg.required(false)).mut_subcommands(relax)
        }
        relax(Cli::command())
    }
}

/// The key that stands for an argument of a command, if any does: a flag's name, a list's, and that of the only argument
/// that a command takes or does without, such as the snapshot of `drill`.
pub(super) fn key_of(command: &Command, arg: &Arg) -> Option<String> {
    let name = || Some(arg.get_id().as_str().replace('_', "-"));
    match arg.get_long() {
        Some(long) => Some(long.to_owned()).filter(|long| !TYPED_ONLY.contains(&long.as_str())),
        None if Shape::of(arg) == Shape::Many => name(),
        None if arg.is_positional() && !arg.is_required_set() && command.get_positionals().count() == 1 => name(),
        None => None,
    }
}

/// Whether an argument's value is a path.
pub(super) fn is_path(arg: &Arg) -> bool {
    arg.get_value_parser().type_id() == ValueParser::path_buf().type_id()
}

/// The variables of the environment that an argument's help names as standing for it.
pub(super) fn variables(arg: &Arg) -> Vec<String> {
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let words = help.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words.filter(|word| word.starts_with("ESKER_")).map(str::to_owned).collect()
}

/// What was probably meant: the nearest of the known words, if one is near.
pub(super) fn nearest(word: &str, known: impl IntoIterator<Item = String>) -> Option<String> {
    let most = (word.chars().count() + 1) / 3;
    let near = known.into_iter().map(|known| (distance(word, &known), known));
    near.filter(|(distance, _)| *distance <= most).min().map(|(_, known)| known)
}

/// How many letters to add, drop, change or exchange with the next to get from one word to the other.
fn distance(from: &str, to: &str) -> usize {
    let (from, to): (Vec<char>, Vec<char>) = (from.chars().collect(), to.chars().collect());
    let mut rows = vec![(0..=to.len()).collect::<Vec<usize>>()];
    for (i, letter) in from.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, other) in to.iter().enumerate() {
            let change = rows[i][j] + usize::from(letter != other);
            let mut least = change.min(rows[i][j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *letter == to[j - 1] && from[i - 1] == *other {
                least = least.min(rows[i - 1][j - 1] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[from.len()][to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_offered_and_a_far_one_is_not() {
        let known = || ["exclude", "iexclude", "tag", "one-file-system"].map(String::from);
        for (typed, meant) in
            [("exlude", "exclude"), ("excludes", "exclude"), ("tga", "tag"), ("one_file_system", "one-file-system")]
        {
            assert_eq!(nearest(typed, known()).as_deref(), Some(meant), "{typed}");
        }
        assert_eq!([nearest("password", known()), nearest("cat", known())], [None, None]);
    }

    #[test]
    fn every_flag_is_a_key_but_those_that_cannot_be() {
        let schema = Schema::new();
        let keys = schema.keys(&["backup"]);
        for key in ["paths", "exclude", "tag", "compression", "threads", "cache-dir", "quiet"] {
            assert!(keys.iter().any(|known| known == key), "{key}: {keys:?}");
        }
        for key in ["config", "profile", "repo", "help", "password-fd"] {
            assert!(!keys.iter().any(|known| known == key), "{key}");
        }
        assert!(schema.arg(&["drill"], "snapshot").is_some() && schema.arg(&["check"], "snapshot").is_some());
        assert!(schema.arg(&["restore"], "snapshot").is_none(), "it is to be typed");
        assert!(schema.arg(&["mount"], "snapshot").is_none(), "which of two would it be?");
        assert!(is_path(schema.arg(&["backup"], "paths").unwrap()));
        assert!(!is_path(schema.arg(&["backup"], "exclude").unwrap()));
        assert!(schema.are_rivals(&["backup"], "quiet", "verbose"));
        assert!(schema.are_rivals(&["backup"], "key_file", "password_file"));
        assert!(schema.are_rivals(&["backup"], "password_file", "key_file"));
        assert!(!schema.are_rivals(&["backup"], "exclude", "tag"));
    }

    #[test]
    fn the_help_says_which_variable_stands_for_a_flag() {
        let schema = Schema::new();
        let variables = |id| variables(schema.by_id(&[] as &[&str], id).unwrap());
        assert_eq!(variables("repo"), ["ESKER_REPOSITORY"]);
        assert_eq!(variables("password_file"), ["ESKER_PASSWORD_FILE", "ESKER_PASSWORD"]);
        assert_eq!(variables("config"), ["ESKER_CONFIG"]);
        assert!(variables("threads").is_empty());
    }
}
