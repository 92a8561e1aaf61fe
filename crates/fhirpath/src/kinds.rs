use std::fmt;
use std::ops::BitOr;

use crate::item::Item;
use crate::types::Type;

/// Kinds of items, as a set: what something may be as far as that is known before it is evaluated.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kinds(u8);

impl Kinds {
    pub(crate) const BOOLEAN: Kinds = Kinds(1);
    pub(crate) const TEXT: Kinds = Kinds(2);
    pub(crate) const NUMBER: Kinds = Kinds(4);
    /// Dates, and dates with a time.
    pub(crate) const DATE: Kinds = Kinds(8);
    pub(crate) const TIME: Kinds = Kinds(16);
    pub(crate) const QUANTITY: Kinds = Kinds(32);
    pub(crate) const OBJECT: Kinds = Kinds(64);
    pub(crate) const ANY: Kinds = Kinds(127);

    pub(crate) const fn or(self, other: Kinds) -> Kinds {
        Kinds(self.0 | other.0)
    }

    pub(crate) fn meets(self, other: Kinds) -> bool {
        self.0 & other.0 != 0
    }

    /// What the elements of a FHIR type are.
    pub(crate) fn of_type(name: &str) -> Kinds {
        let of = Type::named(name);
        let is = |parent: &str| of.is_some_and(|of| of.is(parent));
        match name {
            "Resource" | "DomainResource" | "Element" => Kinds::ANY,
            "boolean" => Kinds::BOOLEAN,
            "decimal" => Kinds::NUMBER,
            "date" | "dateTime" | "instant" => Kinds::DATE,
            "time" => Kinds::TIME,
            _ if is("integer") => Kinds::NUMBER,
            _ if is("Quantity") => Kinds::QUANTITY,
            _ if name.starts_with(|c: char| c.is_ascii_lowercase()) => Kinds::TEXT,
            _ => Kinds::OBJECT,
        }
    }

    /// What a literal is.
    pub(crate) fn of_item(item: &Item<'_>) -> Kinds {
        match item {
            Item::String(_) => Kinds::TEXT,
            Item::Boolean(_) => Kinds::BOOLEAN,
            Item::Integer(_) | Item::Decimal(_) => Kinds::NUMBER,
            Item::Date(_) | Item::DateTime(_) => Kinds::DATE,
            Item::Time(_) => Kinds::TIME,
            Item::Quantity(_) => Kinds::QUANTITY,
            Item::Object(_) => Kinds::OBJECT,
            Item::Node(_) => Kinds::ANY,
        }
    }

    /// The kinds that are written in JSON as these are: dates and times as text, quantities as objects.
    pub(crate) fn in_json(self) -> Kinds {
        let alike = [Kinds::TEXT | Kinds::DATE | Kinds::TIME, Kinds::OBJECT | Kinds::QUANTITY];
        alike.into_iter().filter(|kinds| self.meets(*kinds)).fold(self, Kinds::or)
    }

    /// The kinds that can equal one of these: numbers have the unit 1, and a text may be that of a date.
    pub(crate) fn comparable(self) -> Kinds {
        let mut all = self;
        for (one, other) in
            [(Kinds::NUMBER, Kinds::QUANTITY), (Kinds::TEXT, Kinds::DATE), (Kinds::TEXT, Kinds::TIME)]
        {
            if self.meets(one) {
                all = all.or(other);
            }
            if self.meets(other) {
                all = all.or(one);
            }
        }
        all
    }
}

impl BitOr for Kinds {
    type Output = Kinds;

    fn bitor(self, other: Kinds) -> Kinds {
        self.or(other)
    }
}

impl fmt::Display for Kinds {
    /// `a string`, `a number or a quantity`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [(Kinds, &str); 7] = [
            (Kinds::BOOLEAN, "a boolean"),
            (Kinds::TEXT, "a string"),
            (Kinds::NUMBER, "a number"),
            (Kinds::DATE, "a date"),
            (Kinds::TIME, "a time"),
            (Kinds::QUANTITY, "a quantity"),
            (Kinds::OBJECT, "an object"),
        ];
        if *self == Kinds::ANY {
            return f.write_str("anything");
        }
        let names: Vec<&str> =
            NAMES.iter().filter(|(kind, _)| self.meets(*kind)).map(|(_, name)| *name).collect();
        f.write_str(&names.join(" or "))
    }
}
