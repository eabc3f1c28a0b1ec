// The leaderboard's rows are in the page already; they are put in order and hidden.
const board = { table: byId("board"), rows: [...byId("board").tBodies[0].rows] };
const filters = ["filter-name", "filter-task", "filter-protocol", "filter-kind", "filter-size"].map(byId);

function fits(row) {
  const [name, ofTask, protocol, kind, size] = filters;
  return (
    holds(row.dataset.name.toLowerCase(), searched(name)) &&
    (!ofTask.value || row.dataset.task === ofTask.value) &&
    (!protocol.value || row.dataset.protocol === protocol.value) &&
    (!kind.value || row.dataset.kind === kind.value) &&
    hasSize(row.dataset.size, size.value)
  );
}

function hasSize(text, wanted) {
  if (!wanted) return true;
  if (wanted === "unknown" || !text) return wanted === "unknown" && !text;
  const [low, high] = wanted.split("-");
  return Number(text) >= Number(low) && (!high || Number(text) < Number(high));
}

function filterRows() {
  let count = 0;
  const tasks = new Set();
  for (const row of board.rows) {
    row.hidden = !fits(row);
    if (row.hidden) continue;
    count += 1;
    tasks.add(`${row.dataset.task} ${row.dataset.protocol}`);
  }
  board.table.classList.toggle("one-task", tasks.size < 2);
  byId("row-count").textContent = `${count} of ${counted(board.rows.length, "row", "rows")}`;
  byId("no-rows").hidden = count > 0;
}

function sortKey(cell, kind) {
  const value = cell.dataset.value;
  if (kind === "text") return value.toLowerCase();
  return value === "" || value === "nan" ? null : Number(value);
}

function sortRows(header) {
  const { cellIndex } = header;
  const { kind } = header.dataset;
  const before = header.getAttribute("aria-sort");
  // figures begin with the highest, names and ranks with the first
  const rises = before === "none" ? kind === "text" || cellIndex === 0 : before === "descending";
  for (const other of header.parentElement.cells) if (other.hasAttribute("aria-sort")) other.setAttribute("aria-sort", "none");
  header.setAttribute("aria-sort", rises ? "ascending" : "descending");
  const keyed = board.rows.map((row) => [sortKey(row.cells[cellIndex], kind), row]);
  keyed.sort(([one], [other]) => {
    if (one === null || other === null) return (one === null) - (other === null);
    const order = kind === "text" ? one.localeCompare(other) : one - other;
    return rises ? order : -order;
  });
  board.table.tBodies[0].append(...keyed.map(([, row]) => row));
}

function startLeaderboard() {
  for (const header of board.table.tHead.rows[0].cells) {
    const button = header.querySelector("button");
    if (button) button.addEventListener("click", () => sortRows(header));
  }
  for (const filter of filters) filter.addEventListener(filter.tagName === "SELECT" ? "change" : "input", filterRows);
  byId("clear-filters").addEventListener("click", () => {
    for (const filter of filters) filter.value = "";
    filterRows();
    filters[0].focus();
  });
  sortRows(byId("leading"));
  filterRows();
}
