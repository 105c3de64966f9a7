//! From the service's tables to its plan: names looked up, promises of tiers made into jobs.
//!
//! A backup job of a tier brings others with it: `JOB:forget` for its retention, `JOB:drill`, and `JOB:copy:REPLICA` for each
//! replica; the repositories of a tier's jobs get `REPOSITORY:check` and `REPOSITORY:scrub`. All that a backup job makes bears the tag
//! `job:JOB`, by which the jobs that follow from it find its snapshots.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use super::document::{Document, Fault, JobTable, Settings, Value, arguments, masked_url};
use super::keys::{Table, Task};
use super::schema::Schema;
use crate::service::alerts::Severity;
use crate::service::plan::{
    Channel, Hooks, JOB_TAG, Job, Kind, Notifier, Plan, Settings as Service, Store, Tier, Watch, When,
};

/// When retention is applied.
const FORGET_SCHEDULE: &str = "@daily";
/// What maintenance that follows from others is spread over.
const SPREAD: Duration = Duration::from_secs(1800);
const DEBOUNCE: Duration = Duration::from_secs(2);
const DELAY_MAX: Duration = Duration::from_secs(60);
const RETRIES: u32 = 2;
const RETRY_WAIT: Duration = Duration::from_secs(30);
/// How often a copy is tried besides after each success, without an RPO.
const COPY_SCHEDULE: &str = "every 1h";

/// The tag of what a job makes.
pub(super) fn tag(job: &str) -> String {
    format!("{JOB_TAG}{job}")
}

/// Works out the plan. All faults are found in one go.
pub(super) fn plan(document: &Document, schema: &Schema) -> (Plan, Vec<Fault>) {
    let mut making = Making { document, schema, plan: Plan::default(), faults: Vec::new() };
    making.plan.settings = service(&document.service);
    for (name, place) in &document.repositories {
        making.name("repository", name, place.store.at);
        let store = Store {
            place: place.url.as_ref().map(|url| masked_url(url)).unwrap_or_default(),
            quota: place.store.number("quota").copied(),
            offsite: place.store.switch("offsite").copied().unwrap_or(false),
        };
        making.plan.repositories.insert(name.clone(), store);
    }
    for (name, table) in &document.tiers {
        making.name("tier", name, table.at);
        making.plan.tiers.insert(name.clone(), tier(table));
    }
    for (name, table) in &document.notifiers {
        making.name("notifier", name, table.at);
        let notifier = making.notifier(table);
        making.plan.notifiers.extend(notifier.map(|notifier| (name.clone(), notifier)));
    }
    for name in document.service.texts("notify") {
        making.look_up("notifier", &name, document.service.at("notify"), document.notifiers.keys());
    }
    document.jobs.iter().for_each(|(name, job)| making.job(name, job));
    making.maintenance();
    making.schedules();
    let mut faults = making.faults;
    faults.sort_by_key(|fault| fault.at);
    (making.plan, faults)
}

fn service(table: &Table) -> Service {
    let usual = Service::default();
    let length = |key| table.length(key).copied();
    Service {
        parallel: table.number("parallel").map_or(usual.parallel, |number| *number as usize),
        listen: table.address("listen").copied().flatten(),
        textfile: table.path("textfile").cloned(),
        time_zone: table.text("time-zone").cloned(),
        jitter: length("jitter").unwrap_or(usual.jitter),
        catch_up: table.switch("catch-up").copied().unwrap_or(usual.catch_up),
        success_rate: table.percent("success-rate").copied().unwrap_or(usual.success_rate),
        success_over: length("success-over").unwrap_or(usual.success_over),
        size_change: table.percent("size-change").copied().unwrap_or(usual.size_change),
        repeat: length("repeat").unwrap_or(usual.repeat),
        settle: length("settle").unwrap_or(usual.settle),
        notify: table.has("notify").then(|| table.texts("notify")),
    }
}

fn tier(table: &Table) -> Tier {
    let length = |key| table.length(key).copied();
    Tier {
        rpo: length("rpo"),
        rto: length("rto"),
        verified_within: length("verified-within"),
        drilled_within: length("drilled-within"),
        places: table.number("places").map(|number| *number as u32),
    }
}

struct Making<'d> {
    document: &'d Document,
    schema: &'d Schema,
    plan: Plan,
    faults: Vec<Fault>,
}

impl<'d> Making<'d> {
    fn fault(&mut self, at: usize, message: impl Into<String>) {
        self.faults.push(Fault::new(at, message));
    }

    /// A name that labels, tags, files and commands can bear.
    fn name(&mut self, what: &str, name: &str, at: usize) {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let starts = name.starts_with(|c: char| c.is_ascii_alphanumeric());
        if !(starts && name.len() <= 64 && name.chars().all(plain)) {
            let may = "letters, digits, `-`, `_` and `.`, 64 at most, a letter or digit first";
            self.fault(at, format!("the {what} `{name}` cannot be called that: a name has {may}"));
        }
    }

    fn look_up<'k>(&mut self, what: &str, name: &str, at: usize, known: impl Iterator<Item = &'k String>) -> bool {
        let known: Vec<String> = known.cloned().collect();
        let found = known.iter().any(|known| known == name);
        if !found {
            self.faults.push(Fault::unknown(at, what, name, known));
        }
        found
    }

    fn notifier(&mut self, table: &Table) -> Option<Notifier> {
        let kind = match table.text("kind") {
            Some(kind) => kind.clone(),
            None if table.has("kind") => return None,
            None => {
                self.fault(table.at, "a notifier has no `kind`: slack, webhook, email, ping or command");
                return None;
            }
        };
        let takes: &[&str] = match kind.as_str() {
            "slack" => &["url", "channel"],
            "webhook" => &["url", "method", "headers"],
            "email" => &["server", "user", "password", "from", "to"],
            "ping" => &["url"],
            _ => &["command"],
        };
        for (key, (at, _)) in &table.cells {
            if !takes.contains(key) && !["kind", "least", "template", "ca-file"].contains(key) {
                self.fault(*at, format!("`{key}` is nothing for a notifier of kind `{kind}`"));
            }
        }
        let needs: &[&str] = match kind.as_str() {
            "email" => &["server", "from", "to"],
            "command" => &["command"],
            _ => &["url"],
        };
        for key in needs.iter().filter(|key| !table.has(key)) {
            self.fault(table.at, format!("a notifier of kind `{kind}` needs `{key}`"));
        }
        let channel = match kind.as_str() {
            "slack" => Channel::Slack { url: table.found("url")?.clone(), channel: table.text("channel").cloned() },
            "webhook" => Channel::Webhook {
                url: table.found("url")?.clone(),
                method: table.text("method").cloned().unwrap_or_else(|| "POST".into()),
                headers: table.founds_at("headers").cloned().unwrap_or_default(),
            },
            "email" => Channel::Email {
                server: table.text("server")?.clone(),
                user: table.text("user").cloned(),
                password: table.found("password").cloned(),
                from: table.text("from")?.clone(),
                to: table.texts("to"),
            },
            "ping" => Channel::Ping { url: table.found("url")?.clone() },
            _ => Channel::Command(table.commands("command").pop()?),
        };
        let least = match table.text("least").map(String::as_str) {
            Some("info") => Severity::Info,
            Some("critical") => Severity::Critical,
            _ => Severity::Warning,
        };
        let (template, ca_file) = (table.text("template").cloned(), table.path("ca-file").cloned());
        let notifier = Notifier { channel, least, template, ca_file };
        #[cfg(feature = "service")]
        if let Err(why) = crate::service::notify::template::check(&notifier) {
            self.fault(table.at("template"), why);
        }
        Some(notifier)
    }

    /// The flags that settings come to, and what is positional.
    fn words(&self, verb: &[String], settings: &Settings) -> (Vec<OsString>, Vec<OsString>) {
        let (mut flags, mut positional) = (Vec::new(), Vec::new());
        for (id, setting) in settings {
            let Some(arg) = self.schema.by_id(verb, id) else { continue };
            let words = arguments(arg, &setting.value);
            if arg.is_positional() { positional.extend(words) } else { flags.extend(words) }
        }
        (flags, positional)
    }

    fn job(&mut self, name: &str, given: &'d JobTable) {
        let table = &given.table;
        self.name("job", name, table.at);
        let document = self.document;
        let Some(repository) = self.repository(table) else { return };
        let tier = table.text("tier").cloned();
        if let Some(tier) = &tier {
            self.look_up("tier", tier, table.at("tier"), document.tiers.keys());
        }
        for notifier in table.texts("notify") {
            self.look_up("notifier", &notifier, table.at("notify"), document.notifiers.keys());
        }
        let kind = Kind::of_verb(given.verb.first().map_or("", String::as_str));
        let (mut flags, mut positional) = self.words(&given.verb, &given.settings);
        let promises = tier.as_ref().and_then(|tier| document.tiers.get(tier));
        let rpo = promises.and_then(|tier| tier.length("rpo").copied());
        if kind == Kind::Backup {
            self.backup(name, given, &mut flags, &mut positional, rpo);
        } else {
            for key in ["command", "watch", "replicate", "retention", "drill"].into_iter().filter(|key| table.has(key))
            {
                self.fault(table.at(key), format!("`{key}` is for jobs that back up"));
            }
        }
        let mut args: Vec<OsString> = given.verb.iter().map(OsString::from).collect();
        args.append(&mut flags);
        if !positional.is_empty() {
            args.push("--".into());
            args.append(&mut positional);
        }
        let mut schedule = table.schedule("schedule");
        if schedule.is_empty() && kind == Kind::Backup {
            schedule = promises.map(|tier| tier.schedule("schedule")).unwrap_or_default();
        }
        let watch = (kind == Kind::Backup).then(|| self.watch(given, rpo)).flatten();
        let job = Job {
            name: name.to_owned(),
            kind,
            args,
            repository: repository.clone(),
            target: None,
            tier: tier.clone(),
            of: None,
            when: When { schedule, jitter: table.length("jitter").copied(), after: None, watch },
            retries: table.number("retries").map_or(RETRIES, |number| *number as u32),
            retry_wait: table.length("retry-wait").copied().unwrap_or(RETRY_WAIT),
            timeout: table.length("timeout").copied(),
            nice: table.signed("nice").map(|nice| *nice as i32),
            hooks: Hooks {
                before: table.commands("before"),
                after: table.commands("after"),
                on_failure: table.commands("on-failure"),
            },
            notify: table.has("notify").then(|| table.texts("notify")),
            enabled: table.switch("enabled").copied().unwrap_or(true),
        };
        if kind == Kind::Backup {
            self.derive(&job, table, promises, rpo);
        }
        self.plan.jobs.insert(name.to_owned(), job);
    }

    /// The repository of a job: the one it names, or the only one there is.
    fn repository(&mut self, table: &Table) -> Option<String> {
        let document = self.document;
        match table.text("repository") {
            Some(name) => self
                .look_up("repository", name, table.at("repository"), document.repositories.keys())
                .then(|| name.clone()),
            None if document.repositories.len() == 1 => document.repositories.keys().next().cloned(),
            None => {
                if !table.has("repository") {
                    self.fault(table.at, "a job has no `repository`, and there is not exactly one");
                }
                None
            }
        }
    }

    /// What a backup job adds to its command line.
    fn backup(
        &mut self,
        name: &str,
        given: &JobTable,
        flags: &mut Vec<OsString>,
        positional: &mut Vec<OsString>,
        rpo: Option<Duration>,
    ) {
        let table = &given.table;
        flags.push(format!("--tag={}", tag(name)).into());
        let command = table.commands("command").pop();
        let has_list = given.settings.keys().any(|id| id.starts_with("files_from"));
        match (command, positional.is_empty()) {
            (Some(_), false) => self.fault(table.at("command"), "a job has either `paths` or a `command`"),
            (Some(words), true) => {
                flags.push("--stdin-from-command".into());
                positional.extend(words);
            }
            (None, true) if !has_list => self.fault(table.at, "a job that backs up has no `paths` and no `command`"),
            _ => {}
        }
        // A run that finds nothing changed still proves that all is safe.
        let often = rpo.is_some() || table.has("watch");
        if often && !given.settings.contains_key("skip_if_unchanged") {
            flags.push("--skip-if-unchanged".into());
        }
    }

    fn watch(&mut self, given: &JobTable, rpo: Option<Duration>) -> Option<Watch> {
        let table = given.table.table("watch")?;
        let words = |id: &str| match given.settings.get(id).map(|setting| &setting.value) {
            Some(Value::Words(words)) => words.clone(),
            _ => Vec::new(),
        };
        let patterns = |key: &str| -> Vec<String> {
            if table.has(key) {
                return table.texts(key);
            }
            words(key).into_iter().filter_map(|word| word.into_string().ok()).collect()
        };
        let paths: Vec<PathBuf> = match table.paths_at("paths") {
            Some(paths) => paths.clone(),
            None => words("paths").into_iter().map(PathBuf::from).collect(),
        };
        if paths.is_empty() {
            self.fault(table.at, "there is nothing to watch: the job has no `paths`");
        }
        let delay_max = table.length("max-delay").copied();
        let delay_max = delay_max.unwrap_or_else(|| rpo.map_or(DELAY_MAX, |rpo| (rpo / 4).min(DELAY_MAX)));
        Some(Watch {
            paths,
            include: patterns("include"),
            exclude: patterns("exclude"),
            debounce: table.length("debounce").copied().unwrap_or(DEBOUNCE).min(delay_max),
            delay_max,
        })
    }

    /// The jobs that follow from a backup job.
    fn derive(&mut self, of: &Job, table: &Table, tier: Option<&'d Table>, rpo: Option<Duration>) {
        let document = self.document;
        let follows = |what: &str, args: Vec<OsString>, schedule: Vec<String>, kind| Job {
            name: format!("{}:{what}", of.name),
            kind,
            args,
            of: Some(of.name.clone()),
            when: When { schedule, jitter: Some(SPREAD), after: None, watch: None },
            hooks: Hooks::default(),
            timeout: None,
            ..of.clone()
        };
        let chosen = |key| table.flags(key).or_else(|| tier.and_then(|tier| tier.flags(key)));
        let mine = OsString::from(format!("--tag={}", tag(&of.name)));
        if let Some(policy) = chosen("retention").filter(|policy| !policy.is_empty()) {
            let (flags, _) = self.words(&["forget".into()], policy);
            let args = ["forget".into(), mine.clone()].into_iter().chain(flags).collect();
            let job = follows("forget", args, vec![FORGET_SCHEDULE.into()], Kind::Forget);
            self.plan.jobs.insert(job.name.clone(), job);
        }
        if let Some(Task { schedule, settings }) =
            table.task("drill").or_else(|| tier.and_then(|tier| tier.task("drill")))
        {
            let (flags, positional) = self.words(&["drill".into()], settings);
            let mut args: Vec<OsString> = ["drill".into(), mine.clone()].into_iter().chain(flags).collect();
            if let Some(rto) = tier.and_then(|tier| tier.length("rto")).filter(|_| !settings.contains_key("rto")) {
                args.push(format!("--rto={}s", rto.as_secs()).into());
            }
            args.extend(positional);
            let job = follows("drill", args, schedule.clone(), Kind::Drill);
            self.plan.jobs.insert(job.name.clone(), job);
        }
        for replica in table.texts("replicate") {
            if !self.look_up("repository", &replica, table.at("replicate"), document.repositories.keys()) {
                continue;
            }
            if replica == of.repository {
                self.fault(table.at("replicate"), format!("`{replica}` is the job's own repository"));
                continue;
            }
            let again = rpo.map_or_else(|| COPY_SCHEDULE.to_owned(), |rpo| format!("every {}s", rpo.as_secs().max(10)));
            let args = vec!["copy".into(), mine.clone()];
            let mut job = follows(&format!("copy:{replica}"), args, vec![again], Kind::Copy);
            job.when.jitter = Some(Duration::ZERO);
            job.when.after = Some(of.name.clone());
            job.target = Some(replica);
            self.plan.jobs.insert(job.name.clone(), job);
        }
    }

    /// Checks, scrubs and collections of repositories, as they and the tiers of their jobs ask for.
    fn maintenance(&mut self) {
        let document = self.document;
        for (name, place) in &document.repositories {
            for verb in ["check", "scrub", "prune"] {
                let mut tasks: Vec<&Task> = place.store.task(verb).into_iter().collect();
                let mut tiers: Vec<&String> = self
                    .plan
                    .jobs
                    .values()
                    .filter(|job| job.repository == *name)
                    .filter_map(|job| job.tier.as_ref())
                    .collect();
                tiers.sort();
                tiers.dedup();
                tasks.extend(tiers.into_iter().filter_map(|tier| document.tiers.get(tier)?.task(verb)));
                let Some(first) = tasks.first() else { continue };
                let (flags, positional) = self.words(&[verb.to_owned()], &first.settings);
                let mut schedule: Vec<String> = tasks.iter().flat_map(|task| task.schedule.clone()).collect();
                schedule.sort();
                schedule.dedup();
                let job = Job {
                    name: format!("{name}:{verb}"),
                    kind: Kind::of_verb(verb),
                    args: [verb.into()].into_iter().chain(flags).chain(positional).collect(),
                    repository: name.clone(),
                    target: None,
                    tier: None,
                    of: None,
                    when: When { schedule, jitter: Some(SPREAD), after: None, watch: None },
                    retries: RETRIES,
                    retry_wait: RETRY_WAIT,
                    timeout: None,
                    nice: None,
                    hooks: Hooks::default(),
                    notify: document.service.has("notify").then(|| document.service.texts("notify")),
                    enabled: true,
                };
                self.plan.jobs.insert(job.name.clone(), job);
            }
        }
    }

    /// Whether schedules and the time zone make sense.
    #[cfg(feature = "service")]
    fn schedules(&mut self) {
        use super::keys::Cell;
        use crate::service::schedule::Schedule;
        use jiff::tz::TimeZone;
        let document = self.document;
        let zone = match document.service.text("time-zone").map(|name| TimeZone::get(name)) {
            Some(Err(error)) => return self.fault(document.service.at("time-zone"), format!("`time-zone`: {error}")),
            Some(Ok(zone)) => zone,
            None => TimeZone::UTC,
        };
        let tables = document.tiers.values().chain(document.jobs.values().map(|job| &job.table));
        let tables = tables.chain(document.repositories.values().map(|place| &place.store));
        for table in tables {
            for (at, cell) in table.cells.values() {
                let schedules = match cell {
                    Cell::Task(task) => &task.schedule,
                    Cell::Schedule(schedules) => schedules,
                    _ => continue,
                };
                for schedule in schedules {
                    if let Err(why) = Schedule::parse(schedule, &zone) {
                        self.fault(*at, why);
                    }
                }
            }
        }
    }

    #[cfg(not(feature = "service"))]
    fn schedules(&mut self) {}
}
