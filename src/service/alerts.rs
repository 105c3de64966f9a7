//! What people should be told, and that it is over.

/// How bad an alert is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// To be looked at soon.
    #[default]
    Warning,
    /// Data is at risk.
    Critical,
}

/// What it is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// A run failed for good, retries included.
    Failed,
    /// What is safe is older than the tier allows, or than the schedule says.
    Overdue,
    /// A snapshot's size changed by more than it should, against the one before.
    SizeAnomaly,
    /// Too few runs succeed.
    SuccessRate,
    /// A repository holds more than its quota, or nearly.
    Quota,
    /// Damage was found.
    Damage,
    /// A drill failed, or took longer than the tier's RTO, or none succeeded for too long.
    Drill,
    /// Data was not verified for too long.
    Unverified,
    /// A replica lacks what it should have.
    ReplicaBehind,
    /// A repository cannot be reached.
    Unreachable,
    /// A notifier fails.
    Notifier,
    /// A changed configuration was not understood and the old one goes on.
    Configuration,
}

/// Something that is wrong now. Its identity is `rule` and `subject`.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Alert {
    /// What it is about.
    pub rule: Rule,
    /// The job, repository or notifier.
    pub subject: String,
    /// How bad.
    pub severity: Severity,
    /// A sentence for people, with the figures.
    pub summary: String,
    /// More, such as the error's text and the hint.
    pub detail: String,
    /// Labels: job, tier, repository.
    pub labels: std::collections::BTreeMap<String, String>,
}
