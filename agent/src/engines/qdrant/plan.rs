//! What a restore makes of which collection: pure decisions, and a record that outlives a crash.
//!
//! | under the collection's name there is | it is restored as | and at the commit |
//! |---|---|---|
//! | nothing | itself | only its aliases come |
//! | a collection | a copy beside it | its aliases go to the copy, it is deleted, and its name becomes an alias of the copy |
//! | an alias | a copy | the alias goes to the copy, the collection behind it goes |
//!
//! Nothing that is served is ever recovered over: the engine deletes the old data before it loads the new, so a recovery that fails
//! there loses both, and answers with errors meanwhile. The copy stays; [`names::called`] says how it is called from then on.

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
    /// The names that the commit moves, with the collections as the backup calls them.
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
            Move { name: name.clone(), target, there, made: false }
        };
        let moves = backup.iter().map(decide).collect();
        Self { phase: Phase::Installing, moves, aliases, switched: Aliases::new() }
    }

    /// Aliases of the backup whose name is a collection's here that the backup does not have.
    pub(super) fn unusable_aliases(&self, live: &[String]) -> Vec<String> {
        self.aliases.keys().filter(|alias| live.contains(alias)).cloned().collect()
    }

    /// What is restored as what, where that is not its name.
    pub(super) fn names(&self) -> BTreeMap<String, String> {
        let differ = self.moves.iter().filter(|m| m.name != m.target);
        differ.map(|m| (m.name.clone(), m.target.clone())).collect()
    }

    /// Which names the commit moves: the backup's aliases, those that readers of a replaced collection come by, and its own.
    pub(super) fn to_switch(&self, live_aliases: &Aliases) -> Aliases {
        let known = live_aliases.iter().filter_map(|(alias, shown)| Some((alias, &self.replacing(shown)?.name)));
        let of_the_backup = self.aliases.iter().filter(|(_, name)| self.moves.iter().any(|m| m.name == **name));
        let themselves = self.moves.iter().filter(|m| m.there != There::Nothing).map(|m| (&m.name, &m.name));
        let all = known.chain(of_the_backup).chain(themselves);
        all.map(|(alias, name)| (alias.clone(), name.clone())).collect()
    }

    /// What takes the place of a live collection: the move of its name, or, of a copy that an earlier restore left, of what that is called.
    fn replacing(&self, live: &str) -> Option<&Move> {
        let is_called =
            |m: &&Move| matches!(&m.there, There::Alias(behind) if behind == live) && names::is_copy_of(live, &m.name);
        self.moves.iter().find(|m| m.name == live).or_else(|| self.moves.iter().find(is_called))
    }

    /// Every name that is moved, and what it shows from then on.
    pub(super) fn shown_at_the_end(&self) -> Aliases {
        let target = |name: &String| self.moves.iter().find(|m| m.name == *name).map(|m| m.target.clone());
        self.switched.iter().filter_map(|(alias, name)| Some((alias.clone(), target(name)?))).collect()
    }

    /// Names whose collection the commit deleted and that show nothing, since a crash came before their alias; with their copies.
    pub(super) fn cut_off(&self, live: &[String], live_aliases: &Aliases) -> Aliases {
        if self.phase != Phase::Committing {
            return Aliases::new();
        }
        let shows_nothing = |m: &&Move| !live.contains(&m.name) && !live_aliases.contains_key(&m.name);
        let replaced = self.moves.iter().filter(|m| m.there == There::Collection && live.contains(&m.target));
        replaced.filter(shows_nothing).map(|m| (m.name.clone(), m.target.clone())).collect()
    }

    /// Collections that nobody needs after the commit: what stood behind a moved alias, unless the backup has it too or another alias
    /// still points at it.
    pub(super) fn obsolete(&self, aliases_now: &Aliases) -> Vec<String> {
        let needed: BTreeSet<&String> = aliases_now.values().chain(self.moves.iter().map(|m| &m.name)).collect();
        let old = |m: &Move| match &m.there {
            There::Alias(behind) => Some(behind.clone()),
            There::Nothing | There::Collection => None,
        };
        self.moves.iter().filter_map(old).filter(|name| !needed.contains(name)).collect()
    }

    /// Copies of an interrupted restore that this one overtook, which may be deleted: no alias shows them, and this one did not bring
    /// them from a backup that was made while they were there.
    pub(super) fn overtaken(&self, other: &Self, aliases_now: &Aliases) -> Vec<String> {
        let copies = other.moves.iter().filter(|m| m.there != There::Nothing).map(|m| &m.target);
        let is_ours = |copy: &String| self.moves.iter().any(|m| m.name == *copy || m.target == *copy);
        let is_shown = |copy: &String| aliases_now.values().any(|shown| shown == copy);
        copies.filter(|copy| !is_ours(copy) && !is_shown(copy)).cloned().collect()
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
        assert_eq!(plan.shown_at_the_end(), aliases(&[("now", "a")]), "an alias of nothing cannot be made");
        assert!(plan.obsolete(&aliases(&[("now", "a")])).is_empty());
        let expected = json!({"actions": [{"create_alias": {"collection_name": "a", "alias_name": "now"}}]});
        assert_eq!(alias_actions(&plan.shown_at_the_end()), expected);
    }

    #[test]
    fn a_live_collection_s_name_becomes_an_alias_of_the_copy() {
        let live = aliases(&[("now", "a"), ("mine", "a"), ("else", "other")]);
        let mut plan = Plan::new("t", &strings(&["a"]), aliases(&[("now", "a")]), &strings(&["a", "other"]), &live);
        let copy = plan.names()["a"].clone();
        assert!(names::is_copy(&copy));
        plan.switched = plan.to_switch(&live);
        let shown = aliases(&[("now", &copy), ("mine", &copy), ("a", &copy)]);
        assert_eq!(plan.shown_at_the_end(), shown);
        assert!(plan.obsolete(&shown).is_empty(), "the copy is what clients are shown");
        assert!(plan.obsolete(&aliases(&[])).is_empty(), "whatever they are shown");
    }

    #[test]
    fn a_name_is_cut_off_between_the_deletion_and_its_alias() {
        let mut plan = Plan::new("t", &strings(&["a", "b"]), aliases(&[]), &strings(&["a"]), &aliases(&[]));
        let copy = plan.names()["a"].clone();
        let (before, after) = (strings(&["a", &copy]), strings(std::slice::from_ref(&&*copy)));
        assert!(plan.cut_off(&after, &aliases(&[])).is_empty(), "nothing was deleted by it yet");
        plan.phase = Phase::Committing;
        assert!(plan.cut_off(&before, &aliases(&[])).is_empty());
        assert_eq!(plan.cut_off(&after, &aliases(&[])), aliases(&[("a", &copy)]));
        assert!(plan.cut_off(&after, &aliases(&[("a", "z")])).is_empty(), "it shows something");
        assert!(plan.cut_off(&[], &aliases(&[])).is_empty(), "there is nothing to show");
    }

    #[test]
    fn an_alias_of_that_name_is_moved_and_what_it_showed_goes() {
        let live = aliases(&[("a", "a-old")]);
        let mut plan = Plan::new("t", &strings(&["a"]), aliases(&[]), &strings(&["a-old"]), &live);
        plan.switched = plan.to_switch(&live);
        let copy = plan.names()["a"].clone();
        assert_eq!(plan.shown_at_the_end(), aliases(&[("a", &copy)]));
        assert_eq!(plan.obsolete(&aliases(&[("a", &copy)])), ["a-old"]);
        assert!(plan.obsolete(&aliases(&[("a", &copy), ("b", "a-old")])).is_empty());
        let live = aliases(&[("a", &copy), ("mine", &copy)]);
        let mut again = Plan::new("t", &strings(&["a"]), aliases(&[]), std::slice::from_ref(&copy), &live);
        let second = again.names()["a"].clone();
        assert_ne!(second, copy, "what is served is never the target");
        again.switched = again.to_switch(&live);
        assert_eq!(again.shown_at_the_end(), aliases(&[("a", &second), ("mine", &second)]), "an alias of a is of a");
        assert_eq!(again.obsolete(&again.shown_at_the_end()), [copy]);
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
    fn copies_of_an_overtaken_restore_go_unless_they_are_shown_or_brought() {
        let other = Plan::new("t", &strings(&["a", "b"]), aliases(&[]), &strings(&["a"]), &aliases(&[]));
        let copy = other.names()["a"].clone();
        let plan = Plan::new("u", &strings(&["a"]), aliases(&[]), &strings(&["a", &copy]), &aliases(&[]));
        assert_eq!(plan.overtaken(&other, &aliases(&[])), std::slice::from_ref(&copy), "b has its own name");
        assert!(plan.overtaken(&other, &aliases(&[("x", &copy)])).is_empty());
        let brings = Plan::new("u", &strings(&["a", &copy]), aliases(&[]), &strings(&["a", &copy]), &aliases(&[]));
        assert!(brings.overtaken(&other, &aliases(&[(&copy, "its copy")])).is_empty());
    }

    #[test]
    fn an_alias_that_is_a_collection_here_is_told() {
        let plan = Plan::new("t", &strings(&["a"]), aliases(&[("now", "a")]), &strings(&["now"]), &aliases(&[]));
        assert_eq!(plan.unusable_aliases(&strings(&["now"])), ["now"]);
    }
}
