/* The charts: lines, a map of cells, bars to both sides, the lanes of one step. */
"use strict";

/* chart: {label, x: [], x_name, series: [{name, style, y: []}], marks: [{x, text}], unit(value),
 * tell(index)} */
function lineChart(parent, chart) {
  const tell = { now: () => {} };
  keep(parent, (width) => drawLines(width, chart, (text) => tell.now(text)));
  tell.now = readout(parent);
}

function drawLines(width, chart, tell) {
  const height = 260, left = 62, right = 128, top = 12, bottom = 36;
  const values = chart.series.flatMap((s) => s.y).filter((v) => v !== null);
  const scale = ticks(Math.max(...values), 4);
  const highest = scale[scale.length - 1];
  const first = chart.x[0], last = chart.x[chart.x.length - 1];
  const toX = (x) => left + (last === first ? 0.5 : (x - first) / (last - first)) *
    (width - left - right);
  const toY = (y) => top + (1 - y / highest) * (height - top - bottom);
  const svg = canvas(width, height, chart.label);
  for (const tick of scale) {
    svg.append(draw("path", { class: "grid", d: `M${left} ${toY(tick)}H${width - right}` }));
    write(svg, left - 8, toY(tick) + 4, chart.unit(tick), { "text-anchor": "end" });
  }
  for (const part of [0, 0.25, 0.5, 0.75, 1]) {
    const step = Math.round(first + part * (last - first));
    if (part === 0 || last - first >= 4) {
      write(svg, toX(step), height - bottom + 18, step, { "text-anchor": "middle" });
    }
  }
  write(svg, left, height - 2, chart.x_name);
  svg.append(draw("path", { class: "axis", d: `M${left} ${toY(0)}H${width - right}` }));
  const points = (y) => chart.x.map((x, i) => [toX(x), y[i]]).filter((p) => p[1] !== null);
  if (chart.between) {
    const upper = points(chart.between[0]), lower = points(chart.between[1]).reverse();
    svg.append(draw("path", { class: "area", d: "M" + upper.concat(lower)
      .map(([x, y]) => x.toFixed(1) + " " + toY(y).toFixed(1)).join("L") + "Z" }));
  }
  for (const series of chart.series) {
    const line = points(series.y);
    if (line.length === 0) continue;
    const d = line.map(([x, y]) => x.toFixed(1) + " " + toY(y).toFixed(1)).join("L");
    svg.append(draw("path", { class: series.style, d: "M" + d + (line.length === 1 ? "h3" : "") }));
  }
  labelLines(svg, chart, toY, width - right + 8);
  for (const mark of chart.marks) {
    const x = toX(mark.x).toFixed(1);
    svg.append(draw("path", { class: "axis", "stroke-dasharray": "2 3",
      d: `M${x} ${top}V${height - bottom}` }));
  }
  const cursor = draw("path", { class: "cursor", d: "" });
  svg.append(cursor);
  const point = (index) => {
    cursor.setAttribute("d", `M${toX(chart.x[index]).toFixed(1)} ${top}V${height - bottom}`);
    tell(chart.tell(index));
  };
  follow(svg, chart.x.length, (x) => nearest(chart.x, first + (x * width - left) /
    Math.max(1, width - left - right) * (last - first)), point);
  return svg;
}

function nearest(list, value) {
  let best = 0;
  list.forEach((x, i) => { if (Math.abs(x - value) < Math.abs(list[best] - value)) best = i; });
  return best;
}

/* Names at the right ends of their lines, pushed apart where they would touch. */
function labelLines(svg, chart, toY, x) {
  const labels = chart.series.map((s) => {
    const known = s.y.filter((v) => v !== null);
    return { s, y: known.length ? toY(known[known.length - 1]) + 4 : null };
  }).filter((l) => l.y !== null).sort((a, b) => a.y - b.y);
  labels.forEach((label, i) => {
    if (i > 0) label.y = Math.max(label.y, labels[i - 1].y + 15);
    write(svg, x, label.y, label.s.name, { class: label.s.style === "line-worst" ? "bad" : "strong" });
  });
}

/* Mouse and arrow keys over n positions in a row. */
function follow(svg, n, indexOf, point) {
  let at = n - 1;
  svg.setAttribute("tabindex", "0");
  const go = (index) => {
    at = Math.min(n - 1, Math.max(0, index));
    point(at);
  };
  svg.addEventListener("mousemove", (event) => {
    const box = svg.getBoundingClientRect();
    go(indexOf((event.clientX - box.left) / box.width));
  });
  svg.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: -1, ArrowRight: 1, Home: -n, End: n }[event.key];
    if (move === undefined) return;
    event.preventDefault();
    go(at + move);
  });
  svg.addEventListener("focus", () => point(at));
}

/* map: {label, n_row, n_column, value(row, column) (1: as usual; null: unknown), row_name(row),
 * column_name(column), row_title, column_title, tell(row, column), bad_row} */
function cellMap(parent, map) {
  const tell = { now: () => {} };
  keep(parent, (width) => drawCells(width, map, (text) => tell.now(text)));
  const rows = [...Array(map.n_row).keys()], columns = [...Array(map.n_column).keys()];
  parent.append(mapLegend(map.span,
    rows.some((row) => columns.some((column) => map.value(row, column) === null))));
  tell.now = readout(parent);
}

/* Where lanes are lower than a line of text, some go without a name, so that the bad one has room. */
function isNamed(row, bad, high) {
  const every = Math.max(1, Math.ceil(14 / high));
  return row === bad || (row % every === 0 && (bad < 0 || Math.abs(row - bad) >= every));
}

const LEVELS = 10;

/* -LEVELS .. LEVELS: how far from usual; `span` is where the colour is full. */
function level(value, span) {
  return Math.max(-LEVELS, Math.min(LEVELS, Math.round((value - 1) / span * LEVELS)));
}

function drawCells(width, map, tell) {
  const left = 62, right = 8, top = 4, bottom = 36;
  const high = Math.max(8, Math.min(26, Math.floor(520 / map.n_row)));
  const inside = width - left - right;
  const wide = Math.min(inside / map.n_column, 40);
  const height = top + map.n_row * high + bottom;
  const svg = canvas(width, height, map.label);
  svg.append(draw("rect", { class: "frame", x: left, y: top, width: wide * map.n_column,
    height: high * map.n_row }));
  for (let row = 0; row < map.n_row; ++row) drawRow(svg, map, row, { left, top, wide, high });
  for (let row = 0; row < map.n_row; ++row) {
    if (!isNamed(row, map.bad_row, high)) continue;
    write(svg, left - 8, top + row * high + high / 2 + 4, map.row_name(row),
      { "text-anchor": "end", class: row === map.bad_row ? "bad" : "" });
  }
  const longest = Math.max(...[0, map.n_column - 1].map((c) => String(map.column_name(c)).length));
  const apart = Math.max(1, Math.ceil((longest * 8 + 24) / wide));
  for (let column = 0; column < map.n_column; column += apart) {
    write(svg, left + (column + 0.5) * wide, height - bottom + 18, map.column_name(column),
      { "text-anchor": "middle" });
  }
  write(svg, left, height - 2, map.column_title);
  moveOver(svg, map, { left, top, wide, high, width }, tell);
  return svg;
}

/* Cells of one colour in a row are one rectangle: 64 ranks of 240 columns stay quick. */
function drawRow(svg, map, row, at) {
  let from = 0;
  const of = (column) => {
    const value = map.value(row, column);
    return value === null ? null : level(value, map.span);
  };
  for (let column = 1; column <= map.n_column; ++column) {
    if (column < map.n_column && of(column) === of(from)) continue;
    const depth = of(from);
    if (depth !== 0) {
      svg.append(draw("rect", {
        class: depth === null ? "fill-wait" : depth > 0 ? "fill-orange" : "fill-blue",
        "fill-opacity": depth === null ? 1 : (Math.abs(depth) / LEVELS).toFixed(2),
        x: (at.left + from * at.wide).toFixed(2), y: at.top + row * at.high + 0.5,
        width: ((column - from) * at.wide + 0.2).toFixed(2), height: at.high - 1 }));
    }
    from = column;
  }
}

function moveOver(svg, map, at, tell) {
  let row = Math.max(0, map.bad_row), column = 0;
  const cursor = draw("rect", { class: "cursor", width: Math.max(at.wide, 3), height: at.high,
    visibility: "hidden" });
  svg.append(cursor);
  const go = (toRow, toColumn) => {
    row = Math.min(map.n_row - 1, Math.max(0, toRow));
    column = Math.min(map.n_column - 1, Math.max(0, toColumn));
    cursor.setAttribute("x", at.left + column * at.wide);
    cursor.setAttribute("y", at.top + row * at.high);
    cursor.setAttribute("visibility", "visible");
    tell(map.tell(row, column));
  };
  svg.setAttribute("tabindex", "0");
  svg.addEventListener("focus", () => go(row, column));
  svg.addEventListener("mousemove", (event) => {
    const box = svg.getBoundingClientRect();
    const scale = at.width / box.width;
    go(Math.floor(((event.clientY - box.top) * scale - at.top) / at.high),
      Math.floor(((event.clientX - box.left) * scale - at.left) / at.wide));
  });
  svg.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0],
      Home: [0, -map.n_column], End: [0, map.n_column] }[event.key];
    if (!move) return;
    event.preventDefault();
    go(row + move[0], column + move[1]);
  });
}

function mapLegend(span, has_gaps) {
  const svg = draw("svg", { width: 190, height: 12, "aria-hidden": "true" });
  for (let i = -LEVELS; i <= LEVELS; ++i) {
    svg.append(draw("rect", { class: i > 0 ? "fill-orange" : "fill-blue", x: (i + LEVELS) * 9,
      "fill-opacity": Math.abs(i) / LEVELS, width: 9, height: 12 }));
  }
  return make("ul", { class: "legend" }, make("li", {}, ratio(1 - span) + " or less  ", svg,
    "  " + ratio(1 + span) + " or more, times the usual; pale: as usual"),
  has_gaps ? make("li", {}, draw("svg", { width: 14, height: 10, "aria-hidden": "true" },
    draw("rect", { width: 14, height: 10, class: "fill-wait" })), "not recorded") : null);
}

/* rows: [{name, left, right, note, bad}]: bars to both sides of the names.
 * titles: {left, right, left_short, right_short} */
function bothSides(parent, rows, titles, label) {
  keep(parent, (width) => drawBothSides(width, rows, titles, label));
}

/* As narrow as a phone there is room for short titles, and for no notes. */
function drawBothSides(width, rows, titles, label) {
  const isNarrow = width < 560, isLow = rows.length > 24;
  const high = isLow ? 14 : 22, top = 24, middle = isNarrow ? 72 : 96;
  const note = isNarrow ? 0 : Math.min(230, width / 4);
  const side = (width - middle - note) / 2;
  const largest = Math.max(1e-12, ...rows.map((r) => Math.max(r.left, r.right)));
  const svg = canvas(width, top + rows.length * high + 4, label);
  const scale = isLow && !isNarrow ? `; longest bar: ${time(largest)}` : "";
  write(svg, side, 12, isNarrow ? titles.left_short : titles.left, { "text-anchor": "end" });
  write(svg, side + middle, 12, (isNarrow ? titles.right_short : titles.right) + scale);
  rows.forEach((row, i) => {
    const y = top + i * high, base = y + high / 2 + 4;
    const long = (value) => value / largest * (side - 58);
    const at = side - long(row.left);
    bar(svg, at, y, long(row.left), high, row.bad ? "fill-orange" : "fill-other");
    bar(svg, side + middle, y, long(row.right), high, row.bad ? "fill-orange" : "fill-work");
    write(svg, side + middle / 2, base, row.name, { "text-anchor": "middle",
      class: row.bad ? "bad" : "strong" });
    if (!isLow || row.bad || row.right > largest / 4) {
      write(svg, at - 5, base, time(row.left), { "text-anchor": "end" });
      write(svg, side + middle + long(row.right) + 5, base, time(row.right));
    }
    if (!isNarrow) write(svg, width - note + 8, base, row.note, row.bad ? { class: "bad" } : {});
  });
  return svg;
}

function bar(svg, x, y, width, height, style) {
  svg.append(draw("rect", { class: style, x: x.toFixed(1), y: y + 2,
    width: Math.max(0.5, width).toFixed(1), height: height - 4 }));
}

/* lanes: {length, ranks: [[[begin, length, style, name], ...]], path: [[rank, begin, end]]} */
function laneChart(parent, lanes, bad) {
  const tell = { now: () => {} };
  keep(parent, (width) => drawLanes(width, lanes, bad, (text) => tell.now(text)));
  tell.now = readout(parent);
}

function drawLanes(width, lanes, bad, tell) {
  const left = 62, right = 8, top = 4, n = lanes.ranks.length;
  const high = Math.max(9, Math.min(28, Math.floor(560 / n)));
  const height = top + n * high + 34;
  const toX = (t) => left + t / lanes.length * (width - left - right);
  const svg = canvas(width, height, "One step on every rank, with its critical path");
  lanes.ranks.forEach((pieces, rank) => {
    const y = top + rank * high;
    if (isNamed(rank, bad, high)) {
      write(svg, left - 8, y + high / 2 + 4, "rank " + rank,
        { "text-anchor": "end", class: rank === bad ? "bad" : "" });
    }
    for (const [begin, length, style, name] of pieces) {
      const rect = draw("rect", { class: style, x: toX(begin).toFixed(2), y: y + 1,
        width: Math.max(0.4, toX(begin + length) - toX(begin)).toFixed(2), height: high - 2 });
      rect.addEventListener("mouseenter", () => tell(tellPiece(rank, [begin, length, style, name])));
      svg.append(rect);
    }
  });
  const middle = (rank) => (top + (rank + 0.5) * high).toFixed(1);
  const d = lanes.path.map(([rank, begin, end], i) =>
    `${i === 0 ? "M" : "L"}${toX(begin).toFixed(1)} ${middle(rank)}L${toX(end).toFixed(1)} ${middle(rank)}`);
  svg.append(draw("path", { class: "path", d: d.join("") }));
  for (const tick of ticks(lanes.length, 5).filter((t) => t <= lanes.length)) {
    write(svg, toX(tick), height - 16, tick === 0 ? "0" : time(tick), { "text-anchor": "middle" });
  }
  write(svg, left, height - 1, "time since the step began");
  walk(svg, lanes, { toX, top, high, row: Math.max(0, bad) }, tell);
  return svg;
}

function tellPiece(rank, [begin, length, , name]) {
  return `rank ${rank}, ${name}: ${time(length)}, from ${time(begin)} on`;
}

/* Arrow keys: to the next piece, to the same moment on the next rank. */
function walk(svg, lanes, at, tell) {
  let rank = at.row, piece = 0;
  const cursor = draw("rect", { class: "cursor", height: at.high, visibility: "hidden" });
  svg.append(cursor);
  const show = () => {
    const of = lanes.ranks[rank][piece];
    if (of === undefined) return;
    cursor.setAttribute("x", at.toX(of[0]).toFixed(2));
    cursor.setAttribute("y", at.top + rank * at.high);
    cursor.setAttribute("width", Math.max(3, at.toX(of[0] + of[1]) - at.toX(of[0])).toFixed(2));
    cursor.setAttribute("visibility", "visible");
    tell(tellPiece(rank, of));
  };
  const go = (toRank, toPiece) => {
    const then = (lanes.ranks[rank][piece] || [0])[0];
    const isOther = toRank !== rank;
    rank = Math.min(lanes.ranks.length - 1, Math.max(0, toRank));
    const list = lanes.ranks[rank];
    piece = isOther ? nearest(list.map((of) => of[0]), then)
      : Math.min(list.length - 1, Math.max(0, toPiece));
    show();
  };
  svg.setAttribute("tabindex", "0");
  svg.addEventListener("focus", show);
  svg.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0],
      Home: [0, -piece], End: [0, lanes.ranks[rank].length] }[event.key];
    if (!move) return;
    event.preventDefault();
    go(rank + move[0], piece + move[1]);
  });
}
