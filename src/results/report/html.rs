//! Pieces of HTML: escaped text, tables, the frame of a page. Everything a page needs is inside it.

/// Style of all pages.
const STYLE: &str = include_str!("style.css");

/// Values under the pointer.
const SCRIPT: &str = include_str!("script.js");

/// Text for element content and quoted attributes; characters that HTML does not allow become U+FFFD.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' | '\t' => out.push(character),
            control if control.is_control() => out.push('\u{fffd}'),
            other => out.push(other),
        }
    }
    out
}

/// A whole page. `navigation`: anchors and names of its sections.
pub fn page(title: &str, subtitle: &str, navigation: &[(&str, &str)], body: &str) -> String {
    let items: String =
        navigation.iter().map(|(id, name)| format!("<li><a href=\"#{id}\">{}</a></li>", escape(name))).collect();
    let navigation = match navigation {
        [] => String::new(),
        _ => format!("<nav aria-label=\"Sections\"><ul>{items}</ul></nav>\n"),
    };
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{title}</title>\n\
         <link rel=\"icon\" href=\"data:,\">\n<style>\n{STYLE}</style>\n</head>\n<body>\n\
         <a class=\"skip\" href=\"#main\">Skip to the content</a>\n\
         <header>\n<h1>{title}</h1>\n<p class=\"soft\">{subtitle}</p>\n{navigation}</header>\n\
         <main id=\"main\">\n{body}</main>\n\
         <footer>Written by vlp {version}. The page holds everything it shows and fetches nothing.</footer>\n\
         <script>\n{SCRIPT}</script>\n</body>\n</html>\n",
        title = escape(title),
        subtitle = escape(subtitle),
        version = env!("CARGO_PKG_VERSION"),
    )
}

/// A section of a page; nothing when it has no content.
pub fn section(id: &str, title: &str, content: &str) -> String {
    if content.is_empty() {
        return String::new();
    }
    format!(
        "<section id=\"{id}\" aria-labelledby=\"{id}-title\">\n<h2 id=\"{id}-title\">{}</h2>\n{content}</section>\n",
        escape(title)
    )
}

/// A cell: HTML that is already escaped, and its class.
#[derive(Debug, Clone, Default)]
pub struct Cell {
    /// Content.
    pub html: String,
    /// `n` for numbers, `best`, …; may be empty.
    pub class: &'static str,
}

impl Cell {
    /// Plain text.
    pub fn text(text: &str) -> Self {
        Self { html: escape(text), class: "" }
    }

    /// A number, set to the right.
    pub fn number(text: &str) -> Self {
        Self { html: escape(text), class: "n" }
    }

    /// A long value that may be broken anywhere.
    pub fn value(text: &str) -> Self {
        Self { html: format!("<code>{}</code>", escape(text)), class: "value" }
    }
}

/// A column: HTML of its header, and whether it holds numbers.
pub type Column = (String, bool);

/// A table whose first column names the rows. `stacked`: on a narrow screen each row becomes a list, with `labels` before the
/// values.
pub fn table(label: &str, columns: &[Column], rows: &[Vec<Cell>], stacked: Option<&[&str]>) -> String {
    let mut out = format!("<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"{}\">\n", escape(label));
    out.push_str(if stacked.is_some() { "<table class=\"stack\">\n<thead><tr>" } else { "<table>\n<thead><tr>" });
    for (header, number) in columns {
        let class = if *number { " class=\"n\"" } else { "" };
        out.push_str(&format!("<th scope=\"col\"{class}>{header}</th>"));
    }
    out.push_str("</tr></thead>\n<tbody>\n");
    for row in rows {
        out.push_str("<tr>");
        for (index, cell) in row.iter().enumerate() {
            let class = if cell.class.is_empty() { String::new() } else { format!(" class=\"{}\"", cell.class) };
            let label = stacked.and_then(|labels| labels.get(index)).map(|l| format!(" data-label=\"{}\"", escape(l)));
            let label = label.unwrap_or_default();
            out.push_str(&match index {
                0 => format!("<th scope=\"row\"{class}>{}</th>", cell.html),
                _ => format!("<td{class}{label}>{}</td>", cell.html),
            });
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody>\n</table>\n</div>\n");
    out
}

/// The name of a run behind its colour.
pub fn run_label(name: &str, color: usize) -> String {
    format!("{}{}", dot(color), escape(name))
}

/// The colour of a run.
pub fn dot(color: usize) -> String {
    format!("<span class=\"dot\" style=\"--run: var(--r{})\"></span>", color % COLORS)
}

/// Colours of the style sheet.
pub const COLORS: usize = 8;
