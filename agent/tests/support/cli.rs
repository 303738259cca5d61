//! The `perennial` program with settings, state and environment of its own.

use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::s3::{BUCKET, S3};
use super::weaviate::{API_KEY, WeaviateServer};

/// Prefix of the repository in the bucket.
pub const PREFIX: &str = "docs";

/// What did not end by then never will: the longest that a test runs takes a minute.
const LONGEST: Duration = Duration::from_mins(10);

/// A machine on which the program runs.
#[derive(Debug)]
pub struct Machine {
    folder: tempfile::TempDir,
    environment: Vec<(String, String)>,
}

/// How the program ended.
#[derive(Debug, Clone)]
pub struct Ran {
    /// Exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Ran {
    /// Runs a command to its end, which must come within [`LONGEST`].
    pub fn of(command: &mut Command) -> Self {
        let until = Instant::now() + LONGEST;
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
        let out = read_aside(child.stdout.take().expect("a pipe"));
        let err = read_aside(child.stderr.take().expect("a pipe"));
        while child.try_wait().expect("a child").is_none() && Instant::now() < until {
            thread::sleep(Duration::from_millis(2));
        }
        let ended = child.try_wait().expect("a child").is_some();
        let _ = child.kill();
        let code = child.wait().expect("a child").code();
        // A process that it began and left behind may hold them open.
        let said = |text: &mpsc::Receiver<String>| text.recv_timeout(Duration::from_secs(30)).ok();
        let ran = Self { code, out: said(&out).expect("its output ends"), err: said(&err).expect("its output ends") };
        assert!(ended, "{command:?} did not end: {ran:?}");
        ran
    }

    /// The exit code must be this one.
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:?}");
        self
    }

    /// Some output must have this in it.
    #[track_caller]
    pub fn says(self, text: &str) -> Self {
        assert!(self.out.contains(text) || self.err.contains(text), "{text:?} is not in {self:?}");
        self
    }

    /// Standard output as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }
}

/// Reads all of it in a thread of its own.
fn read_aside(mut from: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (done, text) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = vec![];
        let _ = from.read_to_end(&mut bytes);
        done.send(String::from_utf8_lossy(&bytes).into_owned())
    });
    text
}

impl Machine {
    /// A machine whose engine is `server`. `more` is added to the settings.
    pub fn new(s3: &S3, server: &WeaviateServer, more: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let settings = format!(
            "name: docs\nengine: weaviate\nurl: {}\napi_key: {{env: TEST_API_KEY}}\nhost_name: weaviate-0\ndata_dir: {}\n\
             repository: s3://{BUCKET}/{PREFIX}\n\
             checks: {{min_free_disk_gib: 0, min_free_memory_percent: 0, max_load_per_cpu: 1000}}\n{more}\n",
            server.url(),
            server.data_dir().display()
        );
        std::fs::write(folder.path().join("docs.yaml"), settings).expect("written");
        let mut environment: Vec<_> = s3.environment().map(|(k, v)| (k.to_owned(), v)).into();
        environment.push(("TEST_API_KEY".into(), API_KEY.into()));
        environment.push(("PERENNIAL_STATE_DIR".into(), folder.path().join("state").display().to_string()));
        Self { folder, environment }
    }

    /// A machine whose settings say `engine` (its `engine:`, `url:` and what else it needs), with a repository on `s3`.
    pub fn of_engine(s3: &S3, engine: &str, key: Option<&str>) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let key_line = if key.is_some() { "api_key: {env: TEST_API_KEY}\n" } else { "" };
        let settings = format!(
            "name: docs\nrepository: s3://{BUCKET}/{PREFIX}\n{key_line}\
             checks: {{min_free_disk_gib: 0, min_free_memory_percent: 0, max_load_per_cpu: 1000}}\n{engine}\n"
        );
        std::fs::write(folder.path().join("docs.yaml"), settings).expect("written");
        let mut environment: Vec<_> = s3.environment().map(|(k, v)| (k.to_owned(), v)).into();
        environment.extend(key.map(|key| ("TEST_API_KEY".into(), key.into())));
        environment.push(("PERENNIAL_STATE_DIR".into(), folder.path().join("state").display().to_string()));
        Self { folder, environment }
    }

    /// A machine whose target is its folder `data`, with a repository on `s3`. `more` is added to the settings.
    pub fn of_files(s3: &S3, more: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let data = folder.path().join("data");
        std::fs::create_dir(&data).expect("made");
        let settings = format!(
            "name: docs\nengine: files\ndata_dir: {}\nrepository: s3://{BUCKET}/{PREFIX}\n\
             checks: {{min_free_disk_gib: 0, min_free_memory_percent: 0, max_load_per_cpu: 1000}}\n{more}\n",
            data.display()
        );
        std::fs::write(folder.path().join("docs.yaml"), settings).expect("written");
        let mut environment: Vec<_> = s3.environment().map(|(k, v)| (k.to_owned(), v)).into();
        environment.push(("PERENNIAL_STATE_DIR".into(), folder.path().join("state").display().to_string()));
        Self { folder, environment }
    }

    /// The folder of a target of files.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// The same with one more environment variable.
    pub fn with(mut self, key: &str, value: &str) -> Self {
        self.environment.push((key.into(), value.into()));
        self
    }

    /// The settings file.
    pub fn settings(&self) -> PathBuf {
        self.folder.path().join("docs.yaml")
    }

    /// The program with these words, to be run.
    pub fn command(&self, words: &[&str]) -> Command {
        // As it is released, where somebody measures.
        let program = std::env::var_os("PERENNIAL_PROGRAM").unwrap_or_else(|| env!("CARGO_BIN_EXE_perennial").into());
        let mut command = Command::new(program);
        command.arg("--target").arg(self.settings()).args(words).env_clear().stdin(Stdio::null());
        command.envs(self.environment.iter().map(|(k, v)| (k, v)));
        command
    }

    /// Runs it to its end.
    pub fn run(&self, words: &[&str]) -> Ran {
        Ran::of(&mut self.command(words))
    }

    /// Runs it until it reaches a failpoint, where it must die.
    #[track_caller]
    pub fn crash(&self, at: &str, words: &[&str]) {
        let ran = Ran::of(self.command(words).env("PERENNIAL_CRASH_AT", at));
        assert_eq!(ran.code, None, "it did not reach {at}: {ran:?}");
    }

    /// Begins to run it.
    pub fn spawn(&self, words: &[&str]) -> Child {
        self.command(words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts")
    }
}
