//! What `cargo ci` tells people: the only place of this package that prints.

use std::time::Duration;

/// One line on standard output.
#[expect(clippy::print_stdout, reason = "a command for people at a terminal; this is the one place")]
pub fn line(text: &str) {
    println!("{text}");
}

/// What stopped the command.
#[expect(clippy::print_stderr, reason = "a command for people at a terminal; this is the one place")]
pub fn error(error: &anyhow::Error) {
    eprintln!("error: {error:#}");
}

/// The title of a phase.
pub fn title(text: &str) {
    line(&format!("\n== {text}"));
}

/// A duration as people read it: `8.2 s`, `3 min 5 s`.
pub fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    if seconds < 60 {
        format!("{:.1} s", time.as_secs_f64())
    } else {
        format!("{} min {} s", seconds / 60, seconds % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_well() {
        let check = |millis, expected: &str| assert_eq!(duration(Duration::from_millis(millis)), expected);
        check(8_240, "8.2 s");
        check(185_900, "3 min 5 s");
    }
}
