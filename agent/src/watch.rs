//! Telling somebody how far a long command is.

use std::io::IsTerminal;
use std::sync::Mutex;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// Between two signs of life of a stage of which nothing else can be told.
const SIGN_OF_LIFE: Duration = Duration::from_secs(5);

/// How far a command is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Progress {
    /// What is being done, in words.
    pub stage: String,
    /// How much of it is done; bytes, where there is a total.
    pub done: u64,
    /// Out of how much, where known.
    pub total: Option<u64>,
}

impl Progress {
    /// A stage of which no more is known.
    pub fn stage(stage: impl Into<String>) -> Self {
        Self { stage: stage.into(), ..Self::default() }
    }
}

/// Somebody who is told how far a command is.
pub trait Watch: Send + Sync {
    /// Told at the beginning of each stage and now and then within it.
    fn see(&self, progress: &Progress);
}

/// Does `work`, and tells every few seconds that it is still being done.
pub async fn alive<T>(watch: &dyn Watch, stage: &str, work: impl Future<Output = T>) -> T {
    let progress = Progress::stage(stage);
    let mut work = std::pin::pin!(work);
    loop {
        watch.see(&progress);
        if let Ok(done) = tokio::time::timeout(SIGN_OF_LIFE, &mut work).await {
            return done;
        }
    }
}

/// Nobody.
#[derive(Debug)]
pub struct Nobody;

impl Watch for Nobody {
    fn see(&self, _: &Progress) {}
}

/// Several at once.
pub struct All<'a>(pub Vec<&'a dyn Watch>);

impl Watch for All<'_> {
    fn see(&self, progress: &Progress) {
        self.0.iter().for_each(|w| w.see(progress));
    }
}

/// One of several commands that go on at the same time.
pub struct Named<'a> {
    /// What it is called.
    pub name: &'a str,
    /// Who is told.
    pub watch: &'a dyn Watch,
}

impl Watch for Named<'_> {
    fn see(&self, progress: &Progress) {
        self.watch.see(&Progress { stage: format!("{}: {}", self.name, progress.stage), ..progress.clone() });
    }
}

/// A person at standard error: a bar on a terminal, else a line for each stage.
pub fn person(quiet: bool) -> Box<dyn Watch> {
    match (quiet, std::io::stderr().is_terminal()) {
        (true, _) => Box::new(Nobody),
        (false, true) => Box::new(Bar::new()),
        (false, false) => Box::new(Lines(Mutex::default())),
    }
}

struct Bar(ProgressBar);

impl Bar {
    fn new() -> Self {
        let bar = ProgressBar::new_spinner();
        bar.enable_steady_tick(Duration::from_millis(120));
        Self(bar)
    }
}

impl Watch for Bar {
    fn see(&self, progress: &Progress) {
        let template = match progress.total {
            Some(_) => "{spinner} {msg} {bar:30} {bytes}/{total_bytes} ({elapsed})",
            None => "{spinner} {msg} ({elapsed})",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.0.set_style(style);
        }
        self.0.set_length(progress.total.unwrap_or(0));
        self.0.set_position(progress.done);
        self.0.set_message(progress.stage.clone());
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

struct Lines(Mutex<String>);

impl Watch for Lines {
    fn see(&self, progress: &Progress) {
        let Ok(mut last) = self.0.lock() else { return };
        if *last != progress.stage {
            eprintln!("{}", progress.stage);
            last.clone_from(&progress.stage);
        }
    }
}
