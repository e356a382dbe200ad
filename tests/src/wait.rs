//! Waiting with a limit: the one loop behind every "until it is there".

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Asks again every 100 ms until `probe` gives a value; after `limit` an error says what was waited for and the last reason.
///
/// An error of `probe` ends the wait at once; "not yet" is `Ok(Err(reason))`.
pub fn until<T>(
    what: &str,
    limit: Duration,
    mut probe: impl FnMut() -> Result<Result<T, String>>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        match probe()? {
            Ok(value) => return Ok(value),
            Err(reason) if start.elapsed() >= limit => {
                bail!("waiting {} s for {what}: {reason}", limit.as_secs());
            }
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_the_value_or_the_last_reason() {
        let mut left = 2;
        let value = until("a value", Duration::from_secs(5), || {
            left -= 1;
            Ok(if left == 0 { Ok("here") } else { Err("not yet".to_owned()) })
        });
        assert_eq!(value.unwrap(), "here");

        let nothing = until::<()>("rain", Duration::ZERO, || Ok(Err("the sky is clear".to_owned())));
        assert_eq!(nothing.unwrap_err().to_string(), "waiting 0 s for rain: the sky is clear");
    }
}
