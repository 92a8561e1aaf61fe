//! Templates from a seed: every directive in every other, over documents that have what they ask for, or not.

use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;
use serde_json::{Map, Value, json};

/// What a template may be.
pub const FORMS: [&str; 14] = [
    "literal",
    "hole",
    "nullable",
    "text",
    "all",
    "list",
    "object",
    "if",
    "if-member",
    "for",
    "for-index",
    "focus",
    "assign",
    "merge",
];

/// What is in scope: the names of variables, and whether the focus is the document.
#[derive(Clone, Default)]
struct Scope {
    scalars: Vec<String>,
    objects: Vec<String>,
    lists: Vec<String>,
    refocused: bool,
}

pub struct Generator<'r> {
    pub random: &'r mut ChaCha8Rng,
    variables: usize,
}

impl<'r> Generator<'r> {
    pub fn new(random: &'r mut ChaCha8Rng) -> Self {
        Generator { random, variables: 0 }
    }

    fn of(&mut self, choices: &[&str]) -> String {
        choices.choose(self.random).copied().unwrap_or_default().to_owned()
    }

    fn chance(&mut self, of: f64) -> bool {
        self.random.random_bool(of)
    }

    /// A document that lacks some of what templates ask for.
    pub fn document(&mut self) -> Value {
        let items = |random: &mut ChaCha8Rng| {
            let item = |random: &mut ChaCha8Rng| {
                let mut item = Map::new();
                if random.random_bool(0.8) {
                    item.insert("k".into(), json!(["p", "q", "\u{645}", "a \"b\"\n"].choose(random)));
                }
                if random.random_bool(0.7) {
                    item.insert("n".into(), json!(random.random_range(0..4)));
                }
                if random.random_bool(0.5) {
                    item.insert("ys".into(), json!((0..random.random_range(1..4)).collect::<Vec<_>>()));
                }
                item.insert("id".into(), json!(random.random_range(0..9).to_string()));
                Value::Object(item)
            };
            (0..random.random_range(1..4)).map(|_| item(random)).collect::<Vec<_>>()
        };
        let mut document = Map::new();
        let scalars = [("a", json!(1)), ("b", json!(true)), ("s", json!("text")), ("d", json!(36.6))];
        for (name, value) in scalars {
            if self.chance(0.8) {
                document.insert(name.into(), value);
            }
        }
        if self.chance(0.8) {
            let inner = json!({"x": self.random.random_range(0..3), "y": {"z": "deep"}});
            document.insert("o".into(), inner);
        }
        if self.chance(0.8) {
            let numbers: Vec<u32> = (1..self.random.random_range(2..5)).collect();
            document.insert("xs".into(), json!(numbers));
        }
        if self.chance(0.8) {
            let items = items(self.random);
            document.insert("os".into(), json!(items));
        }
        if self.chance(0.03) {
            let raw = json!([{"p": {}, "q": [[1], [2]]}, "{{ a }}", ["x", []]]);
            document
                .insert("raw".into(), raw.as_array().and_then(|of| of.choose(self.random)).cloned().into());
        }
        Value::Object(document)
    }

    fn scalar(&mut self, scope: &Scope) -> String {
        let mut choices: Vec<String> = scope.scalars.iter().map(|name| format!("%{name}")).collect();
        choices
            .extend(scope.objects.iter().flat_map(|name| [format!("%{name}.k"), format!("%{name}.n + 1")]));
        choices.extend(scope.lists.iter().map(|name| format!("%{name}.count()")));
        let mut more = vec!["'lit }} eral'", "5", "missing", "%context.s", "%context.o.x"];
        more.extend(match scope.refocused {
            true => ["k", "n", "n + 1", "id", "ys", "k & '-' & id"],
            false => ["a", "s", "d", "o.x", "o.y.z", "xs.first() + 1"],
        });
        if !scope.refocused {
            more.extend(["b", "xs", "os.k", "os.where(n > 1).k", "iif(a = 1, 'one', {})", "os.n.count()"]);
        }
        choices.extend(more.into_iter().map(str::to_owned));
        choices.choose(self.random).cloned().unwrap_or_default()
    }

    fn list(&mut self, scope: &Scope) -> String {
        let mut choices: Vec<String> = scope.lists.iter().map(|name| format!("%{name}")).collect();
        choices.extend(scope.objects.iter().map(|name| format!("%{name}.ys")));
        let more = match scope.refocused {
            true => vec!["ys", "k | id", "ys.where($this > 0)", "%context.os", "missing"],
            false => vec!["xs", "os", "os.k", "os.where(n > 0)", "os.ys", "xs | os.n", "o", "missing"],
        };
        choices.extend(more.into_iter().map(str::to_owned));
        choices.choose(self.random).cloned().unwrap_or_default()
    }

    fn condition(&mut self, scope: &Scope) -> String {
        let scalar = self.scalar(scope);
        match self.random.random_range(0..8) {
            0 => format!("{scalar}.exists()"),
            1 => format!("({scalar}).empty()"),
            2 => "missing".into(),
            3 => "a = 1 and b".into(),
            4 => "(xs.count() > 2) or missing.exists()".into(),
            5 => "s = 'text'".into(),
            6 => "'true'.length() = 4".into(),
            _ => "true".into(),
        }
    }

    fn name(&mut self) -> String {
        self.of(&["f", "g", "h", "x", "y"])
    }

    fn variable(&mut self) -> String {
        // Some hide others.
        self.variables = (self.variables + 1) % 4;
        format!("v{}", self.variables)
    }

    /// A template of a form, with one of the other form in it where it has room for one.
    pub fn template(&mut self, form: usize, inner: usize) -> Value {
        self.form(form, Some(inner), &Scope::default(), 3)
    }

    fn any(&mut self, scope: &Scope, depth: usize) -> Value {
        let form = match depth {
            0 => self.random.random_range(0..5),
            _ => self.random.random_range(0..FORMS.len()),
        };
        self.form(form, None, scope, depth)
    }

    fn inside(&mut self, inner: Option<usize>, scope: &Scope, depth: usize) -> Value {
        match inner {
            Some(form) => self.form(form, None, scope, depth),
            None => self.any(scope, depth.saturating_sub(1)),
        }
    }

    fn form(&mut self, form: usize, inner: Option<usize>, scope: &Scope, depth: usize) -> Value {
        let depth = depth.min(4);
        match FORMS[form] {
            "literal" => {
                let literals =
                    [json!(1), json!(2.5), json!(true), json!("lit"), json!(null), json!({}), json!([])];
                literals.choose(self.random).cloned().unwrap_or_default()
            }
            "hole" => {
                let of = if self.chance(0.8) { self.scalar(scope) } else { self.list(scope) };
                json!(format!("{{{{ {of} }}}}"))
            }
            "nullable" => json!(format!("{{{{+ {} +}}}}", self.scalar(scope))),
            "text" => {
                let (one, other) = (self.scalar(scope), self.scalar(scope));
                let plus = if self.chance(0.2) { "+" } else { "" };
                json!(format!("<{{{{{plus} {one} {plus}}}}}-{{{{ {other} }}}}>"))
            }
            "all" => json!(format!("{{[ {} ]}}", self.list(scope))),
            "list" => {
                let mut list = vec![self.inside(inner, scope, depth)];
                (0..self.random.random_range(0..3))
                    .for_each(|_| list.push(self.any(scope, depth.saturating_sub(2))));
                json!(list)
            }
            "object" => {
                let inner = self.inside(inner, scope, depth);
                self.object(inner, scope, depth)
            }
            "if" => self.branches(inner, scope, depth),
            "if-member" => {
                let Value::Object(mut branches) = self.branches_of(inner, scope, depth, true) else {
                    return Value::Null;
                };
                branches.insert(self.name(), self.leaf(scope));
                branches.insert("own".into(), json!("{{ a }}"));
                Value::Object(branches)
            }
            "for" | "for-index" => {
                let (over, item) = (self.list(scope), self.variable());
                let mut scope = scope.clone();
                let key = match FORMS[form] {
                    "for" => format!("{{% for {item} in {over} %}}"),
                    _ => {
                        scope.scalars.push("i".into());
                        format!("{{% for i, {item} in {over} %}}")
                    }
                };
                forget(&mut scope, &item);
                if over.contains("os") && !over.contains('.') {
                    &mut scope.objects
                } else {
                    &mut scope.scalars
                }
                .push(item);
                json!({key: self.inside(inner, &scope, depth)})
            }
            "focus" => {
                let over = self.of(match scope.refocused {
                    true => &["ys", "$this", "%context.os", "missing"],
                    false => &["os", "os.where(n > 0)", "os.first()", "xs", "missing"],
                });
                let scope = Scope { refocused: true, ..scope.clone() };
                json!({format!("{{{{ {over} }}}}"): self.inside(inner, &scope, depth)})
            }
            "assign" => self.assigned(inner, scope, depth),
            _ => self.merged(inner, scope, depth),
        }
    }

    fn object(&mut self, inner: Value, scope: &Scope, depth: usize) -> Value {
        let mut object = Map::new();
        object.insert(self.name(), inner);
        for _ in 0..self.random.random_range(0..3) {
            let value = self.any(scope, depth.saturating_sub(2));
            object.insert(self.name(), value);
        }
        Value::Object(object)
    }

    fn leaf(&mut self, scope: &Scope) -> Value {
        self.any(scope, 0)
    }

    fn branches(&mut self, inner: Option<usize>, scope: &Scope, depth: usize) -> Value {
        self.branches_of(inner, scope, depth, false)
    }

    /// `objects`: whether only objects may come of it.
    fn branches_of(&mut self, inner: Option<usize>, scope: &Scope, depth: usize, objects: bool) -> Value {
        let mut object = Map::new();
        let branch = |this: &mut Self, inner| {
            let value = this.inside(inner, scope, depth);
            if objects { this.object(value, scope, 0) } else { value }
        };
        let then = branch(self, inner);
        object.insert(format!("{{% if {} %}}", self.condition(scope)), then);
        if self.chance(0.6) {
            let otherwise = branch(self, None);
            object.insert("{% else %}".into(), otherwise);
        }
        Value::Object(object)
    }

    fn assigned(&mut self, inner: Option<usize>, scope: &Scope, depth: usize) -> Value {
        let mut scope = scope.clone();
        let mut assigns = Vec::new();
        for _ in 0..self.random.random_range(1..4) {
            let (name, kind) = (self.variable(), self.random.random_range(0..4));
            let value = match kind {
                0 => json!(format!("{{{{ {} }}}}", self.scalar(&scope))),
                1 => json!(format!("{{[ {} ]}}", self.list(&scope))),
                2 => json!({"k": "key", "n": 3, "ys": ["{{ missing }}", 1, 2]}),
                _ => self.inside(inner, &scope, depth.min(2)),
            };
            assigns.push(json!({name.as_str(): value}));
            forget(&mut scope, &name);
            match kind {
                0 => scope.scalars.push(name),
                2 => scope.objects.push(name),
                _ => scope.lists.push(name),
            }
        }
        let mut object = Map::new();
        let list = if assigns.len() == 1 { assigns[0].clone() } else { json!(assigns) };
        object.insert("{% assign %}".into(), list);
        match self.inside(inner, &scope, depth) {
            Value::Object(body) if !body.contains_key("{% assign %}") => object.extend(body),
            value => drop(object.insert(self.name(), value)),
        }
        Value::Object(object)
    }

    fn merged(&mut self, inner: Option<usize>, scope: &Scope, depth: usize) -> Value {
        let one = |this: &mut Self| match this.random.random_range(0..5) {
            0 => json!("{{ o }}"),
            1 => json!({"{% if a = 1 %}": {"x": "{{ a }}", "g": 2}, "{% else %}": {"h": "{{ missing }}"}}),
            // What comes of it need not be an object, and then both refuse it.
            2 if this.chance(0.3) => this.inside(inner, scope, depth),
            _ => {
                let value = this.inside(inner, scope, depth);
                this.object(value, scope, 0)
            }
        };
        let merge = match self.chance(0.5) {
            true => one(self),
            false => json!([one(self), one(self)]),
        };
        let mut object = Map::new();
        object.insert(self.name(), self.leaf(scope));
        object.insert("{% merge %}".into(), merge);
        object.insert(self.name(), self.leaf(scope));
        Value::Object(object)
    }
}

/// A variable that is declared hides one of its name.
fn forget(scope: &mut Scope, name: &str) {
    for names in [&mut scope.scalars, &mut scope.objects, &mut scope.lists] {
        names.retain(|known| known != name);
    }
}
