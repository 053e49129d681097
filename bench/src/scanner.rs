//! Finds messages of a server by their headers and looks at none of their bodies, except the text of an error.

/// Where one stream is.
#[derive(Debug, Default)]
pub struct Scanner {
    header: [u8; 5],
    /// Bytes of the header that are here.
    have: usize,
    /// Bytes of the body that are still to come.
    skip: usize,
    /// The body of the last ErrorResponse.
    pub error: Vec<u8>,
}

impl Scanner {
    /// Takes in bytes; `each` gets the type of every message that ends in them.
    pub fn scan(&mut self, mut bytes: &[u8], mut each: impl FnMut(u8)) {
        while !bytes.is_empty() {
            if self.have < self.header.len() {
                let count = bytes.len().min(self.header.len() - self.have);
                self.header[self.have..self.have + count].copy_from_slice(&bytes[..count]);
                (self.have, bytes) = (self.have + count, &bytes[count..]);
                if self.have < self.header.len() {
                    return;
                }
                let [tag, length @ ..] = self.header;
                self.skip = (u32::from_be_bytes(length) as usize).saturating_sub(4);
                if tag == b'E' {
                    self.error.clear();
                }
            }
            let count = bytes.len().min(self.skip);
            if self.header[0] == b'E' {
                self.error.extend_from_slice(&bytes[..count]);
            }
            (self.skip, bytes) = (self.skip - count, &bytes[count..]);
            if self.skip == 0 {
                self.have = 0;
                each(self.header[0]);
            }
        }
    }

    /// The last error, as a text.
    pub fn error_text(&self) -> String {
        let field = |letter: u8| self.error.split(|byte| *byte == 0).find_map(|field| field.strip_prefix(&[letter]));
        let text = |letter| String::from_utf8_lossy(field(letter).unwrap_or_default()).into_owned();
        format!("{}: {}", text(b'C'), text(b'M'))
    }
}

#[cfg(test)]
mod tests {
    use domicile_tests::fake::{complete, error, ready, row};

    use super::*;

    #[test]
    fn messages_are_found_however_they_are_cut() {
        let stream = [row("text"), complete("SELECT 1"), error(&["C42000", "Mno"]), domicile_tests::message::sync(), ready(b'I')];
        let stream = stream.concat();
        for length in 1..=stream.len() {
            let mut scanner = Scanner::default();
            let mut found = Vec::new();
            stream.chunks(length).for_each(|chunk| scanner.scan(chunk, |tag| found.push(tag)));
            assert_eq!(found, b"DCESZ", "{length}");
            assert_eq!(scanner.error_text(), "42000: no");
        }
    }
}
