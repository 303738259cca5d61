//! What `INFO` says.

use std::collections::BTreeMap;

/// Fields of `INFO` by their names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Info(BTreeMap<String, String>);

/// The keys of one database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct KeyCount {
    /// Number of the database.
    pub(super) database: u32,
    /// All keys; also those that expired and were not deleted yet.
    pub(super) all: u64,
    /// Keys with a time at which they expire.
    pub(super) expires: u64,
}

impl Info {
    pub(super) fn parse(text: &str) -> Self {
        let fields = text.lines().filter(|l| !l.starts_with('#')).filter_map(|l| l.split_once(':'));
        Self(fields.map(|(k, v)| (k.to_owned(), v.trim_end().to_owned())).collect())
    }

    /// A field; empty where this server has none.
    pub(super) fn text(&self, field: &str) -> &str {
        self.0.get(field).map_or("", String::as_str)
    }

    pub(super) fn number(&self, field: &str) -> Option<u64> {
        self.text(field).parse().ok()
    }

    /// Whether a field is a number other than 0.
    pub(super) fn is_on(&self, field: &str) -> bool {
        self.number(field).is_some_and(|n| n > 0)
    }

    /// The databases that hold keys, by their numbers.
    pub(super) fn databases(&self) -> Vec<KeyCount> {
        let mut found: Vec<_> = self.0.iter().filter_map(|(k, v)| keys(k, v)).collect();
        found.sort_by_key(|k| k.database);
        found
    }
}

/// `db0:keys=4,expires=1,avg_ttl=0`.
fn keys(field: &str, value: &str) -> Option<KeyCount> {
    let database = number_of(field)?;
    let of = |name: &str| value.split(',').find_map(|part| part.strip_prefix(name)?.strip_prefix('=')?.parse().ok());
    Some(KeyCount { database, all: of("keys")?, expires: of("expires")? })
}

/// A database's number by its name as a collection.
pub(super) fn number_of(collection: &str) -> Option<u32> {
    collection.strip_prefix("db")?.parse().ok()
}

/// A database's name as a collection.
pub(super) fn name_of(database: u32) -> String {
    format!("db{database}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_space_is_understood() {
        let info = Info::parse(
            "# Keyspace\r\ndb0:keys=12,expires=3,avg_ttl=7\r\ndb10:keys=1,expires=0,avg_ttl=0,subexpiry=0\r\ndb2:keys=5,expires=5,avg_ttl=1\r\n",
        );
        let of = |database, all, expires| KeyCount { database, all, expires };
        assert_eq!(info.databases(), [of(0, 12, 3), of(2, 5, 5), of(10, 1, 0)]);
    }

    #[test]
    fn a_field_that_is_not_there_is_nothing() {
        let info = Info::parse("loading:0\r\naof_enabled:1\r\nused_memory:123\r\n");
        assert_eq!((info.is_on("loading"), info.is_on("aof_enabled"), info.is_on("other")), (false, true, false));
        assert_eq!((info.number("used_memory"), info.number("other"), info.text("other")), (Some(123), None, ""));
    }
}
