//! Ranges of objects.

use perennial_shared::store::{Store, StoreError};

use super::{REPEATS, Reply, scripted};

fn range(body: &str, content_range: &str) -> Reply {
    let reply = Reply::new(206, body).header("ETag", "\"e\"").header("Last-Modified", "Sat, 21 Nov 2026 10:55:01 GMT");
    reply.header("Content-Range", content_range)
}

#[tokio::test]
async fn a_range_is_asked_for_without_a_checksum() {
    let (server, store) = scripted([range("3456", "bytes 3-6/10")]).await;
    assert_eq!(store.read_range("a", 3..7).await.expect("a range"), "3456");
    let requests = server.requests();
    assert_eq!(requests[0].header("range"), "bytes=3-6");
    assert_eq!(requests[0].header("x-amz-checksum-mode"), "", "S3 has no checksum of a range");
}

#[tokio::test]
async fn a_range_past_the_end_is_corrupt() {
    let (_server, store) = scripted([Reply::error(416, "InvalidRange"), range("89", "bytes 8-9/10")]).await;
    for past in [10..12, 8..12] {
        let error = store.read_range("a", past.clone()).await.expect_err("past the end");
        assert!(matches!(error, StoreError::Corrupt { .. }), "{past:?}: {error:?}");
    }
}

#[tokio::test]
async fn a_range_that_breaks_off_is_gone_on_with() {
    let cut = || range("34", "bytes 3-6/10").promising(4);
    let rest = [range("5", "bytes 5-6/10").promising(2), range("6", "bytes 6-6/10")];
    let (server, store) = scripted([cut(), Reply::error(503, "SlowDown")].into_iter().chain(rest)).await;
    assert_eq!(store.read_range("a", 3..7).await.expect("in three parts"), "3456");
    let asked: Vec<_> = server.requests().iter().map(|request| request.header("range").to_owned()).collect();
    assert_eq!(asked, ["bytes=3-6", "bytes=5-6", "bytes=5-6", "bytes=6-6"]);

    let nothing = || range("", "bytes 3-6/10").promising(4);
    let (server, store) = scripted(vec![nothing(); 1 + REPEATS]).await;
    let error = store.read_range("a", 3..7).await.expect_err("never whole");
    assert!(error.is_temporary(), "{error:?}");
    assert_eq!(server.requests().len(), 1 + REPEATS);
}

#[tokio::test]
async fn a_reply_that_is_not_the_range_is_not_taken_for_it() {
    let whole = Reply::object("0123456789", "\"e\"");
    let other = range("2345", "bytes 2-5/10");
    // As long as it says, but not as long as was asked for.
    let short = range("345", "bytes 3-5/10");
    let (_server, store) = scripted([whole, other, short]).await;
    for _ in 0..3 {
        let error = store.read_range("a", 3..7).await.expect_err("not the range");
        assert!(error.is_temporary(), "{error:?}");
    }
}

#[tokio::test]
async fn a_denied_range_is_not_an_absent_one() {
    let (_server, store) = scripted([Reply::error(403, "AccessDenied"), Reply::error(404, "NoSuchKey")]).await;
    let denied = store.read_range("a", 0..1).await.expect_err("denied");
    assert!(matches!(denied, StoreError::Denied { .. }), "{denied:?}");
    let missing = store.read_range("a", 0..1).await.expect_err("missing");
    assert!(matches!(missing, StoreError::NotFound { .. }), "{missing:?}");
}
