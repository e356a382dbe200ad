//! What every stage is given.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;

use crate::exec::Log;
use crate::export::sign::Signer;
use crate::project::Project;
use crate::report::{Reporter, Silent};
use crate::rpm::TrustedKey;
use crate::store::Store;

/// Immutable during a run.
pub struct Context {
    /// The cache and the scratch folders.
    pub store: Store,
    /// The repository with recipes and overlays.
    pub project: Project,
    /// Who hears of progress.
    pub reporter: Box<dyn Reporter>,
    /// Every external command of this run.
    pub log: Log,
    /// Use only what the store has.
    pub offline: bool,
    /// Mirrors given on the command line instead of the host's own: `debian=URL`.
    pub mirrors: Vec<(String, String)>,
    /// Keys given on the command line beside those of the recipe, by archive.
    pub keys: Vec<(String, TrustedKey)>,
    /// A ready-made `appliance` binary instead of building it.
    pub appliance: Option<PathBuf>,
    /// Where Mastodon's source is, instead of where the recipe says.
    pub source: Option<String>,
    /// A ready-made application layer instead of building it.
    pub layer: Option<PathBuf>,
    /// Signs the OVA.
    pub signer: Option<Signer>,
}

impl Context {
    /// A silent one that uses only what the store has: for programs that look at what a build made.
    pub fn of_store(project: Project, store: Store) -> Result<Self> {
        let log = Log::create(&store.root().join(format!("logs/look-up-{}.log", std::process::id())))?;
        Ok(Context {
            store,
            project,
            reporter: Box::new(Silent),
            log,
            offline: true,
            mirrors: Vec::new(),
            keys: Vec::new(),
            appliance: None,
            source: None,
            layer: None,
            signer: None,
        })
    }

    /// The mirror that the command line names for an archive.
    pub fn mirror(&self, archive: &str) -> Option<&str> {
        self.mirrors.iter().find(|(name, _)| name == archive).map(|(_, url)| url.as_str())
    }
}

#[cfg(test)]
impl Context {
    /// A silent one with a store of its own and no project.
    pub fn for_tests(store: &std::path::Path) -> Self {
        let store = Store::open(store).expect("the store can be made");
        let context = Context::of_store(Project::none(), store).expect("the log can be made");
        Context { offline: false, ..context }
    }
}

/// One line of the table of stages.
#[derive(Debug, Clone)]
pub struct StageTime {
    /// The stage.
    pub name: &'static str,
    /// Seconds that it took.
    pub seconds: f64,
    /// From the store.
    pub cached: bool,
}

/// Numbers the stages of a pipeline, reports them and keeps their times.
pub struct Stages<'a> {
    reporter: &'a dyn Reporter,
    total: usize,
    times: Vec<StageTime>,
}

impl<'a> Stages<'a> {
    /// For a pipeline of `total` stages.
    pub fn new(reporter: &'a dyn Reporter, total: usize) -> Self {
        Stages { reporter, total, times: Vec::new() }
    }

    /// Runs one stage. It returns its output and whether that came from the store.
    pub fn run<T>(&mut self, name: &'static str, stage: impl FnOnce() -> Result<(T, bool)>) -> Result<T> {
        self.reporter.stage(self.times.len() + 1, self.total, name);
        let start = Instant::now();
        match stage() {
            Ok((output, cached)) => {
                let elapsed = start.elapsed();
                self.reporter.stage_done(name, elapsed, cached);
                self.times.push(StageTime { name, seconds: elapsed.as_secs_f64(), cached });
                Ok(output)
            }
            Err(error) => {
                self.reporter.stage_failed(name);
                Err(error.context(format!("stage {name}")))
            }
        }
    }

    /// The times so far.
    pub fn times(self) -> Vec<StageTime> {
        self.times
    }
}
