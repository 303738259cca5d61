//! Multipart uploads.

use std::time::Duration;

use aws_config::timeout::TimeoutConfig;
use bytes::Bytes;
use perennial_shared::store::s3::{S3Options, S3Store};
use perennial_shared::store::{Part, Store, StoreError, Upload, crc64nvme};

use super::server::{Request, Server};
use super::{ATTEMPTS, REPEATS, Reply, account, options, scripted, with_options, written};

/// CRC-64/NVME of `123456789`, as S3 spells it.
const SUM: &str = "rosUhgp5mIg=";
const OTHER_SUM: &str = "AAAAAAAAAAA=";

fn begun() -> Reply {
    Reply::new(200, "<InitiateMultipartUploadResult><UploadId>U1</UploadId></InitiateMultipartUploadResult>")
}

fn sent() -> Reply {
    Reply::new(200, "").header("ETag", "\"p\"")
}

fn completed() -> Reply {
    Reply::new(200, "<CompleteMultipartUploadResult><ETag>\"whole\"</ETag></CompleteMultipartUploadResult>")
}

/// A HEAD's answer for an object of this size, with or without a checksum.
fn stands(size: usize, sum: Option<&str>) -> Reply {
    let reply = Reply::object("", "\"whole\"").promising(size);
    match sum {
        Some(sum) => reply.header("x-amz-checksum-crc64nvme", sum).header("x-amz-checksum-type", "FULL_OBJECT"),
        None => reply,
    }
}

fn ours() -> Reply {
    stands(9, Some(SUM))
}

fn absent() -> [Reply; 2] {
    // The HEAD cannot say what is missing, so the bucket is asked for.
    [Reply::new(404, ""), Reply::new(200, "")]
}

fn aborted() -> Reply {
    Reply::new(204, "")
}

fn part() -> Part {
    let body = [Bytes::from_static(b"123456789")];
    Part { number: 1, size: 9, crc64: crc64nvme(&body), tag: "\"p\"".into() }
}

/// An upload whose next calls are answered like this.
async fn begin(replies: impl IntoIterator<Item = Reply>) -> (Server, Box<dyn Upload>) {
    let (server, store) = scripted([begun()].into_iter().chain(replies)).await;
    let upload = store.upload("runs/a.archive").await.expect("it begins");
    (server, upload)
}

async fn refused(replies: impl IntoIterator<Item = Reply>) -> StoreError {
    let (server, upload) = begin(replies).await;
    let error = upload.complete(&[part()]).await.expect_err("a refusal");
    server.requests();
    error
}

fn query(request: &Request) -> &str {
    request.line.split_once('?').map_or("", |(_, query)| query)
}

/// The functions and the agent give every request of theirs half a minute at most. A part, a completion or a large body may need more.
#[tokio::test]
async fn what_sends_much_has_more_time_than_other_requests() {
    let late = Duration::from_secs(1);
    let body = Bytes::from(vec![7; 2 << 20]);
    let mut replies = [begun(), sent(), completed(), ours(), written("\"e\"")];
    for slow in [1, 2, 4] {
        replies[slow].late = late;
    }
    let server = Server::start(replies).await;
    let limit = TimeoutConfig::builder().operation_timeout(late / 4).build();
    let store = S3Store::new(&account(&server, Some(limit)), options());
    let upload = store.upload("a").await.expect("it begins");
    upload.send(1, 0, vec![Bytes::from_static(b"123456789")]).await.expect("sent");
    upload.complete(&[part()]).await.expect("completed");
    store.create("b", body).await.expect("written");
    server.requests();
}

#[tokio::test]
async fn an_upload_says_everything_that_makes_it_safe() {
    let kms_key = "arn:aws:kms:us-east-1:123456789012:key/k";
    let options = S3Options { kms_key: Some(kms_key.into()), bucket_owner: Some("123456789012".into()), ..options() };
    let nothing = Reply::new(204, "");
    let replies = [begun(), sent(), Reply::new(200, "<ListPartsResult/>"), completed(), ours(), nothing];
    let (server, store) = with_options(options, replies).await;

    let upload = store.upload("runs/a.archive").await.expect("begin");
    assert_eq!(upload.token().as_deref(), Some("U1"));
    let first = upload.send(1, 0, vec!["1234".into(), "".into(), "56789".into()]).await.expect("send");
    assert_eq!(first, part());
    assert_eq!(upload.arrived().await.expect("arrived"), []);
    let meta = upload.complete(&[first]).await.expect("complete");
    assert_eq!((meta.key.as_str(), meta.size, meta.version.as_str()), ("runs/a.archive", 9, "\"whole\""));
    upload.abort().await.expect("abort");

    let requests = server.requests();
    for request in &requests {
        assert!(request.line.contains("/bucket/docs/runs/a.archive"), "{request:?}");
        assert_eq!(request.header("x-amz-expected-bucket-owner"), "123456789012", "{request:?}");
    }
    let [begin, send, list, complete, head, abort] = &requests[..] else { panic!("{requests:?}") };
    assert!(begin.line.starts_with("POST ") && query(begin).contains("uploads"), "{begin:?}");
    assert_eq!(begin.header("x-amz-checksum-algorithm"), "CRC64NVME");
    assert_eq!(begin.header("x-amz-checksum-type"), "FULL_OBJECT");
    assert_eq!(begin.header("x-amz-server-side-encryption"), "aws:kms");
    assert_eq!(begin.header("x-amz-server-side-encryption-aws-kms-key-id"), kms_key);

    assert!(send.line.starts_with("PUT "), "{send:?}");
    assert!(query(send).contains("partNumber=1") && query(send).contains("uploadId=U1"), "{send:?}");
    assert_eq!(send.body, b"123456789");
    assert_eq!(send.header("x-amz-checksum-crc64nvme"), SUM);
    assert_eq!(send.header("x-amz-content-sha256"), "UNSIGNED-PAYLOAD", "the checksum was computed once, by us");
    assert!(!send.headers.contains_key("x-amz-trailer"), "{send:?}");

    assert!(list.line.starts_with("GET ") && query(list).contains("uploadId=U1"), "{list:?}");

    assert!(complete.line.starts_with("POST ") && query(complete).contains("uploadId=U1"), "{complete:?}");
    assert_eq!(complete.header("if-none-match"), "*");
    assert_eq!(complete.header("x-amz-checksum-crc64nvme"), SUM);
    assert_eq!(complete.header("x-amz-checksum-type"), "FULL_OBJECT");
    let named = String::from_utf8_lossy(&complete.body);
    for said in ["<PartNumber>1</PartNumber>", &format!("<ChecksumCRC64NVME>{SUM}</ChecksumCRC64NVME>"), "p&quot;"] {
        assert!(named.contains(said), "{said} is not in {named}");
    }
    assert!(head.line.starts_with("HEAD ") && head.header("x-amz-checksum-mode") == "ENABLED", "{head:?}");
    assert!(abort.line.starts_with("DELETE ") && query(abort).contains("uploadId=U1"), "{abort:?}");
}

#[tokio::test]
async fn a_part_is_sent_again_whole() {
    let busy = [Reply::error(503, "SlowDown"), Reply::error(500, "InternalError")];
    let (server, upload) = begin(busy.into_iter().chain([sent()])).await;
    let pieces = vec![Bytes::from_static(b"1234"), Bytes::from_static(b"56789")];
    assert_eq!(upload.send(1, 0, pieces).await.expect("the third attempt"), part());
    let requests = server.requests();
    assert_eq!(requests.len(), 4);
    for request in &requests[1..] {
        assert_eq!(request.body, b"123456789", "{request:?}");
    }
}

#[tokio::test]
async fn a_part_that_does_not_pass_is_given_up() {
    let (server, upload) = begin(vec![Reply::error(503, "SlowDown"); ATTEMPTS]).await;
    let error = upload.send(1, 0, vec!["x".into()]).await.expect_err("no attempt works");
    assert!(error.is_temporary(), "{error:?}");
    assert_eq!(server.requests().len(), 1 + ATTEMPTS);

    // Damaged on its way: nothing was stored, and the caller has the bytes.
    let (_server, upload) = begin([Reply::error(400, "BadDigest")]).await;
    let error = upload.send(1, 0, vec!["x".into()]).await.expect_err("damaged");
    assert!(error.is_temporary(), "{error:?}");
}

#[tokio::test]
async fn a_lost_reply_to_the_completion_ends_well() {
    // It was done, the reply was 500, the SDK asked again, and the upload is gone.
    let lost = [Reply::error(500, "InternalError"), Reply::error(404, "NoSuchUpload"), ours()];
    let (server, upload) = begin(lost).await;
    upload.complete(&[part()]).await.expect("our earlier attempt");
    assert_eq!(server.requests().len(), 4);

    // Or it is not gone yet, and our own object refuses the condition.
    let (server, upload) = begin([Reply::error(412, "PreconditionFailed"), ours(), aborted()]).await;
    upload.complete(&[part()]).await.expect("our earlier attempt");
    let requests = server.requests();
    assert!(requests[3].line.starts_with("DELETE ") && query(&requests[3]).contains("uploadId=U1"), "{requests:?}");

    // What stands there is ours whether or not the parts can be removed.
    let denied = Reply::error(403, "AccessDenied");
    let (server, upload) = begin([Reply::error(412, "PreconditionFailed"), ours(), denied]).await;
    upload.complete(&[part()]).await.expect("our earlier attempt");
    assert_eq!(server.requests().len(), 4);
}

#[tokio::test]
async fn an_error_in_a_good_reply_is_an_error() {
    // S3 sends the 200 first when it takes long, and then what went wrong.
    let late = |code: &str| {
        let body = format!("<?xml version=\"1.0\"?>\n<Error><Code>{code}</Code><Message>scripted</Message></Error>");
        Reply::new(200, body)
    };
    let (server, upload) = begin([late("InternalError"), completed(), ours()]).await;
    upload.complete(&[part()]).await.expect("the second attempt");
    assert_eq!(server.requests().len(), 4);

    let error = refused([late("InvalidPart")]).await;
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error:?}");
}

#[tokio::test]
async fn an_upload_that_is_gone_without_an_object_is_not_found() {
    let error = refused([Reply::error(404, "NoSuchUpload")].into_iter().chain(absent())).await;
    assert!(matches!(error, StoreError::NotFound { .. }), "{error:?}");

    let gone = || Reply::error(404, "NoSuchUpload");
    let (_server, upload) = begin([gone(), gone(), gone()]).await;
    let error = upload.send(1, 0, vec!["x".into()]).await.expect_err("gone");
    assert!(matches!(error, StoreError::NotFound { .. }), "{error:?}");
    let error = upload.arrived().await.expect_err("gone");
    assert!(matches!(error, StoreError::NotFound { .. }), "{error:?}");
    upload.abort().await.expect("nothing is left to forget");
}

#[tokio::test]
async fn a_foreign_object_is_a_loss() {
    let lost = || [vec![Reply::error(412, "PreconditionFailed")], vec![aborted()]];
    let over = || [vec![Reply::error(404, "NoSuchUpload")], vec![]];
    for [refusal, after] in [lost(), over()] {
        // Other bytes, another size, or put there in a way that we never would.
        for theirs in [stands(9, Some(OTHER_SUM)), stands(8, Some(SUM)), stands(9, None)] {
            let error = refused([refusal.clone(), vec![theirs], after.clone()].concat()).await;
            assert!(matches!(error, StoreError::AlreadyExists { .. }), "{error:?}");
        }
    }
}

#[tokio::test]
async fn what_an_earlier_upload_left_is_told_by_its_size_and_checksum() {
    let (server, store) = scripted([ours()].into_iter().chain(absent()).chain([Reply::new(403, "")])).await;
    let parts = [part()];
    let asked = || store.completed("runs/a.archive", &parts);
    assert_eq!(asked().await.expect("an answer").map(|meta| meta.size), Some(9));
    assert_eq!(asked().await.expect("an answer"), None);
    let denied = asked().await.expect_err("nobody can tell");
    assert!(matches!(denied, StoreError::Denied { .. }), "{denied:?}");
    assert_eq!(server.requests()[0].header("x-amz-checksum-mode"), "ENABLED");

    for theirs in [stands(9, Some(OTHER_SUM)), stands(8, Some(SUM)), stands(9, None)] {
        let (_server, store) = scripted([theirs]).await;
        let other = store.completed("runs/a.archive", &[part()]).await.expect_err("it is another object");
        assert!(matches!(other, StoreError::AlreadyExists { .. }), "{other:?}");
    }
}

#[tokio::test]
async fn a_completion_that_cannot_be_looked_at_is_no_verdict() {
    let denied = || Reply::new(403, "");
    for before in [Reply::error(412, "PreconditionFailed"), Reply::error(404, "NoSuchUpload"), completed()] {
        let error = refused([before, denied()]).await;
        assert!(matches!(error, StoreError::Denied { .. }), "{error:?}");
    }
    let error = refused([Reply::error(412, "PreconditionFailed")].into_iter().chain(absent())).await;
    assert!(error.is_temporary(), "it came and went: {error:?}");
}

#[tokio::test]
async fn conflicts_are_tried_again_and_then_settled_by_what_stands() {
    let conflict = || Reply::error(409, "ConditionalRequestConflict");
    let (server, upload) = begin([conflict(), conflict(), completed(), ours()]).await;
    upload.complete(&[part()]).await.expect("the third attempt");
    assert_eq!(server.requests().len(), 5);

    let conflicts = || vec![conflict(); 1 + REPEATS].into_iter();
    let (_server, upload) = begin(conflicts().chain([ours(), aborted()])).await;
    upload.complete(&[part()]).await.expect("one of the attempts was done");
    let error = refused(conflicts().chain([stands(9, Some(OTHER_SUM)), aborted()])).await;
    assert!(matches!(error, StoreError::AlreadyExists { .. }), "{error:?}");
    let error = refused(conflicts().chain(absent())).await;
    assert!(error.is_temporary(), "{error:?}");
}

#[tokio::test]
async fn a_completed_object_is_not_believed_but_looked_at() {
    for wrong in [stands(9, Some(OTHER_SUM)), stands(10, Some(SUM))] {
        let error = refused([completed(), wrong]).await;
        assert!(matches!(error, StoreError::Corrupt { .. }), "{error:?}");
    }
    // A server that keeps no such checksum, or one of the parts' checksums.
    let composite = stands(9, None).header("x-amz-checksum-crc64nvme", SUM).header("x-amz-checksum-type", "COMPOSITE");
    for unknown in [stands(9, None), composite] {
        let error = refused([completed(), unknown]).await;
        assert!(matches!(error, StoreError::Invalid { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn refused_parts_are_corrupt() {
    for code in ["InvalidPart", "InvalidPartOrder", "EntityTooSmall", "BadDigest"] {
        let error = refused([Reply::error(400, code)]).await;
        assert!(matches!(error, StoreError::Corrupt { .. }), "{code}: {error:?}");
    }
    let error = refused([Reply::error(403, "AccessDenied")]).await;
    assert!(matches!(error, StoreError::Denied { .. }), "{error:?}");
    let (server, upload) = begin([]).await;
    let small = upload.complete(&[part(), Part { number: 2, ..part() }]).await.expect_err("too small to be the first");
    assert!(matches!(small, StoreError::Invalid { .. }), "{small:?}");
    assert_eq!(server.requests().len(), 1, "nobody was asked");
}

fn listed(number: u32, rest: &str) -> String {
    let sum = format!("<ChecksumCRC64NVME>{SUM}</ChecksumCRC64NVME>");
    format!("<Part><PartNumber>{number}</PartNumber><ETag>\"p\"</ETag><Size>9</Size>{sum}</Part>{rest}")
}

fn page(parts: &str, next: Option<u32>) -> Reply {
    let more = next.map(|next| format!("<NextPartNumberMarker>{next}</NextPartNumberMarker>")).unwrap_or_default();
    let truncated = next.is_some();
    Reply::new(200, format!("<ListPartsResult><IsTruncated>{truncated}</IsTruncated>{more}{parts}</ListPartsResult>"))
}

#[tokio::test]
async fn every_page_of_parts_is_read() {
    let foreign = "<Part><PartNumber>4</PartNumber><ETag>\"p\"</ETag><Size>9</Size></Part>";
    let first = page(&listed(1, &listed(3, "")), Some(3));
    let (server, upload) = begin([first.clone(), page(&listed(7, foreign), None)]).await;
    let numbers: Vec<u32> = upload.arrived().await.expect("arrived").iter().map(|part| part.number).collect();
    assert_eq!(numbers, [1, 3, 7], "and not the one without our checksum");
    let requests = server.requests();
    assert!(query(&requests[2]).contains("part-number-marker=3"), "{:?}", requests[2]);

    let (_server, upload) = begin([first, Reply::error(403, "AccessDenied")]).await;
    let error = upload.arrived().await.expect_err("half a list");
    assert!(matches!(error, StoreError::Denied { .. }), "{error:?}");

    let endless = Reply::new(200, "<ListPartsResult><IsTruncated>true</IsTruncated></ListPartsResult>");
    let (_server, upload) = begin([endless]).await;
    let error = upload.arrived().await.expect_err("more, but where?");
    assert!(error.is_temporary(), "{error:?}");
}

#[tokio::test]
async fn an_upload_is_given_up_only_where_the_store_says_that_it_is_gone() {
    let replies = [
        page("", None),
        Reply::error(404, "NoSuchUpload"),
        Reply::error(403, "AccessDenied"),
        Reply::error(404, "NoSuchBucket"),
    ];
    let (_server, store) = scripted(replies).await;
    assert!(store.resume("a", "U1").await.expect("resume").is_some());
    assert!(store.resume("a", "U1").await.expect("resume").is_none());
    let denied = store.resume("a", "U1").await.expect_err("nobody knows");
    assert!(matches!(denied, StoreError::Denied { .. }), "{denied:?}");
    let no_bucket = store.resume("a", "U1").await.expect_err("nobody knows");
    assert!(matches!(no_bucket, StoreError::Invalid { .. }), "{no_bucket:?}");
}

#[tokio::test]
async fn an_abort_that_was_refused_is_told() {
    let (_server, upload) = begin([Reply::error(403, "AccessDenied")]).await;
    let error = upload.abort().await.expect_err("the parts are still paid for");
    assert!(matches!(error, StoreError::Denied { .. }), "{error:?}");
}
