//! The drawings of `vlp graph`: a tree of lines, and an SVG picture. Pure functions of the nodes.

use std::collections::BTreeSet;

use super::Node;

/// Sizes of the picture, in pixels.
const BOX_WIDTH: usize = 300;
const LINE_HEIGHT: usize = 18;
const GAP_X: usize = 60;
const GAP_Y: usize = 16;
const MARGIN: usize = 12;

/// At most this many runs of an experiment are drawn, the newest.
const RUNS: usize = 3;

/// The experiments as a tree, what they start from above them; runs below their experiment.
pub fn text(nodes: &[Node]) -> String {
    let (mut out, mut seen) = (String::new(), BTreeSet::new());
    for root in roots(nodes) {
        branch(nodes, root, ["", ""], &mut seen, &mut out);
    }
    out
}

/// `start` is what stands before the first line, and before all others.
fn branch(nodes: &[Node], index: usize, start: [&str; 2], seen: &mut BTreeSet<usize>, out: &mut String) {
    let [first, rest] = start;
    seen.insert(index);
    let children: Vec<usize> = children(nodes, index).into_iter().filter(|child| !seen.contains(child)).collect();
    let trunk = if children.is_empty() { "   " } else { "│  " };
    for (i, line) in lines(&nodes[index]).iter().enumerate() {
        let start = if i == 0 { first.to_string() } else { format!("{rest}{trunk}") };
        out.push_str(format!("{start}{line}").trim_end());
        out.push('\n');
    }
    for (i, child) in children.iter().enumerate() {
        let (first, trunk) = if i + 1 == children.len() { ("└─ ", "   ") } else { ("├─ ", "│  ") };
        branch(nodes, *child, [&format!("{rest}{first}"), &format!("{rest}{trunk}")], seen, out);
    }
}

/// The lines of an experiment: its name, where its weights come from, its runs.
fn lines(node: &Node) -> Vec<String> {
    let mut lines = vec![node.name.clone()];
    lines.extend(node.from.as_ref().map(|from| format!("from {from}")));
    if node.runs.is_empty() {
        lines.push("not run".into());
    }
    if node.runs.len() > RUNS {
        lines.push(format!("… and {} older runs", node.runs.len() - RUNS));
    }
    lines.extend(node.runs.iter().skip(node.runs.len().saturating_sub(RUNS)).cloned());
    lines
}

fn children(nodes: &[Node], index: usize) -> Vec<usize> {
    (0..nodes.len()).filter(|i| nodes[*i].upstream == Some(index)).collect()
}

/// Experiments that start from no other, and one of each circle.
fn roots(nodes: &[Node]) -> Vec<usize> {
    let mut roots: Vec<usize> = (0..nodes.len()).filter(|i| nodes[*i].upstream.is_none()).collect();
    let mut reached = BTreeSet::new();
    roots.iter().for_each(|root| reach(nodes, *root, &mut reached));
    for index in 0..nodes.len() {
        if !reached.contains(&index) {
            reach(nodes, index, &mut reached);
            roots.push(index);
        }
    }
    roots
}

fn reach(nodes: &[Node], index: usize, reached: &mut BTreeSet<usize>) {
    if reached.insert(index) {
        children(nodes, index).into_iter().for_each(|child| reach(nodes, child, reached));
    }
}

/// The experiments as boxes, what they start from to the left of them.
pub fn svg(nodes: &[Node]) -> String {
    let mut placed: Vec<Placed> = Vec::new();
    let mut bottom = MARGIN;
    for root in roots(nodes) {
        place(nodes, root, None, 0, &mut bottom, &mut placed);
    }
    let depth = placed.iter().map(|p| p.depth + 1).max().unwrap_or(0);
    let width = 2 * MARGIN + depth * BOX_WIDTH + depth.saturating_sub(1) * GAP_X;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
        bottom.max(2 * MARGIN)
    );
    for node in &placed {
        if let Some(parent) = node.parent.map(|parent| &placed[parent]) {
            let (from, to) = (parent.x() + BOX_WIDTH, node.x());
            let middle = from + GAP_X / 2;
            let path = format!("M{from} {} H{middle} V{} H{to}", parent.middle(), node.middle());
            out.push_str(&format!("<path d=\"{path}\" fill=\"none\" stroke=\"#888\"/>\n"));
        }
    }
    for node in &placed {
        let (x, y) = (node.x(), node.y);
        out.push_str(&format!(
            "<rect x=\"{x}\" y=\"{y}\" width=\"{BOX_WIDTH}\" height=\"{}\" rx=\"4\" fill=\"#f4f4f4\" stroke=\"#444\"/>\n",
            node.height
        ));
        for (i, line) in lines(&nodes[node.index]).iter().enumerate() {
            let weight = if i == 0 { " font-weight=\"bold\"" } else { "" };
            let baseline = y + (i + 1) * LINE_HEIGHT;
            let line = escape(&shortened(line));
            out.push_str(&format!("<text x=\"{}\" y=\"{baseline}\"{weight}>{line}</text>\n", x + 8));
        }
    }
    out.push_str("</svg>\n");
    out
}

/// A box in the picture.
struct Placed {
    index: usize,
    parent: Option<usize>,
    depth: usize,
    y: usize,
    height: usize,
}

impl Placed {
    fn x(&self) -> usize {
        MARGIN + self.depth * (BOX_WIDTH + GAP_X)
    }

    fn middle(&self) -> usize {
        self.y + self.height / 2
    }
}

/// Places a box, and right of it those that start from it: the first at the same height, the others below.
fn place(
    nodes: &[Node],
    index: usize,
    parent: Option<usize>,
    depth: usize,
    bottom: &mut usize,
    placed: &mut Vec<Placed>,
) {
    let (y, height) = (*bottom, (lines(&nodes[index]).len()) * LINE_HEIGHT + 8);
    let own = placed.len();
    placed.push(Placed { index, parent, depth, y, height });
    for child in children(nodes, index) {
        if placed.iter().all(|p| p.index != child) {
            place(nodes, child, Some(own), depth + 1, bottom, placed);
        }
    }
    *bottom = (*bottom).max(y + height + GAP_Y);
}

/// A line that fits into a box: of a long one, its end.
fn shortened(line: &str) -> String {
    const FITS: usize = 44;
    let length = line.chars().count();
    if length <= FITS {
        return line.to_string();
    }
    format!("…{}", line.chars().skip(length - FITS + 1).collect::<String>())
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, from: Option<&str>, upstream: Option<usize>, runs: &[&str]) -> Node {
        let runs = runs.iter().map(|run| run.to_string()).collect();
        Node { file: format!("{name}.toml").into(), name: name.into(), from: from.map(String::from), upstream, runs }
    }

    fn family() -> Vec<Node> {
        vec![
            node("cc", Some("${ROOT}/uni<lm>.bin"), None, &["1  finished"]),
            node("ce", None, Some(0), &["2  failed", "3  finished  val/cider 52.1 (epoch 16)"]),
            node("scratch", None, None, &[]),
            node("scst", None, Some(1), &[]),
            node("vqa", None, Some(0), &["4  a", "5  b", "6  c", "7  d"]),
        ]
    }

    #[test]
    fn a_tree_of_lines() {
        let expected = "\
cc
│  from ${ROOT}/uni<lm>.bin
│  1  finished
├─ ce
│  │  2  failed
│  │  3  finished  val/cider 52.1 (epoch 16)
│  └─ scst
│        not run
└─ vqa
      … and 1 older runs
      5  b
      6  c
      7  d
scratch
   not run
";
        assert_eq!(text(&family()), expected);
    }

    #[test]
    fn a_picture_has_a_box_for_each_and_a_line_for_each_start() {
        let picture = svg(&family());
        assert_eq!(picture.matches("<rect x=").count(), 5);
        assert_eq!(picture.matches("<path ").count(), 3);
        assert!(picture.contains("from ${ROOT}/uni&lt;lm&gt;.bin"), "{picture}");
        let boxes: Vec<&str> = picture.lines().filter(|line| line.starts_with("<rect x=")).collect();
        assert!(boxes[0].starts_with("<rect x=\"12\" y=\"12\""), "{picture}");
        assert!(boxes[1].starts_with("<rect x=\"372\" y=\"12\""), "{picture}");
    }
}
