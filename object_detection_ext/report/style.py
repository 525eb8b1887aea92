# SPDX-License-Identifier: Apache-2.0
"""The report's style sheet and script, which it carries inside."""

CSS = """
:root {
  color-scheme: light dark;
  --paper: #ffffff; --panel: #f4f6f8; --ink: #1b1f24; --soft: #57606a; --rule: #d0d7de;
  --link: #0550ae; --bar: #2f6fb3; --count: #1a7f37; --warn: #fff4d6; --warn-rule: #b98900;
  --right: #1f77b4; --duplicate: #8ec9e8; --misclassified: #d1495b; --badly: #edae49;
  --background: #8d96a0; --truth: #4084ff; --detected: #ffb000;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #12161b; --panel: #1b2129; --ink: #e6edf3; --soft: #a4aeb9; --rule: #3a434e;
    --link: #79b8ff; --bar: #5aa2e6; --count: #56d364; --warn: #33290b; --warn-rule: #d4a72c;
    --right: #4f9fe0; --duplicate: #a9d8ef; --misclassified: #e8677a; --badly: #f0b95d;
    --background: #7d8792;
  }
}
* { box-sizing: border-box; }
html { scroll-behavior: smooth; -webkit-text-size-adjust: 100%; }
@media (prefers-reduced-motion: reduce) { html { scroll-behavior: auto; } }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif;
}
header, main, footer, nav { max-width: 70rem; margin: 0 auto; padding: 0 1rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 1.5rem 0 0.25rem; }
h2 { font-size: 1.3rem; margin: 2.5rem 0 0.5rem; padding-top: 0.75rem;
     border-top: 1px solid var(--rule); }
h3 { font-size: 1.05rem; margin: 1.5rem 0 0.5rem; }
h1, h2, h3, p, li, figcaption, code, .missing { overflow-wrap: anywhere; }
caption, th, td { overflow-wrap: break-word; }
p, main > ul, .rules { max-width: 46rem; }
a { color: var(--link); }
:focus-visible { outline: 3px solid var(--link); outline-offset: 2px; border-radius: 2px; }
.skip { position: absolute; left: -99rem; }
.skip:focus { left: 0.5rem; top: 0.5rem; background: var(--paper); padding: 0.5rem; z-index: 9; }
.soft, figcaption, caption { color: var(--soft); }
nav ul { list-style: none; display: flex; flex-wrap: wrap; gap: 0.25rem 1rem; padding: 0;
         margin: 1rem 0; }
nav a { display: inline-block; padding: 0.25rem 0; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(7rem, 1fr)); gap: 0.75rem;
         margin: 1.25rem 0; padding: 0; }
.tiles div { background: var(--panel); border-radius: 8px; padding: 0.6rem 0.9rem; }
.tiles dt { color: var(--soft); font-size: 0.85rem; }
.tiles dd { margin: 0; font-size: 1.3rem; font-weight: 600; white-space: nowrap;
            font-variant-numeric: tabular-nums; }
.tiles .main { grid-column: span 2; }
.tiles .main dd { font-size: 2rem; line-height: 1.2; }
.tiles small { display: block; white-space: normal; font-size: 0.85rem; font-weight: 400;
               color: var(--soft); }
.warnings { background: var(--warn); border-left: 4px solid var(--warn-rule);
            padding: 0.5rem 1rem; border-radius: 4px; }
.warnings h2, .warnings h3 { border: 0; margin: 0.25rem 0; padding: 0; font-size: 1.05rem; }
.warnings ul { margin: 0.25rem 0; padding-left: 1.2rem; }
.scroll { overflow-x: auto; max-width: 100%; margin: 0.75rem 0; }
.pair { display: flex; flex-wrap: wrap; gap: 0 2.5rem; align-items: flex-start; }
.pair > * { flex: 1 1 22rem; min-width: 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 0.92rem; }
caption { text-align: left; padding: 0.25rem 0; caption-side: top; }
th, td { padding: 0.3rem 0.6rem; border-bottom: 1px solid var(--rule); text-align: left;
         vertical-align: middle; }
thead th { border-bottom: 2px solid var(--rule); vertical-align: bottom; }
tbody th { font-weight: 500; }
.number { text-align: right; white-space: nowrap; }
.sortable thead th { white-space: nowrap; }
.scroll tbody th, .scroll tfoot th { min-width: 6.5rem; }
.scroll th:first-child { position: sticky; left: 0; background: var(--paper); z-index: 1; }
tfoot th, tfoot td { border-top: 2px solid var(--rule); font-weight: 600; }
th button { all: unset; cursor: pointer; font-weight: 600; }
th button:focus-visible { outline: 3px solid var(--link); outline-offset: 2px; }
th button::after { content: " \\2195"; color: var(--soft); }
th[aria-sort=ascending] button::after { content: " \\2191"; color: var(--ink); }
th[aria-sort=descending] button::after { content: " \\2193"; color: var(--ink); }
.metered { display: inline-flex; align-items: center; gap: 0.5rem; }
.meter { position: relative; display: inline-block; width: 7.5rem; height: 0.8rem;
         background: var(--panel); border-radius: 2px; }
.meter .fill { position: absolute; inset: 0 auto 0 0; background: var(--bar); border-radius: 2px; }
.meter .span { position: absolute; top: calc(50% - 1px); height: 2px; background: var(--ink); }
.stack { display: flex; width: 12rem; height: 1rem; border-radius: 2px; overflow: hidden;
         background: var(--panel); }
.stack.wide { width: 100%; height: 1.6rem; }
.part { display: block; height: 100%; }
.right { background: var(--right); } .duplicate { background: var(--duplicate); }
.misclassified { background: var(--misclassified); }
.badly-localized { background: var(--badly); } .background { background: var(--background); }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: 0.25rem 1.1rem; padding: 0;
          margin: 0.5rem 0; }
.legend .part { display: inline-block; width: 0.85rem; height: 0.85rem; border-radius: 2px;
                vertical-align: -1px; }
.legend .truth { background: var(--truth); } .legend .detected { background: var(--detected); }
.heat td { width: 2.3rem; min-width: 2.3rem; text-align: center; padding: 0.25rem;
           background: color-mix(in srgb, var(--bar) var(--heat, 0%), transparent); }
.heat .corner { color: var(--soft); min-width: 7rem; text-align: left; vertical-align: bottom; }
.heat thead th { vertical-align: bottom; padding: 0.25rem; }
.heat thead span { writing-mode: vertical-rl; transform: rotate(180deg); white-space: nowrap; }
.heat caption { max-width: 20rem; }
.heat tbody th { white-space: nowrap; }
.heat .diagonal { outline: 1px solid var(--soft); outline-offset: -2px; }
svg.plot { display: block; max-width: 100%; height: auto; font-size: 11px; }
svg.plot.wide { max-width: none; }
svg text { fill: var(--ink); }
svg .grid { stroke: var(--rule); } svg .bar { fill: var(--bar); }
svg .whisker { stroke: var(--ink); stroke-width: 1.5; }
svg.wide .whisker { stroke-width: 1; opacity: 0.6; }
svg .value { font-weight: 600; paint-order: stroke; stroke: var(--paper); stroke-width: 3px; }
svg .count-rim { fill: none; stroke: var(--paper); stroke-width: 4; }
svg .value-name { fill: var(--bar); font-weight: 600; }
svg .count, svg .count-name { fill: var(--count); } svg .count-name { font-weight: 600; }
svg .count-line { fill: none; stroke: var(--count); stroke-width: 1.5; }
svg .count-dot { fill: var(--count); stroke: var(--paper); }
figure { margin: 0; }
.pictures { display: grid; gap: 1rem; margin: 0.5rem 0 1rem; padding: 0;
            grid-template-columns: repeat(auto-fill, minmax(min(100%, 19rem), 1fr)); }
.pictures.long { grid-template-columns: minmax(0, 1fr); }
.pictures img { display: block; max-width: 100%; height: auto; border-radius: 4px; }
/* A strip of frames scrolls on a phone; shrunk to its width it would show nothing. */
.pictures.long img { max-width: max(100%, 44rem); }
.pictures figcaption { font-size: 0.88rem; margin-top: 0.25rem; }
.pictures .missing { background: var(--panel); border-radius: 4px; padding: 2rem 1rem;
                     color: var(--soft); text-align: center; }
.badge { display: inline-block; padding: 0 0.45rem; border: 1px solid var(--rule);
         border-left-width: 0.6rem; border-radius: 3px; color: var(--ink); background: none; }
.badge.right { border-left-color: var(--right); }
.badge.duplicate { border-left-color: var(--duplicate); }
.badge.misclassified { border-left-color: var(--misclassified); }
.badge.badly-localized { border-left-color: var(--badly); }
.badge.background { border-left-color: var(--background); }
pre { overflow-x: auto; background: var(--panel); padding: 0.75rem 1rem; border-radius: 6px;
      font-size: 0.82rem; line-height: 1.4; }
summary h3 { display: inline; color: inherit; }
summary { cursor: pointer; padding: 0.35rem 0; color: var(--link); }
footer { color: var(--soft); padding-bottom: 3rem; margin-top: 2.5rem; }
@media (max-width: 30rem) {
  h1 { font-size: 1.4rem; }
  .meter { width: 4rem; } .stack { width: 9rem; }
}
@media print {
  :root { --paper: #fff; --panel: #f4f6f8; --ink: #000; --soft: #444; --rule: #bbb; --bar: #2f6fb3;
          --count: #1a7f37; --warn: #fff; }
  html { font-size: 60%; } body { font-size: 1rem; }
  nav, .skip { display: none; }
  .scroll, pre { overflow: visible; } pre { white-space: pre-wrap; }
  figure, tr, .tiles div { break-inside: avoid; } h2, h3 { break-after: avoid; }
  .meter, .stack, .part, .bar, .heat td { print-color-adjust: exact; }
}
"""

# Sorts tables by the column whose button is pressed, and opens what is folded before printing.
SCRIPT = """
"use strict";
const key = (row, column) => {
  const cell = row.cells[column];
  return cell.dataset.sort === undefined ? cell.textContent : cell.dataset.sort;
};
const compare = (a, b) => {
  const [x, y] = [a, b].map((text) => Number(text.replace(/[,\\s%]/g, "")));
  return Number.isNaN(x) || Number.isNaN(y) ? a.localeCompare(b) : x - y;
};
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const body = table.tBodies[0];
      const rows = [...body.rows].map((row) => [key(row, column), row]);
      rows.sort(([a], [b]) => (up ? compare(a, b) : compare(b, a)));
      body.append(...rows.map(([, row]) => row));
    });
  });
}
addEventListener("beforeprint", () => {
  document.querySelectorAll("details").forEach((folded) => { folded.open = true; });
});
"""
