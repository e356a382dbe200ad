//! HTTP/1.1 as far as a test needs it: one request per connection, answers with a length, in chunks or up to the end.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail};

use super::tls::Certificate;

const BOUNDARY: &str = "----part-of-a-form";

/// A request, to be sent to any host.
#[derive(Debug, Clone)]
pub struct Request {
    method: &'static str,
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The body, with the transfer encoding undone.
    pub body: Vec<u8>,
    /// The server's certificates, its own first; empty without TLS.
    pub chain: Vec<Certificate>,
    headers: Vec<(String, String)>,
}

/// The cookies of one visitor.
#[derive(Debug, Clone, Default)]
pub struct Cookies(BTreeMap<String, String>);

impl Request {
    /// `GET path`.
    pub fn get(path: &str) -> Request {
        Request { method: "GET", path: path.to_owned(), headers: Vec::new(), body: Vec::new() }
    }

    /// `POST path`, with an empty body at first.
    pub fn post(path: &str) -> Request {
        Request { method: "POST", ..Request::get(path) }
    }

    /// One more header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Request {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// An access token.
    #[must_use]
    pub fn token(self, token: &str) -> Request {
        self.header("Authorization", &format!("Bearer {token}"))
    }

    /// The cookies of a visitor.
    #[must_use]
    pub fn cookies(self, cookies: &Cookies) -> Request {
        if cookies.0.is_empty() {
            return self;
        }
        let pairs: Vec<String> = cookies.0.iter().map(|(name, value)| format!("{name}={value}")).collect();
        self.header("Cookie", &pairs.join("; "))
    }

    /// A JSON body.
    #[must_use]
    pub fn json(mut self, value: &serde_json::Value) -> Request {
        self.body = value.to_string().into_bytes();
        self.header("Content-Type", "application/json")
    }

    /// The fields of a form.
    #[must_use]
    pub fn form(mut self, fields: &[(&str, &str)]) -> Request {
        let pairs: Vec<String> =
            fields.iter().map(|(name, value)| format!("{}={}", escape(name), escape(value))).collect();
        self.body = pairs.join("&").into_bytes();
        self.header("Content-Type", "application/x-www-form-urlencoded")
    }

    /// A form with one file in it.
    #[must_use]
    pub fn upload(mut self, field: &str, file_name: &str, media_type: &str, bytes: &[u8]) -> Request {
        self.body = format!(
            "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{field}\"; filename=\"{file_name}\"\r\n\
             Content-Type: {media_type}\r\n\r\n"
        )
        .into_bytes();
        self.body.extend_from_slice(bytes);
        self.body.extend_from_slice(format!("\r\n--{BOUNDARY}--\r\n").as_bytes());
        self.header("Content-Type", &format!("multipart/form-data; boundary={BOUNDARY}"))
    }

    pub(super) fn method(&self) -> &'static str {
        self.method
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    pub(super) fn encode(&self, host: &str) -> Vec<u8> {
        let mut head =
            format!("{} {} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n", self.method, self.path);
        for (name, value) in &self.headers {
            head.extend([name, ": ", value, "\r\n"]);
        }
        if self.method == "POST" {
            head.extend(["Content-Length: ", &self.body.len().to_string(), "\r\n"]);
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

impl Response {
    /// The first header of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| &**value)
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub fn json(&self) -> Result<serde_json::Value> {
        serde_json::from_slice(&self.body).with_context(|| format!("reading JSON: {}", self.text()))
    }

    /// This answer if it has the wanted status, else an error with the start of its body.
    pub fn expect(self, status: u16) -> Result<Response> {
        if self.status != status {
            let body: String = self.text().chars().take(300).collect();
            bail!("status {} instead of {status}: {body}", self.status);
        }
        Ok(self)
    }

    pub(super) fn parse(bytes: &[u8]) -> Result<Response> {
        let end = bytes
            .windows(4)
            .position(|four| four == b"\r\n\r\n")
            .context("the answer has no complete head")?;
        let head = std::str::from_utf8(&bytes[..end]).context("reading the head of the answer")?;
        let mut lines = head.split("\r\n");
        let first = lines.next().unwrap_or_default();
        let status = first.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.with_context(|| format!("`{first}` is no HTTP status line"))?;
        let headers: Vec<(String, String)> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
            .collect();
        let mut response = Response { status, body: Vec::new(), chain: Vec::new(), headers };
        let rest = &bytes[end + 4..];
        response.body = if response.header("Transfer-Encoding").is_some_and(|value| value == "chunked") {
            unchunk(rest)?
        } else if let Some(length) = response.header("Content-Length") {
            let length: usize = length.parse().context("reading Content-Length")?;
            rest.get(..length)
                .with_context(|| format!("the answer ends after {} of {length} bytes", rest.len()))?
                .to_vec()
        } else {
            rest.to_vec()
        };
        Ok(response)
    }
}

impl Cookies {
    /// Takes over what an answer sets.
    pub fn update(&mut self, response: &Response) {
        for (name, line) in &response.headers {
            if !name.eq_ignore_ascii_case("Set-Cookie") {
                continue;
            }
            let pair = line.split(';').next().unwrap_or_default();
            if let Some((name, value)) = pair.split_once('=') {
                self.0.insert(name.to_owned(), value.to_owned());
            }
        }
    }
}

/// Percent-encodes all but the unreserved characters of RFC 3986.
fn escape(text: &str) -> String {
    let keep = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
    let escape = |byte: u8| if keep(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(escape).collect()
}

fn unchunk(mut rest: &[u8]) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = rest
            .windows(2)
            .position(|two| two == b"\r\n")
            .context("the answer ends within a chunk's size")?;
        let size = std::str::from_utf8(&rest[..end])?.split(';').next().unwrap_or_default();
        let size = usize::from_str_radix(size.trim(), 16).context("reading the size of a chunk")?;
        rest = &rest[end + 2..];
        if size == 0 {
            return Ok(body);
        }
        body.extend_from_slice(rest.get(..size).context("the answer ends within a chunk")?);
        rest = rest.get(size + 2..).context("the answer ends after a chunk")?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_kind_of_length() {
        let check = |rest: &str| {
            let answer = format!("HTTP/1.1 200 OK\r\nset-cookie: a=1; path=/\r\nSet-Cookie: b=2\r\n{rest}");
            Response::parse(answer.as_bytes())
                .map(|response| response.text())
                .map_err(|error| error.to_string())
        };
        assert_eq!(check("Content-Length: 4\r\n\r\nbody").unwrap(), "body");
        assert_eq!(
            check("Transfer-Encoding: chunked\r\n\r\n3\r\nbod\r\n1;x=y\r\ny\r\n0\r\n\r\n").unwrap(),
            "body"
        );
        assert_eq!(check("\r\nbody").unwrap(), "body");
        assert_eq!(check("Content-Length: 9\r\n\r\nbody").unwrap_err(), "the answer ends after 4 of 9 bytes");
        assert_eq!(
            check("Transfer-Encoding: chunked\r\n\r\n9\r\nbody").unwrap_err(),
            "the answer ends within a chunk"
        );
        assert_eq!(check("Content-Length: 4").unwrap_err(), "the answer has no complete head");
    }

    #[test]
    fn keeps_cookies_and_escapes_forms() {
        let answer = b"HTTP/1.1 302 Found\r\nset-cookie: a=1; path=/\r\nSet-Cookie: b=2\r\n\r\n";
        let mut cookies = Cookies::default();
        cookies.update(&Response::parse(answer).unwrap());
        let request = Request::post("/auth").cookies(&cookies).form(&[("user[email]", "a b@example.net")]);
        let text = String::from_utf8(request.encode("host.example.net")).unwrap();
        assert_eq!(
            text,
            "POST /auth HTTP/1.1\r\nHost: host.example.net\r\nConnection: close\r\nCookie: a=1; b=2\r\n\
             Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 35\r\n\r\n\
             user%5Bemail%5D=a%20b%40example.net"
        );
    }
}
