"use strict";
// Tables sort by the column whose heading is pressed; a second press reverses the order.

function sortKey(row, column) {
  const text = row.cells[column].textContent.trim();
  const number = parseFloat(text);
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
  const textual = heading.classList.contains("text");
  const first = textual ? "ascending" : "descending"; // numbers: largest first
  const second = textual ? "descending" : "ascending";
  const order = heading.getAttribute("aria-sort") === first ? second : first;
  const sign = order === "ascending" ? 1 : -1;
  const body = table.tBodies[0];
  const keyed = blocks(body).map((rows) => ({ rows, key: sortKey(rows[0], column) }));
  keyed.sort((a, b) => {
    if (a.key.missing || b.key.missing) return a.key.missing - b.key.missing; // what is not available comes last
    return sign * (textual ? a.key.text.localeCompare(b.key.text) : a.key.number - b.key.number);
  });
  for (const cell of table.tHead.rows[0].cells) cell.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", order);
  body.append(...keyed.flatMap((item) => item.rows));
}

for (const table of document.querySelectorAll("table.sortable")) {
  Array.from(table.tHead.rows[0].cells).forEach((cell, column) => {
    cell.querySelector("button").addEventListener("click", () => sortBy(table, column));
  });
}
