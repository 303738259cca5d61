//! What a restore makes of which collection: pure decisions, and a record that outlives a crash.
//!
//! | under the collection's name there is | it is restored as | and at the commit |
//! |---|---|---|
//! | nothing | itself | only its aliases come |
//! | a collection | a copy beside it | aliases go to the copy, the collection is replaced, aliases come back, the copy goes |
//! | an alias | a copy | the alias goes to the copy, the collection behind it goes |
//!
//! An alias cannot have a collection's name, so what is called by a collection's own name must be replaced under it. Its readers
//! get errors for a moment; those who come by an alias never do. It loads, for the copy of the same archive did.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::names;

/// Aliases and their collections.
pub(super) type Aliases = BTreeMap<String, String>;

/// A restore.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Plan {
    pub(super) phase: Phase,
    pub(super) moves: Vec<Move>,
    /// The backup's aliases.
    pub(super) aliases: Aliases,
    /// The aliases that the commit moves, with the collections as the backup calls them.
    pub(super) switched: Aliases,
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Phase {
    /// Nothing that was there before was touched.
    Installing,
    /// The copies were compared and are being put in place; there is only the way forward.
    Committing,
    /// All is in place; what is not needed any more is still to be removed.
    Cleaning,
}

/// A collection of the backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Move {
    pub(super) name: String,
    /// What it is restored as.
    pub(super) target: String,
    pub(super) there: There,
    /// Whether the target is ours: set before it is made.
    pub(super) made: bool,
    /// Whether the collection of its own name was replaced.
    pub(super) replaced: bool,
}

/// What is there under a collection's name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum There {
    Nothing,
    Collection,
    /// An alias of this collection.
    Alias(String),
}

impl Plan {
    /// Decides, from what the backup has and what is there.
    pub(super) fn new(tag: &str, backup: &[String], aliases: Aliases, live: &[String], live_aliases: &Aliases) -> Self {
        let is_taken = |name: &str| live.iter().any(|l| l == name) || live_aliases.contains_key(name);
        let decide = |name: &String| {
            let there = match live_aliases.get(name) {
                Some(behind) => There::Alias(behind.clone()),
                None if live.contains(name) => There::Collection,
                None => There::Nothing,
            };
            let target = if there == There::Nothing { name.clone() } else { names::copy(name, tag, is_taken) };
            Move { name: name.clone(), target, there, made: false, replaced: false }
        };
        let moves = backup.iter().map(decide).collect();
        Self { phase: Phase::Installing, moves, aliases, switched: Aliases::new() }
    }

    /// Aliases of the backup whose name is a collection's here that the backup does not have.
    pub(super) fn unusable_aliases(&self, live: &[String]) -> Vec<String> {
        self.aliases.keys().filter(|alias| live.contains(alias)).cloned().collect()
    }

    /// The names until the commit, by the backup's, where they differ.
    pub(super) fn names(&self) -> BTreeMap<String, String> {
        let differ = self.moves.iter().filter(|m| m.name != m.target);
        differ.map(|m| (m.name.clone(), m.target.clone())).collect()
    }

    /// Which aliases the commit moves: the backup's, and those that readers of a replaced collection come by.
    pub(super) fn to_switch(&self, live_aliases: &Aliases) -> Aliases {
        let is_restored = |name: &String| self.moves.iter().any(|m| m.name == *name);
        let all = live_aliases.iter().chain(&self.aliases).filter(|(_, collection)| is_restored(collection));
        let mut aliases: Aliases = all.map(|(alias, collection)| (alias.clone(), collection.clone())).collect();
        for one in self.moves.iter().filter(|m| matches!(m.there, There::Alias(_))) {
            aliases.insert(one.name.clone(), one.name.clone());
        }
        aliases
    }

    /// Where the aliases point while collections are replaced: at what was proved.
    pub(super) fn aliases_meanwhile(&self) -> Aliases {
        self.switched_to(|m| &m.target)
    }

    /// Where the aliases point in the end.
    pub(super) fn aliases_at_the_end(&self) -> Aliases {
        self.switched_to(|m| if m.there == There::Collection { &m.name } else { &m.target })
    }

    fn switched_to(&self, place: impl Fn(&Move) -> &String) -> Aliases {
        let find = |collection: &String| self.moves.iter().find(|m| m.name == *collection);
        let each = |(alias, collection): (&String, &String)| Some((alias.clone(), place(find(collection)?).clone()));
        self.switched.iter().filter_map(each).collect()
    }

    /// Collections that nobody needs after the commit: copies of what has its own name again, and what stood behind a moved alias, unless
    /// the backup has it too or another alias still points at it.
    pub(super) fn obsolete(&self, aliases_now: &Aliases) -> Vec<String> {
        let needed: BTreeSet<&String> = aliases_now.values().chain(self.moves.iter().map(|m| &m.name)).collect();
        let old = |m: &Move| match &m.there {
            There::Nothing => None,
            There::Collection => Some(m.target.clone()),
            There::Alias(behind) => Some(behind.clone()),
        };
        self.moves.iter().filter_map(old).filter(|name| !needed.contains(name)).collect()
    }

    /// Collections of an unfinished install that may be deleted: made by it, and no alias points at them.
    pub(super) fn removable(&self, aliases_now: &Aliases) -> Vec<String> {
        let ours = self.moves.iter().filter(|m| m.made).map(|m| m.target.clone());
        ours.filter(|name| !aliases_now.values().any(|c| c == name)).collect()
    }
}

/// One request that moves all aliases at once; an alias that exists is moved by being made again.
pub(super) fn alias_actions(aliases: &Aliases) -> Value {
    let action = |(alias, collection): (&String, &String)| json!({"create_alias": {"collection_name": collection, "alias_name": alias}});
    json!({"actions": aliases.iter().map(action).collect::<Vec<_>>()})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(words: &[&str]) -> Vec<String> {
        words.iter().map(|w| (*w).to_owned()).collect()
    }

    fn aliases(pairs: &[(&str, &str)]) -> Aliases {
        pairs.iter().map(|(a, c)| ((*a).to_owned(), (*c).to_owned())).collect()
    }

    #[test]
    fn a_fresh_server_gets_the_names_and_aliases_of_the_backup() {
        let mut plan =
            Plan::new("t", &strings(&["a", "b"]), aliases(&[("now", "a"), ("odd", "gone")]), &[], &aliases(&[]));
        assert!(plan.names().is_empty());
        plan.switched = plan.to_switch(&aliases(&[]));
        assert_eq!(plan.aliases_meanwhile(), aliases(&[("now", "a")]), "an alias of nothing cannot be made");
        assert_eq!(plan.aliases_at_the_end(), aliases(&[("now", "a")]));
        assert!(plan.obsolete(&aliases(&[("now", "a")])).is_empty());
        let expected = json!({"actions": [{"create_alias": {"collection_name": "a", "alias_name": "now"}}]});
        assert_eq!(alias_actions(&plan.aliases_at_the_end()), expected);
    }

    #[test]
    fn a_live_collection_is_replaced_while_its_aliases_show_the_copy() {
        let live = aliases(&[("now", "a"), ("mine", "a"), ("else", "other")]);
        let mut plan = Plan::new("t", &strings(&["a"]), aliases(&[("now", "a")]), &strings(&["a", "other"]), &live);
        let copy = plan.names()["a"].clone();
        assert!(names::is_copy(&copy));
        plan.switched = plan.to_switch(&live);
        assert_eq!(plan.aliases_meanwhile(), aliases(&[("now", &copy), ("mine", &copy)]));
        assert_eq!(plan.aliases_at_the_end(), aliases(&[("now", "a"), ("mine", "a")]));
        assert_eq!(
            plan.obsolete(&aliases(&[("now", "a"), ("mine", "a"), ("else", "other")])),
            std::slice::from_ref(&copy)
        );
        assert!(plan.obsolete(&aliases(&[("mine", &copy)])).is_empty(), "somebody still comes by it");
    }

    #[test]
    fn an_alias_of_that_name_is_moved_and_what_it_showed_goes() {
        let live = aliases(&[("a", "a-old")]);
        let mut plan = Plan::new("t", &strings(&["a"]), aliases(&[]), &strings(&["a-old"]), &live);
        plan.switched = plan.to_switch(&live);
        let copy = plan.names()["a"].clone();
        assert_eq!(plan.aliases_meanwhile(), aliases(&[("a", &copy)]));
        assert_eq!(plan.aliases_at_the_end(), aliases(&[("a", &copy)]));
        assert_eq!(plan.obsolete(&aliases(&[("a", &copy)])), ["a-old"]);
        assert!(plan.obsolete(&aliases(&[("a", &copy), ("b", "a-old")])).is_empty());
        let again =
            Plan::new("t", &strings(&["a"]), aliases(&[]), std::slice::from_ref(&copy), &aliases(&[("a", &copy)]));
        assert_ne!(again.names()["a"], copy, "what is served is never the target");
    }

    #[test]
    fn only_what_was_made_and_is_not_served_is_taken_back() {
        let mut plan = Plan::new("t", &strings(&["a", "b", "c"]), aliases(&[]), &strings(&["a"]), &aliases(&[]));
        assert!(plan.removable(&aliases(&[])).is_empty());
        plan.moves[0].made = true;
        plan.moves[1].made = true;
        let copy = plan.moves[0].target.clone();
        assert_eq!(plan.removable(&aliases(&[])), [copy.clone(), "b".into()]);
        assert_eq!(plan.removable(&aliases(&[("x", &copy)])), ["b"]);
    }

    #[test]
    fn an_alias_that_is_a_collection_here_is_told() {
        let plan = Plan::new("t", &strings(&["a"]), aliases(&[("now", "a")]), &strings(&["now"]), &aliases(&[]));
        assert_eq!(plan.unusable_aliases(&strings(&["now"])), ["now"]);
    }
}
