//! What the S3 store makes of every kind of answer, and what it asks: against canned replies, as no real server can be
//! told to fail on cue.

mod ranges;
mod server;
mod uploads;

use std::time::Duration;

use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_s3::config::{Credentials, SharedCredentialsProvider};
use perennial_shared::store::s3::{S3Options, S3Store};
use perennial_shared::store::{Store, StoreError, Version};
use server::{Reply, Server};
use tokio::io::AsyncReadExt;

const ATTEMPTS: usize = 5;
const REPEATS: usize = 4;

fn options() -> S3Options {
    S3Options { backoff: Duration::from_millis(1), ..S3Options::new("bucket", "docs") }
}

async fn scripted(replies: impl IntoIterator<Item = Reply>) -> (Server, S3Store) {
    with_options(options(), replies).await
}

async fn with_options(options: S3Options, replies: impl IntoIterator<Item = Reply>) -> (Server, S3Store) {
    let server = Server::start(replies).await;
    let store = S3Store::new(&account(&server, None), options);
    (server, store)
}

fn account(server: &Server, limits: Option<TimeoutConfig>) -> SdkConfig {
    let credentials = Credentials::new("access", "secret", None, None, "test");
    let mut aws = SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .endpoint_url(server.url());
    aws.set_timeout_config(limits);
    aws.build()
}

fn written(etag: &str) -> Reply {
    Reply::new(200, "").header("ETag", etag)
}

#[tokio::test]
async fn a_create_says_everything_that_makes_it_safe() {
    let kms_key = "arn:aws:kms:us-east-1:123456789012:key/k";
    let options = S3Options {
        kms_key: Some(kms_key.into()),
        bucket_owner: Some("123456789012".into()),
        region: Some("eu-central-1".into()),
        ..options()
    };
    let (server, store) = with_options(options, [written("\"one\""), written("\"two\""), written("\"three\"")]).await;

    let one = store.create("runs/a/claim.json", "{}".into()).await.expect("create");
    assert_eq!(one, Version::new("\"one\""));
    store.replace("pointer", "{}".into(), &one).await.expect("replace");
    store.put("progress", "{}".into()).await.expect("put");

    let requests = server.requests();
    let lines: Vec<&str> = requests.iter().map(|request| request.line.split('?').next().expect("a line")).collect();
    assert_eq!(lines, ["PUT /bucket/docs/runs/a/claim.json", "PUT /bucket/docs/pointer", "PUT /bucket/docs/progress"]);
    let conditions: Vec<(&str, &str)> =
        requests.iter().map(|request| (request.header("if-none-match"), request.header("if-match"))).collect();
    assert_eq!(conditions, [("*", ""), ("", "\"one\""), ("", "")]);
    for request in &requests {
        assert_eq!(request.header("x-amz-server-side-encryption"), "aws:kms");
        assert_eq!(request.header("x-amz-server-side-encryption-aws-kms-key-id"), kms_key);
        assert_eq!(request.header("x-amz-expected-bucket-owner"), "123456789012");
        assert_eq!(request.header("x-amz-sdk-checksum-algorithm"), "CRC64NVME");
        assert!(!request.header("x-amz-checksum-crc64nvme").is_empty(), "{request:?}");
        assert!(request.header("authorization").contains("/eu-central-1/s3/"), "{request:?}");
    }
}

#[tokio::test]
async fn every_other_call_checks_the_owner_and_reads_ask_for_checksums() {
    let options = S3Options { bucket_owner: Some("123456789012".into()), ..options() };
    let list = Reply::new(200, "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>");
    let object = || Reply::object("x", "\"e\"");
    let head = object().promising(1);
    let (server, store) = with_options(options, [object(), object(), head, list, Reply::new(204, "")]).await;

    store.get("a").await.expect("get");
    store.read("a").await.expect("read");
    store.head("a").await.expect("head");
    assert!(store.list("runs/").await.expect("list").is_empty());
    store.delete("a").await.expect("delete");

    let requests = server.requests();
    for request in &requests {
        assert_eq!(request.header("x-amz-expected-bucket-owner"), "123456789012", "{request:?}");
    }
    for request in &requests[..2] {
        assert_eq!(request.header("x-amz-checksum-mode"), "ENABLED", "{request:?}");
    }
    assert!(requests[3].line.contains("prefix=docs%2Fruns%2F"), "{}", requests[3].line);
}

#[tokio::test]
async fn every_write_and_read_is_free_of_settings_that_were_not_made() {
    let (server, store) = scripted([written("\"e\""), Reply::object("x", "\"e\"")]).await;
    store.create("a", "x".into()).await.expect("create");
    store.get("a").await.expect("get");
    for request in server.requests() {
        assert!(!request.headers.contains_key("x-amz-expected-bucket-owner"), "{request:?}");
        assert!(!request.headers.contains_key("x-amz-server-side-encryption"), "{request:?}");
    }
}

#[tokio::test]
async fn what_may_pass_is_tried_again() {
    for busy in [Reply::error(500, "InternalError"), Reply::error(503, "SlowDown")] {
        let (server, store) = scripted([busy.clone(), busy.clone(), Reply::object("x", "\"e\"")]).await;
        assert_eq!(store.get("a").await.expect("the third attempt").body, "x");
        assert_eq!(server.requests().len(), 3);
    }
}

#[tokio::test]
async fn what_does_not_pass_is_given_up_and_told() {
    for (status, code) in [(500, "InternalError"), (503, "SlowDown")] {
        let (server, store) = scripted(vec![Reply::error(status, code); ATTEMPTS]).await;
        let error = store.get("a").await.expect_err("no attempt works");
        assert!(error.is_temporary(), "{error:?}");
        let said = std::error::Error::source(&error).expect("a cause").to_string();
        assert!(said.contains(code) && said.contains("R1"), "{said}");
        assert_eq!(server.requests().len(), ATTEMPTS);
    }
}

#[tokio::test]
async fn a_server_that_hangs_up_is_unavailable() {
    let (server, store) = scripted([]).await;
    let error = store.list("").await.expect_err("nobody answers");
    assert!(error.is_temporary(), "{error:?}");
    assert_eq!(server.requests().len(), ATTEMPTS);
}

#[tokio::test]
async fn a_denial_is_not_absence() {
    let denied = || Reply::error(403, "AccessDenied");
    let (_server, store) = scripted([denied(), denied().promising(0), denied(), denied(), denied()]).await;
    let version = Version::new("\"e\"");
    let errors = [
        store.get("a").await.map(drop),
        store.head("a").await.map(drop),
        store.list("").await.map(drop),
        store.replace("a", "x".into(), &version).await.map(drop),
        store.delete("a").await,
    ];
    for error in errors {
        assert!(matches!(error, Err(StoreError::Denied { .. })), "{error:?}");
    }
}

#[tokio::test]
async fn a_missing_bucket_is_not_a_missing_object() {
    let no_bucket = || Reply::error(404, "NoSuchBucket");
    let bare = || Reply::new(404, "");
    let (_server, store) = scripted([no_bucket(), no_bucket(), no_bucket(), no_bucket(), bare(), bare(), bare()]).await;
    let errors = [
        store.get("a").await.map(drop),
        store.list("").await.map(drop),
        store.create("a", "x".into()).await.map(drop),
        store.delete("a").await,
        // A HEAD's answer cannot say which is missing, so the bucket is asked for.
        store.head("a").await.map(drop),
        // Somebody else's 404, such as a proxy's.
        store.get("a").await.map(drop),
    ];
    for error in errors {
        assert!(matches!(error, Err(StoreError::Invalid { .. })), "{error:?}");
    }
}

#[tokio::test]
async fn a_missing_object_is_not_found() {
    let no_key = || Reply::error(404, "NoSuchKey");
    let (server, store) = scripted([no_key(), no_key(), no_key(), Reply::new(404, ""), Reply::new(200, "")]).await;
    let version = Version::new("\"e\"");
    let errors = [
        store.get("a").await.map(drop),
        store.read("a").await.map(drop),
        store.replace("a", "x".into(), &version).await.map(drop),
        store.head("a").await.map(drop),
    ];
    for error in errors {
        assert!(matches!(error, Err(StoreError::NotFound { .. })), "{error:?}");
    }
    assert!(server.requests()[4].line.starts_with("HEAD /bucket"), "the bucket was asked for");
}

#[tokio::test]
async fn a_head_that_cannot_tell_says_so() {
    let (_server, store) = scripted([Reply::new(404, ""), Reply::new(403, "")]).await;
    let error = store.head("a").await.expect_err("the bucket does not say");
    assert!(matches!(error, StoreError::Denied { .. }), "{error:?}");
}

#[tokio::test]
async fn a_refused_condition_over_our_own_bytes_is_success() {
    let refused = || Reply::error(412, "PreconditionFailed");
    let ours = || Reply::object("ours", "\"stored\"");
    let (_server, store) = scripted([refused(), ours(), refused(), ours()]).await;
    let stored = Version::new("\"stored\"");
    assert_eq!(store.create("a", "ours".into()).await.expect("our earlier attempt"), stored);
    let before = Version::new("\"before\"");
    assert_eq!(store.replace("a", "ours".into(), &before).await.expect("our earlier attempt"), stored);
}

#[tokio::test]
async fn a_lost_reply_ends_well() {
    // The write was done, the reply was 500, the SDK asked again and was refused.
    let lost =
        [Reply::error(500, "InternalError"), Reply::error(412, "PreconditionFailed"), Reply::object("ours", "\"e\"")];
    let (server, store) = scripted(lost).await;
    store.create("a", "ours".into()).await.expect("our earlier attempt");
    assert_eq!(server.requests().len(), 3);
}

#[tokio::test]
async fn a_refused_condition_over_foreign_bytes_is_a_loss() {
    let refused = || Reply::error(412, "PreconditionFailed");
    let theirs = || Reply::object("theirs", "\"e\"");
    let (_server, store) = scripted([refused(), theirs(), refused(), theirs()]).await;
    let error = store.create("a", "ours".into()).await.expect_err("they were first");
    assert!(matches!(error, StoreError::AlreadyExists { .. }), "{error:?}");
    let error = store.replace("a", "ours".into(), &Version::new("\"old\"")).await.expect_err("they were first");
    assert!(matches!(error, StoreError::Changed { .. }), "{error:?}");
}

#[tokio::test]
async fn a_refused_condition_that_cannot_be_read_back_is_no_verdict() {
    let (_server, store) = scripted([Reply::error(412, "PreconditionFailed"), Reply::error(403, "AccessDenied")]).await;
    let error = store.create("a", "ours".into()).await.expect_err("nobody knows");
    assert!(matches!(error, StoreError::Denied { .. }), "{error:?}");

    let (_server, store) = scripted([Reply::error(412, "PreconditionFailed"), Reply::error(404, "NoSuchKey")]).await;
    let error = store.create("a", "ours".into()).await.expect_err("it came and went");
    assert!(error.is_temporary(), "{error:?}");
}

#[tokio::test]
async fn a_conflict_is_tried_again() {
    let conflict = || Reply::error(409, "ConditionalRequestConflict");
    let (server, store) = scripted([conflict(), conflict(), written("\"e\"")]).await;
    store.create("a", "ours".into()).await.expect("the third attempt");
    assert_eq!(server.requests().len(), 3);
}

#[tokio::test]
async fn endless_conflicts_are_settled_by_what_is_stored() {
    let conflicts = || vec![Reply::error(409, "ConditionalRequestConflict"); 1 + REPEATS];

    let ours = conflicts().into_iter().chain([Reply::object("ours", "\"e\"")]);
    let (_server, store) = scripted(ours).await;
    store.create("a", "ours".into()).await.expect("one of the attempts was done");

    let theirs = conflicts().into_iter().chain([Reply::object("theirs", "\"e\"")]);
    let (server, store) = scripted(theirs).await;
    let error = store.replace("a", "ours".into(), &Version::new("\"e\"")).await.expect_err("nothing was decided");
    assert!(error.is_temporary(), "{error:?}");
    assert_eq!(server.requests().len(), 1 + REPEATS + 1);
}

#[tokio::test]
async fn a_body_that_breaks_off_is_read_again() {
    let cut = || Reply::object("ha", "\"e\"").promising(4);
    let (_server, store) = scripted([cut(), cut(), Reply::object("half", "\"e\"")]).await;
    assert_eq!(store.get("a").await.expect("the third read").body, "half");

    let (server, store) = scripted(vec![cut(); 1 + REPEATS]).await;
    let error = store.get("a").await.expect_err("never whole");
    assert!(error.is_temporary(), "a connection says nothing about the object: {error:?}");
    assert_eq!(server.requests().len(), 1 + REPEATS);
}

#[tokio::test]
async fn a_stream_that_breaks_off_is_an_error() {
    let (_server, store) = scripted([Reply::object("ha", "\"e\"").promising(4)]).await;
    let mut body = Vec::new();
    let error = store.read("a").await.expect("opens").read_to_end(&mut body).await.expect_err("it breaks off");
    assert!(StoreError::from_read(error, "a", "here").is_temporary());
}

#[tokio::test]
async fn a_wrong_checksum_is_corrupt() {
    let damaged = || Reply::object("x", "\"e\"").header("x-amz-checksum-crc64nvme", "AAAAAAAAAAA=");
    // On the wire it may have been, so it is read again.
    let (_server, store) = scripted([damaged(), Reply::object("x", "\"e\"")]).await;
    assert_eq!(store.get("a").await.expect("the second read").body, "x");

    let (_server, store) = scripted(vec![damaged(); 1 + REPEATS]).await;
    let error = store.get("a").await.expect_err("always damaged");
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error:?}");

    let (_server, store) = scripted([damaged()]).await;
    let mut body = Vec::new();
    let error = store.read("a").await.expect("opens").read_to_end(&mut body).await.expect_err("damaged");
    assert!(matches!(StoreError::from_read(error, "a", "here"), StoreError::Corrupt { .. }));
}

#[tokio::test]
async fn a_listing_that_fails_on_a_later_page_is_no_listing() {
    let first = "<ListBucketResult><IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>\
                 <Contents><Key>docs/a</Key><Size>1</Size><ETag>e</ETag>\
                 <LastModified>2026-11-21T10:55:01.000Z</LastModified></Contents></ListBucketResult>";
    let (_server, store) = scripted([Reply::new(200, first), Reply::error(403, "AccessDenied")]).await;
    let error = store.list("").await.expect_err("half a listing");
    assert!(matches!(error, StoreError::Denied { .. }), "{error:?}");
}
