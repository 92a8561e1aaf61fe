use crate::error::CompileError;
use crate::item::Item;
use crate::temporal::Temporal;

/// A token and the byte it starts at.
pub(crate) struct Token {
    pub at: usize,
    pub kind: TokenKind,
}

pub(crate) enum TokenKind {
    /// A bare word: an identifier, or a keyword where the grammar has one.
    Word(String),
    /// A name in backticks: never a keyword.
    Name(String),
    Text(String),
    Number(String),
    /// A date, time or both.
    Temporal(Item<'static>),
    /// `%name`.
    Variable(String),
    /// `$this`, `$index`, `$total`.
    Dollar(String),
    Symbol(&'static str),
    End,
}

/// Longer ones first: `<=` is not `<`.
const SYMBOLS: &[&str] = &[
    "<=", ">=", "!=", "!~", "(", ")", "[", "]", "{", "}", ".", ",", "+", "-", "*", "/", "&", "|", "<", ">",
    "=", "~",
];

/// Cuts an expression into tokens; the last is always `End`.
pub(crate) fn tokens(source: &str) -> Result<Vec<Token>, CompileError> {
    let mut lexer = Lexer { source, at: 0 };
    let mut tokens = Vec::new();
    loop {
        lexer.space()?;
        let at = lexer.at;
        let kind = lexer.token()?;
        let end = matches!(kind, TokenKind::End);
        tokens.push(Token { at, kind });
        if end {
            return Ok(tokens);
        }
    }
}

struct Lexer<'s> {
    source: &'s str,
    at: usize,
}

impl<'s> Lexer<'s> {
    fn rest(&self) -> &'s str {
        self.source.get(self.at..).unwrap_or_default()
    }

    fn error<T>(&self, message: impl Into<String>) -> Result<T, CompileError> {
        Err(CompileError { offset: self.at, message: message.into() })
    }

    /// Skips white space and comments.
    fn space(&mut self) -> Result<(), CompileError> {
        loop {
            let rest = self.rest();
            let trimmed = rest.trim_start();
            self.at += rest.len() - trimmed.len();
            if trimmed.starts_with("//") {
                self.at += trimmed.find('\n').unwrap_or(trimmed.len());
            } else if trimmed.starts_with("/*") {
                let Some(end) = trimmed.find("*/") else { return self.error("comment without end") };
                self.at += end + 2;
            } else {
                return Ok(());
            }
        }
    }

    /// Takes the characters a condition holds for.
    fn run(&mut self, take: impl Fn(char) -> bool) -> &'s str {
        let rest = self.rest();
        let end = rest.find(|c| !take(c)).unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    fn token(&mut self) -> Result<TokenKind, CompileError> {
        let rest = self.rest();
        let Some(first) = rest.chars().next() else { return Ok(TokenKind::End) };
        match first {
            'a'..='z' | 'A'..='Z' | '_' => Ok(TokenKind::Word(self.word().to_owned())),
            '`' => self.quoted('`').map(TokenKind::Name),
            '\'' => self.quoted('\'').map(TokenKind::Text),
            '0'..='9' => Ok(TokenKind::Number(self.number().to_owned())),
            '@' => self.temporal(),
            '%' => {
                self.at += 1;
                match self.rest().chars().next() {
                    Some(quote @ ('`' | '\'')) => self.quoted(quote).map(TokenKind::Variable),
                    Some('a'..='z' | 'A'..='Z' | '_') => Ok(TokenKind::Variable(self.word().to_owned())),
                    _ => self.error("name of a variable expected after '%'"),
                }
            }
            '$' => {
                self.at += 1;
                Ok(TokenKind::Dollar(self.word().to_owned()))
            }
            _ => match SYMBOLS.iter().find(|symbol| rest.starts_with(**symbol)) {
                Some(symbol) => {
                    self.at += symbol.len();
                    Ok(TokenKind::Symbol(symbol))
                }
                None => self.error(format!("unexpected character {first:?}")),
            },
        }
    }

    fn word(&mut self) -> &'s str {
        self.run(|c| c.is_ascii_alphanumeric() || c == '_')
    }

    /// Digits, and a fraction where a digit follows the point: `1.exists()` is no fraction.
    fn number(&mut self) -> &'s str {
        let start = self.at;
        self.run(|c| c.is_ascii_digit());
        let mut after = self.rest().chars();
        if after.next() == Some('.') && after.next().is_some_and(|c| c.is_ascii_digit()) {
            self.at += 1;
            self.run(|c| c.is_ascii_digit());
        }
        &self.source[start..self.at]
    }

    fn quoted(&mut self, quote: char) -> Result<String, CompileError> {
        let start = self.at;
        self.at += 1;
        let mut text = String::new();
        loop {
            text.push_str(self.run(|c| c != quote && c != '\\'));
            let mut rest = self.rest().chars();
            match rest.next() {
                Some('\\') => text.push(self.escape()?),
                Some(_) => {
                    self.at += 1;
                    return Ok(text);
                }
                None => {
                    self.at = start;
                    return self.error(format!("no closing {quote}"));
                }
            }
        }
    }

    fn escape(&mut self) -> Result<char, CompileError> {
        let rest = &self.rest()[1..];
        let char = match rest.chars().next() {
            Some(c @ ('\'' | '"' | '`' | '\\' | '/')) => c,
            Some('f') => '\u{c}',
            Some('n') => '\n',
            Some('r') => '\r',
            Some('t') => '\t',
            Some('u') => {
                let digits = rest.get(1..5).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
                let char =
                    digits.and_then(|digits| u32::from_str_radix(digits, 16).ok()).and_then(char::from_u32);
                let Some(char) = char else { return self.error("four hex digits of a character expected") };
                self.at += 4;
                char
            }
            _ => return self.error("unknown escape; a backslash itself is written \\\\"),
        };
        self.at += 2;
        Ok(char)
    }

    /// `@2026-01-02T03:04:05.678+03:00`, any part of it, or `@T03:04`.
    fn temporal(&mut self) -> Result<TokenKind, CompileError> {
        let start = self.at;
        self.at += 1;
        let body = self.at;
        let item = if self.rest().starts_with('T') {
            self.at += 1;
            self.time();
            Temporal::time(&self.source[body + 1..self.at]).map(Item::Time)
        } else {
            self.run(|c| c.is_ascii_digit());
            for _ in 0..2 {
                let mut rest = self.rest().chars();
                if rest.next() == Some('-') && rest.next().is_some_and(|c| c.is_ascii_digit()) {
                    self.at += 1;
                    self.run(|c| c.is_ascii_digit());
                }
            }
            if self.rest().starts_with('T') {
                self.at += 1;
                if self.time() {
                    self.zone();
                }
                Temporal::date_time(&self.source[body..self.at]).map(Item::DateTime)
            } else {
                Temporal::date(&self.source[body..self.at]).map(Item::Date)
            }
        };
        let Some(item) = item else {
            self.at = start;
            return self.error("not a date or time that exists");
        };
        Ok(TokenKind::Temporal(item))
    }

    /// Steps over `hh:mm:ss.fff`; whether there was anything.
    fn time(&mut self) -> bool {
        let any = !self.run(|c| c.is_ascii_digit()).is_empty();
        for separator in [':', ':', '.'] {
            let mut rest = self.rest().chars();
            if rest.next() != Some(separator) || !rest.next().is_some_and(|c| c.is_ascii_digit()) {
                continue;
            }
            self.at += 1;
            self.run(|c| c.is_ascii_digit());
        }
        any
    }

    fn zone(&mut self) {
        let rest = self.rest();
        let offset = rest.as_bytes().first_chunk::<6>();
        if rest.starts_with('Z') {
            self.at += 1;
        } else if let Some([b'+' | b'-', a, b, b':', c, d]) = offset
            && [a, b, c, d].iter().all(|digit| digit.is_ascii_digit())
        {
            self.at += 6;
        }
    }
}
