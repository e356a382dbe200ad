//! An HTTP answer: status and body, by `Content-Length` or up to the end of the connection. No other way of saying how long a body is
//! is understood, and what is not understood is refused.

use super::HEAD;

/// What a server answered.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// Status code.
    pub(crate) status: u16,
    /// As many bytes as the server has announced.
    pub(crate) body: Vec<u8>,
}

/// What the head of an answer says.
struct Head {
    status: u16,
    /// Where the body begins.
    start: usize,
    /// Its announced length in bytes.
    length: Option<usize>,
}

/// Whether the whole body is there, as far as the head announces its length.
pub(crate) fn is_complete(bytes: &[u8]) -> bool {
    head(bytes).is_some_and(|head| head.length.is_some_and(|length| bytes.len() - head.start >= length))
}

/// The answer in the bytes of a whole connection; `None` when they are none, or end too early.
pub(crate) fn read(bytes: &[u8]) -> Option<Answer> {
    let head = head(bytes)?;
    let rest = &bytes[head.start..];
    let body = match head.length {
        Some(length) => rest.get(..length)?,
        None => rest,
    };
    Some(Answer { status: head.status, body: body.to_vec() })
}

fn head(bytes: &[u8]) -> Option<Head> {
    const END: &[u8] = b"\r\n\r\n";
    let most = bytes.len().min(usize::try_from(HEAD).ok()?);
    let end = bytes[..most].windows(END.len()).position(|window| window == END)?;
    let text = std::str::from_utf8(&bytes[..end]).ok()?;
    let mut lines = text.split("\r\n");
    let mut words = lines.next()?.split(' ');
    let is_http = words.next()?.starts_with("HTTP/1.");
    let status = words.next()?;
    if !is_http || status.len() != 3 {
        return None;
    }
    let mut length = None;
    for line in lines {
        let (name, value) = line.split_once(':')?;
        if name.eq_ignore_ascii_case("transfer-encoding") || name.eq_ignore_ascii_case("content-encoding") {
            return None;
        }
        if name.eq_ignore_ascii_case("content-length") && length.replace(value.trim().parse().ok()?).is_some()
        {
            return None;
        }
    }
    Some(Head { status: status.parse().ok()?, start: end + END.len(), length })
}

#[cfg(test)]
mod tests {
    use super::{Answer, is_complete, read};

    #[test]
    fn answers_are_read() {
        let answer = |status, body: &[u8]| Some(Answer { status, body: body.to_vec() });
        for (bytes, expected, complete) in [
            (&b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n\xff\x00more"[..], answer(200, b"\xff\0"), true),
            (b"HTTP/1.1 200 OK\r\ncontent-length:0\r\nServer: EC2ws\r\n\r\n", answer(200, b""), true),
            (b"HTTP/1.0 404 Not Found\r\n\r\nuntil the end", answer(404, b"until the end"), false),
            (b"HTTP/1.1 200\r\n\r\n", answer(200, b""), false),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab", None, false),
            (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nab", None, false),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", None, false),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", None, false),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n", None, false),
            (b"HTTP/1.1 20 OK\r\n\r\n", None, false),
            (b"HTTP/1.1 \xff\r\n\r\n", None, false),
            (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", None, false),
            (b"", None, false),
        ] {
            assert_eq!(read(bytes), expected, "{:?}", String::from_utf8_lossy(bytes));
            assert_eq!(is_complete(bytes), complete, "{:?}", String::from_utf8_lossy(bytes));
        }
    }
}
