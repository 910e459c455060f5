//! What is wrong in a configuration file, one clear line each.

use std::fmt;
use std::path::PathBuf;

use super::yaml::{Kind, Node};

/// One thing that is wrong, or only worth a warning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Line in the file, from 1; none: the problem has no one place.
    pub line: Option<usize>,
    /// The key with the sections it stands in, joined by dots; `global.` in front for the common part of the file.
    pub key: String,
    /// What stands there, escaped and cut, never a secret; empty: of no interest.
    pub value: String,
    /// What was expected there, or what to do.
    pub expected: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        match (self.key.as_str(), self.value.as_str()) {
            ("", "") => f.write_str(&self.expected),
            ("", value) => write!(f, "{value}: {}", self.expected),
            (key, "") => write!(f, "{}: {}", escaped(key), self.expected),
            (key, value) => write!(f, "{} is {value}: {}", escaped(key), self.expected),
        }
    }
}

/// Everything that is wrong in a file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Problems {
    /// The file, where there is one.
    pub file: Option<PathBuf>,
    /// What must be put right before anything runs; at least one.
    pub errors: Vec<Problem>,
    /// What should be looked at too.
    pub warnings: Vec<Problem>,
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.file {
            Some(file) => write!(f, "configuration {}", escaped(&file.to_string_lossy()))?,
            None => f.write_str("the configuration")?,
        }
        match self.errors.len() {
            1 => f.write_str(" has a problem")?,
            n => write!(f, " has {n} problems")?,
        }
        for error in &self.errors {
            write!(f, "\n  {error}")?;
        }
        for warning in &self.warnings {
            write!(f, "\n  warning: {warning}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// One error that concerns the file as a whole.
impl From<String> for Problems {
    fn from(expected: String) -> Problems {
        let error = Problem { line: None, key: String::new(), value: String::new(), expected };
        Problems { file: None, errors: vec![error], warnings: Vec::new() }
    }
}

/// Text for one line of a terminal.
pub(super) fn escaped(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect::<Vec<_>>() } else { vec![c] }).collect()
}

/// A value as a problem shows it: kind only for what has parts, text cut, and no userinfo of a url.
pub(super) fn shown(node: &Node) -> String {
    const LONGEST: usize = 60;
    match &node.kind {
        Kind::Null => "empty".to_owned(),
        Kind::Bool(value) => value.to_string(),
        Kind::Int(value) => value.to_string(),
        Kind::Float(value) => value.to_string(),
        Kind::List(_) => "a list".to_owned(),
        Kind::Map(_) => "a section".to_owned(),
        Kind::Text(text) => match text.split_once("://") {
            Some((scheme, rest)) if rest.contains('@') => format!("\"{}://***\"", cut(scheme, LONGEST)),
            _ => format!("\"{}\"", cut(text, LONGEST)),
        },
    }
}

fn cut(text: &str, longest: usize) -> String {
    let short: String = text.chars().take(longest).collect();
    let dots = if short.len() < text.len() { "..." } else { "" };
    format!("{}{dots}", escaped(&short))
}
