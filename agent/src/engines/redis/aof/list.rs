//! The list of append-only files (Redis calls it the manifest): one base, and what was appended since, in order.

use crate::engine::EngineError;

/// The files that make the data up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct List {
    /// The base first, then what was appended, oldest first.
    pub(in super::super) parts: Vec<Part>,
}

/// One file of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Part {
    /// Its name, in the list's own folder.
    pub(in super::super) name: String,
    /// Whether it is the base.
    pub(in super::super) is_base: bool,
    /// Its line, as the server wrote it.
    line: String,
}

impl List {
    /// Reads a list. Files that the server is about to delete are left out.
    pub(in super::super) fn parse(what: &str, text: &str) -> Result<Self, EngineError> {
        let damaged = |why: String| EngineError::Damaged { what: what.into(), why };
        let mut parts = vec![];
        for line in text.lines().filter(|l| !l.trim().is_empty() && !l.starts_with('#')) {
            let (name, kind) = fields(line).ok_or_else(|| damaged(format!("{line:?} names no file")))?;
            if name.contains('/') || name == ".." || name.is_empty() {
                return Err(damaged(format!("{name:?} is in another folder")));
            }
            match kind.as_str() {
                "b" | "i" => parts.push(Part { name, is_base: kind == "b", line: line.into() }),
                "h" => {}
                other => return Err(damaged(format!("{other:?} is no kind of file"))),
            }
        }
        // The server writes the base first; a list that it would not write is not one to guess about.
        if parts.iter().skip(1).any(|p| p.is_base) {
            return Err(damaged("its base is not its first file".into()));
        }
        Ok(Self { parts })
    }

    /// A list of nothing but a base.
    pub(in super::super) fn of_base(name: &str) -> Self {
        let line = format!("file {name} seq 1 type b");
        Self { parts: vec![Part { name: name.into(), is_base: true, line }] }
    }

    /// Whether there is a base: without one the server is still writing it.
    pub(in super::super) fn has_base(&self) -> bool {
        self.parts.first().is_some_and(|p| p.is_base)
    }

    /// The list as the server reads it.
    pub(in super::super) fn text(&self) -> String {
        self.parts.iter().flat_map(|p| [p.line.as_str(), "\n"]).collect()
    }
}

/// `file NAME seq N type T`, the name in quotes where it needs them.
fn fields(line: &str) -> Option<(String, String)> {
    let rest = line.trim().strip_prefix("file ")?.trim_start();
    let (name, rest) = match rest.strip_prefix('"') {
        // The server's escapes in names are not known here, so such a name is refused.
        Some(quoted) => quoted.split_once('"').filter(|(name, _)| !name.contains('\\'))?,
        None => rest.split_once(' ')?,
    };
    let mut words = rest.split_whitespace();
    let kind = loop {
        let (key, value) = (words.next()?, words.next()?);
        if key == "type" {
            break value;
        }
    };
    Some((name.into(), kind.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<(String, bool)> {
        let list = List::parse("list", text).expect("good");
        list.parts.into_iter().map(|p| (p.name, p.is_base)).collect()
    }

    #[test]
    fn a_list_is_read_as_the_server_wrote_it() {
        let text = "file appendonly.aof.2.base.rdb seq 2 type b\nfile appendonly.aof.1.base.rdb seq 1 type h\n\
                    file appendonly.aof.3.incr.aof seq 3 type i\nfile \"my log.4.incr.aof\" seq 4 type i startoffset 0\n";
        let expected =
            [("appendonly.aof.2.base.rdb", true), ("appendonly.aof.3.incr.aof", false), ("my log.4.incr.aof", false)];
        assert_eq!(names(text), expected.map(|(n, b)| (n.to_owned(), b)));
        let list = List::parse("list", text).expect("good");
        assert!(
            list.has_base() && !list.text().contains("type h") && list.text().contains("\"my log.4.incr.aof\" seq 4")
        );
    }

    #[test]
    fn a_list_of_a_base_alone_is_read_back() {
        let list = List::of_base("appendonly.aof.1.base.rdb");
        assert_eq!(List::parse("list", &list.text()).expect("good"), list);
        assert!(!List::parse("list", "file a seq 1 type i").expect("good").has_base());
    }

    #[test]
    fn what_the_server_would_not_write_is_refused() {
        for text in [
            "appendonly.aof.1.base.rdb",
            "file ../x seq 1 type b",
            "file a seq 1 type q",
            "file a seq 1",
            "file a seq 1 type i\nfile b seq 1 type b",
            "file \"a\\x20b\" seq 1 type b",
        ] {
            assert!(List::parse("list", text).is_err(), "{text}");
        }
    }
}
