//! The service: what should happen, when, and who is told.
//!
//! [`plan`] is what is configured, worked out: jobs, each a command line of this program, when they
//! run, and for whom. [`history`] is what is remembered of each job on this machine. Between the two stand
//! [`schedule`] and [`watch`] (when), [`dispatch`] (what may begin now), [`serve`] (the process that
//! lives), [`moment`] (what is known), [`facts`] (is what was promised kept?), and what tells of it: [`metrics`], [`alerts`] and
//! [`notify`].
//!
//! The service runs no verb itself. It is given a [`runner::Runner`] that runs a command line in this process as
//! if it had been typed, with the repository already unlocked. So whatever a verb can do a job can do, and
//! `esker job run NAME` by cron does what the service does.

pub mod alerts;
#[cfg(feature = "service")]
pub mod debounce;
#[cfg(feature = "service")]
pub mod dispatch;
pub mod facts;
pub mod history;
#[cfg(feature = "service")]
pub mod http;
#[cfg(feature = "service")]
pub mod metrics;
#[cfg(feature = "service")]
pub mod moment;
#[cfg(feature = "service")]
pub mod notify;
pub mod plan;
pub mod run;
pub mod runner;
#[cfg(feature = "service")]
pub mod schedule;
#[cfg(feature = "service")]
pub mod serve;
pub mod shelf;
#[cfg(feature = "service")]
pub mod status;
#[cfg(feature = "service")]
pub mod systemd;
#[cfg(feature = "service")]
pub mod textfile;
#[cfg(feature = "service")]
pub mod watch;
