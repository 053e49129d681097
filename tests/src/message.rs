//! The messages a client sends, as bytes.
//!
//! Written from the "Message Formats" chapter of PostgreSQL's documentation and from nothing else: the product's own encoders
//! are what these tests judge.

/// A tagged message around `body`.
///
/// # Panics
/// If the body is longer than the protocol can say.
pub fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).expect("a message of less than 4 GiB");
    [&[tag], &length.to_be_bytes()[..], body].concat()
}

/// A packet without a tag, as sent before login.
///
/// # Panics
/// If the body is longer than the protocol can say.
pub fn packet(code: u32, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 8).expect("a packet of less than 4 GiB");
    [&length.to_be_bytes()[..], &code.to_be_bytes(), body].concat()
}

/// Protocol 3.0.
pub const PROTOCOL_3_0: u32 = 3 << 16;

/// SSLRequest.
pub fn ssl_request() -> Vec<u8> {
    packet(80_877_103, &[])
}

/// GSSENCRequest.
pub fn gss_request() -> Vec<u8> {
    packet(80_877_104, &[])
}

/// CancelRequest.
pub fn cancel_request(process_id: u32, secret: &[u8]) -> Vec<u8> {
    packet(80_877_102, &[&process_id.to_be_bytes(), secret].concat())
}

/// StartupMessage of `protocol` with these parameters, in this order.
pub fn startup(protocol: u32, parameters: &[(&str, &str)]) -> Vec<u8> {
    let mut body: Vec<u8> = parameters.iter().flat_map(|(name, value)| [string(name), string(value)]).flatten().collect();
    body.push(0);
    packet(protocol, &body)
}

/// Query.
pub fn query(text: &str) -> Vec<u8> {
    message(b'Q', &string(text))
}

/// Parse, with no parameter types given.
pub fn parse(name: &str, text: &str) -> Vec<u8> {
    message(b'P', &[string(name), string(text), vec![0, 0]].concat())
}

/// Bind, with every parameter and every result column in text form.
pub fn bind(portal: &str, statement: &str, parameters: &[&str]) -> Vec<u8> {
    let mut body = [string(portal), string(statement), vec![0, 0], count(parameters.len())].concat();
    parameters.iter().for_each(|value| body.extend(counted(value)));
    body.extend([0, 0]);
    message(b'B', &body)
}

/// Describe of a prepared statement.
pub fn describe_statement(name: &str) -> Vec<u8> {
    message(b'D', &[vec![b'S'], string(name)].concat())
}

/// Describe of a portal.
pub fn describe_portal(name: &str) -> Vec<u8> {
    message(b'D', &[vec![b'P'], string(name)].concat())
}

/// Close of a prepared statement.
pub fn close_statement(name: &str) -> Vec<u8> {
    message(b'C', &[vec![b'S'], string(name)].concat())
}

/// Execute; 0 rows means all.
pub fn execute(portal: &str, rows: u32) -> Vec<u8> {
    message(b'E', &[string(portal), rows.to_be_bytes().to_vec()].concat())
}

/// Parse, Bind, Describe and Execute of one statement through the unnamed portal, without the Sync.
pub fn prepared(name: &str, text: &str) -> Vec<u8> {
    [parse(name, text), bind("", name, &[]), describe_portal(""), execute("", 0)].concat()
}

/// Sync.
pub fn sync() -> Vec<u8> {
    message(b'S', &[])
}

/// Flush.
pub fn flush() -> Vec<u8> {
    message(b'H', &[])
}

/// FunctionCall of the function with this object id, arguments and result in text form.
pub fn function_call(function: u32, arguments: &[&str]) -> Vec<u8> {
    let mut body = [function.to_be_bytes().to_vec(), vec![0, 0], count(arguments.len())].concat();
    arguments.iter().for_each(|value| body.extend(counted(value)));
    body.extend([0, 0]);
    message(b'F', &body)
}

/// CopyData.
pub fn copy_data(data: &str) -> Vec<u8> {
    message(b'd', data.as_bytes())
}

/// CopyDone.
pub fn copy_done() -> Vec<u8> {
    message(b'c', &[])
}

/// CopyFail.
pub fn copy_fail(reason: &str) -> Vec<u8> {
    message(b'f', &string(reason))
}

/// PasswordMessage, also SASLResponse.
pub fn password(body: &[u8]) -> Vec<u8> {
    message(b'p', body)
}

/// Terminate.
pub fn terminate() -> Vec<u8> {
    message(b'X', &[])
}

/// A text with the NUL that ends it.
pub fn string(text: &str) -> Vec<u8> {
    [text.as_bytes(), &[0]].concat()
}

fn count(items: usize) -> Vec<u8> {
    u16::try_from(items).expect("fewer than 65 536 items").to_be_bytes().to_vec()
}

/// A value with its length in front.
pub fn counted(value: &str) -> Vec<u8> {
    let length = u32::try_from(value.len()).expect("a value of less than 4 GiB");
    [&length.to_be_bytes()[..], value.as_bytes()].concat()
}
