//! A part of a text file that is ours, between two marks; everything else in the file belongs to the operator and stays.

use std::path::Path;

use anyhow::Result;
use fs_err as fs;

use crate::durable;

const BEGIN: &str = "# begin of what appliance writes; everything outside of it is yours";
const END: &str = "# end of what appliance writes";

/// Whether the file's block holds exactly these lines.
pub fn is_current(path: &Path, lines: &[String]) -> Result<bool> {
    let old = read(path)?;
    Ok(replace(&old, lines) == old)
}

/// Gives the file's block these lines; makes the file, or the block at its end, when it is not there.
pub fn write(path: &Path, lines: &[String], mode: u32) -> Result<()> {
    durable::write(path, replace(&read(path)?, lines).as_bytes(), mode, None)?;
    Ok(())
}

fn read(path: &Path) -> Result<String> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(error.into()),
    }
}

/// The text with the block's lines replaced. No lines make no block.
fn replace(text: &str, lines: &[String]) -> String {
    let mut block = String::new();
    if !lines.is_empty() {
        block = format!("{BEGIN}\n{}\n{END}\n", lines.join("\n"));
    }
    let mut result = String::new();
    let mut inside = false;
    let mut placed = false;
    for line in text.lines() {
        match line {
            BEGIN => {
                inside = true;
                if !placed {
                    result.push_str(&block);
                    placed = true;
                }
            }
            END => inside = false,
            _ if inside => {}
            _ => {
                result.push_str(line);
                result.push('\n');
            }
        }
    }
    if !placed {
        result.push_str(&block);
    }
    result
}

#[cfg(test)]
mod tests {
    use super::{BEGIN, END, replace};

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn only_the_block_changes() {
        let ours = |text: &str| format!("{BEGIN}\n{text}\n{END}\n");
        for (old, wanted, expected) in [
            (String::new(), "a", ours("a")),
            ("mine".to_owned(), "a", format!("mine\n{}", ours("a"))),
            (format!("before\n{}after\n", ours("a\nb")), "c", format!("before\n{}after\n", ours("c"))),
            (format!("before\n{}after\n", ours("a")), "", "before\nafter\n".to_owned()),
            (String::new(), "", String::new()),
        ] {
            let new = replace(&old, &lines(wanted));
            assert_eq!(new, expected);
            assert_eq!(replace(&new, &lines(wanted)), new, "a second time changes nothing");
        }
    }
}
