//! The table of the registry, next to a map: each entry is at its place until it is removed.

#[path = "../../src/registry/table.rs"]
mod table;

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;

use table::Table;

#[derive(Debug, Clone, Copy)]
enum Step {
    Insert,
    /// Inserts as many as fill a chunk.
    InsertMany,
    Remove(prop::sample::Index),
    RemoveMany(prop::sample::Index),
    RemoveAll(prop::sample::Index),
    RemoveNone(usize),
    Change(prop::sample::Index),
}

fn step() -> impl Strategy<Value = Step> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        8 => Just(Step::Insert),
        2 => Just(Step::InsertMany),
        6 => index().prop_map(Step::Remove),
        2 => index().prop_map(Step::RemoveMany),
        1 => index().prop_map(Step::RemoveAll),
        1 => (0..500_usize).prop_map(Step::RemoveNone),
        2 => index().prop_map(Step::Change),
    ]
}

#[derive(Default)]
struct Model {
    entries: BTreeMap<usize, u32>,
    next: u32,
}

impl Model {
    fn insert(&mut self, table: &mut Table<u32>) {
        let place = table.insert(self.next);
        let before = self.entries.insert(place, self.next);
        assert_eq!(before, None, "place {place} was in use");
        self.next += 1;
    }

    fn remove(&mut self, table: &mut Table<u32>, at: prop::sample::Index) {
        if self.entries.is_empty() {
            return;
        }
        let place = *self
            .entries
            .keys()
            .nth(at.index(self.entries.len()))
            .unwrap();
        let expected = self.entries.remove(&place);
        assert_eq!(table.remove_with(place, |entry| *entry), expected);
        assert_eq!(table.remove_with(place, |entry| *entry), None);
    }

    fn check(&self, table: &mut Table<u32>) {
        let mut all: Vec<u32> = table.iter().copied().collect();
        all.sort_unstable();
        let mut expected: Vec<u32> = self.entries.values().copied().collect();
        expected.sort_unstable();
        assert_eq!(all, expected);
        for (place, entry) in &self.entries {
            assert_eq!(table.get_mut(*place), Some(&mut entry.clone()));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_table_does_what_a_map_does(steps in vec(step(), 0..120)) {
        let mut table = Table::new();
        let mut model = Model::default();
        for step in steps {
            match step {
                Step::Insert => model.insert(&mut table),
                Step::InsertMany => (0..32).for_each(|_| model.insert(&mut table)),
                Step::Remove(at) => model.remove(&mut table, at),
                Step::RemoveMany(at) => (0..32).for_each(|_| model.remove(&mut table, at)),
                Step::RemoveAll(at) => {
                    while !model.entries.is_empty() {
                        model.remove(&mut table, at);
                    }
                }
                Step::RemoveNone(place) if !model.entries.contains_key(&place) => {
                    prop_assert_eq!(table.remove_with(place, |entry| *entry), None);
                }
                Step::RemoveNone(_) => {}
                Step::Change(at) if !model.entries.is_empty() => {
                    let nth = at.index(model.entries.len());
                    let (place, entry) = model.entries.iter_mut().nth(nth).unwrap();
                    *entry += 1_000_000;
                    *table.get_mut(*place).unwrap() = *entry;
                }
                Step::Change(_) => {}
            }
            model.check(&mut table);
        }
    }
}
