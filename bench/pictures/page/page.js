"use strict";
// Without this script everything is shown. It sorts tables, filters by method and protocol, hides curves, and says what stands
// in the title of whatever is pointed at.

const BEST = 8; // with more methods than fit into a picture, so many are shown at first
const CROWD = 12; // so many lines at most have their names beside them
const LINE = 14; // height of such a name

document.documentElement.classList.add("js");
const all = (selector, inside = document) => Array.from(inside.querySelectorAll(selector));

// -- sorting: the column whose heading is pressed; a second press reverses the order --------------------------------

function sortKey(row, column) {
  const text = row.cells[column].textContent.trim();
  const number = /^\d{4}-\d\d/.test(text) ? NaN : parseFloat(text); // days sort as text
  return { text, number, missing: text === "" || text === "-" };
}

// Rows marked "follows" (published numbers) stay below the row that they belong to.
function blocks(body) {
  const found = [];
  for (const row of body.rows) {
    if (row.classList.contains("follows") && found.length) found[found.length - 1].push(row);
    else found.push([row]);
  }
  return found;
}

function sortBy(table, column) {
  const heading = table.tHead.rows[0].cells[column];
  const body = table.tBodies[0];
  const keyed = blocks(body).map((rows) => ({ rows, key: sortKey(rows[0], column) }));
  const textual = heading.classList.contains("text") || keyed.every((item) => item.key.missing || isNaN(item.key.number));
  const first = textual || heading.dataset.first === "ascending" ? "ascending" : "descending"; // numbers: largest first
  const second = first === "ascending" ? "descending" : "ascending";
  const order = heading.getAttribute("aria-sort") === first ? second : first;
  const sign = order === "ascending" ? 1 : -1;
  keyed.sort((a, b) => {
    if (a.key.missing || b.key.missing) return a.key.missing - b.key.missing; // what is not available comes last
    return sign * (textual ? a.key.text.localeCompare(b.key.text) : a.key.number - b.key.number);
  });
  for (const cell of table.tHead.rows[0].cells) cell.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", order);
  body.append(...keyed.flatMap((item) => item.rows));
}

for (const table of all("table.sortable")) {
  Array.from(table.tHead.rows[0].cells).forEach((cell, column) => {
    cell.querySelector("button").addEventListener("click", () => sortBy(table, column));
  });
}

// -- curves: shown or hidden in all pictures of a section -----------------------------------------------------------

const sections = all("main > section");
const boxes = (section) => all(".legend input", section);
const methodOf = (box) => box.closest("[data-method]").dataset.method;

// Names beside the lines that are shown, as near to their ends as they can stand without touching.
function placeNames(chart) {
  const names = all(".curve:not(.off):not(.filtered) .label", chart);
  chart.classList.toggle("crowded", names.length > CROWD);
  if (names.length > CROWD) return;
  const ends = names.map((name) => ({ name, y: Number(name.dataset.y) })).sort((a, b) => a.y - b.y);
  const floor = chart.viewBox.baseVal.height - LINE / 2;
  ends.forEach((end, i) => { end.y = Math.max(end.y, i ? ends[i - 1].y + LINE : LINE / 2); });
  for (let i = ends.length - 1; i >= 0; i--) ends[i].y = Math.min(ends[i].y, i < ends.length - 1 ? ends[i + 1].y - LINE : floor);
  for (const { name, y } of ends) {
    name.setAttribute("y", y + 4);
    const x = Number(name.getAttribute("x")) - 3;
    name.parentNode.querySelector(".leader").setAttribute("d", `M${name.dataset.x} ${name.dataset.y}L${x} ${y}`);
  }
}

function drawCurves(section) {
  const inputs = boxes(section);
  const shown = new Set(inputs.filter((box) => box.checked).map(methodOf));
  for (const curve of all(".gallery:not(.small) .curve", section)) curve.classList.toggle("off", !shown.has(curve.dataset.method));
  all(".chart.beside", section).forEach(placeNames);
  const count = section.querySelector(".legend .count");
  if (count) count.textContent = `${shown.size} of ${inputs.length} shown`;
}

// The legend is in the order of the table: the reference first, then from best to worst.
const shownAtFirst = (inputs, box) => inputs.length <= CROWD || inputs.indexOf(box) <= BEST;

function check(section, wanted) {
  const inputs = boxes(section);
  inputs.forEach((box) => { box.checked = wanted(box, inputs); });
  drawCurves(section);
}

for (const section of sections) {
  const inputs = boxes(section);
  inputs.forEach((box) => box.addEventListener("change", () => drawCurves(section)));
  const show = { all: () => true, none: () => false, best: (box) => inputs.indexOf(box) <= BEST };
  for (const button of all("[data-show]", section)) button.addEventListener("click", () => check(section, show[button.dataset.show]));
  check(section, (box) => shownAtFirst(inputs, box));
  if (inputs.length > CROWD) section.querySelector(".legend").open = false;
}

// -- the filter -----------------------------------------------------------------------------------------------------

const filter = document.getElementById("filter");
const everyone = new Set(all("[data-method]").map((element) => element.dataset.method));

function applyFilter() {
  const words = filter.value.toLowerCase().split(",").map((word) => word.trim()).filter(Boolean);
  const wanted = (method) => !words.length || words.some((word) => method.toLowerCase().includes(word));
  for (const element of all("[data-method]")) element.classList.toggle("filtered", !wanted(element.dataset.method));
  for (const section of sections) check(section, (box, inputs) => (words.length ? wanted(methodOf(box)) : shownAtFirst(inputs, box)));
  const left = Array.from(everyone).filter(wanted).length;
  document.getElementById("counted").textContent = words.length ? `${left} of ${everyone.size} methods` : "";
}

if (filter) {
  filter.form.addEventListener("submit", (event) => event.preventDefault());
  filter.addEventListener("input", applyFilter);
}
for (const box of all("input.protocol")) {
  box.addEventListener("change", () => {
    document.getElementById(box.value).classList.toggle("filtered", !box.checked);
    for (const link of all("nav a")) if (link.hash === "#" + box.value) link.classList.toggle("filtered", !box.checked);
  });
}

// -- one method stands out while it is pointed at in a legend or a table ---------------------------------------------

function highlight(element) {
  const section = element && element.closest("main > section");
  for (const old of all(".chosen")) old.classList.remove("chosen");
  if (!section) return;
  for (const chart of all(".gallery:not(.small) .chart", section)) {
    const own = all(".curve", chart).find((curve) => curve.dataset.method === element.dataset.method);
    if (!own || own.classList.contains("off")) continue;
    chart.classList.add("chosen");
    own.classList.add("chosen");
  }
}
const pointable = ".legend li, table.sortable tr[data-method]";
for (const kind of ["pointerover", "focusin"]) document.addEventListener(kind, (event) => highlight(event.target.closest(pointable)));

// -- what an element says when it is pointed at ----------------------------------------------------------------------

const tip = document.getElementById("tip");

// The browser's own tooltip is slow and does not know fingers: the words move from the title into the element's data.
function wordsOf(element) {
  if (element.hasAttribute("title")) {
    element.dataset.tip = element.getAttribute("title");
    element.removeAttribute("title");
  }
  const title = element.querySelector(":scope > title");
  if (title) {
    element.dataset.tip = title.textContent;
    title.remove();
  }
  return element.dataset.tip;
}

function showTip(target) {
  const element = target.closest("td[title], button[title], .point, [data-tip]");
  tip.hidden = !element;
  if (!element) return;
  tip.textContent = wordsOf(element);
  const place = element.getBoundingClientRect();
  const own = tip.getBoundingClientRect();
  const left = Math.min(Math.max(4, place.left + place.width / 2 - own.width / 2), window.innerWidth - own.width - 4);
  const above = place.top - own.height - 6;
  tip.style.left = `${left}px`;
  tip.style.top = `${above >= 4 ? above : place.bottom + 6}px`;
}
for (const kind of ["pointerover", "focusin", "click"]) document.addEventListener(kind, (event) => showTip(event.target));
document.addEventListener("keydown", (event) => { if (event.key === "Escape") tip.hidden = true; });
document.addEventListener("scroll", () => { tip.hidden = true; }, true);
