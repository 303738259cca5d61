//! What the server will be after its next start, which is what its configuration file says and not what it is now.
//!
//! A setting given on the command line or by `include` is not seen here; whoever compares says so.

use std::collections::BTreeMap;

/// A configuration file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Startup {
    settings: BTreeMap<String, Vec<String>>,
}

impl Startup {
    /// Reads the file that the server says it was started with; `None` where it has none, or none that can be read here.
    pub(super) fn read(path: &str) -> Option<Self> {
        let text = if path.is_empty() { None } else { std::fs::read(path).ok() }?;
        Some(Self::parse(&String::from_utf8_lossy(&text)))
    }

    pub(super) fn parse(text: &str) -> Self {
        let mut settings: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for line in text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')) {
            let (name, value) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
            settings.entry(name.to_ascii_lowercase()).or_default().push(unquoted(value.trim()));
        }
        Self { settings }
    }

    /// A setting's last value; `None` where the file leaves it to the server.
    pub(super) fn last(&self, name: &str) -> Option<&str> {
        self.settings.get(name)?.last().map(String::as_str)
    }

    /// Whether other files have a say, too.
    pub(super) fn includes(&self) -> bool {
        self.settings.contains_key("include")
    }
}

fn unquoted(value: &str) -> String {
    let inner = |quote: char| value.strip_prefix(quote)?.strip_suffix(quote);
    inner('"').or_else(|| inner('\'')).unwrap_or(value).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_value_of_a_setting_counts() {
        let file = Startup::parse(
            "# comment\nAppendOnly no\nsave 3600 1\nappendonly yes\n\n  dir  \"/var/lib/redis\"\nsave ''\n",
        );
        assert_eq!((file.last("appendonly"), file.last("dir")), (Some("yes"), Some("/var/lib/redis")));
        assert_eq!((file.last("save"), file.last("port"), file.includes()), (Some(""), None, false));
        assert!(Startup::parse("include /etc/redis/more.conf").includes());
    }
}
