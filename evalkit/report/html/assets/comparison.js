// Two models on the same queries.
const MOVED_STEP = 15;
const moved = { rows: [], most: MOVED_STEP };

// The pair as the report compared it, turned so that A comes first.
function comparedPair(a, b) {
  const pair = task().pairs.find((one) => (one.first === a && one.second === b) || (one.first === b && one.second === a));
  if (!pair || pair.first === a) return pair;
  return {
    ...pair,
    difference: -pair.difference,
    interval: [pair.interval[1], pair.interval[0]].map((end) => (end === null ? null : -end)),
    wins: pair.losses,
    losses: pair.wins,
  };
}

function showComparison() {
  const { systems, values } = task();
  const several = systems.length > 1;
  byId("comparison-body").hidden = !several;
  byId("comparison-message").hidden = several;
  byId("comparison-message").textContent = `Only ${label(systems[0])} was run on this task; a comparison needs two.`;
  if (!several) return null;
  const [a, b] = ["model-a", "model-b"].map((id) => Number(byId(id).value));
  moved.rows = values[a].map((value, query) => ({ query, a: value, b: values[b][query], difference: value - values[b][query] }));
  moved.rows.sort((one, other) => other.difference - one.difference || one.query - other.query);
  showVerdict(a, b);
  byId("differences").hidden = a === b;
  if (a === b) return null;
  byId("differences-axis").textContent = `↑ ${queryMetric()} of A less that of B, percentage points`;
  showMoved(true);
  const last = moved.rows[moved.rows.length - 1];
  const steps = moved.rows.map((row, place) => ({ place, difference: 100 * row.difference }));
  return draw(byId("differences-chart"), "differences", [...steps, { place: steps.length, difference: 100 * last.difference }]);
}

function showVerdict(a, b) {
  const { systems, metric } = task();
  if (a === b) {
    byId("verdict").replaceChildren(make("p", "", "A and B are the same model: choose another."));
    return;
  }
  const pair = comparedPair(a, b);
  const [low, high] = pair.interval;
  const apart = pair.p !== null && pair.p < report.alpha; // null where there is one query
  const range = low === null || high === null ? "" : `${report.interval} ${points(low)} to ${points(high)}, `;
  const tested = pair.p === null ? "one query tests nothing" : `${pair.p < 0.0001 ? "p < 0.0001" : `p = ${pair.p.toFixed(4)}`} (Holm)`;
  const winner = label(systems[pair.difference > 0 ? a : b]);
  byId("verdict").replaceChildren(
    make("p", "figure", make("b", "", points(pair.difference)), make("span", "", `points of ${metric}`)),
    make("p", "", apart ? make("b", "", written(winner), " is better") : make("b", "", "Not told apart"), make("small", "", `${range}${tested}`)),
    countBar(pair),
  );
}

function countBar(pair) {
  const parts = [["good", pair.wins, "A better"], ["equal", pair.ties, "equal"], ["bad", pair.losses, "B better"]];
  const bar = make("div", "bar");
  for (const [name, count] of parts) {
    const part = make("i", name);
    part.style.flexGrow = count;
    if (count) bar.append(part);
  }
  const words = parts.map(([name, count, what]) => make("span", name, make("b", "", count.toLocaleString("en")), ` ${what}`));
  return make("div", "counts", bar, make("p", "", ...words));
}

function queryText(query) {
  const { queries, queryIds, lang } = task();
  return queries ? [written(queries[query], lang), make("small", "", written(queryIds[query]))] : [written(queryIds[query])];
}

function showMoved(fromTop) {
  if (fromTop) moved.most = MOVED_STEP;
  const { queries, queryIds } = task();
  const words = searched(byId("moved-search"));
  const found = moved.rows.filter(({ query }) => holds(`${queryIds[query]} ${queries ? queries[query] : ""}`.toLowerCase(), words));
  if (byId("moved-order").value === "1") found.reverse();
  byId("moved").replaceChildren(...found.slice(0, moved.most).map(movedRow));
  byId("moved-more").hidden = found.length <= moved.most;
  byId("no-moved").hidden = found.length > 0;
  byId("moved-count").textContent = counted(found.length, "query", "queries");
}

function movedRow(row) {
  const cells = [percent(row.a), percent(row.b), points(row.difference)].map((text) => make("td", "number", text));
  cells[2].classList.add(row.difference > 0 ? "good" : row.difference < 0 ? "bad" : "equal");
  const name = make("td", "", ...queryText(row.query));
  if (queryPlace(row.query) >= 0) {
    const button = make("button", "link", ...name.childNodes);
    button.type = "button";
    button.addEventListener("click", () => openQuery(row.query, true));
    name.append(button);
  }
  return make("tr", "", ...cells, name);
}

function fillModels() {
  const names = task().systems.map(label);
  const means = task().values.map((values) => values.reduce((sum, value) => sum + value, 0));
  // what only reads labels or dice comes after every model
  const lasts = task().systems.map((system) => Number(report.systems[system].kind === "baseline"));
  const order = means.map((_, place) => place).sort((one, other) => lasts[one] - lasts[other] || means[other] - means[one]);
  const before = ["model-a", "model-b"].map((id) => byId(id).selectedOptions[0]?.text);
  ["model-a", "model-b"].forEach((id, turn) => {
    const kept = names.indexOf(before[turn]);
    fillSelect(byId(id), names, kept >= 0 && before[0] !== before[1] ? kept : (order[turn] ?? order[0]));
  });
}

function startComparison() {
  const renew = () => {
    fillModels();
    return showComparison();
  };
  shown.listeners.push(renew);
  for (const id of ["model-a", "model-b"]) byId(id).addEventListener("change", showComparison);
  byId("swap").addEventListener("click", () => {
    [byId("model-a").value, byId("model-b").value] = [byId("model-b").value, byId("model-a").value];
    showComparison();
  });
  byId("moved-search").addEventListener("input", () => showMoved(true));
  byId("moved-order").addEventListener("change", () => showMoved(true));
  byId("moved-more").addEventListener("click", () => {
    moved.most += MOVED_STEP * 4;
    showMoved(false);
  });
  return renew();
}
