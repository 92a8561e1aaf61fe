use std::ops::RangeInclusive;
use std::sync::Arc;

use crate::kinds::Kinds;
use crate::known::{Definitions, Known};
use crate::limits::Budget;
use crate::{Collection, EvalError, Expr, Item, Temporal};
use fhirehose_tape::Value;
use smallvec::SmallVec;

/// What expressions are compiled against: the variables, host functions and, for rows, the columns there are.
/// Anything else an expression names is a compile error.
#[derive(Clone, Default)]
pub struct Env {
    pub(crate) fhir: bool,
    pub(crate) variables: Vec<(Box<str>, Shape)>,
    pub(crate) functions: Vec<Function>,
    pub(crate) columns: Option<Columns>,
    /// Whether what can never be meant is refused where definitions are not given.
    pub(crate) typed: bool,
    pub(crate) clock: Option<Temporal>,
    pub(crate) definitions: Option<Definitions>,
    /// What `$this` is at first, where it is known.
    pub(crate) focus: Known,
}

/// The columns there are, and what each holds.
type Columns = Arc<[(Box<str>, Shape)]>;

/// A variable's place in a [`Ctx`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot(pub(crate) usize);

/// What a column, a variable or the result of a host function is, as far as that is known.
#[derive(Clone)]
pub struct Shape {
    pub(crate) kinds: Kinds,
    /// The members an object may have; `None` where that is not known.
    pub(crate) members: Option<Arc<[Box<str>]>>,
}

impl Shape {
    /// Anything.
    pub fn any() -> Self {
        Shape { kinds: Kinds::ANY, members: None }
    }

    /// Of one of these FHIR types, such as `date` and `string` for the text of a date.
    pub fn of(types: &[&str]) -> Self {
        let kinds = types.iter().map(|of| Kinds::of_type(of)).reduce(Kinds::or).unwrap_or(Kinds::ANY);
        Shape { kinds, members: None }
    }

    /// An object that has no other members than these.
    pub fn object<'m>(members: impl IntoIterator<Item = &'m str>) -> Self {
        Shape { kinds: Kinds::OBJECT, members: Some(members.into_iter().map(Box::from).collect()) }
    }
}

/// What a host function gives, by its literal arguments.
type Gives = Arc<dyn Fn(&[Option<&str>]) -> Shape + Send + Sync>;

/// A host function's check of its literal arguments; `None` stands for an argument known only at run time.
pub type Check = Arc<dyn Fn(&[Option<&str>]) -> Result<(), String> + Send + Sync>;

/// A host function.
#[derive(Clone)]
pub struct Function {
    pub(crate) name: &'static str,
    pub(crate) args: RangeInclusive<usize>,
    pub(crate) check: Option<Check>,
    pub(crate) gives: Option<Gives>,
}

impl Function {
    /// A function with that many arguments, its input not counted.
    pub fn new(name: &'static str, args: RangeInclusive<usize>) -> Self {
        Function { name, args, check: None, gives: None }
    }

    /// Adds a check at compile time, such as that the concept map an argument names exists.
    pub fn checked(
        mut self,
        check: impl Fn(&[Option<&str>]) -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        self.check = Some(Arc::new(check));
        self
    }

    /// Says what it gives; literal arguments as in [`Function::checked`].
    pub fn gives(mut self, gives: impl Fn(&[Option<&str>]) -> Shape + Send + Sync + 'static) -> Self {
        self.gives = Some(Arc::new(gives));
        self
    }
}

impl Env {
    /// For rows and vendor messages: a name is a member of an object, and nothing more.
    pub fn plain() -> Self {
        Env::default()
    }

    /// For FHIR resources in JSON: also choice elements (`value` finds `valueQuantity`), extensions of
    /// primitives (`_birthDate`) and a leading resource type (`Patient.name`).
    pub fn fhir() -> Self {
        Env { fhir: true, ..Env::default() }
    }

    /// Says what time it is for `now()`, `today()` and `timeOfDay()`: a moment with time and offset. Without it
    /// they are compile errors, as what reads the clock does not give the same on a replay.
    pub fn clock(mut self, now: Temporal) -> Self {
        self.clock = Some(now);
        self
    }

    /// Adds a host function.
    pub fn function(mut self, function: Function) -> Self {
        self.functions.push(function);
        self
    }

    /// Says which names the root has; any other is a compile error then.
    pub fn columns<'c>(mut self, columns: impl IntoIterator<Item = &'c str>) -> Self {
        self.columns = Some(columns.into_iter().map(|name| (name.into(), Shape::any())).collect());
        self
    }

    /// Also without definitions, comparisons of what is never equal, arithmetic on what is no number and functions
    /// of what they cannot take are compile errors, as far as literals and [`Shape`]s tell.
    pub fn typed(mut self) -> Self {
        self.typed = true;
        self
    }

    /// As [`Env::columns`], with what each holds.
    pub fn shaped_columns<'c>(mut self, columns: impl IntoIterator<Item = (&'c str, Shape)>) -> Self {
        self.columns = Some(columns.into_iter().map(|(name, shape)| (name.into(), shape)).collect());
        self
    }

    /// Knows FHIR's definitions (of a type and the JSON name of an element its type; of a type alone itself), so
    /// that also a comparison of what is never equal, arithmetic on what is no number and a function of what it
    /// cannot take are compile errors, and elements are of the types they are defined with. Without
    /// [`Env::of`], of paths that begin with a type or are narrowed to one.
    pub fn definitions(mut self, type_of: fn(&str, &str) -> Option<&'static str>) -> Self {
        self.definitions = Some(Definitions(type_of));
        self
    }

    /// Says that expressions are about resources of that type. Of a type whose elements are not known,
    /// anything goes.
    pub fn of(mut self, resource: &str) -> Self {
        self.focus = self.definitions.map(|definitions| definitions.named(resource)).unwrap_or_default();
        self
    }

    /// For expressions evaluated on what another gives, as those in a `forEach`.
    pub fn within(mut self, outer: &Expr) -> Self {
        self.columns = None;
        self.focus = outer.known.clone();
        self
    }

    /// Declares the variable `%name`; one of the same name declared before is hidden. An environment that is
    /// cloned for an inner scope reuses slots from where it was cloned.
    pub fn declare(&mut self, name: &str) -> Slot {
        self.declare_shaped(name, Shape::any())
    }

    /// As [`Env::declare`], with what the variable holds.
    pub fn declare_shaped(&mut self, name: &str, shape: Shape) -> Slot {
        self.variables.push((Box::from(name), shape));
        Slot(self.variables.len() - 1)
    }
}

/// What host functions do. They must be pure: same input, same result.
pub trait Functions {
    /// Calls the host function of that name on its input (what stands before the dot, else `$this`).
    fn call<'a>(
        &'a self,
        name: &'static str,
        input: Collection<'a>,
        args: &[Collection<'a>],
    ) -> Result<Collection<'a>, EvalError>;
}

/// No host functions.
pub struct NoFunctions;

impl Functions for NoFunctions {
    fn call<'a>(
        &'a self,
        name: &'static str,
        _: Collection<'a>,
        _: &[Collection<'a>],
    ) -> Result<Collection<'a>, EvalError> {
        Err(EvalError::new(format!("{name}() cannot be called here")))
    }
}

/// What an expression is evaluated over: the focus, the variables and the host.
#[derive(Clone)]
pub struct Ctx<'a> {
    pub(crate) focus: Collection<'a>,
    pub(crate) variables: SmallVec<[Collection<'a>; 8]>,
    pub(crate) host: &'a dyn Functions,
    pub(crate) budget: Budget,
}

impl<'a> Ctx<'a> {
    /// A context without variables; an array as focus is a collection of its elements.
    pub fn new(focus: Value<'a>, host: &'a dyn Functions) -> Self {
        Ctx { focus: crate::item::collect(focus), variables: SmallVec::new(), host, budget: Budget::full() }
    }

    /// Steps that the last evaluation took.
    pub fn steps(&self) -> u64 {
        self.budget.used()
    }

    /// All evaluations in it share that many steps, as those that make the rows of one record. Otherwise each has
    /// [`crate::limits::MAX_STEPS`] of its own.
    pub fn sharing(mut self, steps: u64) -> Self {
        self.budget = Budget::shared(steps);
        self
    }

    /// Sets a variable. One never set is empty.
    pub fn set(&mut self, slot: Slot, value: Collection<'a>) {
        if self.variables.len() <= slot.0 {
            self.variables.resize(slot.0 + 1, Collection::new());
        }
        self.variables[slot.0] = value;
    }

    /// Puts another item in focus, such as each of a `forEach`; returns what was.
    pub fn refocus(&mut self, focus: Item<'a>) -> Collection<'a> {
        std::mem::replace(&mut self.focus, smallvec::smallvec![focus])
    }

    /// Sets the focus whole, such as back to what [`Ctx::refocus`] returned.
    pub fn restore(&mut self, focus: Collection<'a>) {
        self.focus = focus;
    }
}
