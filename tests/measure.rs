//! Risk: what is measured is not what is so, a scraper cannot read it, a rule or a graph names a metric that there is not,
//! the page about metrics lies, or the server that tells of it can be held up, tricked or read by a web page.
//! Method: a scene in which everything has a value is rendered and changed; Prometheus' own `promtool` reads it; the rules,
//! the dashboard and the page are held to the table of metrics; the server is spoken to over real sockets,
//! and a real Prometheus and Alertmanager watch it.

#[path = "measure/deploy.rs"]
mod deploy;
#[path = "measure/figures.rs"]
mod figures;
#[path = "measure/http.rs"]
mod http;
#[path = "measure/scene.rs"]
mod scene;
#[path = "measure/standing.rs"]
mod standing;
#[path = "measure/textfile.rs"]
mod textfile;
#[path = "measure/watched.rs"]
mod watched;
#[path = "support/prometheus.rs"]
mod watchers;
