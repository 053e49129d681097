//! What the demo looks like on a terminal: commands as typed, answers as given, and a mark for each that is as expected.

use std::fmt::Write as _;
use std::io::IsTerminal;

use domicile_tests::transcript::{End, Message, Transcript};

/// The terminal, and the count of answers that were not as expected.
pub struct Screen {
    colour: bool,
    answers: usize,
    differing: usize,
}

impl Screen {
    pub fn new() -> Self {
        let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self { colour, answers: 0, differing: 0 }
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// A heading with room above it.
    pub fn heading(&self, text: &str) {
        println!("\n{}\n", self.paint("1", text));
    }

    /// Lines of plain text.
    pub fn text(&self, text: &str) {
        text.lines().for_each(|line| println!("{}", format!("   {line}").trim_end()));
    }

    /// A command, as it can be typed again.
    pub fn command(&self, text: &str) {
        let lines = text.lines().enumerate();
        lines.for_each(|(index, line)| println!("   {} {}", if index == 0 { "$" } else { " " }, self.paint("36", line)));
    }

    /// Why an answer is what it is.
    pub fn why(&self, text: &str) {
        println!("   {}  {text}", self.paint("2", "why"));
    }

    /// Whether the answer was as expected; counted.
    pub fn verdict(&mut self, as_expected: bool, expected: &str) {
        self.answers += 1;
        if as_expected {
            println!("   {}   {expected}", self.paint("32", "ok"));
        } else {
            self.differing += 1;
            println!("   {}  expected: {expected}", self.paint("31", "NO"));
        }
    }

    /// All answers in a sentence; an error if one was not as expected.
    pub fn sum_up(&self) -> Result<String, String> {
        match self.differing {
            0 => Ok(format!("All {} answers are as expected.", self.answers)),
            differing => Err(format!("{differing} of {} answers are not as expected.", self.answers)),
        }
    }

    /// What a client sent, and what the server answered to it.
    pub fn exchange(&self, sent: &[&str], said: &Transcript) {
        sent.iter().for_each(|line| println!("   client  {}", self.paint("36", line)));
        println!("   server  {}", in_words(said));
    }
}

/// An answer for readers who do not know the protocol by heart: rows, else the tag of the command, errors, and the transaction's
/// status.
fn in_words(said: &Transcript) -> String {
    let has_rows = said.messages.iter().any(|message| message.tag == b'D');
    let word = |message: &Message| {
        let text = message.to_string();
        let detail = text.get(2..).unwrap_or_default();
        match message.tag {
            b'D' => Some(detail.replace('|', " | ")),
            b'C' if !has_rows => Some(detail.to_owned()),
            b'E' => {
                message.report().map(|report| format!("{}:  {} ({})", report.field('V'), report.message(), report.sqlstate()))
            }
            b'N' => message.report().map(|report| format!("{}:  {}\n           ", report.field('V'), report.message())),
            b'Z' => Some(format!("  [{detail}]")),
            _ => None,
        }
    };
    let mut words: String = said.messages.iter().filter_map(word).collect();
    if said.end != End::Reached {
        words.push_str(&format!("{:?}", said.end));
    }
    words
}

/// Columns side by side, each as wide as its widest cell.
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let cell = |row: &Vec<String>, column: usize| row.get(column).map_or(0, |cell| cell.chars().count());
    let widths: Vec<usize> = (0..columns).map(|column| rows.iter().map(|row| cell(row, column)).max().unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        row.iter().zip(&widths).for_each(|(cell, width)| write!(line, "{cell:<width$}   ").unwrap_or_default());
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let rows = [vec!["a".to_owned(), "bb".to_owned()], vec!["éé".to_owned(), "c".to_owned()]];
        assert_eq!(table(&rows), "a    bb\néé   c\n");
    }

    #[test]
    fn answers_are_told_in_words() {
        let words = |messages: &[(u8, &[u8])]| {
            let messages = messages.iter().map(|(tag, body)| Message { tag: *tag, body: body.to_vec() }).collect();
            in_words(&Transcript { messages, end: End::Reached })
        };
        assert_eq!(words(&[(b'C', b"SET\0"), (b'Z', b"I")]), "SET  [I]");
        assert_eq!(words(&[(b'1', b""), (b'D', b"\0\x01\0\0\0\x02eu"), (b'C', b"SELECT 1\0"), (b'Z', b"T")]), "eu  [T]");
        assert_eq!(words(&[(b'E', b"SERROR\0VERROR\0C42000\0Mno\0\0"), (b'Z', b"E")]), "ERROR:  no (42000)  [E]");
    }
}
