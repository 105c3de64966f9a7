//! What restore drills came to, as notes say it (SPEC §10.3): an audit note of the action `drill`, its detail an
//! object in JSON.
//!
//! Only owners' count: nobody else can read what would have to be restored.

use serde::{Deserialize, Serialize};

use super::Repository;
use super::notes::cut;
use crate::error::{Error, Kind, Result};
use crate::id::{CredentialId, SessionId};

/// The action of a drill's note.
pub const DRILL: &str = "drill";

/// Longest path, and longest user or host, that a note names in full: in JSON each byte may become six.
const PATH_BYTES_MAX: usize = 400;
const WHO_BYTES_MAX: usize = 64;

/// How a drill ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Everything came back as it was recorded, the check command agreed, and it was quick enough.
    Passed,
    /// What could be compared came back, but something could not be restored or compared where it was tried.
    Incomplete,
    /// Data is missing from the repository, or damaged.
    Damaged,
    /// What was restored is not what was recorded.
    Different,
    /// The user's own command failed.
    CheckFailed,
    /// It took longer than it may.
    TooSlow,
}

impl Outcome {
    /// Whether what was tried came back as it should.
    pub fn is_passed(self) -> bool {
        matches!(self, Self::Passed | Self::Incomplete)
    }

    /// As programs read it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Incomplete => "incomplete",
            Self::Damaged => "damaged",
            Self::Different => "different",
            Self::CheckFailed => "check_failed",
            Self::TooSlow => "too_slow",
        }
    }
}

/// A drill, as it is written down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drill {
    /// The snapshot that was restored.
    #[serde(with = "as_text")]
    pub snapshot: SessionId,
    /// What of it, unless all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// How it ended.
    pub result: Outcome,
    /// Files restored.
    pub files: u64,
    /// Bytes of their content.
    pub bytes: u64,
    /// How long the restore itself took.
    pub restore_ms: u64,
    /// How long it took from the beginning until the data was there, compared and checked.
    pub total_ms: u64,
    /// How the check command ended, if there was one that ended by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check_exit: Option<i32>,
    /// Who ran it.
    pub user: String,
    /// Where.
    pub host: String,
}

/// A drill that a note tells of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drilled {
    /// When, by the clock of who says so; seconds since 1970.
    pub time_secs: i64,
    /// Who says so.
    pub by: CredentialId,
    /// What came of it.
    pub drill: Drill,
}

impl Drill {
    /// Reads a note's detail. `None` when it is not one that this program knows.
    pub fn from_detail(detail: &str) -> Option<Self> {
        serde_json::from_str(detail).ok()
    }
}

impl Repository {
    /// Writes down what a drill came to. Durable when it returns.
    pub fn note_drill(&self, drill: &Drill) -> Result<()> {
        let bounded = Drill {
            path: drill.path.as_deref().map(|path| cut(path, PATH_BYTES_MAX)),
            user: cut(&drill.user, WHO_BYTES_MAX),
            host: cut(&drill.host, WHO_BYTES_MAX),
            ..drill.clone()
        };
        let detail = serde_json::to_string(&bounded)
            .map_err(|error| Error::new(Kind::Failed, "cannot write the drill down").because(error))?;
        self.note_audit(DRILL, &detail)
    }
}

/// An id as people know it.
mod as_text {
    use serde::{Deserialize, Deserializer, Serializer, de};

    use crate::id::SessionId;

    pub(super) fn serialize<S: Serializer>(id: &SessionId, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(id)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SessionId, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|_| de::Error::custom("not the id of a snapshot"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drill_is_read_as_it_was_written_and_nothing_else_is_one() {
        let drill = Drill {
            snapshot: SessionId::from_bytes([7; 16]),
            path: Some("/etc".into()),
            result: Outcome::CheckFailed,
            files: 3,
            bytes: 4,
            restore_ms: 5,
            total_ms: 6,
            check_exit: Some(-1),
            user: "ada".into(),
            host: "difference".into(),
        };
        let detail = serde_json::to_string(&drill).unwrap();
        assert_eq!(Drill::from_detail(&detail), Some(drill.clone()));
        let whole = Drill { path: None, check_exit: None, ..drill };
        assert_eq!(Drill::from_detail(&serde_json::to_string(&whole).unwrap()), Some(whole));
        for bad in ["", "all", "{}", &detail.replace("07", "zz"), &detail.replace("check_failed", "great")] {
            assert_eq!(Drill::from_detail(bad), None, "{bad}");
        }
        assert_eq!(serde_json::to_string(&Outcome::TooSlow).unwrap(), "\"too_slow\"");
    }
}
