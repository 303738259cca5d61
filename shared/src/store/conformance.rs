//! What every [`Store`] must do, as functions that panic where one does not. Run [`all`] against every implementation,
//! on a store that is empty.

// A panic is what a check is for.
#![allow(clippy::missing_panics_doc)]

use std::collections::BTreeSet;

use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::{StreamExt, stream};
use tokio::io::AsyncReadExt;

use super::{Store, StoreError, Version};

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
    let mut number = 1_u32;
    let body: Bytes = std::iter::repeat_with(|| {
        number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        number.to_be_bytes()[0]
    })
    .take(5 * 1024 * 1024 + 12_345)
    .collect();
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

async fn streamed(store: &dyn Store, key: &str) -> Bytes {
    let mut body = Vec::new();
    store.read(key).await.expect("read").read_to_end(&mut body).await.expect("stream");
    body.into()
}

async fn keys(store: &dyn Store, prefix: &str) -> Vec<String> {
    let listed = store.list(prefix).await.unwrap_or_else(|error| panic!("list {prefix:?}: {error:?}"));
    listed.into_iter().map(|meta| meta.key).collect()
}
