//! The picture of sizes: rectangles whose areas are as the bytes are, as square as can be (Bruls, Huizing, van Wijk: Squarified
//! Treemaps, 2000).

use super::html::{Writer, escape};
use super::sizes::Large;
use super::text::{folder_words, size};
use super::{Folder, shown};

/// Shape of the picture, width to height, which the rectangles are made square for.
const SHAPE: (f64, f64) = (1160.0, 620.0);
/// Folders smaller than this part of the whole are drawn together.
const SMALLEST: f64 = 0.0004;
/// Folders in folders that are drawn.
const DEPTH: usize = 9;

/// A rectangle; units are the caller's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rectangle {
    /// Left edge.
    pub x: f64,
    /// Upper edge.
    pub y: f64,
    /// Width.
    pub width: f64,
    /// Height.
    pub height: f64,
}

/// Divides an area among weights, which are positive and descend. The result is in their order.
pub fn squarify(weights: &[f64], area: Rectangle) -> Vec<Rectangle> {
    let total: f64 = weights.iter().sum();
    let mut placed = Vec::with_capacity(weights.len());
    let mut free = area;
    let mut rest = weights;
    let scale = if total > 0.0 { area.width * area.height / total } else { 0.0 };
    while !rest.is_empty() {
        let side = free.width.min(free.height);
        // A row grows as long as that makes its worst rectangle more square.
        let mut count = 1;
        let mut sum = rest[0];
        while count < rest.len()
            && worst(&rest[..=count], sum + rest[count], side, scale)
                <= worst(&rest[..count], sum, side, scale)
        {
            sum += rest[count];
            count += 1;
        }
        let thickness = if side > 0.0 { sum * scale / side } else { 0.0 };
        let mut along = 0.0;
        for weight in &rest[..count] {
            let length = if sum > 0.0 { side * weight / sum } else { 0.0 };
            placed.push(if free.width >= free.height {
                Rectangle { x: free.x, y: free.y + along, width: thickness, height: length }
            } else {
                Rectangle { x: free.x + along, y: free.y, width: length, height: thickness }
            });
            along += length;
        }
        if free.width >= free.height {
            free = Rectangle { x: free.x + thickness, width: (free.width - thickness).max(0.0), ..free };
        } else {
            free = Rectangle { y: free.y + thickness, height: (free.height - thickness).max(0.0), ..free };
        }
        rest = &rest[count..];
    }
    placed
}

/// How far from square the worst rectangle of a row is.
fn worst(row: &[f64], sum: f64, side: f64, scale: f64) -> f64 {
    let (largest, smallest) = (row[0], row[row.len() - 1]);
    let (side, area) = (side * side, sum * scale);
    if smallest <= 0.0 || area <= 0.0 {
        return f64::INFINITY;
    }
    (side * largest * scale / (area * area)).max(area * area / (side * smallest * scale))
}

/// What bytes are for, by where they lie; decides a colour. The second word is what a person reads.
pub const PURPOSES: [(&str, &str); 7] = [
    ("kernel", "kernel, modules, firmware"),
    ("application", "application"),
    ("libraries", "libraries"),
    ("programs", "programs"),
    ("data", "shared data"),
    ("state", "state"),
    ("other", "configuration and the rest"),
];

/// The purpose of a folder, as a place in [`PURPOSES`].
pub fn purpose(path: &str) -> usize {
    let below = |folders: &[&str]| {
        folders.iter().any(|folder| {
            path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    };
    if below(&["/boot", "/usr/lib/modules", "/lib/modules", "/usr/lib/firmware", "/lib/firmware"]) {
        0
    } else if below(&["/home", "/opt", "/srv"]) {
        1
    } else if below(&["/usr/lib", "/usr/lib64", "/usr/lib32", "/lib", "/lib64"]) {
        2
    } else if below(&["/usr/bin", "/usr/sbin", "/usr/libexec", "/usr/local", "/bin", "/sbin"]) {
        3
    } else if below(&["/usr/share", "/usr/include"]) {
        4
    } else if below(&["/var"]) {
        5
    } else {
        6
    }
}

/// Bytes of each purpose.
pub fn by_purpose(root: &Folder) -> [u64; 7] {
    fn add(folder: &Folder, path: &str, sums: &mut [u64; 7]) {
        let sum = &mut sums[purpose(path)];
        *sum = sum.saturating_add(folder.own);
        for below in &folder.folders {
            add(below, &format!("{path}/{}", below.name), sums);
        }
    }
    let mut sums = [0; 7];
    add(root, "", &mut sums);
    sums
}

/// One rectangle to draw.
enum Cell<'a> {
    Folder(&'a Folder),
    /// One of the folder's own files.
    File(&'a Large),
    /// The rest of its own files.
    Files(u64),
    /// Folders that are too small to be drawn, and how many they are.
    Small(u64, usize),
}

impl Cell<'_> {
    fn bytes(&self) -> u64 {
        match self {
            Cell::Folder(folder) => folder.bytes,
            Cell::File(file) => file.bytes,
            Cell::Files(bytes) | Cell::Small(bytes, _) => *bytes,
        }
    }
}

/// Draws the tree as nested boxes; places are per cent of the box around, so the picture fits any screen.
pub fn draw(root: &Folder, out: &mut Writer) {
    let area = Rectangle { x: 0.0, y: 0.0, width: SHAPE.0, height: SHAPE.1 };
    boxes(root, "", area, root.bytes, 0, out);
}

fn boxes(folder: &Folder, path: &str, area: Rectangle, whole: u64, depth: usize, out: &mut Writer) {
    #[expect(clippy::cast_precision_loss, reason = "a picture has fewer points than a float has digits")]
    let part = |bytes: u64| bytes as f64 / whole.max(1) as f64;
    let is_drawn = |bytes: u64| bytes > 0 && part(bytes) >= SMALLEST;
    let (large, small): (Vec<_>, Vec<_>) = folder.folders.iter().partition(|below| is_drawn(below.bytes));
    let mut cells: Vec<Cell<'_>> = large.into_iter().map(Cell::Folder).collect();
    let files = || folder.large.iter().filter(|file| is_drawn(file.bytes));
    cells.extend(files().map(Cell::File));
    let rest = files().fold(folder.own, |rest, file| rest.saturating_sub(file.bytes));
    if is_drawn(rest) {
        cells.push(Cell::Files(rest));
    }
    let together = small.iter().fold(0_u64, |sum, below| sum.saturating_add(below.bytes));
    if is_drawn(together) {
        cells.push(Cell::Small(together, small.len()));
    }
    cells.sort_by_key(|cell| std::cmp::Reverse(cell.bytes()));
    #[expect(clippy::cast_precision_loss, reason = "a picture has fewer points than a float has digits")]
    let weights: Vec<f64> = cells.iter().map(|cell| cell.bytes() as f64).collect();
    for (cell, place) in cells.iter().zip(squarify(&weights, area)) {
        let percent = |value: f64, of: f64| if of > 0.0 { value / of * 100.0 } else { 0.0 };
        let style = format!(
            "left:{:.3}%;top:{:.3}%;width:{:.3}%;height:{:.3}%",
            percent(place.x - area.x, area.width),
            percent(place.y - area.y, area.height),
            percent(place.width, area.width),
            percent(place.height, area.height)
        );
        let share = format!("{:.1} %", part(cell.bytes()) * 100.0);
        match cell {
            Cell::Folder(below) => {
                let full = format!("{path}/{}", below.name);
                let class = PURPOSES[purpose(&full)].0;
                let opens = depth + 1 < DEPTH
                    && (below.folders.iter().any(|inner| is_drawn(inner.bytes))
                        || below.large.iter().filter(|file| is_drawn(file.bytes)).count() > 1);
                let packages = if below.packages.is_empty() {
                    String::new()
                } else {
                    format!("\n{}", below.packages.join(", "))
                };
                let title = format!("{full}\n{} · {share}{packages}", folder_words(below));
                let kind = if opens { "box" } else { "leaf" };
                let focus = if opens { " tabindex=\"0\" role=\"button\"" } else { "" };
                out.raw(&format!("<div class=\"cell {kind} {class}\" style=\"{style}\" title=\"{}\" data-path=\"{}\"{focus}>", escape(&title), escape(&full)));
                out.raw(&format!(
                    "<span class=\"name\">{} <small>{}</small></span>",
                    escape(&shown(below.name.as_bytes())),
                    size(below.bytes)
                ));
                if opens {
                    out.raw("<div class=\"in\">");
                    // The name at the top takes some of the height; what is below is made square for the rest.
                    let inner = Rectangle { height: (place.height - 18.0).max(place.height * 0.5), ..place };
                    boxes(below, &full, inner, whole, depth + 1, out);
                    out.raw("</div>");
                }
                out.raw("</div>\n");
            }
            Cell::File(_) | Cell::Files(..) | Cell::Small(..) => {
                let here = if path.is_empty() { "/" } else { path };
                let (name, what, packages) = match cell {
                    Cell::File(file) => (
                        file.name.clone(),
                        format!("{path}/{}", file.name),
                        file.package.clone().unwrap_or_default(),
                    ),
                    Cell::Small(_, number) => (
                        format!("{number} small"),
                        format!("{number} small folders in {here}"),
                        String::new(),
                    ),
                    _ => ("files".to_owned(), format!("smaller files in {here}"), folder.packages.join(", ")),
                };
                let packages = if packages.is_empty() { packages } else { format!("\n{packages}") };
                let title = format!("{what}\n{} · {share}{packages}", size(cell.bytes()));
                let class = PURPOSES[purpose(path)].0;
                let own = if matches!(cell, Cell::File(_)) { "" } else { " own" };
                out.raw(&format!(
                    "<div class=\"cell leaf{own} {class}\" style=\"{style}\" title=\"{}\"><span class=\"name\">{} <small>{}</small></span></div>\n",
                    escape(&title),
                    escape(&name),
                    size(cell.bytes())
                ));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn areas_are_as_the_weights_inside_and_apart(
            mut weights in proptest::collection::vec(1_u32..1_000_000, 1..60),
            width in 10.0_f64..2000.0,
            height in 10.0_f64..2000.0,
        ) {
            weights.sort_unstable_by(|a, b| b.cmp(a));
            let weights: Vec<f64> = weights.into_iter().map(f64::from).collect();
            let area = Rectangle { x: 3.0, y: 5.0, width, height };
            let placed = squarify(&weights, area);
            let (whole, sum) = (width * height, weights.iter().sum::<f64>());
            let slack = 1e-6 * (width + height);
            proptest::prop_assert_eq!(placed.len(), weights.len());
            for (index, (one, weight)) in placed.iter().zip(&weights).enumerate() {
                proptest::prop_assert!((one.width * one.height / whole - weight / sum).abs() < 1e-6);
                proptest::prop_assert!(one.x >= area.x - slack && one.x + one.width <= area.x + width + slack);
                proptest::prop_assert!(one.y >= area.y - slack && one.y + one.height <= area.y + height + slack);
                for other in &placed[index + 1..] {
                    let apart = one.x + one.width <= other.x + slack || other.x + other.width <= one.x + slack
                        || one.y + one.height <= other.y + slack || other.y + other.height <= one.y + slack;
                    proptest::prop_assert!(apart, "{one:?} {other:?}");
                }
            }
        }
    }

    #[test]
    fn the_example_of_the_paper() {
        let placed = squarify(
            &[6.0, 6.0, 4.0, 3.0, 2.0, 2.0, 1.0],
            Rectangle { x: 0.0, y: 0.0, width: 6.0, height: 4.0 },
        );
        let first = placed[0];
        assert!((first.width - 3.0).abs() < 1e-9 && (first.height - 2.0).abs() < 1e-9, "{first:?}");
        let worst = placed
            .iter()
            .map(|place| (place.width / place.height).max(place.height / place.width))
            .fold(0.0, f64::max);
        assert!(worst < 3.0, "{worst}");
    }

    #[test]
    fn purposes() {
        for (path, word) in [
            ("/usr/lib/modules/6.1", "kernel"),
            ("/usr/lib", "libraries"),
            ("/usr/library", "other"),
            ("/home/mastodon", "application"),
            ("", "other"),
        ] {
            assert_eq!(PURPOSES[purpose(path)].0, word, "{path}");
        }
    }
}
