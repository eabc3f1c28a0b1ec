// The drill-down: queries, the worst first, and what every model made of a query's candidates.
const LIST_STEP = 100;
const list = { found: [], most: LIST_STEP, open: -1, order: 0, texts: new Map() };

const queryPlace = (query) => task().details.findIndex((detail) => detail.query === query);

// All that a search looks through, per detail; made when a task is first searched.
function searchTexts() {
  const found = list.texts.get(shown.task);
  if (found) return found;
  const { details, queries, queryIds } = task();
  const made = details.map(({ query, docIds, texts }) =>
    [queryIds[query], queries ? queries[query] : "", ...docIds, ...texts].join("\n").toLowerCase(),
  );
  list.texts.set(shown.task, made);
  return made;
}

function showList(fromTop) {
  if (fromTop) list.most = LIST_STEP;
  const { details, values, queryIds } = task();
  const chosen = byId("worst-for").value;
  const valueOf = (query) =>
    chosen === "mean" ? values.reduce((sum, own) => sum + own[query], 0) / values.length : values[Number(chosen)][query];
  const words = searched(byId("query-search"));
  const texts = words.length ? searchTexts() : null;
  list.found = details.map((_, place) => place).filter((place) => !texts || holds(texts[place], words));
  list.found.sort((one, other) => valueOf(details[one].query) - valueOf(details[other].query) || one - other);
  byId("query-list").replaceChildren(...list.found.slice(0, list.most).map((place) => listItem(place, valueOf(details[place].query))));
  byId("no-queries").hidden = list.found.length > 0 || !words.length;
  byId("query-more").hidden = list.found.length <= list.most;
  const of = details.length < queryIds.length ? `the worst ${details.length.toLocaleString("en")} of ${counted(queryIds.length, "query", "queries")}` : counted(details.length, "query", "queries");
  byId("query-count").textContent = words.length ? `${list.found.length.toLocaleString("en")} in ${of}` : of;
}

function listItem(place, value) {
  const { query } = task().details[place];
  const button = make("button", "", make("span", "text", ...queryText(query)), make("b", "number", percent(value)));
  button.type = "button";
  button.dataset.place = String(place);
  if (place === list.open) button.setAttribute("aria-current", "true");
  button.addEventListener("click", () => openDetail(place, true));
  return make("li", "", button);
}

// The arrows go through the list.
function moveInList(event) {
  const step = { ArrowDown: "nextElementSibling", ArrowUp: "previousElementSibling" }[event.key];
  const item = event.target.closest("li");
  if (!step || !item) return;
  event.preventDefault();
  item[step]?.querySelector("button").focus();
}

function openQuery(query, moves) {
  byId("query-search").value = "";
  const place = queryPlace(query);
  showList(true);
  openDetail(place, moves);
}

function openDetail(place, moves) {
  list.open = place;
  for (const button of byId("query-list").querySelectorAll("button")) {
    if (Number(button.dataset.place) === place) button.setAttribute("aria-current", "true");
    else button.removeAttribute("aria-current");
  }
  showDetail();
  if (!moves) return;
  const box = byId("detail").getBoundingClientRect();
  if (box.top < 0 || box.top > innerHeight * 0.6) byId("detail").scrollIntoView({ block: "start" });
  byId("detail").focus({ preventScroll: true });
}

function showDetail() {
  const { details, systems, values, lang } = task();
  const holder = byId("detail");
  const detail = list.found.length ? details[list.open] : null;
  if (!detail) {
    const choose = list.found.length ? "Choose a query." : "";
    holder.replaceChildren(make("p", "empty", details.length ? choose : "No query is shown in detail: report with --drill-down N."));
    return;
  }
  const relevant = detail.gains.filter((gain) => gain > 0).length;
  const select = make("select", "");
  fillSelect(select, systems.map(label), list.order);
  select.addEventListener("change", () => orderBy(Number(select.value)));
  const back = make("a", "back", "← list of queries");
  back.href = "#queries";
  const facts = make("p", "facts", counted(detail.count, "candidate", "candidates"), `, ${relevant.toLocaleString("en")} relevant`);
  const head = make("thead", "", make("tr", "", ...headCells(detail)));
  const body = make("tbody", "", ...rowsInOrder(detail).map((row) => candidateRow(detail, row, lang)));
  const hidden = detail.count - detail.docIds.length;
  const rest = hidden ? make("p", "note", `${counted(hidden, "candidate", "candidates")} more, irrelevant and among no model's first 30, are left out.`) : null;
  const scroll = make("div", "scroll", make("table", "candidates", head, body));
  scroll.tabIndex = 0;
  scroll.setAttribute("role", "region");
  scroll.setAttribute("aria-label", "Candidates");
  const order = make("div", "controls", make("label", "beside", "In the order of ", select), facts);
  const title = make("h3", "", ...queryText(detail.query));
  holder.replaceChildren(...[back, title, order, scroll, rest].filter(Boolean));

  function headCells({ query }) {
    const fixed = ["label", "candidate"].map((text) => header(text));
    const own = systems.map((system, place) => {
      const button = make("button", "", written(label(system)), make("small", "", `${queryMetric()} ${percent(values[place][query])}`));
      button.type = "button";
      button.addEventListener("click", () => orderBy(place));
      const cell = header(button, "number");
      cell.setAttribute("aria-sort", place === list.order ? "ascending" : "none");
      return cell;
    });
    return [...fixed, ...own];
  }
}

function header(content, className = "") {
  const cell = make("th", className, content);
  cell.scope = "col";
  return cell;
}

function orderBy(place) {
  list.order = place;
  showDetail();
}

function rowsInOrder(detail) {
  const ranks = detail.ranks[list.order];
  return ranks.map((_, row) => row).sort((one, other) => ranks[one] - ranks[other] || one - other);
}

function candidateRow(detail, row, lang) {
  const gain = detail.gains[row];
  const mark = make("td", "mark", gain > 1 ? `relevant ${gain}` : gain > 0 ? "relevant" : "irrelevant");
  const cells = task().systems.map((system, place) => {
    const cell = make("td", place === list.order ? "number chosen" : "number", make("b", "", `${detail.ranks[place][row]}${detail.tied[place].includes(row) ? "=" : ""}`), make("span", "", score(detail.scores[place][row])));
    cell.dataset.name = label(system);
    if (detail.truncated[place]?.includes(row)) cell.append(make("i", "cut", "cut"));
    return cell;
  });
  return make("tr", gain > 0 ? "relevant" : "", mark, candidateText(detail, row, lang), ...cells);
}

function candidateText(detail, row, lang) {
  const id = make("small", "", written(detail.docIds[row]));
  if (!detail.texts.length) return make("td", "text", id);
  const length = detail.lengths[row];
  if (length) id.append(` · ${counted(length, "character", "characters")} in all`);
  return make("td", "text", written(detail.texts[row], lang), id);
}

function textMessage() {
  if (task().hasTexts || !task().details.length) return "";
  return report.textsLeftOut
    ? "Texts were left out of this report (--no-texts)."
    : "These results hold no texts. To read them here, run the evaluation again with texts=true (scores come from the store) and write the report anew.";
}

function showTaskQueries() {
  const options = [new Option("all models", "mean"), ...task().systems.map((system, place) => new Option(label(system), String(place)))];
  byId("worst-for").replaceChildren(...options);
  list.open = -1;
  list.order = 0;
  byId("text-message").textContent = textMessage();
  byId("text-message").hidden = !byId("text-message").textContent;
  showList(true);
  openDetail(list.found.length ? list.found[0] : -1, false);
}

function startQueries() {
  shown.listeners.push(showTaskQueries);
  byId("worst-for").addEventListener("change", () => {
    if (byId("worst-for").value !== "mean") list.order = Number(byId("worst-for").value);
    showList(true);
    openDetail(list.found.length ? list.found[0] : -1, false);
  });
  byId("query-search").addEventListener("input", () => {
    const before = list.found.length > 0;
    showList(true);
    // an empty list leaves no detail standing, and what was open comes back with it
    if (before !== list.found.length > 0) showDetail();
  });
  byId("query-more").addEventListener("click", () => {
    list.most += LIST_STEP;
    showList(false);
  });
  byId("query-list").addEventListener("keydown", moveInList);
  showTaskQueries();
}
