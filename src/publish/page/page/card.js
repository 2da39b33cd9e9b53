// Of the model card, what a visitor has to know: its lead, what the model is for, and where it fails.

const SHOWN = ["What it is for", "Where it fails"];

// Elements of the Markdown of README.md.
export function elements(markdown) {
  const body = markdown.replace(/^\s*---\n.*?\n---\n/s, "");
  const [lead, ...sections] = body.split(/^## /m);
  const shown = SHOWN.flatMap((title) => sections.filter((section) => section.split("\n", 1)[0].trim() === title));
  return [lead, ...shown.map((section) => `## ${section}`)].flatMap((part) => part.trim().split(/\n\s*\n/).flatMap(block));
}

function block(text) {
  const lines = text.trim().split("\n");
  const heading = lines[0].match(/^(#+) (.*)/);
  if (heading) return [element(`h${heading[1].length + 1}`, inline(heading[2])), ...(lines[1] ? block(lines.slice(1).join("\n")) : [])];
  if (lines[0].startsWith("|")) return [table(lines)];
  if (/^- /.test(text)) return [element("ul", text.split(/^- /m).slice(1).map((item) => element("li", inline(item))))];
  return [Object.assign(element("p", inline(text)), { className: text.startsWith("**") ? "warning" : "" })];
}

function table(lines) {
  const rows = lines.map((line) => line.trim().slice(1, -1).split(/(?<!\\)\|/).map((cell) => cell.trim()));
  const row = (cells, tag) => element("tr", cells.map((cell) => element(tag, inline(cell))));
  const made = element("table", [
    element("thead", [row(rows[0], "th")]),
    element("tbody", rows.slice(2).map((cells) => row(cells, "td"))),
  ]);
  const box = Object.assign(element("div", [made]), { className: "scroll", tabIndex: 0, role: "region", ariaLabel: "Table" });
  return element("details", [element("summary", inline(rows[0][0])), box]);
}

// Text with **bold** and `code` in it, as nodes.
function inline(text) {
  return text.replace(/\s+/g, " ").trim().split(/(\*\*.*?\*\*|`.*?`)/).map((part) => {
    if (part.startsWith("**")) return element("strong", [part.slice(2, -2)]);
    return part.startsWith("`") ? element("code", [part.slice(1, -1)]) : part;
  });
}

function element(tag, children) {
  const made = document.createElement(tag);
  made.append(...children);
  return made;
}
