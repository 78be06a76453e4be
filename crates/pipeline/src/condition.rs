//! The condition of a step: one expression of CEL over what is known when it is decided.
//!
//! An expression is read once, when the pipeline is, and what it looks at is known from then on. CEL has no
//! loops but those over lists, so that an expression always ends; and it ends soon, since it is short, its
//! loops are not nested, and it is given a bounded number of elements.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use cel::common::ast::{CallExpr, Expr, LiteralValue, operators};
use cel::{Context, Env, ExecutionError, IdedExpr, Program, Value};
use outhaul_types::{Name, Tensor};

use crate::Reference;
use crate::elements::{TooMuch, value_of};

/// The longest expression, in bytes.
pub const LONGEST: usize = 1000;

/// How deep brackets and choices (`? :`) may nest. Reading an expression takes 125 KiB of stack for each level in a build
/// without optimisation, so that the parser's own limit comes too late.
const DEEPEST: usize = 8;

/// How deep an expression may be once it is read: deciding it takes stack for each level, 30 KiB in a build without
/// optimisation.
const MOST_LEVELS: usize = 24;

/// How many brackets, dots and choices an expression may have. They may follow each other in one chain, which takes
/// stack too.
const MOST_LINKS: usize = 64;

/// The rules of CEL, made once for all expressions.
static RULES: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(Env::stdlib()));

/// A condition that was read.
#[derive(Debug)]
pub struct Condition {
    program: Program,
    looks_at: Vec<Reference>,
    guarded: BTreeSet<(Name, Name)>,
}

/// Why a condition has no answer for a request.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ConditionError {
    /// It looks at more than one may.
    #[error(transparent)]
    TooMuch(#[from] TooMuch),
    /// The expression failed, such as for an index beyond the end of a list.
    #[error("{0}")]
    Failed(String),
    /// It is neither true nor false.
    #[error("it is {0}, and must be true or false")]
    NotTruth(String),
}

impl Condition {
    /// Reads an expression. `steps` are the names of all steps.
    ///
    /// # Errors
    ///
    /// Fails with every mistake that can be seen in the expression alone.
    pub fn parse(text: &str, steps: &[&str]) -> Result<Self, Vec<String>> {
        if text.len() > LONGEST {
            return Err(vec![format!("an expression has at most {LONGEST} bytes")]);
        }
        if depth(text) > DEEPEST {
            return Err(vec![format!("brackets and choices nest deeper than {DEEPEST}")]);
        }
        let links = text.bytes().filter(|byte| b"([{.?".contains(byte)).count();
        if links > MOST_LINKS {
            return Err(vec![format!("has more than {MOST_LINKS} brackets, dots and choices")]);
        }
        let program = Program::compile(text).map_err(|errors| {
            let told = errors.errors.iter().map(|error| {
                let (line, column) = error.pos;
                let message = error.msg.replace('\n', " ");
                format!("not an expression of CEL at {line}:{column}: {message}")
            });
            told.collect::<Vec<_>>()
        })?;
        let mut reader = Reader { steps, ..Reader::default() };
        reader.read(program.expression(), 0);
        let Reader { looks_at, guarded, mistakes, .. } = reader;
        match mistakes.is_empty() {
            true => Ok(Condition { program, looks_at, guarded }),
            false => Err(mistakes),
        }
    }

    /// Returns what the expression looks at, each once.
    pub fn looks_at(&self) -> &[Reference] {
        &self.looks_at
    }

    /// Returns whether the expression asks with `has(STEP.OUTPUT)` whether an output is there.
    pub fn asks_for(&self, step: &str, output: &str) -> bool {
        self.guarded.contains(&(step.into(), output.into()))
    }

    /// Decides. `look` returns what is looked at, `None` where it is not there.
    ///
    /// # Errors
    ///
    /// See [`ConditionError`].
    pub fn decide<'t>(
        &self,
        look: impl Fn(&Reference) -> Option<&'t Tensor>,
    ) -> Result<bool, ConditionError> {
        let outcome = self.evaluate(look)?;
        match outcome.map_err(|error| ConditionError::Failed(brief(&error)))? {
            Value::Bool(truth) => Ok(truth),
            other => Err(ConditionError::NotTruth(format!("a {}", other.type_of()))),
        }
    }

    /// Tries the expression with made-up tensors of the right types, and returns what is wrong with it
    /// whatever the values are.
    pub(crate) fn trial<'t>(
        &self,
        look: impl Fn(&Reference) -> Option<&'t Tensor>,
    ) -> Option<String> {
        use ExecutionError as E;
        match self.evaluate(look) {
            Err(error) => Some(error.to_string()),
            Ok(Ok(Value::Bool(_))) => None,
            Ok(Ok(other)) => {
                Some(format!("it is a {}, and must be true or false", other.type_of()))
            }
            // These follow from values, and the values are made up.
            Ok(Err(
                E::IndexOutOfBounds(_)
                | E::NoSuchKey(_)
                | E::DivisionByZero(_)
                | E::RemainderByZero(_)
                | E::Overflow(..)
                | E::FunctionError { .. },
            )) => None,
            Ok(Err(error)) => Some(brief(&error)),
        }
    }

    fn evaluate<'t>(
        &self,
        look: impl Fn(&Reference) -> Option<&'t Tensor>,
    ) -> Result<Result<Value, ExecutionError>, TooMuch> {
        let mut room = crate::elements::Room::default();
        let mut context = Context::with_env(Arc::clone(&RULES));
        let mut steps: std::collections::BTreeMap<&str, Vec<(String, Value)>> = Default::default();
        for reference in &self.looks_at {
            let value = look(reference).map(|tensor| value_of(tensor, &mut room)).transpose()?;
            match reference {
                Reference::Input(name) => {
                    context.add_variable_from_value(name.as_str(), value.unwrap_or(Value::Null));
                }
                Reference::Output { step, output } => {
                    // A step that did not run is there, without any output: `has` tells.
                    let outputs = steps.entry(step).or_default();
                    outputs.extend(value.map(|value| (output.to_string(), value)));
                }
            }
        }
        for (step, outputs) in steps {
            let outputs: std::collections::HashMap<String, Value> = outputs.into_iter().collect();
            context.add_variable_from_value(step, outputs);
        }
        Ok(self.program.execute(&context))
    }
}

/// How deep brackets and choices nest, at least: those in strings count too, which errs on the safe side.
fn depth(text: &str) -> usize {
    let (mut open, mut deepest) = (0_usize, 0);
    for byte in text.bytes() {
        match byte {
            b'(' | b'[' | b'{' | b'?' => open += 1,
            b')' | b']' | b'}' => open = open.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(open);
    }
    deepest
}

/// An error without the values that it may hold: they may be long.
fn brief(error: &ExecutionError) -> String {
    use ExecutionError as E;
    let pair = |what: &str, left: &Value, right: &Value| {
        format!("a {} and a {} cannot be {what}", left.type_of(), right.type_of())
    };
    match error {
        E::ValuesNotComparable(left, right) => pair("compared", left, right),
        E::UnsupportedBinaryOperator(_, left, right) => pair("joined", left, right),
        E::UnsupportedIndex(index, value) => pair("used as index and list", index, value),
        E::IndexOutOfBounds(Value::Int(index)) => {
            format!("there is no element {index}: the list is shorter")
        }
        E::IndexOutOfBounds(_) => "an index is beyond the end of a list".to_owned(),
        E::NoSuchKey(key) => format!("'{key}' is not there: its step did not run"),
        E::NoSuchOverload(error) => {
            let function = error.function().trim_matches('_').replace('@', "");
            format!("'{function}' does not take a {}", error.argument_types().join(" and a "))
        }
        E::UndeclaredReference(name) => format!("'{name}' is not known"),
        E::DivisionByZero(_) | E::RemainderByZero(_) => "division by zero".to_owned(),
        E::Overflow(..) => "a number is too large".to_owned(),
        other => other.to_string().chars().take(200).collect(),
    }
}

/// Goes through an expression once.
#[derive(Default)]
struct Reader<'s> {
    steps: &'s [&'s str],
    /// Names that a loop binds, where the walk is.
    bound: Vec<String>,
    looks_at: Vec<Reference>,
    guarded: BTreeSet<(Name, Name)>,
    mistakes: Vec<String>,
    /// How deep the walk is.
    level: usize,
}

impl Reader<'_> {
    fn read(&mut self, expression: &IdedExpr, loops: usize) {
        if self.level == MOST_LEVELS {
            self.mistake(format!("is deeper than {MOST_LEVELS} levels: split it up"));
            return;
        }
        self.level += 1;
        self.part(expression, loops);
        self.level -= 1;
    }

    fn part(&mut self, expression: &IdedExpr, loops: usize) {
        match &expression.expr {
            Expr::Ident(name) => self.name(name),
            Expr::Select(select) => match self.step_of(&select.operand) {
                Some(step) => {
                    let output: Name = select.field.as_str().into();
                    if select.test {
                        self.guarded.insert((step.clone(), output.clone()));
                    }
                    self.look_at(Reference::Output { step, output });
                }
                None => self.read(&select.operand, loops),
            },
            Expr::Call(call) => self.call(call, loops),
            Expr::Comprehension(of) => {
                if loops > 0 {
                    self.mistake("a loop over a list may not hold another one".to_owned());
                }
                self.read(&of.iter_range, loops);
                self.read(&of.accu_init, loops);
                let outer = self.bound.len();
                let names = [Some(&of.iter_var), of.iter_var2.as_ref(), Some(&of.accu_var)];
                self.bound.extend(names.into_iter().flatten().cloned());
                for inner in [&of.loop_cond, &of.loop_step, &of.result] {
                    self.read(inner, loops + 1);
                }
                self.bound.truncate(outer);
            }
            Expr::List(list) => list.elements.iter().for_each(|item| self.read(item, loops)),
            Expr::Map(_) | Expr::Struct(_) => {
                self.mistake("maps and messages cannot be written here".to_owned());
            }
            Expr::Literal(_) | Expr::Unspecified => {}
        }
    }

    fn call(&mut self, call: &CallExpr, loops: usize) {
        if call.func_name == operators::INDEX
            && let [operand, index] = call.args.as_slice()
            && let Expr::Literal(LiteralValue::String(output)) = &index.expr
            && let Some(step) = self.step_of(operand)
        {
            self.look_at(Reference::Output { step, output: output.inner().into() });
            return;
        }
        call.target.iter().for_each(|target| self.read(target, loops));
        call.args.iter().for_each(|argument| self.read(argument, loops));
    }

    /// The step that an expression names, where it is a step's name alone.
    fn step_of(&self, expression: &IdedExpr) -> Option<Name> {
        let Expr::Ident(name) = &expression.expr else { return None };
        let is_step = self.steps.contains(&name.as_str()) && !self.bound.contains(name);
        is_step.then(|| name.as_str().into())
    }

    fn name(&mut self, name: &str) {
        if self.bound.iter().any(|bound| bound == name) {
            return;
        }
        if self.steps.contains(&name) {
            self.mistake(format!("'{name}' is a step: write {name}.OUTPUT"));
        } else {
            self.look_at(Reference::Input(name.into()));
        }
    }

    fn look_at(&mut self, reference: Reference) {
        if !self.looks_at.contains(&reference) {
            self.looks_at.push(reference);
        }
    }

    fn mistake(&mut self, mistake: String) {
        if !self.mistakes.contains(&mistake) {
            self.mistakes.push(mistake);
        }
    }
}

#[cfg(test)]
mod tests;
