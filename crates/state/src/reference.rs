use hashbrown::{Equivalent, HashMap};

/// The resources that others refer to: per target its version and a few values to copy into the records
/// that refer to it. A pure function of the table topics, kept apart by tenant.
#[derive(Default, Debug, PartialEq, Eq)]
pub struct ReferenceStore {
    targets: HashMap<Stored, Target>,
}

/// Identity of a target as a reference names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TargetKey<'a> {
    pub tenant: &'a str,
    pub resource_type: &'a str,
    pub id: &'a str,
}

/// The key in one allocation: `tenant/Type/id`. None of the three can hold a slash, see [`TargetKey::name`].
#[derive(Debug, PartialEq, Eq)]
struct Stored(Box<str>);

/// What is known of a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Offset of the table record it was taken from; rises.
    pub offset: i64,
    /// False once the target was deleted: it keeps its last values.
    pub active: bool,
    /// The declared snapshot values in their declared order.
    values: Box<str>,
}

/// Between values of a target: a control character that no FHIR string may hold.
const SEPARATOR: char = '\u{1f}';

impl<'a> TargetKey<'a> {
    /// The key of a [`TargetKey::name`].
    pub fn of_name(name: &'a str) -> Self {
        let mut parts = name.splitn(3, '/');
        let mut next = || parts.next().unwrap_or_default();
        TargetKey { tenant: next(), resource_type: next(), id: next() }
    }

    /// `tenant/Type/id`, as the waiting room and the changelog name the target.
    pub fn name(&self) -> Box<str> {
        format!("{}/{}/{}", self.tenant, self.resource_type, self.id).into()
    }
}

impl std::hash::Hash for Stored {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        TargetKey::of_name(&self.0).hash(state);
    }
}

impl Equivalent<Stored> for TargetKey<'_> {
    fn equivalent(&self, stored: &Stored) -> bool {
        *self == TargetKey::of_name(&stored.0)
    }
}

impl Target {
    /// Values may be absent; a separator inside a value (not legal in FHIR) is replaced by a space.
    pub fn new<'v>(offset: i64, active: bool, values: impl Iterator<Item = Option<&'v str>>) -> Self {
        let mut joined = String::new();
        for (n, value) in values.enumerate() {
            if n > 0 {
                joined.push(SEPARATOR);
            }
            joined.extend(value.unwrap_or_default().chars().map(|c| if c == SEPARATOR { ' ' } else { c }));
        }
        Target { offset, active, values: joined.into() }
    }

    pub(crate) fn from_joined(offset: i64, active: bool, values: &str) -> Self {
        Target { offset, active, values: values.into() }
    }

    pub(crate) fn joined(&self) -> &str {
        &self.values
    }

    /// The value at a declared position; `None` when absent or empty.
    pub fn value(&self, index: usize) -> Option<&str> {
        self.values.split(SEPARATOR).nth(index).filter(|value| !value.is_empty())
    }
}

impl ReferenceStore {
    pub fn get(&self, key: TargetKey<'_>) -> Option<&Target> {
        self.targets.get(&key)
    }

    /// Keeps the newer of what is held and what comes; returns whether the target was unknown before.
    pub fn put(&mut self, key: TargetKey<'_>, target: Target) -> bool {
        match self.targets.get_mut(&key) {
            Some(held) => {
                if target.offset >= held.offset {
                    *held = target;
                }
                false
            }
            None => {
                self.targets.insert(Stored(key.name()), target);
                true
            }
        }
    }

    /// The target was deleted: its last values stay, marked inactive.
    pub fn deactivate(&mut self, key: TargetKey<'_>, offset: i64) {
        if let Some(held) = self.targets.get_mut(&key)
            && offset >= held.offset
        {
            held.offset = offset;
            held.active = false;
        }
    }

    pub fn len(&self) -> usize {
        self.targets.len()
    }

    pub fn is_empty(&self) -> bool {
        self.targets.is_empty()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Target)> {
        self.targets.iter().map(|(stored, target)| (&*stored.0, target))
    }

    pub(crate) fn insert_named(&mut self, name: &str, target: Target) {
        self.targets.insert(Stored(name.into()), target);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: TargetKey<'static> = TargetKey { tenant: "a", resource_type: "Patient", id: "1" };

    #[test]
    fn tenants_are_apart_and_older_never_overwrites_newer() {
        let mut store = ReferenceStore::default();
        assert!(store.put(KEY, Target::new(5, true, [Some("new"), None, Some("x")].into_iter())));
        assert!(!store.put(KEY, Target::new(3, true, [Some("old")].into_iter())));
        let held = store.get(KEY).unwrap();
        assert_eq!(
            (held.value(0), held.value(1), held.value(2), held.value(3)),
            (Some("new"), None, Some("x"), None)
        );
        assert!(store.get(TargetKey { tenant: "b", ..KEY }).is_none());
        store.deactivate(KEY, 4);
        assert!(store.get(KEY).unwrap().active, "an older delete has no effect");
        store.deactivate(KEY, 6);
        let held = store.get(KEY).unwrap();
        assert!(!held.active && held.value(0) == Some("new"));
    }
}
