//! What the store for Google Cloud Storage and Azure Blob Storage asks, and makes of the answers: against canned
//! replies in the form that these services document, as neither can be had on a test machine.

#[path = "../s3_faults/server.rs"]
mod server;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use object_store::azure::{AzureCredential, MicrosoftAzureBuilder};
use object_store::gcp::{GcpCredential, GoogleCloudStorageBuilder};
use object_store::{BackoffConfig, ClientOptions, RetryConfig, StaticCredentialProvider};
use perennial_shared::store::cloud::CloudStore;
use perennial_shared::store::{Store, StoreError, Upload};
use server::{Reply, Request, Server};

const RETRIES: usize = 2;

fn retry() -> RetryConfig {
    let short = Duration::from_millis(1);
    let backoff = BackoffConfig { init_backoff: short, max_backoff: short, base: 2.0 };
    RetryConfig { backoff, max_retries: RETRIES, retry_timeout: Duration::from_secs(10) }
}

async fn google(replies: impl IntoIterator<Item = Reply>) -> (Server, CloudStore) {
    let server = Server::start(replies).await;
    let build = || {
        let builder = GoogleCloudStorageBuilder::new().with_bucket_name("bucket").with_base_url(&server.url());
        // A made-up credential: a test asks nobody for a real one.
        let credential = StaticCredentialProvider::new(GcpCredential { bearer: "scripted".into() });
        let builder = builder.with_credentials(Arc::new(credential)).with_retry(retry());
        Arc::new(builder.with_client_options(ClientOptions::new().with_allow_http(true)).build().expect("a client"))
    };
    let store = CloudStore::new(build(), build(), "docs", "gs://bucket/docs");
    (server, store)
}

async fn azure(replies: impl IntoIterator<Item = Reply>) -> (Server, CloudStore) {
    let server = Server::start(replies).await;
    let build = || {
        let builder = MicrosoftAzureBuilder::new().with_account("account").with_container_name("container");
        let credential = StaticCredentialProvider::new(AzureCredential::BearerToken("scripted".into()));
        let builder = builder.with_endpoint(server.url()).with_credentials(Arc::new(credential)).with_retry(retry());
        Arc::new(builder.with_client_options(ClientOptions::new().with_allow_http(true)).build().expect("a client"))
    };
    let store = CloudStore::new(build(), build(), "docs", "az://container/docs");
    (server, store)
}

fn object(body: &str) -> Reply {
    Reply::object(body, "\"e\"").header("x-goog-generation", "7")
}

fn written() -> Reply {
    Reply::new(200, "").header("ETag", "\"e\"").header("x-goog-generation", "7")
}

/// What both services list where nothing is.
fn nothing() -> Reply {
    Reply::new(200, "<EnumerationResults><Blobs></Blobs><NextMarker/></EnumerationResults>")
}

fn nothing_listed() -> Reply {
    Reply::new(200, "<ListBucketResult></ListBucketResult>")
}

fn path(request: &Request) -> &str {
    request.line.split('?').next().expect("a line")
}

#[tokio::test]
async fn google_s_writes_carry_their_condition() {
    let (server, store) = google([written(), object("").promising(2), written(), written()]).await;
    let version = store.create("runs/a/claim.json", "{}".into()).await.expect("create");
    store.replace("pointer", "{}".into(), &version).await.expect("replace");
    store.put("progress", "{}".into()).await.expect("put");
    let requests = server.requests();
    let lines: Vec<&str> = requests.iter().map(path).collect();
    let head = "HEAD /bucket/docs%2Fpointer";
    let put = |key: &str| format!("PUT /bucket/docs%2F{key}");
    assert_eq!(lines, [&put("runs%2Fa%2Fclaim%2Ejson"), head, &put("pointer"), &put("progress")]);
    let conditions: Vec<&str> = requests.iter().map(|request| request.header("x-goog-if-generation-match")).collect();
    assert_eq!(conditions, ["0", "", "7", ""]);
}

#[tokio::test]
async fn azure_s_writes_carry_their_condition() {
    let (server, store) = azure([written(), object("").promising(2), written(), written()]).await;
    let version = store.create("runs/a/claim.json", "{}".into()).await.expect("create");
    store.replace("pointer", "{}".into(), &version).await.expect("replace");
    store.put("progress", "{}".into()).await.expect("put");
    let requests = server.requests();
    let conditions: Vec<(&str, &str)> =
        requests.iter().map(|request| (request.header("if-none-match"), request.header("if-match"))).collect();
    assert_eq!(conditions, [("*", ""), ("", ""), ("", "\"e\""), ("", "")]);
    assert!(requests[0].line.contains("/container/docs/runs/a/claim.json"), "{:?}", requests[0]);
}

#[tokio::test]
async fn a_refused_condition_is_settled_by_what_is_stored() {
    let refused = || Reply::error(412, "PreconditionFailed");
    let (_server, store) = google([refused(), object("ours"), refused(), object("theirs")]).await;
    store.create("a", "ours".into()).await.expect("our earlier attempt");
    let lost = store.create("a", "ours".into()).await.expect_err("they were first");
    assert!(matches!(lost, StoreError::AlreadyExists { .. }), "{lost:?}");

    let taken = || Reply::new(409, "").header("x-ms-error-code", "BlobAlreadyExists");
    let (_server, store) = azure([taken(), object("theirs"), taken(), Reply::new(403, "")]).await;
    let lost = store.create("a", "ours".into()).await.expect_err("they were first");
    assert!(matches!(lost, StoreError::AlreadyExists { .. }), "{lost:?}");
    let unknown = store.create("a", "ours".into()).await.expect_err("nobody can tell");
    assert!(matches!(unknown, StoreError::Denied { .. }), "{unknown:?}");
}

#[tokio::test]
async fn a_denial_is_not_absence() {
    for status in [401, 403] {
        let denied = || Reply::error(status, "AccessDenied");
        let head = denied().promising(0);
        let (_server, store) = google([denied(), head, denied(), denied(), denied(), denied(), denied()]).await;
        let errors = [
            store.get("a").await.map(drop),
            store.head("a").await.map(drop),
            store.list("").await.map(drop),
            store.create("a", "x".into()).await.map(drop),
            store.delete("a").await,
            store.read_range("a", 0..1).await.map(drop),
            store.upload("a").await.map(drop),
        ];
        for error in errors {
            assert!(matches!(error, Err(StoreError::Denied { .. })), "{status}: {error:?}");
        }
    }
}

/// Azure lists an `ETag` without the quotation marks that it has in the header of that name.
#[tokio::test]
async fn azure_s_listings_and_heads_name_the_same_version() {
    let properties = "<Last-Modified>Sat, 21 Nov 2026 10:00:00 GMT</Last-Modified><Content-Length>1</Content-Length>\
        <Content-Type>text/plain</Content-Type><Etag>e</Etag>";
    let blob = format!("<Blob><Name>docs/a</Name><Properties>{properties}</Properties></Blob>");
    let listed = format!("<EnumerationResults><Blobs>{blob}</Blobs><NextMarker/></EnumerationResults>");
    let (_server, store) = azure([Reply::new(200, listed), object("").promising(1)]).await;
    let found = store.list("").await.expect("listed");
    assert_eq!(found[0].version, store.head("a").await.expect("found").version);
}

#[tokio::test]
async fn a_missing_bucket_is_not_a_missing_object() {
    let missing = || Reply::error(404, "NoSuchKey");
    let no_bucket = || Reply::error(404, "NoSuchBucket");
    for (listed, is_absence) in [(nothing_listed(), true), (no_bucket(), false)] {
        let (_server, store) = google([missing(), listed.clone(), missing().promising(0), listed]).await;
        for error in [store.get("a").await.map(drop), store.head("a").await.map(drop)] {
            let error = error.expect_err("a 404");
            assert_eq!(matches!(error, StoreError::NotFound { .. }), is_absence, "{error:?}");
            assert_eq!(matches!(error, StoreError::Invalid { .. }), !is_absence, "{error:?}");
        }
    }
    let (_server, store) = azure([missing(), nothing(), missing(), no_bucket(), no_bucket()]).await;
    let error = store.get("a").await.expect_err("no object");
    assert!(matches!(error, StoreError::NotFound { .. }), "{error:?}");
    for error in [store.get("a").await.map(drop), store.list("").await.map(drop)] {
        assert!(matches!(error, Err(StoreError::Invalid { .. })), "{error:?}");
    }
}

#[tokio::test]
async fn what_may_pass_is_tried_again_and_then_told() {
    let busy = || Reply::error(503, "SlowDown");
    let (_server, store) = google([busy(), busy(), object("x")]).await;
    assert_eq!(store.get("a").await.expect("the third attempt").body, "x");

    let (server, store) = google(vec![busy(); 1 + RETRIES]).await;
    let error = store.create("a", "x".into()).await.expect_err("no attempt works");
    assert!(error.is_temporary(), "{error:?}");
    assert_eq!(server.requests().len(), 1 + RETRIES);
}

#[tokio::test]
async fn a_range_past_the_end_is_corrupt() {
    let ranged = |body: &str, range: &str| {
        let reply = Reply::new(206, body).header("ETag", "\"e\"").header("Content-Range", range);
        reply.header("Last-Modified", "Sat, 21 Nov 2026 10:55:01 GMT").header("x-goog-generation", "7")
    };
    let sized = || object("").promising(10);
    let replies = [
        ranged("3456", "bytes 3-6/10"),
        ranged("89", "bytes 8-9/10"),
        sized(),
        Reply::error(416, "InvalidRange"),
        sized(),
    ];
    let (server, store) = google(replies).await;
    assert_eq!(store.read_range("a", 3..7).await.expect("a range"), "3456");
    for past in [8..12, 10..12] {
        let error = store.read_range("a", past.clone()).await.expect_err("past the end");
        assert!(matches!(error, StoreError::Corrupt { .. }), "{past:?}: {error:?}");
    }
    assert_eq!(server.requests()[0].header("range"), "bytes=3-6");
}

async fn uploaded(store: &CloudStore) -> Result<(), StoreError> {
    let upload: Box<dyn Upload> = store.upload("a.archive").await?;
    assert_eq!(upload.token(), None);
    let part = upload.send(1, 0, vec!["1234".into(), Bytes::new(), "56789".into()]).await?;
    let meta = upload.complete(&[part]).await?;
    assert_eq!((meta.key.as_str(), meta.size), ("a.archive", 9));
    Ok(())
}

/// What Google answers to an upload: the parts are put together, `back` is what is read back.
fn google_s_upload(back: &str) -> Vec<Reply> {
    let begun = "<InitiateMultipartUploadResult><UploadId>U1</UploadId></InitiateMultipartUploadResult>";
    let completed = "<CompleteMultipartUploadResult><ETag>\"e\"</ETag></CompleteMultipartUploadResult>";
    let together = Reply::new(200, completed).header("x-goog-generation", "7");
    vec![nothing_listed(), Reply::new(200, begun), written(), together, object(back)]
}

#[tokio::test]
async fn google_s_upload_appears_by_a_conditional_copy() {
    let copied = Reply::new(200, "<CopyObjectResult></CopyObjectResult>");
    let rest = [copied, object("").promising(9), Reply::new(204, "")];
    let (server, store) = google(google_s_upload("123456789").into_iter().chain(rest)).await;
    uploaded(&store).await.expect("an upload");

    let requests = server.requests();
    let [_, begin, part, together, back, copy, head, delete] = &requests[..] else { panic!("{requests:?}") };
    for own in [begin, part, together, back, delete] {
        assert!(path(own).contains("/bucket/docs%2F%2Eperennial%2Fuploads%2F"), "{own:?}");
    }
    assert_eq!(part.body, b"123456789");
    assert!(together.line.starts_with("POST ") && back.line.starts_with("GET "), "{requests:?}");
    assert_eq!(path(copy), "PUT /bucket/docs%2Fa%2Earchive");
    assert_eq!(copy.header("x-goog-if-generation-match"), "0");
    assert!(copy.header("x-goog-copy-source").starts_with("bucket/docs%2F%2Eperennial%2Fuploads%2F"), "{copy:?}");
    assert_eq!(path(head), "HEAD /bucket/docs%2Fa%2Earchive");
    assert!(delete.line.starts_with("DELETE "), "{delete:?}");
}

#[tokio::test]
async fn an_upload_that_came_out_wrong_is_never_copied() {
    for wrong in ["123456780", "12345678"] {
        let (server, store) = google(google_s_upload(wrong)).await;
        let error = uploaded(&store).await.expect_err("damaged");
        assert!(matches!(error, StoreError::Corrupt { .. }), "{error:?}");
        assert_eq!(server.requests().len(), 5, "and no copy");
    }
}

#[tokio::test]
async fn a_copy_onto_an_object_is_settled_by_what_stands_there() {
    let taken = || Reply::error(412, "PreconditionFailed");
    let stands = || object("").promising(9);
    let ours = [taken(), stands(), object("123456789"), Reply::new(204, "")];
    let (_server, store) = google(google_s_upload("123456789").into_iter().chain(ours)).await;
    uploaded(&store).await.expect("our earlier copy");

    let theirs = [taken(), stands(), object("other-one"), Reply::new(204, "")];
    let (server, store) = google(google_s_upload("123456789").into_iter().chain(theirs)).await;
    let error = uploaded(&store).await.expect_err("theirs");
    assert!(matches!(error, StoreError::AlreadyExists { .. }), "{error:?}");
    let removed = server.requests().pop().expect("a request");
    assert!(removed.line.starts_with("DELETE ") && removed.line.contains("uploads"), "{removed:?}");

    let denied = [taken(), Reply::new(403, "")];
    let (_server, store) = google(google_s_upload("123456789").into_iter().chain(denied)).await;
    let error = uploaded(&store).await.expect_err("nobody can tell");
    assert!(matches!(error, StoreError::Denied { .. }), "{error:?}");
}

#[tokio::test]
async fn azure_s_upload_appears_by_a_conditional_copy() {
    let created = || Reply::new(201, "").header("ETag", "\"e\"");
    let copied = Reply::new(202, "").header("x-ms-copy-status", "success");
    let gone = "--batch\r\nContent-Type: application/http\r\nContent-ID: 0\r\n\r\nHTTP/1.1 202 Accepted\r\n\
                x-ms-request-id: r\r\n\r\n--batch--\r\n";
    let deleted = Reply::new(202, gone).header("Content-Type", "multipart/mixed; boundary=batch");
    let back = object("123456789");
    let replies = [nothing(), created(), created(), back, copied, object("").promising(9), deleted];
    let (server, store) = azure(replies).await;
    uploaded(&store).await.expect("an upload");

    let requests = server.requests();
    let [_, part, together, _, copy, ..] = &requests[..] else { panic!("{requests:?}") };
    assert!(part.line.contains("comp=block") && part.line.contains("/.perennial/uploads/"), "{part:?}");
    assert_eq!(part.body, b"123456789");
    assert!(together.line.contains("comp=blocklist"), "{together:?}");
    assert!(path(copy).ends_with("/container/docs/a.archive"), "{copy:?}");
    assert_eq!(copy.header("if-none-match"), "*");
    assert!(copy.header("x-ms-copy-source").contains("/container/docs/.perennial/uploads/"), "{copy:?}");
}
