//! Append-only files of Redis from the command line: what rotted in them is no backup, and who needs which rights.

mod support;

use std::fs;
use std::path::PathBuf;

use support::cli::Machine;
use support::files_ending;
use support::redis::{Client, PASSWORD, RedisServer};
use support::s3::S3;
use support::until;

/// The one append-only file whose name ends like this.
fn appended(server: &RedisServer, end: &str) -> PathBuf {
    let mut found = files_ending(&server.data(), end);
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

/// Turns one byte around, in the file that the server has open.
fn rot(path: &PathBuf, at: usize) {
    let mut bytes = fs::read(path).expect("read");
    bytes[at] ^= 0x20;
    let file = fs::File::options().write(true).open(path).expect("open");
    std::os::unix::fs::FileExt::write_all_at(&file, &bytes, 0).expect("written");
}

async fn rewrite(client: &mut Client) {
    client.say(&["BGREWRITEAOF"]).await;
    let rewritten = async || {
        let info = client.text(&["INFO", "persistence"]).await;
        info.contains("aof_rewrite_in_progress:0") && info.contains("aof_rewrite_scheduled:0")
    };
    until("the rewrite's end", rewritten).await;
}

#[tokio::test]
async fn what_rotted_is_no_backup() {
    let s3 = S3::start();
    let server = RedisServer::start("appendonly yes").await;
    let mut client = server.client().await;
    client.fill("k", 0..500).await;
    rewrite(&mut client).await;
    client.fill("later", 0..500).await;
    let docs = Machine::of_engine(&s3, &server.settings(""), Some(PASSWORD));
    let good = docs.run(&["backup", "create", "--json"]).exits(0).json();

    for (end, kind) in [(".base.rdb", "incremental"), (".incr.aof", "base")] {
        client.fill(end, 0..50).await;
        let path = appended(&server, end);
        let middle = fs::metadata(&path).expect("there").len() / 2;
        // In the middle of the commands: the letter of one, or of a length.
        let text = fs::read(&path).expect("read");
        let at = if end == ".incr.aof" {
            text.windows(3).rposition(|w| w == b"SET").expect("a command") - 4
        } else {
            usize::try_from(middle).expect("small")
        };
        rot(&path, at);
        docs.run(&["backup", "create", "--type", kind]).exits(3).says(end).says("damaged");
        let newest = docs.run(&["backup", "show", "--json"]).exits(0).json();
        assert_eq!(newest["backup_id"], good["backup_id"], "nothing was published");
        // The server's memory is right, so it writes right files; and another parent makes no difference.
        rewrite(&mut client).await;
    }
    let before = client.digest().await;
    docs.run(&["backup", "create"]).exits(0);
    client.say(&["FLUSHALL"]).await;
    docs.run(&["backup", "restore", "--replace", "--yes"]).exits(0);
    assert_eq!(server.client().await.digest().await, before);
}

#[tokio::test]
async fn the_rights_in_the_readme_suffice_for_a_backup_and_a_restore() {
    let s3 = S3::start();
    for configuration in ["appendonly yes", "appendonly no"] {
        let rights = "user backup on >secret ~* +@read +ping +select +info +bgsave +config|get +config|set";
        let server = RedisServer::start(&format!("{configuration}\n{rights}")).await;
        let mut client = server.client().await;
        client.fill("k", 0..500).await;
        let before = client.digest().await;
        let docs = Machine::of_engine(&s3, &server.settings("user: backup"), Some("secret"));
        docs.run(&["backup", "create", "--type", "base"]).exits(0);
        client.say(&["FLUSHALL"]).await;
        docs.run(&["backup", "restore", "--replace", "--yes"]).exits(0);
        assert_eq!(server.client().await.digest().await, before);
        let wrong = Machine::of_engine(&s3, &server.settings("user: nobody"), Some("secret"));
        wrong.run(&["backup", "create"]).exits(2).says("WRONGPASS");
    }
}
