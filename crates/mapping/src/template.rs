//! FPML: FHIR-shaped YAML with FHIRPath in it, compiled to a tree that [`crate::render`] writes as JSON.

mod cardinality;
mod codes;
mod compile;
mod fold;
mod syntax;
mod watch;
mod written;

use fhirehose_fhirpath::{Env, Expr, Shape, Slot};

pub(crate) use cardinality::missing_of;
pub(crate) use compile::{Compiler, Makes};
pub(crate) use fold::fold;
pub(crate) use watch::{Watch, watch};

use crate::problem::Position;

/// A compiled template.
pub(crate) enum Template {
    /// JSON known at load.
    Literal(Box<[u8]>),
    /// `{{ expr }}`: its first item.
    First(Hole),
    /// `{[ expr ]}`: all items.
    All(Hole),
    /// Text with holes in it; absent where one of them is empty.
    Text(Vec<Piece>),
    List(Vec<Template>),
    Object(Object),
    If {
        condition: Hole,
        then: Box<Template>,
        otherwise: Option<Box<Template>>,
    },
    For {
        item: Slot,
        index: Option<Slot>,
        over: Hole,
        body: Box<Template>,
    },
    /// `{{ expr }}:` as a key: the body for each item, with the item in focus.
    Focus {
        over: Hole,
        body: Box<Template>,
    },
    /// `{% assign %}` before any of the others.
    Scope {
        assigns: Vec<Assign>,
        body: Box<Template>,
    },
}

pub(crate) struct Object {
    pub entries: Vec<Entry>,
    /// Objects whose members are added to the entries and replace those of the same name.
    pub merges: Vec<Template>,
}

impl Object {
    /// Gives the objects that are merged into it and written out, those of every branch.
    fn each_merged(&mut self, see: &mut dyn FnMut(&mut Object)) {
        fn each(template: &mut Template, see: &mut dyn FnMut(&mut Object)) {
            match template {
                Template::Object(object) => see(object),
                Template::If { then, otherwise, .. } => {
                    each(then, see);
                    otherwise.iter_mut().for_each(|otherwise| each(otherwise, see));
                }
                Template::Scope { body, .. } => each(body, see),
                // Made of data.
                _ => {}
            }
        }
        self.merges.iter_mut().for_each(|merge| each(merge, see));
    }
}

pub(crate) struct Entry {
    pub key: Box<str>,
    /// `"key":`
    pub json: Box<[u8]>,
    pub value: Template,
    /// Of a resource's member, what is judged as it is written.
    pub watch: Watch,
    /// Whether an object without it is not valid.
    pub required: bool,
}

pub(crate) struct Assign {
    pub slot: Slot,
    pub value: Template,
}

pub(crate) enum Piece {
    /// Escaped for JSON already.
    Static(Box<str>),
    Hole(Hole),
}

/// A FHIRPath expression in a template or header.
pub(crate) struct Hole {
    pub expr: Expr,
    /// Its number among expressions that may stand in several places.
    pub shared: Option<usize>,
    /// `{{+ expr +}}`: empty gives null instead of nothing.
    pub nullable: bool,
    /// Where its value goes, such as `Observation.valueQuantity.value`.
    pub path: Box<str>,
    pub at: Position,
}

/// The names an expression may use.
#[derive(Clone)]
pub(crate) struct Scope {
    env: Env,
    /// The same without the columns of the root, for expressions that have another focus.
    free: Env,
    /// Whether variables of a template are in reach, or another focus.
    inner: bool,
}

impl Scope {
    pub fn new(env: Env) -> Self {
        Scope { free: env.clone(), env, inner: false }
    }

    /// The root has these columns and no others.
    pub fn of_row<'c>(env: Env, columns: impl IntoIterator<Item = (&'c str, Shape)>) -> Self {
        Scope { free: env.clone(), env: env.shaped_columns(columns), inner: false }
    }

    pub fn declare(&mut self, name: &str, shape: Shape) -> Slot {
        self.free.declare_shaped(name, shape.clone());
        self.env.declare_shaped(name, shape)
    }

    /// A variable of a template.
    fn declare_inner(&mut self, name: &str, shape: Shape) -> Slot {
        self.inner = true;
        self.declare(name, shape)
    }

    fn refocused(&self) -> Self {
        Scope { env: self.free.clone(), free: self.free.clone(), inner: true }
    }
}
