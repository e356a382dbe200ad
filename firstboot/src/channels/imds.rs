//! EC2's instance metadata, version 2: the instance's `user-data`, asked for over the link.
//!
//! Only a machine that says it is EC2's asks, or one whose kernel command line says `mastodon.imds=on`: elsewhere the address may be
//! anybody's. First a token by PUT, then the data with it, each with a deadline of its own and a limit on its size, over IPv4 and,
//! where that is not answered, over IPv6. A hop limit of 1, as an instance has it by default, is enough. Version 1, which needs no
//! token, is never used: a machine that a stranger can make fetch addresses would give its data away. Every process of the machine can ask as we
//! do, so secrets are refused as on the kernel's command line.

mod answer;

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};

use super::{LIMIT, Offer, cmdline, userdata};
use answer::Answer;

/// What the operator knows it as.
pub(super) const SOURCE: &str = "user-data of EC2";
/// Where it answers, in the order in which it is asked.
const PLACES: [SocketAddr; 2] = [
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)), 80),
    SocketAddr::new(IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)), 80),
];
/// How long a connection may take to be made, and then each answer: the service is in the next machine room at most.
const PATIENCE: Duration = Duration::from_secs(2);
/// Seconds that a token is good for: one question follows at once.
const TOKEN_LIFE: &str = "60";
/// Tokens of today have 56 bytes.
const LONGEST_TOKEN: usize = 1024;
/// Not an answer.
const NO_ANSWER: &str = "the answer is not HTTP, or is cut short: something else than EC2 may answer there";
/// The largest head of an answer.
const HEAD: u64 = 16 * 1024;

/// What asking came to.
#[derive(Debug)]
pub(super) enum Asked {
    /// This machine has no such service, or it has no user-data.
    Nothing,
    /// The user-data, if it is ours.
    Offer(Offer),
    /// Nobody answers, or not in time: there may be no link yet, or the service is busy.
    Silent(String),
}

/// Asks, when this is a machine to ask on. An error is what is wrong with the answer.
pub(super) fn look(root: &Path) -> Result<Asked> {
    // With another root the machine below it is not this one, and only this one can ask.
    if root == Path::new("/") && is_wanted(root) { ask(&PLACES, PATIENCE) } else { Ok(Asked::Nothing) }
}

/// Whether the machine has the service, by its maker or by what the command line says.
pub(super) fn is_wanted(root: &Path) -> bool {
    cmdline::asks_imds(root).unwrap_or_else(|| is_ec2(root))
}

fn is_ec2(root: &Path) -> bool {
    let read = |name: &str| fs_err::read_to_string(root.join(name)).unwrap_or_default().trim().to_lowercase();
    let dmi = |name: &str| read(&format!("sys/class/dmi/id/{name}"));
    if dmi("sys_vendor") == "amazon ec2" || dmi("bios_vendor") == "amazon ec2" {
        return true;
    }
    // Instances on Xen name nobody, but begin their UUID with `ec2`, some with its bytes turned around. One UUID in two thousand
    // does so by chance, hence the second condition.
    let uuid = [dmi("product_uuid"), read("sys/hypervisor/uuid")];
    let is_theirs = |uuid: &String| {
        uuid.starts_with("ec2")
            || uuid.get(4..8).is_some_and(|part| part.starts_with('2') && part.ends_with("ec"))
    };
    dmi("bios_version").contains("amazon") && uuid.iter().any(is_theirs)
}

/// Asks at each place until one answers.
pub(super) fn ask(places: &[SocketAddr], patience: Duration) -> Result<Asked> {
    let mut silence = Vec::new();
    for place in places {
        match TcpStream::connect_timeout(place, patience) {
            Ok(stream) => match converse(*place, &stream, patience) {
                Err(error) if is_passing(&error) => silence.push(format!("`{place}`: {error:#}")),
                said => return said.with_context(|| format!("asking EC2's metadata at `{place}`")),
            },
            Err(error) => silence.push(format!("`{place}`: {error}")),
        }
    }
    Ok(Asked::Silent(format!(
        "EC2's metadata does not answer ({}): it may do so when the network is up; where it is switched off for this instance, switch it \
         on, or write `mastodon.imds=off` on the kernel command line",
        silence.join("; ")
    )))
}

/// What may be over the next time: a service that is busy, or a connection that broke. What is wrong with an answer is not.
fn is_passing(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| cause.is::<std::io::Error>() || cause.is::<Busy>())
}

/// A status that asks for patience, or no answer in time.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Busy(String);

fn converse(place: SocketAddr, stream: &TcpStream, patience: Duration) -> Result<Asked> {
    let life = format!("X-aws-ec2-metadata-token-ttl-seconds: {TOKEN_LIFE}");
    let answer = request(stream, place, "PUT", "/latest/api/token", &life, patience)?;
    let token = match answer.status {
        200 => token(&answer.body)?,
        status @ (429 | 500..) => bail!(Busy(format!("it gave no token, but status {status}"))),
        403 => bail!("the metadata of this instance is switched off: switch it on in the instance's options"),
        status => bail!("it gave no token, but status {status}: look at the instance's metadata options"),
    };
    let stream = TcpStream::connect_timeout(&place, patience)?;
    let header = format!("X-aws-ec2-metadata-token: {token}");
    user_data(request(&stream, place, "GET", "/latest/user-data", &header, patience)?)
}

/// The bytes of a whole connection as the answer that has the user-data.
pub(super) fn judge(bytes: &[u8]) -> Result<Asked> {
    let answer = answer::read(bytes).ok_or_else(|| anyhow!("EC2's metadata: {NO_ANSWER}"))?;
    // A token is read by the same rules.
    let _ = token(&answer.body);
    user_data(answer).context("asking EC2's metadata")
}

fn user_data(answer: Answer) -> Result<Asked> {
    match answer.status {
        200 => {
            let offer = userdata::read(SOURCE, answer.body)?;
            offer.iter().try_for_each(|offer| cmdline::refuse_secrets(offer, "EC2's user-data"))?;
            Ok(offer.map_or(Asked::Nothing, Asked::Offer))
        }
        404 => Ok(Asked::Nothing),
        status @ (429 | 500..) => bail!(Busy(format!("it gave no user-data, but status {status}"))),
        status => bail!("it gave no user-data, but status {status}: look at the instance's metadata options"),
    }
}

/// The token as a header's value: one line of visible ASCII.
fn token(body: &[u8]) -> Result<String> {
    let token = body.trim_ascii();
    if token.is_empty() || token.len() > LONGEST_TOKEN || !token.iter().all(u8::is_ascii_graphic) {
        bail!("it gave a token that is none: something else than EC2 may answer there");
    }
    Ok(String::from_utf8_lossy(token).into_owned())
}

/// One question and its answer. The deadline is for all of it, so that a byte a second does not hold up first boot.
fn request(
    stream: &TcpStream,
    place: SocketAddr,
    verb: &str,
    path: &str,
    header: &str,
    patience: Duration,
) -> Result<Answer> {
    let deadline = Instant::now() + patience;
    let empty = if verb == "PUT" { "Content-Length: 0\r\n" } else { "" };
    let text = format!(
        "{verb} {path} HTTP/1.1\r\nHost: {}\r\n{header}\r\n{empty}Accept: */*\r\nUser-Agent: appliance\r\nConnection: close\r\n\r\n",
        host(place)
    );
    stream.set_write_timeout(Some(patience))?;
    (&*stream).write_all(text.as_bytes())?;
    let mut bytes = Vec::new();
    let mut buffer = [0; 16 * 1024];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            bail!(Busy(format!("the answer took longer than {} s", patience.as_secs())));
        }
        stream.set_read_timeout(Some(left))?;
        match (&*stream).read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => bytes.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error).context("reading the answer"),
        }
        if bytes.len() as u64 > LIMIT + HEAD {
            bail!("the answer is larger than 1 MiB: this cannot be a configuration");
        }
        // Not every server ends the connection when it has said all.
        if answer::is_complete(&bytes) {
            break;
        }
    }
    answer::read(&bytes).context(NO_ANSWER)
}

fn host(place: SocketAddr) -> String {
    match place {
        SocketAddr::V4(place) => place.ip().to_string(),
        SocketAddr::V6(place) => format!("[{}]", place.ip()),
    }
}

#[cfg(test)]
mod tests;
