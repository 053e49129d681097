//! Where the time goes, as a flame graph: what stands on something was called by it, and its width is its share of the samples.

use std::fmt::Write;

use serde::{Deserialize, Serialize};

/// A function in a place of the stack, with what it called.
#[derive(Debug, Default, Deserialize, Serialize)]
pub struct Frame {
    /// Its name; that of a function of the kernel ends with `_[k]`.
    pub name: String,
    /// Samples in which it was there.
    pub samples: u64,
    /// What it called.
    pub children: Vec<Self>,
}

impl Frame {
    /// Of what `perf script -F ip,sym` says: stacks, innermost first, with an empty line between two. What stands below the first function
    /// of the product (`mark`) is left out, and what has fewer than two of a thousand samples.
    pub fn read(name: &str, text: &str, mark: &str) -> Self {
        let mut all = Self { name: name.to_owned(), ..Self::default() };
        for stack in text.split("\n\n") {
            let mut stack: Vec<String> = stack.lines().rev().filter_map(function).collect();
            if stack.is_empty() {
                continue;
            }
            let first = stack.iter().position(|name| name.contains(mark)).unwrap_or(0);
            all.add(stack.drain(first..));
        }
        all.prune(all.samples / 500);
        all
    }

    fn add(&mut self, stack: impl Iterator<Item = String>) {
        self.samples += 1;
        let mut at = self;
        for name in stack {
            let known = at.children.iter().position(|child| child.name == name);
            let index = known.unwrap_or_else(|| {
                at.children.push(Self { name, ..Self::default() });
                at.children.len() - 1
            });
            at = &mut at.children[index];
            at.samples += 1;
        }
    }

    fn prune(&mut self, least: u64) {
        self.children.retain(|child| child.samples > least);
        self.children.sort_by(|one, other| one.name.cmp(&other.name));
        self.children.iter_mut().for_each(|child| child.prune(least));
    }

    fn height(&self) -> u32 {
        1 + self.children.iter().map(Self::height).max().unwrap_or(0)
    }

    /// A picture that tells the names of what is too narrow for one when the pointer rests on it.
    pub fn svg(&self) -> String {
        let height = self.height() * ROW;
        let mut svg = format!(
            "<svg role=\"img\" viewBox=\"0 0 {WIDTH} {height}\" style=\"max-width: 100%; height: auto\" font-family=\"sans-serif\" \
             font-size=\"11\" fill=\"currentColor\">\n"
        );
        self.draw(&mut svg, 0.0, height - ROW, WIDTH / self.samples.max(1) as f64, self.samples);
        svg + "</svg>"
    }

    fn draw(&self, svg: &mut String, left: f64, top: u32, scale: f64, all: u64) {
        let width = self.samples as f64 * scale;
        let kernel = self.name.strip_suffix(KERNEL);
        let colour = match kernel {
            Some(_) => "#8a8f98",
            None if self.name.contains("domicile") => "#2f81f7",
            None => "#e07b00",
        };
        let name = kernel.unwrap_or(&self.name);
        // Eleven pixels high letters are some six wide.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "letters that fit")]
        let fits = ((width - 4.0) / 6.2).max(0.0) as usize;
        let label: String = name.trim_start_matches("domicile::").chars().take(fits).collect();
        let label = if fits < 4 { "" } else { &label };
        let percent = 100.0 * self.samples as f64 / all as f64;
        // Writing to a String does not fail.
        writeln!(
            svg,
            "<g><title>{} ({percent:.1} %)</title><rect x=\"{left:.1}\" y=\"{top}\" width=\"{:.1}\" height=\"{}\" rx=\"2\" fill=\"{colour}\" \
             fill-opacity=\"0.4\"/><text x=\"{:.1}\" y=\"{}\">{}</text></g>",
            super::escape(name),
            (width - 0.5).max(0.2),
            ROW - 1,
            left + 3.0,
            top + 12,
            super::escape(label)
        )
        .ok();
        let mut left = left;
        for child in &self.children {
            child.draw(svg, left, top.saturating_sub(ROW), scale, all);
            left += child.samples as f64 * scale;
        }
    }
}

/// The name in a line of a stack: behind the address, whose upper half tells the kernel.
fn function(line: &str) -> Option<String> {
    let (address, name) = line.trim().split_once(' ')?;
    let kernel = if address.len() == 16 && address.starts_with("ffff") { KERNEL } else { "" };
    Some(format!("{}{kernel}", name.trim()))
}

const KERNEL: &str = "_[k]";
const WIDTH: f64 = 860.0;
const ROW: u32 = 17;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stacks_become_frames_with_their_samples() {
        let stack = |inner: &str| format!("\n\t{inner}\n\t  6d9b80 domicile::Ring::wait\n\t  891f4 start_thread\n\n");
        let text = stack("ffffffff8201030f tcp_sendmsg_locked").repeat(2) + &stack("          101829 a<b>");
        let all = Frame::read("domicile", &text, "domicile::");
        let [wait] = all.children.as_slice() else { panic!("{all:?}") };
        assert_eq!((all.samples, wait.name.as_str(), wait.samples), (3, "domicile::Ring::wait", 3));
        let inner: Vec<_> = wait.children.iter().map(|child| (child.name.as_str(), child.samples)).collect();
        assert_eq!(inner, [("a<b>", 1), ("tcp_sendmsg_locked_[k]", 2)]);
        let svg = all.svg();
        assert!(svg.contains("<title>a&lt;b&gt; (33.3 %)</title>") && svg.contains(">Ring::wait</text>"), "{svg}");
    }
}
