//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;
use jiff::Timestamp;
use perennial_shared::id::{BackupId, RunId};
use perennial_shared::verify::{Depth, Options, Subset};

use crate::backup::chain::Kind;
use crate::commands::backup_create::Asked;
use crate::commands::{self, Outcome};
use crate::context::{Context, Source};
use crate::failure::{Exit, Failure};
use crate::watch;

const AFTER_HELP: &str = "\
Exit codes:
  0  done
  1  tried and failed
  2  wrong usage or settings
  3  a check found a problem, or a backup is damaged
  4  could not tell: the repository or the engine did not answer
  5  refused for safety: the database is not empty, or this machine does not own the target

Environment:
  PERENNIAL_TARGET       the target, when --target is not given
  PERENNIAL_ENGINE_URL   where the engine listens on this machine, instead of the settings' `url`
  PERENNIAL_DATA_DIR     where its data folder is on this machine, instead of the settings' `data_dir`
  PERENNIAL_STATE_DIR    where this program remembers what it was doing (default /var/lib/perennial)
  PERENNIAL_INSTANCE_ID  which EC2 instance this is, instead of asking the metadata service";

/// Backs up, verifies and restores a self-hosted vector database.
#[derive(Debug, Parser)]
#[command(name = "perennial", version, after_help = AFTER_HELP)]
pub struct Cli {
    /// A settings file (a path, or ending in .yaml), or the name of a target whose settings are in SSM.
    #[arg(long, global = true, env = "PERENNIAL_TARGET", value_name = "FILE|NAME")]
    target: Option<String>,
    /// Print the result as JSON on standard output.
    #[arg(long, global = true)]
    json: bool,
    /// Tell no progress on standard error.
    #[arg(long, short, global = true)]
    quiet: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check everything that backups and restores need, a line each, and change nothing.
    Doctor,
    /// Take, look at, verify and restore backups.
    #[command(subcommand)]
    Backup(Backup),
    /// The keys of encrypted backups.
    #[command(subcommand)]
    Key(Key),
    /// Who owns the target, its newest backup, and what the engine holds.
    Status,
    /// Do a run that a function has claimed. Called through SSM.
    Run {
        /// The run's name, such as restore-i-0abc123def4567890-1.
        run: RunId,
    },
    /// Print a completion script.
    Completion {
        /// For which shell.
        shell: Shell,
    },
}

#[derive(Debug, Subcommand)]
enum Backup {
    /// Take a backup and publish it as the newest; with --targets of several databases at once.
    Create(Create),
    /// Every backup in the repository, and what is wrong with any.
    List,
    /// What one backup holds.
    Show(Which),
    /// Read a backup and compare it with its manifest, its index and its hashes.
    Verify(Verify),
    /// Bring a backup back into an empty database, and compare it with its manifest.
    Restore(Restore),
}

#[derive(Debug, Args)]
struct Create {
    /// Which kind of backup, where Perennial archives the engine's files itself.
    #[arg(long = "type", value_enum, default_value_t)]
    kind: Kind,
    /// Read all files, also those that look unchanged by size, times and inode.
    #[arg(long)]
    reread: bool,
    /// Several targets instead of --target, at the same time: fails if any of them fails, and lets none stop the others.
    #[arg(long, value_name = "FILE|NAME,...", value_delimiter = ',')]
    targets: Vec<String>,
}

impl Create {
    fn asked(&self) -> Asked {
        Asked { kind: self.kind, reread: self.reread }
    }
}

/// The newest backup, or one by its id.
#[derive(Debug, Args)]
#[group(multiple = false)]
struct Which {
    /// The newest good backup (the default).
    #[arg(long)]
    latest: bool,
    /// The backup with this id.
    #[arg(long, value_name = "ID")]
    id: Option<BackupId>,
}

#[derive(Debug, Args)]
struct Verify {
    #[command(flatten)]
    which: Which,
    /// In a replica, by its URL in the settings, or in all of them, instead of in the target's own repository.
    #[arg(long, value_name = "URL|all")]
    replica: Option<String>,
    /// Of a backup made of archives, read only this part of the data: 1/7 is the first of seven, 7 the one that is due today.
    #[arg(long, value_name = "K/N|N", value_parser = subset)]
    data_subset: Option<Subset>,
    /// Read no data: only whether every object is there with its size, and the index of archives.
    #[arg(long, conflicts_with = "data_subset")]
    structure: bool,
    /// Read also what was read and right within the last 30 days.
    #[arg(long)]
    again: bool,
}

impl Verify {
    fn options(&self) -> Options {
        let all = self.data_subset.map_or(Depth::All, Depth::Subset);
        let depth = if self.structure { Depth::Structure } else { all };
        Options { depth, again: self.again, ..Options::default() }
    }
}

fn subset(text: &str) -> Result<Subset, String> {
    Subset::parse(text, Timestamp::now())
}

#[derive(Debug, Args)]
struct Restore {
    #[command(flatten)]
    which: Which,
    /// Delete everything that is in the database first.
    #[arg(long)]
    replace: bool,
    /// Do not ask before deleting.
    #[arg(long)]
    yes: bool,
    /// Check everything and say what would be done, but change nothing.
    #[arg(long)]
    dry_run: bool,
    /// Only files whose path in the data folder matches; may be said several times. Needs --to.
    #[arg(long, value_name = "GLOB", requires = "to")]
    include: Vec<String>,
    /// Into this folder, which is made, instead of the data folder.
    #[arg(long, value_name = "DIR", value_parser = absolute)]
    to: Option<PathBuf>,
}

/// So that a later change of the working folder changes nothing.
fn absolute(text: &str) -> std::io::Result<PathBuf> {
    std::path::absolute(text)
}

#[derive(Debug, Subcommand)]
enum Key {
    /// Every data key, what wrapped it and what opens it.
    List,
    /// Wrap every data key by encryption.key. The backups themselves are not touched.
    Rotate(Rotate),
}

#[derive(Debug, Args)]
struct Rotate {
    /// Then remove the wrappings by keys under encryption.previous.
    #[arg(long)]
    remove_old: bool,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
    /// Show what would be done, but change nothing.
    #[arg(long)]
    dry_run: bool,
}

impl Cli {
    /// Does it, prints the result, and tells how it ended.
    pub async fn run(self) -> Exit {
        let json = self.json;
        let result = self.dispatch().await;
        let (text, exit) = match result {
            Ok(outcome) if json => (pretty(&outcome.json), outcome.exit),
            Ok(outcome) => (outcome.text, outcome.exit),
            Err(failure) => {
                eprintln!("perennial: {failure}");
                let error = serde_json::json!({ "error": { "code": failure.code, "message": failure.message } });
                (if json { pretty(&error) } else { String::new() }, failure.exit)
            }
        };
        // A closed pipe is nobody's failure: what was done is done.
        let _ = std::io::Write::write_all(&mut std::io::stdout(), text.as_bytes());
        exit
    }

    async fn dispatch(self) -> Result<Outcome, Failure> {
        if let Command::Completion { shell } = self.command {
            return Ok(commands::completion::script(shell));
        }
        let watch = watch::person(self.quiet);
        if let Command::Backup(Backup::Create(create)) = &self.command
            && !create.targets.is_empty()
        {
            return commands::backup_create::run_all(&create.targets, create.asked(), &*watch).await;
        }
        let Some(target) = &self.target else {
            return Err(Failure::new(Exit::Usage, "NoTarget", "say which database: --target FILE or --target NAME"));
        };
        let context = Context::open(&Source::of(target)).await?;
        match self.command {
            Command::Doctor => commands::doctor::run(&context).await,
            Command::Status => commands::status::run(&context).await,
            Command::Run { run } => commands::run::run(&context, &run, &*watch).await,
            Command::Backup(Backup::Create(create)) => {
                commands::backup_create::run(&context, create.asked(), &*watch).await
            }
            Command::Backup(Backup::List) => commands::backup_list::run(&context).await,
            Command::Backup(Backup::Show(which)) => commands::backup_show::run(&context, which.id.as_ref()).await,
            Command::Backup(Backup::Verify(verify)) => {
                let (replica, id) = (verify.replica.as_deref(), verify.which.id.as_ref());
                commands::backup_verify::run(&context, replica, id, verify.options(), &*watch).await
            }
            Command::Backup(Backup::Restore(Restore { which, replace, yes, dry_run, include, to })) => {
                let wish = crate::restore::Wish { replace, dry_run, include, to };
                commands::backup_restore::run(&context, which.id.as_ref(), &wish, yes, &*watch).await
            }
            Command::Key(Key::List) => commands::key_list::run(&context).await,
            Command::Key(Key::Rotate(Rotate { remove_old, yes, dry_run })) => {
                commands::key_rotate::run(&context, commands::key_rotate::Wish { remove_old, dry_run, yes }).await
            }
            Command::Completion { shell } => Ok(commands::completion::script(shell)),
        }
    }
}

fn pretty(value: &serde_json::Value) -> String {
    format!("{value:#}\n")
}

/// The whole command line, for completion scripts.
pub fn command() -> clap::Command {
    <Cli as clap::CommandFactory>::command()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn a_hostile_run_or_backup_name_is_refused() {
        for words in [["run", "restore-$(reboot)"], ["run", "../x"]] {
            assert!(Cli::try_parse_from(["perennial"].into_iter().chain(words)).is_err(), "{words:?}");
        }
        assert!(Cli::try_parse_from(["perennial", "backup", "show", "--id", "../../x"]).is_err());
        assert!(Cli::try_parse_from(["perennial", "backup", "restore", "--latest", "--id", "b1"]).is_err());
        assert!(Cli::try_parse_from(["perennial", "backup", "verify", "--data-subset", "8/7"]).is_err());
    }
}
