//! The statements of the load, and what the stub server answers to them: canned, so that answering costs as little as it can.

use domicile_tests::fake::{columns, complete, ready, row};
use domicile_tests::message::message;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Work {
    /// A row of 100 bytes.
    Row100,
    /// A row of 8 KiB.
    Row8192,
    /// Rows of 1 KiB, 64 MiB in all.
    Rows64m,
    /// The same by COPY TO STDOUT.
    CopyOut,
    /// 64 MiB by COPY FROM STDIN.
    CopyIn,
}

/// Bytes of a large result.
pub const LARGE_BYTES: usize = 64 << 20;
/// Times that [`Answers::block`] is sent for it.
pub const BLOCKS: usize = 64;

impl Work {
    const ALL: [Self; 5] = [Self::Row100, Self::Row8192, Self::Rows64m, Self::CopyOut, Self::CopyIn];

    /// The statement. As long as those of `pgbench --select-only`.
    pub fn statement(self) -> &'static str {
        match self {
            Self::Row100 => "SELECT filler FROM pgbench_row100 WHERE aid = 4711",
            Self::Row8192 => "SELECT filler FROM pgbench_row8192 WHERE aid = 4711",
            Self::Rows64m => "SELECT filler FROM pgbench_rows64m ORDER BY aid",
            Self::CopyOut => "COPY pgbench_copied TO STDOUT",
            Self::CopyIn => "COPY pgbench_copied FROM STDIN",
        }
    }

    /// Which of them a text is.
    pub fn of(text: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|work| text.starts_with(work.statement().as_bytes()))
    }

    /// Its name on a command line.
    pub fn name(self) -> String {
        clap::ValueEnum::to_possible_value(&self).map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

/// What is sent for one statement: before the blocks, each block, and behind them.
pub struct Answer {
    /// RowDescription, or what stands for it.
    pub description: &'static [u8],
    /// The rows, if they are few.
    pub rows: &'static [u8],
    /// Sent [`BLOCKS`] times.
    pub block: Option<&'static [u8]>,
    /// CommandComplete.
    pub complete: &'static [u8],
}

/// All answers.
pub struct Answers([Answer; 5]);

impl Answers {
    /// Makes them, once for the life of the process.
    pub fn make() -> Self {
        let block = |one: Vec<u8>| Some(last(one.repeat(LARGE_BYTES / BLOCKS / 1024)));
        let copy = |tag: u8| last(message(tag, &[0, 0, 1, 0, 0]));
        let answer = |work: Work| match work {
            Work::Row100 => Answer::few(100),
            Work::Row8192 => Answer::few(8192),
            Work::Rows64m => Answer {
                description: last(columns()),
                rows: b"",
                // Header, number of columns and length of the column make 11 bytes.
                block: block(row(&"x".repeat(1024 - 11))),
                complete: last(complete("SELECT 65536")),
            },
            Work::CopyOut => Answer {
                description: copy(b'H'),
                rows: b"",
                block: block(message(b'd', &[vec![b'x'; 1024 - 6], vec![b'\n']].concat())),
                complete: last([message(b'c', b""), complete("COPY 65536")].concat()),
            },
            Work::CopyIn => Answer { description: copy(b'G'), rows: b"", block: None, complete: last(complete("COPY 65536")) },
        };
        Self(Work::ALL.map(answer))
    }

    /// That of one.
    pub fn of(&self, work: Work) -> &Answer {
        &self.0[work as usize]
    }
}

impl Answer {
    fn few(bytes: usize) -> Self {
        let rows = last(row(&"x".repeat(bytes)));
        Self { description: last(columns()), rows, block: None, complete: last(complete("SELECT 1")) }
    }
}

/// What a server tells about itself behind AuthenticationOk.
pub fn greeting() -> Vec<u8> {
    let told = [
        ("application_name", ""),
        ("client_encoding", "UTF8"),
        ("DateStyle", "ISO, MDY"),
        ("default_transaction_read_only", "off"),
        ("in_hot_standby", "off"),
        ("integer_datetimes", "on"),
        ("IntervalStyle", "postgres"),
        ("is_superuser", "on"),
        ("server_encoding", "UTF8"),
        ("server_version", "15.0"),
        ("session_authorization", "postgres"),
        ("standard_conforming_strings", "on"),
        ("TimeZone", "Etc/UTC"),
    ];
    let told = told.iter().flat_map(|(name, value)| domicile_tests::fake::parameter(name, value));
    let authenticated = domicile_tests::fake::authentication(0, b"");
    let key = message(b'K', &[0, 0, 0, 9, 1, 2, 3, 4]);
    authenticated.into_iter().chain(told).chain(key).chain(ready(b'I')).collect()
}

/// Keeps bytes for the life of the process.
pub fn last(bytes: Vec<u8>) -> &'static [u8] {
    bytes.leak()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_make_64_mib_and_statements_are_known_again() {
        let answers = Answers::make();
        for work in [Work::Rows64m, Work::CopyOut] {
            assert_eq!(answers.of(work).block.unwrap().len() * BLOCKS, LARGE_BYTES);
        }
        for work in Work::ALL {
            assert_eq!(Work::of(&[work.statement().as_bytes(), b"\0"].concat()), Some(work));
        }
        assert_eq!(Work::of(b"SELECT 1"), None);
    }
}
