//! What every [`Store`] must do, as functions that panic where one does not. Run [`all`] against every implementation,
//! on a store that is empty.

// A panic is what a check is for.
#![allow(clippy::missing_panics_doc)]

use std::collections::BTreeSet;

use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::io::AsyncReadExt;

use super::{MOST_PARTS, Part, Store, StoreError, Upload, Version, crc64nvme};

/// The least that S3 takes for a part that is not the last.
const PART: usize = 5 * 1024 * 1024;
/// More than two of S3's pages.
const MANY: usize = 2005;
const RACERS: usize = 16;

/// Every check.
pub async fn all(store: &dyn Store) {
    an_empty_store_lists_nothing(store).await;
    what_is_missing_is_not_found(store).await;
    what_was_written_is_read(store).await;
    an_empty_object_is_an_object(store).await;
    a_key_is_created_once(store).await;
    a_stale_version_replaces_nothing(store).await;
    a_repeated_write_succeeds(store).await;
    nothing_is_replaced_where_nothing_is(store).await;
    put_overwrites(store).await;
    deleting_is_repeatable(store).await;
    one_of_many_creates_wins(store).await;
    one_of_many_replaces_wins(store).await;
    lists_are_sorted_and_match_the_prefix(store).await;
    lists_have_every_page(store).await;
    unusual_keys_are_keys(store).await;
    bad_keys_are_refused(store).await;
    a_large_object_is_streamed(store).await;
    ranges_are_exact(store).await;
    parts_come_in_any_order(store).await;
    a_part_that_comes_again_replaces_the_first(store).await;
    an_upload_is_taken_up_again(store).await;
    a_missing_part_publishes_nothing(store).await;
    a_changed_part_publishes_nothing(store).await;
    an_upload_onto_an_object_is_refused(store).await;
    a_repeated_completion_succeeds(store).await;
    what_was_completed_is_known_by_its_parts(store).await;
    an_aborted_upload_leaves_nothing(store).await;
    part_numbers_have_a_limit(store).await;
    one_of_many_completions_wins(store).await;
}

/// `""` lists a store without objects as empty.
pub async fn an_empty_store_lists_nothing(store: &dyn Store) {
    assert_eq!(keys(store, "").await, [""; 0], "give an empty store to the suite");
    assert_eq!(keys(store, "no/such/prefix").await, [""; 0]);
}

/// Absence is an answer of its own.
pub async fn what_is_missing_is_not_found(store: &dyn Store) {
    for key in ["missing", "missing/deeper/still.json"] {
        let get = store.get(key).await.expect_err("get of a missing object");
        assert!(matches!(get, StoreError::NotFound { .. }), "{get:?}");
        let head = store.head(key).await.expect_err("head of a missing object");
        assert!(matches!(head, StoreError::NotFound { .. }), "{head:?}");
        let read = store.read(key).await.err().expect("read of a missing object");
        assert!(matches!(read, StoreError::NotFound { .. }), "{read:?}");
    }
}

/// The same bytes, and the same description from every call.
pub async fn what_was_written_is_read(store: &dyn Store) {
    let (key, body) = ("written/a.json", Bytes::from_static(b"{\"a\":1}"));
    let before = jiff::Timestamp::now();
    let version = store.create(key, body.clone()).await.expect("create");

    let object = store.get(key).await.expect("get");
    assert_eq!(object.body, body);
    assert_eq!((object.meta.key.as_str(), object.meta.size), (key, 7));
    assert_eq!(object.meta.version, version);
    // Stores round to seconds, and their clock is not ours.
    let age = before.duration_since(object.meta.modified).abs();
    assert!(age < jiff::SignedDuration::from_secs(60), "written now, but dated {}", object.meta.modified);

    let head = store.head(key).await.expect("head");
    assert_eq!((head.key.as_str(), head.size, &head.version), (key, 7, &version));
    let listed = store.list("written/").await.expect("list");
    assert_eq!(listed.len(), 1);
    assert_eq!((listed[0].key.as_str(), listed[0].size, &listed[0].version), (key, 7, &version));
    assert_eq!(streamed(store, key).await, body);
}

/// Nothing is not the same as no object.
pub async fn an_empty_object_is_an_object(store: &dyn Store) {
    store.create("empty/object", Bytes::new()).await.expect("create");
    assert_eq!(store.get("empty/object").await.expect("get").body, Bytes::new());
    assert_eq!(streamed(store, "empty/object").await, Bytes::new());
    assert_eq!(store.head("empty/object").await.expect("head").size, 0);
}

/// The second writer learns that there was a first.
pub async fn a_key_is_created_once(store: &dyn Store) {
    store.create("once/claim", "first".into()).await.expect("the first create");
    let second = store.create("once/claim", "second".into()).await.expect_err("the second create");
    assert!(matches!(second, StoreError::AlreadyExists { .. }), "{second:?}");
    assert_eq!(store.get("once/claim").await.expect("get").body, "first");
}

/// Compare and set.
pub async fn a_stale_version_replaces_nothing(store: &dyn Store) {
    let first = store.create("stale/pointer", "one".into()).await.expect("create");
    let second = store.replace("stale/pointer", "two".into(), &first).await.expect("replace");
    assert_ne!(first, second);
    let stale = store.replace("stale/pointer", "three".into(), &first).await.expect_err("a stale replace");
    assert!(matches!(stale, StoreError::Changed { .. }), "{stale:?}");
    assert_eq!(store.get("stale/pointer").await.expect("get").body, "two");
    store.replace("stale/pointer", "three".into(), &second).await.expect("replace with the new version");
}

/// A writer whose reply got lost finds its own bytes.
pub async fn a_repeated_write_succeeds(store: &dyn Store) {
    let created = store.create("repeated/a", "one".into()).await.expect("create");
    let again = store.create("repeated/a", "one".into()).await.expect("the same create again");
    assert_eq!(created, again);
    let replaced = store.replace("repeated/a", "two".into(), &created).await.expect("replace");
    let again = store.replace("repeated/a", "two".into(), &created).await.expect("the same replace again");
    assert_eq!(replaced, again);
}

/// Replacing is not creating.
pub async fn nothing_is_replaced_where_nothing_is(store: &dyn Store) {
    let version = store.create("gone/pointer", "one".into()).await.expect("create");
    store.delete("gone/pointer").await.expect("delete");
    let gone = store.replace("gone/pointer", "two".into(), &version).await.expect_err("replace of a deleted object");
    assert!(matches!(gone, StoreError::NotFound { .. }), "{gone:?}");
    assert_eq!(keys(store, "gone/").await, [""; 0]);
}

/// The last writer wins.
pub async fn put_overwrites(store: &dyn Store) {
    store.put("put/progress", "one".into()).await.expect("the first put");
    let version = store.put("put/progress", "two and longer".into()).await.expect("the second put");
    let object = store.get("put/progress").await.expect("get");
    assert_eq!((object.body, object.meta.version), ("two and longer".into(), version));
}

/// Deleting what is not there is fine, and a deleted key can be created again.
pub async fn deleting_is_repeatable(store: &dyn Store) {
    store.create("deleted/a", "one".into()).await.expect("create");
    store.delete("deleted/a").await.expect("delete");
    store.delete("deleted/a").await.expect("delete again");
    store.delete("deleted/never/was").await.expect("delete of what never was");
    assert!(matches!(store.get("deleted/a").await, Err(StoreError::NotFound { .. })));
    store.create("deleted/a", "two".into()).await.expect("create again");
}

/// Claims.
pub async fn one_of_many_creates_wins(store: &dyn Store) {
    let race = (0..RACERS).map(|racer| async move {
        let asked = store.create("race/new/claim", format!("racer {racer}").into()).await;
        (racer, asked)
    });
    let won = winner(join_all(race).await, |lost| matches!(lost, StoreError::AlreadyExists { .. }));
    assert_eq!(store.get("race/new/claim").await.expect("get").body, format!("racer {won}"));
}

/// Take-overs.
pub async fn one_of_many_replaces_wins(store: &dyn Store) {
    let version = &store.create("race/pointer", "before".into()).await.expect("create");
    let race = (0..RACERS).map(|racer| async move {
        let asked = store.replace("race/pointer", format!("racer {racer}").into(), version).await;
        (racer, asked)
    });
    let won = winner(join_all(race).await, |lost| matches!(lost, StoreError::Changed { .. }));
    assert_eq!(store.get("race/pointer").await.expect("get").body, format!("racer {won}"));
}

fn winner(results: Vec<(usize, Result<Version, StoreError>)>, lost: impl Fn(&StoreError) -> bool) -> usize {
    let mut winners = Vec::new();
    for (racer, result) in results {
        match result {
            Ok(_) => winners.push(racer),
            Err(error) => assert!(lost(&error), "racer {racer}: {error:?}"),
        }
    }
    assert_eq!(winners.len(), 1, "exactly one wins, but {winners:?} did");
    winners[0]
}

/// By bytes, whatever order the store walks in; and a prefix is a string, not a folder.
pub async fn lists_are_sorted_and_match_the_prefix(store: &dyn Store) {
    for key in ["order/a/b", "order/a-b", "order/ab/c/d", "order/a0", "order/b", "order/Z", "order/ä", "orders"] {
        store.put(key, "x".into()).await.expect(key);
    }
    assert_eq!(keys(store, "order/a").await, ["order/a-b", "order/a/b", "order/a0", "order/ab/c/d"]);
    assert_eq!(keys(store, "order/a/").await, ["order/a/b"]);
    assert_eq!(keys(store, "order/ab/c/d").await, ["order/ab/c/d"]);
    assert_eq!(keys(store, "order/ab/c/d/").await, [""; 0]);
    assert_eq!(keys(store, "order/nothing").await, [""; 0]);
    let all = ["order/Z", "order/a-b", "order/a/b", "order/a0", "order/ab/c/d", "order/b", "order/ä", "orders"];
    assert_eq!(keys(store, "order").await, all);
}

/// S3 lists a thousand keys at a time.
pub async fn lists_have_every_page(store: &dyn Store) {
    let written: BTreeSet<String> = (0..MANY).map(|number| format!("many/{number}")).collect();
    let writes = written.iter().map(async |key| store.put(key, "x".into()).await.map(drop));
    for done in stream::iter(writes).buffer_unordered(32).collect::<Vec<_>>().await {
        done.expect("put");
    }
    let listed = keys(store, "many/").await;
    assert_eq!(listed.len(), MANY);
    assert!(listed.into_iter().eq(written));
}

/// What URLs, XML, shells and globs treat in their own way.
pub async fn unusual_keys_are_keys(store: &dyn Store) {
    let names = [
        "a b",
        "a+b",
        "a%20b",
        "a%b",
        "a&b=c",
        "a?b#c",
        "a;b,c:d@e",
        "(a)[b]{c}",
        "'a'\"b\"",
        "<a>",
        "a*b",
        "~a",
        "$a!",
        "...",
        ".a",
        "a..b",
        "ü",
        "日本",
        "🦀",
        "-a",
        "a|b^c`d",
    ];
    let mut written: Vec<String> = names.iter().map(|name| format!("unusual/{name}/x {name}")).collect();
    written.sort();
    for key in &written {
        store.create(key, key.clone().into()).await.unwrap_or_else(|error| panic!("create {key}: {error:?}"));
    }
    assert_eq!(keys(store, "unusual/").await, written);
    for key in &written {
        let object = store.get(key).await.unwrap_or_else(|error| panic!("get {key}: {error:?}"));
        assert_eq!((&object.meta.key, object.body), (key, key.clone().into()));
        assert_eq!(keys(store, key).await, [key.as_str()]);
        store.delete(key).await.unwrap_or_else(|error| panic!("delete {key}: {error:?}"));
    }
    assert_eq!(keys(store, "unusual/").await, [""; 0]);
}

/// By every call, before anything is touched.
pub async fn bad_keys_are_refused(store: &dyn Store) {
    for key in ["", "/", "/a", "a/", "a//b", ".", "..", "../a", "a/../../b", "./a", "a/.", "a\\b", "a\0b", "a\nb"] {
        let version = Version::new("any");
        let refusals = [
            store.get(key).await.err(),
            store.read(key).await.err(),
            store.head(key).await.err(),
            store.create(key, "x".into()).await.err(),
            store.replace(key, "x".into(), &version).await.err(),
            store.put(key, "x".into()).await.err(),
            store.delete(key).await.err(),
            store.read_range(key, 0..1).await.err(),
            store.upload(key).await.err(),
            store.resume(key, "any").await.err(),
        ];
        for refusal in refusals {
            assert!(matches!(refusal, Some(StoreError::Invalid { .. })), "{key:?}: {refusal:?}");
        }
    }
    for prefix in ["/", "../", "a/../b", "a//", "a\\"] {
        let refusal = store.list(prefix).await.err();
        assert!(matches!(refusal, Some(StoreError::Invalid { .. })), "{prefix:?}: {refusal:?}");
    }
}

/// 5 MiB and a bit, so that no buffer fits it by chance.
pub async fn a_large_object_is_streamed(store: &dyn Store) {
    let body = noise(1, PART + 12_345);
    let version = store.create("large/archive", body.clone()).await.expect("create");
    let again = store.create("large/archive", body.clone()).await.expect("the same create again");
    assert_eq!(version, again);
    let head = store.head("large/archive").await.expect("head");
    assert_eq!((head.size, &head.version), (body.len() as u64, &version));
    assert!(streamed(store, "large/archive").await == body, "the streamed bytes differ");

    // A reader that goes away in the middle is nobody's failure.
    let mut reader = store.read("large/archive").await.expect("read");
    let mut start = [0; 10];
    reader.read_exact(&mut start).await.expect("the first bytes");
    assert_eq!(start, body[..10]);
    drop(reader);

    let other = Bytes::from(vec![7; body.len()]);
    store.replace("large/archive", other.clone(), &version).await.expect("replace");
    assert!(store.get("large/archive").await.expect("get").body == other, "the replaced bytes differ");
}

/// A range as its pieces make it.
async fn pieces(store: &dyn Store, key: &str, range: std::ops::Range<u64>) -> Result<Vec<u8>, StoreError> {
    let pieces: Vec<Bytes> = store.stream_range(key, range).try_collect().await?;
    Ok(pieces.concat())
}

/// First, middle, last, all, nothing; and what lies past the end is no shorter answer.
pub async fn ranges_are_exact(store: &dyn Store) {
    let body = noise(2, 100_000);
    store.create("ranges/a", body.clone()).await.expect("create");
    for range in [0..1, 0..10, 1..2, 50_000..60_001, 99_999..100_000, 0..100_000, 0..0, 500..500, 100_000..100_000] {
        let read = store.read_range("ranges/a", range.clone()).await;
        let read = read.unwrap_or_else(|error| panic!("{range:?}: {error:?}"));
        let index = |at: u64| usize::try_from(at).expect("fits");
        assert!(read == body[index(range.start)..index(range.end)], "{range:?} has other bytes");
        assert!(pieces(store, "ranges/a", range.clone()).await.expect("streamed") == read, "{range:?}, streamed");
    }
    for range in [99_999..100_001, 0..100_001, 100_000..100_001, 200_000..200_001, 100_001..100_001] {
        let past = store.read_range("ranges/a", range.clone()).await.expect_err("past the end");
        assert!(matches!(past, StoreError::Corrupt { .. }), "{range:?}: {past:?}");
    }
    let past = pieces(store, "ranges/a", 99_999..100_001).await.expect_err("past the end");
    assert!(matches!(past, StoreError::Corrupt { .. }), "{past:?}");
    // Not an empty range but one that runs backwards, which nobody means.
    let backwards = std::ops::Range { start: 2, end: 1 };
    let refused = store.read_range("ranges/a", backwards).await.expect_err("backwards");
    assert!(matches!(refused, StoreError::Invalid { .. }), "{refused:?}");
    for range in [0..1, 0..0] {
        let missing = store.read_range("ranges/missing", range).await.expect_err("no object");
        assert!(matches!(missing, StoreError::NotFound { .. }), "{missing:?}");
    }
    let missing = pieces(store, "ranges/missing", 0..1).await.expect_err("no object");
    assert!(matches!(missing, StoreError::NotFound { .. }), "{missing:?}");
    // In more pieces than one, wherever they are cut.
    let large = noise(3, (17 << 20) + 3);
    store.create("ranges/large", large.clone()).await.expect("create");
    let read = pieces(store, "ranges/large", 5..large.len() as u64 - 3).await.expect("streamed");
    assert!(read == large[5..large.len() - 3], "other bytes were streamed");
    store.create("ranges/empty", Bytes::new()).await.expect("create");
    assert_eq!(store.read_range("ranges/empty", 0..0).await.expect("nothing of nothing"), Bytes::new());
    let past = store.read_range("ranges/empty", 0..1).await.expect_err("past the end");
    assert!(matches!(past, StoreError::Corrupt { .. }), "{past:?}");
}

/// From the last to the first, all at the same time, each in pieces.
pub async fn parts_come_in_any_order(store: &dyn Store) {
    let body = noise(3, 11 * PART + 12_345);
    let upload = store.upload("parts/any/order").await.expect("upload");
    assert_eq!(upload.arrived().await.expect("arrived"), []);
    let parts = send_all(&*upload, &body).await;
    assert_eq!(parts.len(), 12);
    for part in &parts {
        let (at, size) =
            (usize::try_from(part.number - 1).expect("fits") * PART, usize::try_from(part.size).expect("fits"));
        assert_eq!(part.crc64, crc64nvme(&[body.slice(at..at + size)]), "part {}", part.number);
    }
    assert_eq!(keys(store, "parts/any").await, [""; 0], "an object is seen before it is complete");
    assert!(matches!(store.get("parts/any/order").await, Err(StoreError::NotFound { .. })));

    let meta = upload.complete(&parts).await.expect("complete");
    assert_eq!((meta.key.as_str(), meta.size), ("parts/any/order", body.len() as u64));
    let head = store.head("parts/any/order").await.expect("head");
    assert_eq!((head.size, &head.version), (meta.size, &meta.version));
    assert!(streamed(store, "parts/any/order").await == body, "the object is not its parts");
    let (start, end) = (PART as u64 - 3, PART as u64 + 5);
    let across = store.read_range("parts/any/order", start..end).await.expect("a range across two parts");
    assert_eq!(across, body[PART - 3..PART + 5]);
    over(store, "parts/any/order", &*upload).await;
}

/// A part is repeated after every failure that says nothing, and a file that grew is read again.
pub async fn a_part_that_comes_again_replaces_the_first(store: &dyn Store) {
    let body = noise(4, PART + 100);
    let upload = store.upload("parts/again").await.expect("upload");
    let before = send(&*upload, 1, 0, &body.slice(..PART)).await;
    send(&*upload, 2, PART as u64, &noise(5, 300)).await;
    let first = send(&*upload, 1, 0, &body.slice(..PART)).await;
    // Some stores give every part that comes a name of its own.
    assert_eq!(first, Part { tag: first.tag.clone(), ..before });
    let last = send(&*upload, 2, PART as u64, &body.slice(PART..)).await;
    let arrived = upload.arrived().await.expect("arrived");
    assert_eq!(arrived, [first.clone(), last.clone()]);
    upload.complete(&[last, first]).await.expect("complete");
    assert!(store.get("parts/again").await.expect("get").body == body, "the longer part left something behind");
}

/// By its token, from another process; where a store can.
pub async fn an_upload_is_taken_up_again(store: &dyn Store) {
    let body = noise(6, 2 * PART + 10);
    let begun = store.upload("parts/resumed").await.expect("upload");
    send(&*begun, 2, PART as u64, &body.slice(PART..2 * PART)).await;
    let token = begun.token();
    drop(begun);
    for foreign in ["", "no-such-upload", "../../etc/passwd", "00000000000000000000000000000000"] {
        assert!(store.resume("parts/resumed", foreign).await.expect("an answer").is_none(), "{foreign:?}");
    }
    let Some(token) = token else { return };
    assert!(store.resume("parts/another", &token).await.expect("an answer").is_none(), "it is another object's");

    let upload = store.resume("parts/resumed", &token).await.expect("resume").expect("it is known");
    assert_eq!(upload.token().as_ref(), Some(&token));
    let mut parts = upload.arrived().await.expect("arrived");
    assert_eq!(parts.iter().map(|part| (part.number, part.size)).collect::<Vec<_>>(), [(2, PART as u64)]);
    assert_eq!(parts[0].crc64, crc64nvme(&[body.slice(PART..2 * PART)]));
    parts.push(send(&*upload, 3, 2 * PART as u64, &body.slice(2 * PART..)).await);
    parts.push(send(&*upload, 1, 0, &body.slice(..PART)).await);
    upload.complete(&parts).await.expect("complete");
    assert!(store.get("parts/resumed").await.expect("get").body == body, "the resumed object has other bytes");
    over(store, "parts/resumed", &*upload).await;
}

/// Whether it was never sent, is left out, or nothing was sent at all.
pub async fn a_missing_part_publishes_nothing(store: &dyn Store) {
    let body = noise(7, 2 * PART + 10);
    let upload = store.upload("parts/missing").await.expect("upload");
    let first = send(&*upload, 1, 0, &body.slice(..PART)).await;
    let third = send(&*upload, 3, 2 * PART as u64, &body.slice(2 * PART..)).await;
    let second = Part { number: 2, ..first.clone() };
    for parts in [vec![first.clone(), third.clone()], vec![first, second, third], vec![]] {
        let missing = upload.complete(&parts).await.expect_err("a part is missing");
        let empty = parts.is_empty() && matches!(missing, StoreError::Invalid { .. });
        assert!(empty || matches!(missing, StoreError::Corrupt { .. }), "{} parts: {missing:?}", parts.len());
        assert!(matches!(store.head("parts/missing").await, Err(StoreError::NotFound { .. })));
    }
    upload.abort().await.expect("abort");
}

/// What the caller holds to be a part is compared with what the store has.
pub async fn a_changed_part_publishes_nothing(store: &dyn Store) {
    let body = noise(8, PART + 10);
    let upload = store.upload("parts/changed").await.expect("upload");
    let first = send(&*upload, 1, 0, &body.slice(..PART)).await;
    let last = send(&*upload, 2, PART as u64, &body.slice(PART..)).await;
    let newer = send(&*upload, 2, PART as u64, &noise(9, 10)).await;
    assert_ne!(last, newer);
    let other_sum = Part { crc64: newer.crc64 ^ 1, ..newer.clone() };
    let shorter = Part { size: 9, ..newer.clone() };
    for wrong in [last, other_sum, shorter] {
        let refused = upload.complete(&[first.clone(), wrong]).await.expect_err("it is not what was sent");
        assert!(matches!(refused, StoreError::Corrupt { .. }), "{refused:?}");
        assert!(matches!(store.head("parts/changed").await, Err(StoreError::NotFound { .. })));
    }
    upload.complete(&[first, newer]).await.expect("what was sent");
}

/// As `create` is.
pub async fn an_upload_onto_an_object_is_refused(store: &dyn Store) {
    let upload = store.upload("parts/taken").await.expect("upload");
    let part = send(&*upload, 1, 0, &noise(10, 1000)).await;
    store.create("parts/taken", "somebody was first".into()).await.expect("create");
    let refused = upload.complete(&[part]).await.expect_err("it is taken");
    assert!(matches!(refused, StoreError::AlreadyExists { .. }), "{refused:?}");
    assert_eq!(store.get("parts/taken").await.expect("get").body, "somebody was first");
    over(store, "parts/taken", &*upload).await;
    upload.abort().await.expect("abort");
}

/// A completion whose reply got lost finds its own object, in the same process or another.
pub async fn a_repeated_completion_succeeds(store: &dyn Store) {
    let (body, other) = (noise(11, 1000), noise(12, 1000));
    let upload = store.upload("parts/repeated").await.expect("upload");
    let part = send(&*upload, 1, 0, &body).await;
    let meta = upload.complete(std::slice::from_ref(&part)).await.expect("complete");
    assert_eq!(upload.complete(std::slice::from_ref(&part)).await.expect("complete again").version, meta.version);

    let again = store.upload("parts/repeated").await.expect("upload");
    let same = send(&*again, 1, 0, &body).await;
    assert_eq!(again.complete(&[same]).await.expect("the same object").version, meta.version);
    over(store, "parts/repeated", &*again).await;

    let foreign = store.upload("parts/repeated").await.expect("upload");
    let part = send(&*foreign, 1, 0, &other).await;
    let refused = foreign.complete(&[part]).await.expect_err("another object of that size");
    assert!(matches!(refused, StoreError::AlreadyExists { .. }), "{refused:?}");
    over(store, "parts/repeated", &*foreign).await;
    foreign.abort().await.expect("abort");
    again.abort().await.expect("abort");
    upload.abort().await.expect("an abort after the completion");
    assert!(store.get("parts/repeated").await.expect("get").body == body, "an abort touched the object");
}

/// Also in another process, however the object came there, and never one with other bytes.
pub async fn what_was_completed_is_known_by_its_parts(store: &dyn Store) {
    let body = noise(15, PART + 10);
    let upload = store.upload("parts/known").await.expect("upload");
    let first = send(&*upload, 1, 0, &body.slice(..PART)).await;
    let last = send(&*upload, 2, PART as u64, &body.slice(PART..)).await;
    let unnamed = |part: &Part| Part { tag: String::new(), ..part.clone() };
    let parts = [unnamed(&first), unnamed(&last)];
    assert_eq!(store.completed("parts/known", &parts).await.expect("an answer"), None, "it is not completed");
    upload.complete(&[first, last]).await.expect("complete");
    let meta = store.head("parts/known").await.expect("head");
    assert_eq!(store.completed("parts/known", &parts).await.expect("an answer"), Some(meta));
    let other_sum = [parts[0].clone(), Part { crc64: parts[1].crc64 ^ 1, ..parts[1].clone() }];
    for wrong in [&parts[..1], &other_sum] {
        let refused = store.completed("parts/known", wrong).await.expect_err("it is another object");
        assert!(matches!(refused, StoreError::AlreadyExists { .. }), "{refused:?}");
    }

    let small = noise(16, 1000);
    store.create("parts/small", small.clone()).await.expect("create");
    let part = Part { number: 1, size: 1000, crc64: crc64nvme(&[small]), tag: String::new() };
    store.completed("parts/small", std::slice::from_ref(&part)).await.expect("an answer").expect("it is that object");
    store.put("parts/small", noise(17, 1000)).await.expect("put");
    let refused = store.completed("parts/small", &[part]).await.expect_err("other bytes of that size");
    assert!(matches!(refused, StoreError::AlreadyExists { .. }), "{refused:?}");
}

/// Neither an object nor something to resume.
pub async fn an_aborted_upload_leaves_nothing(store: &dyn Store) {
    let upload = store.upload("parts/aborted").await.expect("upload");
    let part = send(&*upload, 1, 0, &noise(13, 1000)).await;
    upload.abort().await.expect("abort");
    upload.abort().await.expect("abort again");
    let late = upload.complete(&[part]).await.expect_err("it was aborted");
    assert!(matches!(late, StoreError::NotFound { .. }), "{late:?}");
    assert_eq!(keys(store, "parts/aborted").await, [""; 0]);
    over(store, "parts/aborted", &*upload).await;
}

/// S3's.
pub async fn part_numbers_have_a_limit(store: &dyn Store) {
    let upload = store.upload("parts/limit").await.expect("upload");
    for number in [0, MOST_PARTS + 1, u32::MAX] {
        let refused = upload.send(number, 0, vec!["x".into()]).await.expect_err("no such part");
        assert!(matches!(refused, StoreError::Invalid { .. }), "{number}: {refused:?}");
    }
    let last = send(&*upload, MOST_PARTS, 0, &noise(14, 10)).await;
    let many: Vec<Part> = (1..=MOST_PARTS + 1).map(|number| Part { number, ..last.clone() }).collect();
    let refused = upload.complete(&many).await.expect_err("too many");
    assert!(matches!(refused, StoreError::Invalid { .. }), "{refused:?}");
    upload.abort().await.expect("abort");
}

/// Two agents that think they own a backup.
pub async fn one_of_many_completions_wins(store: &dyn Store) {
    let race = (0..RACERS).map(|racer| async move {
        let upload = store.upload("parts/race").await.expect("upload");
        let seed = 100 + u32::try_from(racer).expect("fits");
        let part = send(&*upload, 1, 0, &noise(seed, 1000)).await;
        let asked = upload.complete(&[part]).await;
        upload.abort().await.expect("abort");
        (racer, asked.map(|meta| meta.version))
    });
    let won = winner(join_all(race).await, |lost| matches!(lost, StoreError::AlreadyExists { .. }));
    let seed = 100 + u32::try_from(won).expect("fits");
    assert!(store.get("parts/race").await.expect("get").body == noise(seed, 1000), "a loser's object stands there");
}

/// The upload is known to nobody any more.
async fn over(store: &dyn Store, key: &str, upload: &dyn Upload) {
    if let Some(token) = upload.token() {
        assert!(store.resume(key, &token).await.expect("an answer").is_none(), "{key} can still be resumed");
    }
    let late = upload.send(1, 0, vec!["late".into()]).await.expect_err("it is over");
    assert!(matches!(late, StoreError::NotFound { .. }), "{late:?}");
    let late = upload.arrived().await.expect_err("it is over");
    assert!(matches!(late, StoreError::NotFound { .. }), "{late:?}");
}

async fn send_all(upload: &dyn Upload, body: &Bytes) -> Vec<Part> {
    let offsets: Vec<usize> = (0..body.len()).step_by(PART).rev().collect();
    let sends = offsets.into_iter().map(|offset| {
        let number = u32::try_from(offset / PART + 1).expect("fits");
        let piece = body.slice(offset..body.len().min(offset + PART));
        async move { send(upload, number, offset as u64, &piece).await }
    });
    stream::iter(sends).buffer_unordered(8).collect().await
}

/// In pieces, one of which is empty.
async fn send(upload: &dyn Upload, number: u32, offset: u64, body: &Bytes) -> Part {
    let cut = body.len() / 3;
    let pieces = vec![body.slice(..cut), Bytes::new(), body.slice(cut..)];
    let part = upload.send(number, offset, pieces).await.unwrap_or_else(|error| panic!("part {number}: {error:?}"));
    assert_eq!((part.number, part.size), (number, body.len() as u64));
    part
}

/// The same bytes for the same seed, and others in every part: the block's length goes into no part's.
fn noise(seed: u32, length: usize) -> Bytes {
    let mut number = seed;
    let next = || {
        number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        number.to_be_bytes()[0]
    };
    let mut bytes: Vec<u8> = std::iter::repeat_with(next).take(length.min(65_537)).collect();
    while bytes.len() < length {
        bytes.extend_from_within(..bytes.len().min(length - bytes.len()));
    }
    bytes.into()
}

async fn streamed(store: &dyn Store, key: &str) -> Bytes {
    let mut body = Vec::new();
    store.read(key).await.expect("read").read_to_end(&mut body).await.expect("stream");
    body.into()
}

async fn keys(store: &dyn Store, prefix: &str) -> Vec<String> {
    let listed = store.list(prefix).await.unwrap_or_else(|error| panic!("list {prefix:?}: {error:?}"));
    listed.into_iter().map(|meta| meta.key).collect()
}
