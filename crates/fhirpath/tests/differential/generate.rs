//! Likely expressions over resources as they are, from a seed.

use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;
use serde_json::Value;

/// What a generated part gives, as far as its sample tells.
#[derive(Clone, Copy, PartialEq)]
enum Is {
    Text,
    Number,
    Boolean,
    Date,
    Object,
}

pub struct Generator<'r> {
    pub random: &'r mut ChaCha8Rng,
    pub resource: &'r Value,
}

/// Types that stand in choices of the resources, by how their JSON names end.
const CHOICES: &[&str] = &[
    "Quantity",
    "CodeableConcept",
    "String",
    "DateTime",
    "Period",
    "Boolean",
    "Integer",
    "Age",
    "Coding",
    "Code",
    "Decimal",
    "Address",
    "Reference",
    "Range",
    "Instant",
    "Date",
];
/// Elements that may be of several types.
const CHOICE_NAMES: &[&str] = &[
    "value",
    "effective",
    "onset",
    "abatement",
    "deceased",
    "performed",
    "occurrence",
    "medication",
    "serviced",
    "multipleBirth",
    "timing",
    "asNeeded",
    "item",
    "location",
    "diagnosis",
    "allowed",
    "used",
    "identified",
];

impl Generator<'_> {
    fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        of.choose(self.random).expect("something to choose from").clone()
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.random.random_range(0..100) < percent
    }

    /// An expression on the whole resource.
    pub fn expression(&mut self) -> String {
        let resource = self.resource;
        match self.random.random_range(0..10) {
            0..=5 => self.part(resource, 2).0,
            6 | 7 => {
                let (left, right) = (self.condition(resource), self.condition(resource));
                let op = self.pick(&["and", "or", "xor", "implies"]);
                format!("({left}) {op} ({right})")
            }
            8 => {
                let (left, right) = (self.part(resource, 1).0, self.part(resource, 1).0);
                match self.random.random_range(0..5) {
                    0 => format!("({left} | {right}).count()"),
                    1 => format!("{left}.combine({right}).count()"),
                    2 => format!("({left}).intersect({right})"),
                    3 => format!("({left}).exclude({right})"),
                    _ => format!("({left}).subsetOf({right})"),
                }
            }
            _ => {
                let condition = self.condition(resource);
                let (then, otherwise) = (self.part(resource, 1).0, self.part(resource, 1).0);
                format!("iif({condition}, {then}, {otherwise})")
            }
        }
    }

    /// A path and the value it was made from, as `name` or `value.ofType(Quantity).code`.
    fn path<'v>(&mut self, from: &'v Value) -> (String, &'v Value) {
        let (mut path, mut at) = (String::new(), from);
        for step in 0..self.random.random_range(1..5) {
            let Value::Object(members) = at else { break };
            let names: Vec<&String> = members.keys().filter(|name| *name != "resourceType").collect();
            if names.is_empty() {
                break;
            }
            let name = self.pick(&names).clone();
            let mut value = &members[&name];
            let choice = CHOICE_NAMES.iter().find_map(|bare| {
                let of = CHOICES.iter().find(|of| name.strip_prefix(bare) == Some(of))?;
                Some((*bare, *of))
            });
            let mut written = match choice {
                Some((bare, _)) if self.chance(60) => bare.to_owned(),
                Some((bare, of)) => {
                    let primitive = matches!(
                        of,
                        "String"
                            | "DateTime"
                            | "Boolean"
                            | "Integer"
                            | "Code"
                            | "Decimal"
                            | "Instant"
                            | "Date"
                    );
                    let mut of = of.to_owned();
                    if primitive {
                        of[..1].make_ascii_lowercase();
                    }
                    format!("{bare}.ofType({of})")
                }
                None => name,
            };
            if matches!(written.as_str(), "contains" | "div" | "is" | "as" | "in") {
                written = format!("`{written}`");
            }
            if let Value::Array(elements) = value {
                let Some(first) = elements.first() else { break };
                value = first;
                if self.chance(40) {
                    written.push_str(
                        self.pick(&[".first()", "[0]", ".last()", ".tail()", "[1]", ".take(2)", ".skip(1)"]),
                    );
                }
            }
            path.push_str(if step == 0 { "" } else { "." });
            path.push_str(&written);
            at = value;
        }
        (path, at)
    }

    fn of(value: &Value) -> Is {
        match value {
            Value::Bool(_) => Is::Boolean,
            Value::Number(_) => Is::Number,
            Value::String(text)
                if text.len() >= 10 && text.as_bytes()[4] == b'-' && text[..4].parse::<u16>().is_ok() =>
            {
                Is::Date
            }
            Value::String(_) => Is::Text,
            _ => Is::Object,
        }
    }

    /// A path with operations on what it gives.
    fn part(&mut self, from: &Value, depth: u32) -> (String, Is) {
        let (path, sample) = self.path(from);
        let mut of = Self::of(sample);
        let mut text = if path.is_empty() { "$this".to_owned() } else { path };
        for _ in 0..self.random.random_range(0..=depth) {
            if self.chance(35) {
                (text, of) = self.on_collection(text, of, sample, depth);
            } else {
                (text, of) = self.on_item(text, of, sample);
            }
        }
        (text, of)
    }

    fn on_collection(&mut self, text: String, of: Is, sample: &Value, depth: u32) -> (String, Is) {
        let after = |call: &str, gives: Is| (format!("{text}{call}"), gives);
        match self.random.random_range(0..16) {
            0 => after(".count()", Is::Number),
            1 => after(".exists()", Is::Boolean),
            2 => after(".empty()", Is::Boolean),
            3 => after(".distinct()", of),
            4 => after(".isDistinct()", Is::Boolean),
            5 => after(".children().count()", Is::Number),
            6 => after(".descendants().count()", Is::Number),
            7 if of == Is::Object && depth > 0 => {
                let inner = self.condition(sample);
                after(&format!(".where({inner})"), of)
            }
            8 if of == Is::Object && depth > 0 => {
                let (inner, gives) = self.part(sample, depth - 1);
                after(&format!(".select({inner})"), gives)
            }
            9 if of == Is::Object && depth > 0 => {
                let inner = self.condition(sample);
                after(&format!(".all({inner})"), Is::Boolean)
            }
            10 if of == Is::Object && depth > 0 => {
                let inner = self.condition(sample);
                after(&format!(".exists({inner})"), Is::Boolean)
            }
            11 => after(".first()", of),
            12 => after(".last()", of),
            13 => after(self.pick(&[".skip(1)", ".take(1)", ".tail()"]), of),
            14 => after(".select($this)", of),
            _ => after(".where($this.exists())", of),
        }
    }

    fn on_item(&mut self, text: String, of: Is, sample: &Value) -> (String, Is) {
        let after = |call: String, gives: Is| (format!("{text}{call}"), gives);
        let word = sample
            .as_str()
            .unwrap_or("abc")
            .chars()
            .filter(|c| c.is_ascii_alphanumeric())
            .take(4)
            .collect::<String>();
        let small = self.random.random_range(0..5);
        match of {
            Is::Text => match self.random.random_range(0..20) {
                0 => after(format!(".substring({small})"), Is::Text),
                1 => after(format!(".substring({small}, 3)"), Is::Text),
                2 => after(format!(".startsWith('{word}')"), Is::Boolean),
                3 => after(format!(".endsWith('{word}')"), Is::Boolean),
                4 => after(format!(".contains('{word}')"), Is::Boolean),
                5 => after(format!(".indexOf('{word}')"), Is::Number),
                6 => after(".upper()".into(), Is::Text),
                7 => after(".lower()".into(), Is::Text),
                8 => after(".length()".into(), Is::Number),
                9 => after(format!(".replace('{word}', 'x')"), Is::Text),
                10 => after(".matches('^[A-Z]')".into(), Is::Boolean),
                11 => after(".toChars().count()".into(), Is::Number),
                12 => after(".trim()".into(), Is::Text),
                13 => after(".split('-').first()".into(), Is::Text),
                14 => (format!("{text} & '-x'"), Is::Text),
                15 => (format!("({text} + 'y')"), Is::Text),
                16 => after(".toInteger()".into(), Is::Number),
                17 => after(
                    self.pick(&[
                        ".convertsToInteger()",
                        ".convertsToDecimal()",
                        ".convertsToBoolean()",
                        ".convertsToDate()",
                    ])
                    .into(),
                    Is::Boolean,
                ),
                18 => after(self.pick(&[".encode('hex')", ".encode('base64')"]).into(), Is::Text),
                _ => after(".join(',')".into(), Is::Text),
            },
            Is::Number => match self.random.random_range(0..14) {
                0 => (format!("({text} + {small})"), Is::Number),
                1 => (format!("({text} - 1.5)"), Is::Number),
                2 => (format!("({text} * 2)"), Is::Number),
                3 => (format!("({text} / 4)"), Is::Number),
                4 => (format!("({text} div 3)"), Is::Number),
                5 => (format!("({text} mod 3)"), Is::Number),
                6 => after(".abs()".into(), Is::Number),
                7 => after(self.pick(&[".round()", ".round(1)"]).into(), Is::Number),
                8 => after(self.pick(&[".ceiling()", ".floor()", ".truncate()"]).into(), Is::Number),
                9 => after(self.pick(&[".sqrt()", ".power(2)"]).into(), Is::Number),
                10 => after(self.pick(&[".sum()", ".min()", ".max()"]).into(), Is::Number),
                11 => (format!("(-{text})"), Is::Number),
                12 => (format!("({text} > {small})"), Is::Boolean),
                _ => (format!("({text} <= 3.5)"), Is::Boolean),
            },
            Is::Boolean => match self.random.random_range(0..5) {
                0 => after(".not()".into(), Is::Boolean),
                1 => (format!("({text} = true)"), Is::Boolean),
                2 => (format!("({text} implies false)"), Is::Boolean),
                3 => after(".allTrue()".into(), Is::Boolean),
                _ => after(".toString()".into(), Is::Text),
            },
            Is::Date => match self.random.random_range(0..7) {
                0 => (format!("({text} > @2010-01-01)"), Is::Boolean),
                1 => (format!("({text} < @2015-06-01T12:00:00Z)"), Is::Boolean),
                2 => (format!("({text} = {text})"), Is::Boolean),
                3 => after(".toString().length()".into(), Is::Number),
                4 => (format!("({text} + 1 month)"), Is::Date),
                5 => (format!("({text} - 10 days)"), Is::Date),
                _ => after(".toString().substring(0, 4)".into(), Is::Text),
            },
            Is::Object => match self.random.random_range(0..5) {
                0 => (format!("({text} = {text})"), Is::Boolean),
                1 => (format!("({text} ~ {text})"), Is::Boolean),
                2 => after(".hasValue()".into(), Is::Boolean),
                3 => after(".extension('http://none').exists()".into(), Is::Boolean),
                _ => after(".exists().not()".into(), Is::Boolean),
            },
        }
    }

    fn condition(&mut self, from: &Value) -> String {
        let (path, sample) = self.path(from);
        let path = if path.is_empty() { "$this".to_owned() } else { path };
        let literal = match sample {
            Value::String(text) if text.len() < 60 && !text.contains(['\'', '\\']) => format!("'{text}'"),
            Value::Number(number) => number.to_string(),
            Value::Bool(value) => value.to_string(),
            _ => return format!("{path}.exists()"),
        };
        match self.random.random_range(0..8) {
            0 => format!("{path}.empty()"),
            1 => format!("{path} != {literal}"),
            2 => format!("{path} ~ {literal}"),
            3 => format!("{path} in ({literal} | 'other')"),
            4 => format!("{path}.first() = {literal}"),
            5 => format!("{path}.exists($this = {literal})"),
            6 => format!("({path} | 'other') contains {literal}"),
            _ => format!("{path} = {literal}"),
        }
    }
}
