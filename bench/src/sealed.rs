//! TLS around an engine that knows bytes only: what has come becomes text, and text becomes what is to be sent.

use std::io::{self, Read, Write};

use rustls::{ConnectionCommon, SideData};

/// Opens what has come; the text goes behind what `text` has.
pub fn open<Side: SideData>(tls: &mut ConnectionCommon<Side>, mut bytes: &[u8], text: &mut Vec<u8>) -> io::Result<()> {
    while !bytes.is_empty() {
        tls.read_tls(&mut bytes)?;
        let state = tls.process_new_packets().map_err(io::Error::other)?;
        let length = text.len();
        text.resize(length + state.plaintext_bytes_to_read(), 0);
        tls.reader().read_exact(&mut text[length..])?;
    }
    Ok(())
}

/// What is to be sent for a text, and for the handshake, if it goes on.
pub fn seal<Side: SideData>(tls: &mut ConnectionCommon<Side>, text: &[u8]) -> io::Result<Vec<u8>> {
    tls.set_buffer_limit(None);
    tls.writer().write_all(text)?;
    let mut bytes = Vec::new();
    while tls.wants_write() {
        tls.write_tls(&mut bytes)?;
    }
    Ok(bytes)
}
