//! The stack machine: one operation after the other, none of which runs anything.
//!
//! Stack, marks, memo and values are bounded by the budget of the table.

use std::collections::HashMap;

use super::super::error::Fault;
use super::constructors::{Global, build, persistent, reduce};
use super::cursor::Cursor;
use super::names::{dotted, refused_operation};
use super::node::{Blob, Node, Ref, Table, pairs};
use super::text;

/// State while a pickle is read.
pub(super) struct Machine<'s> {
    cursor: Cursor<'s>,
    /// The operation that is being carried out.
    instruction: usize,
    table: Table,
    stack: Vec<Ref>,
    /// Heights of the stack.
    marks: Vec<usize>,
    memo: Vec<Ref>,
    /// Entries of the memo that do not follow one another.
    sparse_memo: HashMap<u32, Ref>,
}

impl<'s> Machine<'s> {
    /// Starts at `start`; may take `budget` bytes of memory.
    pub(super) fn new(bytes: &'s [u8], start: usize, budget: usize) -> Self {
        Self {
            cursor: Cursor { bytes, at: start },
            instruction: start,
            table: Table::new(budget),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: Vec::new(),
            sparse_memo: HashMap::new(),
        }
    }

    /// Where the operation stands that was carried out last.
    pub(super) fn instruction(&self) -> usize {
        self.instruction
    }

    /// The values, and where the pickle ends.
    pub(super) fn finish(self) -> (Vec<Node>, usize) {
        (self.table.nodes, self.cursor.at)
    }

    /// Carries out all operations; the result is on top of the stack at the end.
    pub(super) fn run(&mut self) -> Result<Ref, Fault> {
        loop {
            self.instruction = self.cursor.at;
            let opcode = self.cursor.take(1, "the pickle")?[0];
            if opcode == b'.' {
                return self.pop();
            }
            self.step(opcode)?;
            self.table.check(self.stack.capacity() * size_of::<Ref>() + self.marks.capacity() * size_of::<usize>())?;
        }
    }

    fn step(&mut self, opcode: u8) -> Result<(), Fault> {
        match opcode {
            b'(' => self.marks.push(self.stack.len()),
            b'0' => self.pop_or_mark()?,
            b'1' => drop(self.pop_mark()?),
            b'2' => {
                let top = self.pop()?;
                self.stack.extend([top, top]);
            }
            0x80 => {
                let protocol = self.cursor.take(1, "the protocol")?[0];
                if protocol > 5 {
                    return Err(Fault::damaged(format!("pickle protocol {protocol}, expected 0 to 5")));
                }
            }
            0x95 => {
                let length = self.cursor.length(8, "a frame")?;
                let left = self.cursor.left();
                if length > left {
                    return Err(Fault::damaged(format!("a frame of {length} bytes, of which only {left} are there")));
                }
            }

            b'N' => self.stack.push(self.table.none()),
            0x88 | 0x89 => self.stack.push(self.table.bool(opcode == 0x88)),
            b'I' => match self.cursor.line("an int")? {
                b"00" => self.stack.push(self.table.bool(false)),
                b"01" => self.stack.push(self.table.bool(true)),
                line => self.push_long(text::number(line)?)?,
            },
            b'L' => {
                let line = self.cursor.line("an int")?;
                self.push_long(text::number(line.strip_suffix(b"L").unwrap_or(line))?)?;
            }
            b'J' => {
                let value = i32::from_le_bytes(self.cursor.array("an int")?);
                self.push_int(value.into())?;
            }
            b'K' => {
                let [value] = self.cursor.array("an int")?;
                self.push_int(value.into())?;
            }
            b'M' => {
                let value = u16::from_le_bytes(self.cursor.array("an int")?);
                self.push_int(value.into())?;
            }
            0x8a => self.long(1)?,
            0x8b => self.long(4)?,
            b'F' => {
                let value = text::number(self.cursor.line("a float")?)?;
                self.push(Node::Float(value))?;
            }
            b'G' => {
                let value = f64::from_be_bytes(self.cursor.array("a float")?);
                self.push(Node::Float(value))?;
            }

            b'S' => {
                let text = text::quoted(self.cursor.line("a string")?)?;
                self.push(Node::Native(Blob::Owned(text)))?;
            }
            b'V' => {
                let text = text::unicode(self.cursor.line("a string")?)?;
                self.push(Node::Text(Blob::Owned(text)))?;
            }
            b'U' => self.blob(1, "a string", Node::Native)?,
            b'T' => self.blob(4, "a string", Node::Native)?,
            0x8c => self.unicode(1)?,
            b'X' => self.unicode(4)?,
            0x8d => self.unicode(8)?,
            b'C' => self.blob(1, "bytes", Node::Bytes)?,
            b'B' => self.blob(4, "bytes", Node::Bytes)?,
            0x8e | 0x96 => self.blob(8, "bytes", Node::Bytes)?,

            b')' => self.push(Node::Tuple(Box::default()))?,
            0x85..=0x87 => {
                let count = usize::from(opcode - 0x84);
                let base = self.stack.len().checked_sub(count).filter(|base| *base >= self.floor());
                let items = self.stack.split_off(base.ok_or_else(empty_stack)?);
                self.push(Node::Tuple(items.into()))?;
            }
            b't' => {
                let items = self.pop_mark()?;
                self.push(Node::Tuple(items.into()))?;
            }
            b']' => self.push(Node::List(Vec::new()))?,
            b'l' => {
                let items = self.pop_mark()?;
                self.push(Node::List(items))?;
            }
            b'}' => self.push(Node::Dict(Vec::new()))?,
            b'd' => {
                let entries = pairs(&self.pop_mark()?)?;
                self.push(Node::Dict(entries))?;
            }
            b'a' => {
                let item = self.pop()?;
                self.append(&[item])?;
            }
            b'e' => {
                let items = self.pop_mark()?;
                self.append(&items)?;
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.set_items(&[key, value])?;
            }
            b'u' => {
                let items = self.pop_mark()?;
                self.set_items(&items)?;
            }

            b'p' => {
                let index = text::number(self.cursor.line("the memo")?)?;
                self.remember(index)?;
            }
            b'q' => {
                let [index] = self.cursor.array("the memo")?;
                self.remember(index.into())?;
            }
            b'r' => {
                let index = u32::from_le_bytes(self.cursor.array("the memo")?);
                self.remember(index)?;
            }
            0x94 => {
                let next = self.memo.len() + self.sparse_memo.len();
                self.remember(u32::try_from(next).map_err(|_| Fault::damaged("too many entries in the memo"))?)?;
            }
            b'g' => {
                let index = text::number(self.cursor.line("the memo")?)?;
                self.recall(index)?;
            }
            b'h' => {
                let [index] = self.cursor.array("the memo")?;
                self.recall(index.into())?;
            }
            b'j' => {
                let index = u32::from_le_bytes(self.cursor.array("the memo")?);
                self.recall(index)?;
            }

            b'c' => {
                let (module, name) = (self.cursor.line("a name")?, self.cursor.line("a name")?);
                self.global(module, name)?;
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                match (self.table.get(module), self.table.get(name)) {
                    (Node::Text(module), Node::Text(name)) => {
                        let (module, name) =
                            (module.bytes(self.cursor.bytes).to_vec(), name.bytes(self.cursor.bytes).to_vec());
                        self.global(&module, &name)?;
                    }
                    _ => return Err(Fault::damaged("a name that is not made of two strings")),
                }
            }
            b'R' => {
                let (arguments, callable) = (self.pop()?, self.pop()?);
                let result = reduce(&mut self.table, self.cursor.bytes, callable, arguments)?;
                self.stack.push(result);
            }
            0x81 => {
                let (arguments, class) = (self.pop()?, self.pop()?);
                match self.table.get(class) {
                    Node::Global(Global::OrderedDict | Global::Size) => {}
                    other => return Err(Fault::Refused(format!("an object (NEWOBJ) of {}", other.kind()))),
                }
                let result = reduce(&mut self.table, self.cursor.bytes, class, arguments)?;
                self.stack.push(result);
            }
            b'i' => {
                let (module, name) = (self.cursor.line("a name")?, self.cursor.line("a name")?);
                return Err(Fault::Refused(format!("an object (INST) of `{}`", dotted(module, name))));
            }
            b'b' => {
                let state = self.pop()?;
                let target = self.top()?;
                build(&mut self.table, self.cursor.bytes, target, state)?;
            }
            b'Q' => {
                let id = self.pop()?;
                let storage = persistent(&mut self.table, self.cursor.bytes, id)?;
                self.stack.push(storage);
            }

            other => {
                return Err(match refused_operation(other) {
                    Some(what) => Fault::Refused(what.to_owned()),
                    None => Fault::damaged(format!("0x{other:02x} is not an operation of a pickle")),
                });
            }
        }
        Ok(())
    }

    fn global(&mut self, module: &[u8], name: &[u8]) -> Result<(), Fault> {
        let found = match (std::str::from_utf8(module), std::str::from_utf8(name)) {
            (Ok(module), Ok(name)) => Global::find(module, name),
            _ => None,
        };
        match found {
            Some(global) => self.push(Node::Global(global)),
            None => Err(Fault::Refused(format!("`{}`", dotted(module, name)))),
        }
    }

    fn push(&mut self, node: Node) -> Result<(), Fault> {
        let at = self.table.push(node)?;
        self.stack.push(at);
        Ok(())
    }

    fn push_int(&mut self, value: i64) -> Result<(), Fault> {
        let at = self.table.int(value)?;
        self.stack.push(at);
        Ok(())
    }

    fn push_long(&mut self, value: i128) -> Result<(), Fault> {
        match i64::try_from(value) {
            Ok(value) => self.push_int(value),
            Err(_) => self.push(Node::Long(value.to_le_bytes())),
        }
    }

    fn long(&mut self, width: usize) -> Result<(), Fault> {
        let length = self.cursor.length(width, "an int")?;
        let bytes = self.cursor.take(length, "an int")?;
        if bytes.len() > 16 {
            return Err(Fault::damaged(format!("an int of {length} bytes, expected at most 16")));
        }
        let negative = bytes.last().is_some_and(|last| last & 0x80 != 0);
        let mut wide = [if negative { 0xff } else { 0 }; 16];
        wide[..bytes.len()].copy_from_slice(bytes);
        self.push_long(i128::from_le_bytes(wide))
    }

    fn blob(&mut self, width: usize, what: &str, node: fn(Blob) -> Node) -> Result<(), Fault> {
        let length = self.cursor.length(width, what)?;
        self.cursor.take(length, what)?;
        self.push(node(Blob::At { start: self.cursor.at - length, length }))
    }

    fn unicode(&mut self, width: usize) -> Result<(), Fault> {
        let length = self.cursor.length(width, "a string")?;
        let bytes = self.cursor.take(length, "a string")?;
        std::str::from_utf8(bytes).map_err(|_| Fault::damaged("a string that is not UTF-8"))?;
        self.push(Node::Text(Blob::At { start: self.cursor.at - length, length }))
    }

    /// Lowest height to which the stack may fall.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn top(&self) -> Result<Ref, Fault> {
        if self.stack.len() <= self.floor() {
            return Err(empty_stack());
        }
        self.stack.last().copied().ok_or_else(empty_stack)
    }

    fn pop(&mut self) -> Result<Ref, Fault> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    fn pop_or_mark(&mut self) -> Result<(), Fault> {
        if self.stack.len() > self.floor() {
            self.stack.pop();
            return Ok(());
        }
        self.marks.pop().map(drop).ok_or_else(empty_stack)
    }

    /// What was pushed since the last mark.
    fn pop_mark(&mut self) -> Result<Vec<Ref>, Fault> {
        let mark =
            self.marks.pop().ok_or_else(|| Fault::damaged("an operation that needs a mark, and there is none"))?;
        let mut items = self.stack.split_off(mark);
        items.shrink_to_fit();
        Ok(items)
    }

    fn append(&mut self, items: &[Ref]) -> Result<(), Fault> {
        let target = self.top()?;
        self.table.charge(2 * size_of_val(items))?;
        match self.table.get_mut(target) {
            Node::List(list) => list.extend_from_slice(items),
            other => return Err(Fault::damaged(format!("elements are appended to {}", other.kind()))),
        }
        Ok(())
    }

    fn set_items(&mut self, items: &[Ref]) -> Result<(), Fault> {
        let target = self.top()?;
        let new = pairs(items)?;
        self.table.charge(2 * size_of_val(items))?;
        match self.table.get_mut(target) {
            Node::Dict(entries) | Node::OrderedDict(entries) => entries.extend(new),
            other => return Err(Fault::damaged(format!("entries are added to {}", other.kind()))),
        }
        Ok(())
    }

    fn remember(&mut self, index: u32) -> Result<(), Fault> {
        let top = self.top()?;
        let place = index as usize;
        if let Some(entry) = self.memo.get_mut(place) {
            *entry = top;
        } else if place == self.memo.len() {
            self.table.charge(2 * size_of::<Ref>())?;
            self.sparse_memo.remove(&index);
            self.memo.push(top);
        } else {
            self.table.charge(4 * size_of::<(u32, Ref)>())?;
            self.sparse_memo.insert(index, top);
        }
        Ok(())
    }

    fn recall(&mut self, index: u32) -> Result<(), Fault> {
        let found = self.memo.get(index as usize).or_else(|| self.sparse_memo.get(&index)).copied();
        self.stack.push(found.ok_or_else(|| Fault::damaged(format!("entry {index} of the memo was never set")))?);
        Ok(())
    }
}

fn empty_stack() -> Fault {
    Fault::damaged("an operation on an empty stack")
}
