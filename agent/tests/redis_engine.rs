//! Redis from the command line on a real server and a real S3 server.

mod support;

use support::cli::Machine;
use support::redis::{PASSWORD, RedisServer};
use support::s3::S3;

#[tokio::test]
async fn first() {
    let s3 = S3::start();
    let server = RedisServer::start("appendonly no").await;
    let mut client = server.client().await;
    client.fill("k", 0..2000).await;
    let machine = Machine::of_engine(&s3, &server.settings("method: both"), Some(PASSWORD));
    let before = client.digest().await;
    machine.run(&["backup", "create"]).exits(0);
    client.say(&["FLUSHALL"]).await;
    let ran = machine.run(&["backup", "restore", "--latest", "--replace", "--yes"]);
    eprintln!("{ran:?}");
    ran.exits(0);
    assert_eq!(server.client().await.digest().await, before);
}
