/* What the charts share: numbers for people, elements, the line below a chart that speaks. */
"use strict";

const report = JSON.parse(document.getElementById("data").textContent);

const GAP = "\u00a0"; /* between a number and its unit no line ends */

function round(value, digits) {
  if (value === null || value === undefined) return "–";
  return Number(value.toPrecision(digits)).toLocaleString("en", { maximumSignificantDigits: digits });
}

/* Seconds, three digits. */
function time(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  const size = Math.abs(seconds);
  if (size >= 120) return round(seconds / 60, 3) + GAP + "min";
  if (size >= 1) return round(seconds, 3) + GAP + "s";
  if (size >= 1e-3) return round(seconds * 1e3, 3) + GAP + "ms";
  return size === 0 ? "0" : round(seconds * 1e6, 3) + GAP + "µs";
}

function percent(share) {
  if (share === null || share === undefined) return "–";
  return (share * 100).toFixed(Math.abs(share) < 0.0995 ? 1 : 0) + GAP + "%";
}

function bytes(n) {
  const unit = ["B", "KiB", "MiB", "GiB", "TiB"];
  let i = 0;
  while (n >= 1024 && i < unit.length - 1) {
    n /= 1024;
    ++i;
  }
  return round(n, 3) + GAP + unit[i];
}

function ratio(value) {
  return value === null || value === undefined ? "–" : value.toFixed(2);
}

/* make("p", {class: "note"}, "text", child, ...) */
function make(name, attributes, ...children) {
  return fill(document.createElement(name), attributes, children);
}

function draw(name, attributes, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
}

function fill(element, attributes, children) {
  for (const [key, value] of Object.entries(attributes || {})) element.setAttribute(key, value);
  element.append(...children.filter((child) => child !== null));
  return element;
}

function place(section, what = ".chart") {
  return document.querySelector("#" + section + " " + what);
}

function say(section, text, what = ".lead") {
  place(section, what).textContent = text;
}

/* The sentence below a chart about the cell or point under the mouse or the cursor. */
function readout(parent) {
  const line = make("p", { class: "readout", "aria-live": "polite" });
  parent.append(line);
  return (text) => { line.textContent = text; };
}

/* Round numbers from 0 to about the highest. */
function ticks(highest, about) {
  if (!(highest > 0)) return [0, 1];
  const raw = highest / about;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((m) => m >= raw);
  const list = [];
  for (let i = 0; i * step < highest + step * 0.999; ++i) list.push(i * step);
  return list;
}

/* Draws now and whenever the width changes: picture(width) returns an svg. */
function keep(parent, picture) {
  const holder = make("div");
  parent.append(holder);
  let width = 0;
  const again = () => {
    const now = Math.round(holder.clientWidth) || 900;
    if (now !== width) {
      width = now;
      holder.replaceChildren(picture(width));
    }
  };
  again();
  new ResizeObserver(again).observe(holder);
}

function canvas(width, height, label) {
  return draw("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img",
    "aria-label": label });
}

function write(svg, x, y, text, attributes) {
  svg.append(draw("text", Object.assign({ x, y }, attributes), text));
}

/* columns: [{head, of(row), kind: "number" | "bar" | undefined}]; bars are shares of the largest. */
function table(columns, rows, caption, isBad) {
  const head = make("tr", {}, ...columns.map((c) =>
    make("th", { scope: "col", class: c.kind || "" }, c.head)));
  const largest = columns.map((c) =>
    c.kind === "bar" ? Math.max(1e-12, ...rows.map((row) => c.of(row))) : 0);
  const body = rows.map((row) => {
    const cells = columns.map((c, i) => {
      if (c.kind === "bar") {
        const share = Math.max(0, c.of(row)) / largest[i] * 100;
        return make("td", { class: "bar", "aria-hidden": "true" },
          make("span", { style: `width:${share.toFixed(1)}%` }));
      }
      const value = c.of(row);
      const text = value === null || value === undefined ? "–" : String(value);
      return i === 0 ? make("th", { scope: "row" }, text)
        : make("td", { class: c.kind || "" }, text);
    });
    return make("tr", isBad && isBad(row) ? { class: "bad" } : {}, ...cells);
  });
  return make("div", { class: "scroll" }, make("table", {},
    caption ? make("caption", {}, caption) : null,
    make("thead", {}, head), make("tbody", {}, ...body)));
}

function folded(summary, ...content) {
  return make("details", {}, make("summary", {}, summary), ...content);
}

function legend(entries) {
  return make("ul", { class: "legend" }, ...entries.map(([style, text]) =>
    make("li", {}, draw("svg", { width: 14, height: 10, "aria-hidden": "true" },
      style.startsWith("line-") ? draw("path", { d: "M0 5H14", class: style })
        : draw("rect", { width: 14, height: 10, class: style })), text)));
}
