// Tables: sorted by a column, and shown in pages of 25. Without this, all rows are there in their order.
"use strict";

const ROWS_A_PAGE = 25;

function valueOf(cell) {
  if (!cell) return "";
  const time = cell.querySelector("time");
  if (time) return Date.parse(time.dateTime);
  const text = cell.textContent.trim();
  const number = cell.classList.contains("n") ? /[-\u2212]?[\d,]*\.?\d+/.exec(text) : null;
  return number ? Number(number[0].replace("\u2212", "-").replaceAll(",", "")) : text;
}

function compared(one, other) {
  if (typeof one === "number" && typeof other === "number") return one - other;
  return String(one).localeCompare(String(other), undefined, { numeric: true });
}

function sortable(table, show) {
  const body = table.tBodies[0];
  [...table.tHead.rows[0].cells].forEach((head, at) => {
    if (!head.textContent.trim() || head.querySelector(".skip")) return;
    const button = document.createElement("button");
    button.type = "button";
    button.title = "Sort the rows shown here";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === (head.classList.contains("n") ? "descending" : "ascending");
      const order = head.classList.contains("n") === down ? 1 : -1;
      for (const each of table.tHead.querySelectorAll("[aria-sort]")) each.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", order > 0 ? "ascending" : "descending");
      const rows = [...body.rows].map((row) => [valueOf(row.cells[at]), row]);
      rows.sort((one, other) => order * compared(one[0], other[0]));
      body.append(...rows.map(([, row]) => row));
      show();
    });
  });
}

function paged(table) {
  const body = table.tBodies[0];
  if (body.rows.length <= ROWS_A_PAGE) return () => {};
  const bar = document.createElement("div");
  const words = document.createElement("span");
  let first = 0;
  const show = (from) => {
    first = from;
    [...body.rows].forEach((row, at) => { row.hidden = at < first || at >= first + ROWS_A_PAGE; });
    const last = Math.min(first + ROWS_A_PAGE, body.rows.length);
    words.textContent = `${first + 1} to ${last} of ${body.rows.length}`;
    back.disabled = first === 0;
    on.disabled = last === body.rows.length;
  };
  const button = (text, step) => {
    const made = document.createElement("button");
    made.type = "button";
    made.className = "plain small";
    made.textContent = text;
    made.addEventListener("click", () => show(first + step));
    return made;
  };
  const back = button("Previous", -ROWS_A_PAGE), on = button("Next", ROWS_A_PAGE);
  bar.className = "row pager";
  words.setAttribute("role", "status");
  bar.append(words, back, on);
  table.after(bar);
  show(0);
  return () => show(0);
}

function tables(within) {
  for (const table of within.querySelectorAll("table.rows:not([data-ready])")) {
    table.dataset.ready = "yes";
    if (table.tBodies[0]?.rows.length > 1) sortable(table, paged(table));
  }
  for (const area of within.querySelectorAll(".scroll, pre")) {
    if (area.scrollWidth > area.clientWidth) area.tabIndex = 0; // so that the keyboard can scroll it
  }
}

tables(document);
