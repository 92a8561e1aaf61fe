use std::borrow::Cow;

use crate::error::CompileError;
use crate::item::{Item, number};
use crate::lexer::{Token, TokenKind, tokens};
use crate::limits::{MAX_DEPTH, MAX_SOURCE};
use crate::quantity::{Quantity, Unit, calendar};

/// An expression as written, each part with its byte offset.
pub(crate) struct Ast {
    pub at: usize,
    pub kind: AstKind,
    /// Levels of parts within parts.
    depth: usize,
}

impl Ast {
    fn new(at: usize, kind: AstKind) -> Result<Ast, CompileError> {
        let below = match &kind {
            AstKind::Member(Some(input), _) | AstKind::Negate(input) | AstKind::Plus(input) => input.depth,
            AstKind::Type(input, ..) => input.depth,
            AstKind::At(left, right) | AstKind::Binary(_, left, right) => left.depth.max(right.depth),
            AstKind::Call(input, _, args) => input
                .iter()
                .map(|input| input.depth)
                .chain(args.iter().map(|arg| arg.depth))
                .max()
                .unwrap_or(0),
            AstKind::Union(parts) => parts.iter().map(|part| part.depth).max().unwrap_or(0),
            _ => 0,
        };
        let depth = below + 1;
        if depth > MAX_DEPTH {
            return Err(CompileError { offset: at, message: TOO_DEEP.into() });
        }
        Ok(Ast { at, kind, depth })
    }
}

const TOO_DEEP: &str = "nested or chained too deeply";

pub(crate) enum AstKind {
    Empty,
    Literal(Item<'static>),
    This,
    Index,
    Total,
    Variable(String),
    /// A name, of the implicit focus where nothing stands before it.
    Member(Option<Box<Ast>>, String),
    Call(Option<Box<Ast>>, String, Vec<Ast>),
    At(Box<Ast>, Box<Ast>),
    Negate(Box<Ast>),
    /// `+x`: x, if it is a number.
    Plus(Box<Ast>),
    Binary(Op, Box<Ast>, Box<Ast>),
    /// `a | b | c`: lists of codes are long, so it is one level however many there are.
    Union(Vec<Ast>),
    /// `is` (true) or `as` with a type's name and, before it, namespace.
    Type(Box<Ast>, bool, Vec<String>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    Multiply,
    Divide,
    Div,
    Mod,
    Add,
    Subtract,
    Concatenate,
    Union,
    LessOrEqual,
    Less,
    Greater,
    GreaterOrEqual,
    Equal,
    Equivalent,
    NotEqual,
    NotEquivalent,
    In,
    Contains,
    And,
    Or,
    Xor,
    Implies,
}

impl Op {
    /// What it gives, for the reference.
    pub(crate) fn about(self) -> &'static str {
        match self {
            Op::Multiply => "the product of numbers or quantities",
            Op::Divide => "the quotient, to 8 places; nothing if the divisor is 0",
            Op::Div => "the integer part of the quotient",
            Op::Mod => "the rest of that division",
            Op::Add => {
                "the sum of numbers or quantities; strings one after the other; a date moved by a duration"
            }
            Op::Subtract => "the difference of numbers or quantities; a date moved back by a duration",
            Op::Concatenate => "strings one after the other, nothing being an empty string",
            Op::Union => "the items of both sides, each once",
            Op::LessOrEqual => "less or equal; nothing where precision or units do not tell",
            Op::Less => "less",
            Op::Greater => "greater",
            Op::GreaterOrEqual => "greater or equal",
            Op::Equal => "equal, item by item in order; nothing if a side is empty",
            Op::Equivalent => {
                "the same in any order, text without regard to case and spaces, numbers to the lesser precision"
            }
            Op::NotEqual => "not equal",
            Op::NotEquivalent => "not equivalent",
            Op::In => "whether the right side has the item",
            Op::Contains => "whether the left side has the item",
            Op::And => "true if both are, false if one is false, else nothing",
            Op::Or => "true if one is, false if both are false, else nothing",
            Op::Xor => "true if just one is; nothing if one is not known",
            Op::Implies => "false only if the left is true and the right false",
        }
    }

    /// As it is written.
    pub(crate) fn text(self) -> &'static str {
        OPERATORS.iter().find(|(_, op, _)| *op == self).map_or("", |(text, ..)| text)
    }
}

/// Binding strength of `is` and `as`, between inequality and equality (the official grammar).
const TYPE_STRENGTH: u8 = 6;

/// Operators as written, and how strongly they bind.
pub(crate) const OPERATORS: &[(&str, Op, u8)] = &[
    ("*", Op::Multiply, 10),
    ("/", Op::Divide, 10),
    ("div", Op::Div, 10),
    ("mod", Op::Mod, 10),
    ("+", Op::Add, 9),
    ("-", Op::Subtract, 9),
    ("&", Op::Concatenate, 9),
    ("|", Op::Union, 8),
    ("<=", Op::LessOrEqual, 7),
    ("<", Op::Less, 7),
    (">", Op::Greater, 7),
    (">=", Op::GreaterOrEqual, 7),
    ("=", Op::Equal, 5),
    ("~", Op::Equivalent, 5),
    ("!=", Op::NotEqual, 5),
    ("!~", Op::NotEquivalent, 5),
    ("in", Op::In, 4),
    ("contains", Op::Contains, 4),
    ("and", Op::And, 3),
    ("or", Op::Or, 2),
    ("xor", Op::Xor, 2),
    ("implies", Op::Implies, 1),
];

pub(crate) fn parse(source: &str) -> Result<Ast, CompileError> {
    if source.len() > MAX_SOURCE {
        return Err(CompileError { offset: 0, message: format!("longer than {MAX_SOURCE} bytes") });
    }
    let mut parser = Parser { tokens: tokens(source)?, next: 0, nesting: 0 };
    let ast = parser.expression(0)?;
    match parser.peek() {
        TokenKind::End => Ok(ast),
        _ => parser.error("end of expression or an operator expected"),
    }
}

struct Parser {
    tokens: Vec<Token>,
    next: usize,
    nesting: usize,
}

impl Parser {
    fn peek(&self) -> &TokenKind {
        self.tokens.get(self.next).map_or(&TokenKind::End, |token| &token.kind)
    }

    fn at(&self) -> usize {
        self.tokens.get(self.next).or(self.tokens.last()).map_or(0, |token| token.at)
    }

    /// Takes the next token out of the list; the end stays.
    fn take(&mut self) -> TokenKind {
        let Some(token) = self.tokens.get_mut(self.next) else { return TokenKind::End };
        self.next += 1;
        std::mem::replace(&mut token.kind, TokenKind::End)
    }

    fn error<T>(&self, message: impl Into<String>) -> Result<T, CompileError> {
        Err(CompileError { offset: self.at(), message: message.into() })
    }

    fn is_symbol(&self, symbol: &str) -> bool {
        matches!(self.peek(), TokenKind::Symbol(found) if *found == symbol)
    }

    fn symbol(&mut self, symbol: &str) -> bool {
        let found = self.is_symbol(symbol);
        self.next += usize::from(found);
        found
    }

    fn expect(&mut self, symbol: &str) -> Result<(), CompileError> {
        if self.symbol(symbol) { Ok(()) } else { self.error(format!("'{symbol}' expected")) }
    }

    /// An expression of operators that bind more strongly than `floor`.
    fn expression(&mut self, floor: u8) -> Result<Ast, CompileError> {
        self.nesting += 1;
        if self.nesting > MAX_DEPTH {
            return self.error(TOO_DEEP);
        }
        let mut left = self.unary()?;
        loop {
            let at = self.at();
            let text = match self.peek() {
                TokenKind::Symbol(symbol) => *symbol,
                TokenKind::Word(word) => word.as_str(),
                _ => break,
            };
            if TYPE_STRENGTH > floor && (text == "is" || text == "as") {
                let is = text == "is";
                self.next += 1;
                left = Ast::new(at, AstKind::Type(Box::new(left), is, self.type_name()?))?;
                continue;
            }
            let Some(&(_, op, strength)) = OPERATORS.iter().find(|(name, ..)| *name == text) else { break };
            if strength <= floor {
                break;
            }
            self.next += 1;
            let right = self.expression(strength)?;
            if op == Op::Union {
                let parts = match left.kind {
                    AstKind::Union(mut parts) => {
                        parts.push(right);
                        parts
                    }
                    kind => vec![Ast { kind, ..left }, right],
                };
                left = Ast::new(at, AstKind::Union(parts))?;
                continue;
            }
            left = Ast::new(at, AstKind::Binary(op, Box::new(left), Box::new(right)))?;
        }
        self.nesting -= 1;
        Ok(left)
    }

    fn unary(&mut self) -> Result<Ast, CompileError> {
        let at = self.at();
        let mut signs = Vec::new();
        loop {
            if self.symbol("-") {
                signs.push(true);
            } else if self.symbol("+") {
                signs.push(false);
            } else {
                break;
            }
        }
        let operand = self.path()?;
        signs.into_iter().rev().try_fold(operand, |operand, negative| {
            let operand = Box::new(operand);
            Ast::new(at, if negative { AstKind::Negate(operand) } else { AstKind::Plus(operand) })
        })
    }

    /// A term with what follows by `.` and `[]`.
    fn path(&mut self) -> Result<Ast, CompileError> {
        let mut left = self.term()?;
        loop {
            let at = self.at();
            if self.symbol(".") {
                left = self.invocation(Some(Box::new(left)))?;
            } else if self.symbol("[") {
                let index = self.expression(0)?;
                self.expect("]")?;
                left = Ast::new(at, AstKind::At(Box::new(left), Box::new(index)))?;
            } else {
                return Ok(left);
            }
        }
    }

    fn term(&mut self) -> Result<Ast, CompileError> {
        let at = self.at();
        if self.symbol("(") {
            let inner = self.expression(0)?;
            self.expect(")")?;
            return Ok(inner);
        }
        if self.symbol("{") {
            self.expect("}")?;
            return Ast::new(at, AstKind::Empty);
        }
        let kind = match self.peek() {
            TokenKind::Word(word) if word == "true" || word == "false" => {
                let value = word == "true";
                self.next += 1;
                AstKind::Literal(Item::Boolean(value))
            }
            TokenKind::Text(_) | TokenKind::Temporal(_) | TokenKind::Variable(_) => match self.take() {
                TokenKind::Text(text) => AstKind::Literal(Item::String(Cow::Owned(text))),
                TokenKind::Temporal(item) => AstKind::Literal(item),
                TokenKind::Variable(name) => AstKind::Variable(name),
                _ => return self.error("an expression expected"),
            },
            TokenKind::Number(_) => self.number()?,
            TokenKind::Word(_) | TokenKind::Name(_) | TokenKind::Dollar(_) => return self.invocation(None),
            _ => return self.error("an expression expected"),
        };
        Ast::new(at, kind)
    }

    /// A number, with a unit behind it a quantity.
    fn number(&mut self) -> Result<AstKind, CompileError> {
        let at = self.at();
        let TokenKind::Number(text) = self.take() else { return self.error("a number expected") };
        let Some(item) = number(&text, false) else {
            return Err(CompileError { offset: at, message: "more than 28 digits".into() });
        };
        let unit = match self.peek() {
            TokenKind::Text(code) => Unit::Ucum(Cow::Owned(code.clone())),
            TokenKind::Word(word) => match calendar(word) {
                Some(word) => Unit::Calendar(word),
                None => return Ok(AstKind::Literal(item)),
            },
            _ => return Ok(AstKind::Literal(item)),
        };
        self.next += 1;
        let value = item.as_decimal().unwrap_or_default();
        Ok(AstKind::Literal(Item::Quantity(Box::new(Quantity { value, unit }))))
    }

    /// A name or a call, of the expression before the dot if there is one.
    fn invocation(&mut self, input: Option<Box<Ast>>) -> Result<Ast, CompileError> {
        let at = self.at();
        let name = match self.peek() {
            TokenKind::Word(_) | TokenKind::Name(_) => match self.take() {
                TokenKind::Word(name) | TokenKind::Name(name) => name,
                _ => String::new(),
            },
            TokenKind::Dollar(name) => {
                let kind = match name.as_str() {
                    "this" => AstKind::This,
                    "index" => AstKind::Index,
                    "total" => AstKind::Total,
                    _ => return self.error("only $this, $index and $total exist"),
                };
                if input.is_some() {
                    return self.error("$this, $index and $total stand at the start of a path");
                }
                self.next += 1;
                return Ast::new(at, kind);
            }
            _ => return self.error("a name expected"),
        };
        if !self.symbol("(") {
            return Ast::new(at, AstKind::Member(input, name));
        }
        let mut args = Vec::new();
        if !self.symbol(")") {
            loop {
                args.push(self.expression(0)?);
                if !self.symbol(",") {
                    break;
                }
            }
            self.expect(")")?;
        }
        Ast::new(at, AstKind::Call(input, name, args))
    }

    fn type_name(&mut self) -> Result<Vec<String>, CompileError> {
        let mut parts = Vec::new();
        loop {
            match self.peek() {
                TokenKind::Word(_) | TokenKind::Name(_) => match self.take() {
                    TokenKind::Word(name) | TokenKind::Name(name) => parts.push(name),
                    _ => {}
                },
                _ => return self.error("the name of a type expected"),
            }
            if parts.len() == 2 || !self.symbol(".") {
                return Ok(parts);
            }
        }
    }
}
