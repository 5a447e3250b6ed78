/* The sections, from top to bottom. Each fills its place in the page, also when a run recorded
 * nothing for it: then it says so. */
"use strict";

const bad = report.finding.rank;

function note(section, text) {
  place(section).append(make("p", { class: "note" }, text));
}

function showFacts() {
  document.getElementById("facts").append(...report.facts.map(([name, value, about]) =>
    make("div", {}, make("dt", {}, name), make("dd", {}, value, make("small", {}, about)))));
  document.querySelector("nav").append(make("ul", {},
    ...[...document.querySelectorAll("section")].map((section) =>
      make("li", {}, make("a", { href: "#" + section.id },
        section.querySelector("h2").textContent)))));
}

function showRanks() {
  const at = place("ranks");
  if (report.ranks.length === 1) {
    note("ranks", "One rank waits for nobody.");
    return;
  }
  if (report.run.n_detailed === 0) {
    note("ranks", "No step was recorded in detail by all ranks, so nobody's waits are known.");
  } else {
    bothSides(at, report.ranks.map((r) => ({ name: "rank " + r.rank, left: r.waited,
      right: r.caused, note: r.note, bad: r.rank === bad })),
      { left: "waited for others, a step", right: "made each of the others wait, a step",
        left_short: "waited, a step", right_short: "made others wait" },
      "For each rank: how long it waited and how long others waited for it");
  }
  at.append(folded("Table of ranks", table([
    { head: "rank", of: (r) => r.rank }, { head: "node", of: (r) => r.host },
    { head: "at work", kind: "number", of: (r) => time(r.work) },
    { head: "waited", kind: "number", of: (r) => time(r.waited) },
    { head: "messages", kind: "number", of: (r) => time(r.transfer) },
    { head: "made others wait, each", kind: "number", of: (r) => time(r.caused) },
    { head: "mostly in", of: (r) => r.blamed_phase },
    { head: "time at equal work", kind: "number", of: (r) => ratio(r.slowdown) },
    { head: "rows", kind: "number", of: (r) => ratio(r.rows) },
    { head: "cause", of: (r) => r.cause }, { head: "when", of: (r) => r.persistence },
  ], report.ranks, "Times are means over steps; rows and time at equal work are over the mean " +
    "and the median rank's.", (r) => r.rank === bad)));
  showNodes(at);
}

function showNodes(at) {
  const { node, to_node } = report.finding;
  if (report.nodes.length > 1 && report.run.n_detailed > 0) {
    const list = table([
      { head: "node", of: (n) => n.name },
      { head: "missed, a step", kind: "number", of: (n) => time(n.missed) },
      { head: "", kind: "bar", of: (n) => n.missed },
    ], report.nodes, "How long a rank elsewhere missed messages to or from the node when all other " +
      "messages of the collective were there.",
      (n) => node >= 0 && (n === report.nodes[node] || n === report.nodes[to_node]));
    at.append(node >= 0 ? list : folded("Messages between nodes", list));
  }
}

function stepName(i, from) {
  return from.first[i] === from.last[i] ? "step " + from.first[i]
    : `steps ${from.first[i]} to ${from.last[i]}`;
}

function showSteps() {
  const steps = report.steps;
  if (steps.first.length === 0) {
    note("steps", "No step was recorded.");
    return;
  }
  lineChart(place("steps"), {
    label: "Step time over steps",
    x: steps.first, x_name: "step", unit: (v) => (v === 0 ? "0" : time(v)),
    series: [{ name: "step", style: "line-step", y: steps.step },
      { name: "longest work", style: "line-worst", y: steps.worst },
      { name: "median rank's work", style: "line-median", y: steps.median }],
    between: [steps.worst, steps.median],
    marks: report.saves.map((s) => ({ x: s.step })),
    tell: (i) => `${stepName(i, steps)}: ${time(steps.step[i])}; longest at work ` +
      `${time(steps.worst[i])} (rank ${steps.worst_rank[i]}), median ${time(steps.median[i])}`,
  });
  if (report.saves.length > 0) {
    place("steps").append(make("p", { class: "note" }, "Dotted lines: a checkpoint was saved."));
  }
  place("steps").append(folded("Table of steps", table([
    { head: "steps", of: (i) => stepName(i, steps).replace(/steps? /, "") },
    { head: "step", kind: "number", of: (i) => time(steps.step[i]) },
    { head: "longest work", kind: "number", of: (i) => time(steps.worst[i]) },
    { head: "of rank", kind: "number", of: (i) => steps.worst_rank[i] },
    { head: "median rank's work", kind: "number", of: (i) => time(steps.median[i]) },
  ], steps.first.map((_, i) => i))));
}

function showHeat() {
  const heat = report.heat;
  if (heat.first.length === 0) {
    note("heat", "No step was recorded.");
    return;
  }
  cellMap(place("heat"), {
    label: "Work of each rank over the median rank's, step by step",
    n_row: heat.value.length, n_column: heat.first.length, span: heat.span,
    value: (row, column) => heat.value[row][column],
    row_name: (row) => "rank " + row, column_name: (column) => heat.first[column],
    column_title: "step", bad_row: bad,
    tell: (row, column) => `rank ${row}, ${stepName(column, heat)}: ` +
      (heat.value[row][column] === null ? "not recorded"
        : ratio(heat.value[row][column]) + " times the median rank's work"),
  });
  place("heat").append(folded("Table", table(
    [{ head: "rank", of: (r) => r }, ...heat.first.map((first, i) => (
      { head: first, kind: "number", of: (r) => ratio(heat.value[r][i]) }))].slice(0, 41),
    heat.value.map((_, r) => r), heat.first.length > 40 ? "The first 40 columns." : "")));
}

function showPhases() {
  if (report.phases.length === 0) {
    note("phases", "No step was recorded.");
    return;
  }
  place("phases").append(table([
    { head: "phase", of: (p) => p.name },
    { head: "mean", kind: "number", of: (p) => time(p.mean) },
    { head: "", kind: "bar", of: (p) => p.mean },
    { head: "slowest rank", kind: "number", of: (p) => time(p.max) },
    { head: "slowest / mean", kind: "number", of: (p) => ratio(p.ratio) },
    { head: "worst rank", of: (p) => (p.is_uneven ? "rank " + p.worst : "") },
    { head: "waiting in it", kind: "number", of: (p) => time(p.wait) },
  ], report.phases, "", (p) => p.is_uneven && p.worst === bad));
}

function showWhatIf() {
  const what = report.whatif;
  if (what.list.length === 0) {
    say("whatif", "Steps cannot be replayed: none was recorded in detail by all ranks.");
    return;
  }
  say("whatif", `${what.n_step} recorded steps were played again with one thing changed. The model ` +
    `is ${percent(Math.abs(what.error))} off: with the messages of other steps it makes ` +
    `${time(what.replayed)} of a step that took ${time(what.measured)}.`);
  const columns = [
    { head: "if", of: (w) => w.name },
    { head: "a step takes", kind: "number", of: (w) => time(w.step) },
    { head: "shorter by", kind: "number", of: (w) => percent(w.gain) },
    { head: "", kind: "bar", of: (w) => w.gain },
  ];
  const real = what.list.filter((w) => !w.is_bound), bounds = what.list.filter((w) => w.is_bound);
  if (real.length > 0) {
    place("whatif").append(table(columns, real, "", (w) => w.is_finding));
  } else {
    note("whatif", "No change to ranks, rows or messages would gain half a percent.");
  }
  if (bounds.length > 0) {
    place("whatif").append(table(columns, bounds,
      "Bounds: what hiding a whole phase under others could gain at most."));
  }
}

const STYLE = { work: "fill-work", experts: "fill-experts", other: "fill-other",
  send: "fill-send", wait: "fill-wait" };

function showCritical() {
  const critical = report.critical;
  if (critical.phases.length === 0) {
    note("critical", "No step was recorded in detail by all ranks.");
    say("critical", "Nothing to show.");
    return;
  }
  const columns = [
    { head: "on the path", of: (p) => p.name },
    { head: "of a step", kind: "number", of: (p) => time(p.time) },
    { head: "share", kind: "number", of: (p) => percent(p.share) },
    { head: "", kind: "bar", of: (p) => p.share },
    { head: "mostly on", of: (p) => `rank${GAP}${p.rank} (${percent(p.rank_share)})` },
  ];
  const isLarge = (p, i) => i < 4 || p.share >= 0.02;
  place("critical").append(table(columns, critical.phases.filter(isLarge), "",
    (p) => p.rank === bad && p.rank_share > 0.5));
  const small = critical.phases.filter((p, i) => !isLarge(p, i));
  if (small.length > 0) {
    place("critical").append(folded(`${small.length} smaller parts`, table(columns, small)));
  }
  place("critical").append(folded("By rank", table([
    { head: "rank", of: (r) => r.rank },
    { head: "share of the path", kind: "number", of: (r) => percent(r.share) },
    { head: "", kind: "bar", of: (r) => r.share },
  ], critical.ranks, "", (r) => r.rank === bad)));
  say("critical", `Step ${critical.step} as it was replayed. The line is the critical path; ` +
    "where it changes lanes, a message was waited for. Arrow keys move from piece to piece.");
  const at = place("critical", ".timeline");
  at.append(legend([["fill-work", "attention, head, gate"], ["fill-experts", "experts"],
    ["fill-other", "other work"], ["fill-send", "messages"], ["fill-wait", "waiting for others"]]));
  laneChart(at, { length: critical.length, path: critical.path,
    ranks: critical.lanes.map((lane) => lane.map(([begin, length, style, name]) =>
      [begin, length, STYLE[style], critical.names[name]])) }, bad);
}

function mostRows(rows) {
  let most = [0, 0];
  rows.value.forEach((of, rank) => of.forEach((value, i) => {
    if (value > rows.value[most[0]][most[1]]) most = [rank, i];
  }));
  const value = rows.value[most[0]][most[1]];
  return value < 1.005 ? "All ranks have as many."
    : `Most: rank ${most[0]} in layer ${rows.layers[most[1]]}, ${ratio(value)} times the mean.`;
}

function showRows() {
  const rows = report.rows;
  showExperts(rows.layers);
  if (rows.layers.length === 0) {
    say("rows", "No layer with experts was recorded.");
    return;
  }
  say("rows", "Rows that each rank's experts computed, layer by layer, over the mean of the " +
    "ranks. A rank that is orange here is late because of its tokens, not of its device. " +
    mostRows(rows));
  cellMap(place("rows"), {
    label: "Rows of each rank by layer, over the mean",
    n_row: rows.value.length, n_column: rows.layers.length, span: rows.span,
    value: (row, column) => rows.value[row][column],
    row_name: (row) => "rank " + row, column_name: (column) => rows.layers[column],
    column_title: "layer", bad_row: bad,
    tell: (row, column) => `rank ${row}, layer ${rows.layers[column]}: ` +
      `${round(rows.count[row][column], 4)} rows a step, ${ratio(rows.value[row][column])} ` +
      "times the mean",
  });
  place("rows").append(folded("Rows a step", table(
    [{ head: "rank", of: (r) => r }, ...rows.layers.map((layer, i) => (
      { head: "layer " + layer, kind: "number", of: (r) => round(rows.count[r][i], 4) }))],
    rows.value.map((_, r) => r), "", (r) => r === bad)));
  if (rows.experts.length > 0) {
    place("rows").append(table([
      { head: "layer", of: (e) => e.layer },
      { head: "busiest expert / mean", kind: "number", of: (e) => ratio(e.load) },
      { head: "", kind: "bar", of: (e) => e.load },
    ], rows.experts, "Before placement: how uneven the gate's choices were, mean over the " +
      "steps of metrics.jsonl."));
  }
}

/* Rows of each expert, and who computed them. */
function showExperts(layers) {
  const experts = report.experts, at = place("rows", ".experts");
  if (experts.n === 0) {
    at.append(make("p", { class: "note" }, "Rows by expert were not recorded."));
    return;
  }
  const homes = (row, column) => experts.homes[row][column]
    .map(([rank, share]) => `${rank} (${percent(share)})`).join(", ") || "none";
  cellMap(at, {
    label: "Rows of each expert by layer, over the mean expert's",
    n_row: layers.length, n_column: experts.n, span: experts.span,
    value: (row, column) => experts.value[row][column],
    row_name: (row) => "layer " + layers[row], column_name: (column) => column,
    column_title: "expert", bad_row: -1,
    tell: (row, column) => `layer ${layers[row]}, expert ${column}: ` +
      `${round(experts.count[row][column], 4)} rows a step, ` +
      `${ratio(experts.value[row][column])} times the mean; computed on rank ${homes(row, column)}`,
  });
  const list = layers.flatMap((layer, row) => experts.value[row].map((value, column) =>
    ({ layer, column, value, count: experts.count[row][column], homes: homes(row, column) })));
  list.sort((a, b) => b.value - a.value);
  at.append(folded("Table of the busiest experts", table([
    { head: "layer", of: (e) => e.layer }, { head: "expert", kind: "number", of: (e) => e.column },
    { head: "rows a step", kind: "number", of: (e) => round(e.count, 4) },
    { head: "of the mean", kind: "number", of: (e) => ratio(e.value) },
    { head: "", kind: "bar", of: (e) => e.value },
    { head: "computed on rank", of: (e) => e.homes },
  ], list.slice(0, 40), list.length > 40 ? "The 40 busiest." : "")));
}

function showPlacement() {
  const placement = report.placement;
  if (placement === null) {
    say("placement", "metrics.jsonl tells nothing about placement.");
    return;
  }
  say("placement", `${round(placement.copies, 3)} copies of experts a step, ` +
    `${round(placement.late, 3)} of them decided after the gate; ${placement.moves} experts ` +
    `changed owners in all. Busiest rank over the mean, after placement: ` +
    `${ratio(placement.rank_load)}; busiest expert, before: ${ratio(placement.expert_load)}.`);
  showPolicies(placement.policies);
  if (placement.decisions.length === 0) {
    note("placement", "The last steps have no decision in their log: no copy was worth its way.");
    return;
  }
  const columns = [
    { head: "decision", of: (d) => d.what }, { head: "step", kind: "number", of: (d) => d.step },
    { head: "layer", kind: "number", of: (d) => d.layer },
    { head: "rows", kind: "number", of: (d) => d.rows },
    { head: "saves", kind: "number", of: (d) => time(d.saves_s) },
    { head: "costs", kind: "number", of: (d) => time(d.costs_s) },
    { head: "decided", of: (d) => (d.late ? "after the gate" : "from history") },
  ];
  const shown = 8, older = placement.decisions.slice(shown);
  place("placement").append(table(columns, placement.decisions.slice(0, shown),
    "The last decisions of the log: what copies save at the expert's owner, and what they cost."));
  if (older.length > 0) {
    place("placement").append(folded(`${older.length} before these`, table(columns, older)));
  }
}

/* placement.shadow: what others would have done with the same counts. */
function showPolicies(policies) {
  if (policies.length === 0) {
    return;
  }
  place("placement").append(table([
    { head: "policy", of: (p) => p.name },
    { head: "MoE layers of a step", kind: "number", of: (p) => time(p.predicted_s) },
    { head: "over this run's", kind: "number", of: (p) => ratio(p.over_own) },
    { head: "", kind: "bar", of: (p) => p.predicted_s || 0 },
    { head: "busiest rank / mean", kind: "number", of: (p) => ratio(p.rank_load) },
  ], policies, "What every policy would have made of the same counts, as predicted by one model."));
}

function showSaves() {
  if (report.saves.length === 0) {
    say("saves", "No checkpoint was saved in the recorded steps.");
  } else {
    say("saves", "Every rank stands still while its part of a checkpoint is taken.");
    place("saves").append(table([
      { head: "after step", of: (s) => s.step },
      { head: "stall, mean", kind: "number", of: (s) => time(s.mean) },
      { head: "longest", kind: "number", of: (s) => time(s.max) },
      { head: "on rank", kind: "number", of: (s) => s.rank },
    ], report.saves, "The last 20 at most."));
  }
  const known = report.ranks.map((r) => r.memory).filter((m) => m > 0);
  const list = table([
    { head: "rank", of: (r) => r.rank },
    { head: "memory, largest", kind: "number", of: (r) => (r.memory ? bytes(r.memory) : null) },
    { head: "", kind: "bar", of: (r) => r.memory || 0 },
  ], report.ranks);
  place("saves", ".memory").append(make("p", {}, known.length === 0 ? "Memory was not recorded."
    : `Memory: at most ${bytes(Math.max(...known))} on a rank, at least ` +
      `${bytes(Math.min(...known))}.`), report.ranks.length > 16 ? folded("By rank", list) : list);
}

function showSources() {
  const at = place("sources");
  at.append(make("ul", {}, ...report.sources.map((text) => make("li", {}, text))));
  at.append(...report.problems.map((text) =>
    make("p", { class: "note problem" }, "Skipped: " + text)));
}

for (const show of [showFacts, showRanks, showSteps, showHeat, showPhases, showWhatIf, showCritical,
  showRows, showPlacement, showSaves, showSources]) {
  show();
}
