// Quality against speed, of the board that the leaderboard shows or the reader chooses here.
function showSpeed() {
  const chosen = report.boards[Number(byId("speed-board").value)];
  const rows = chosen.points.filter((point) => point.rate !== null);
  byId("speed-axis").textContent = `↑ ${chosen.measured}, in percent`;
  for (const id of ["speed-chart", "speed-axis", "speed-keys"]) byId(id).hidden = rows.length === 0;
  byId("speed-message").hidden = rows.length === chosen.points.length;
  const lacking = chosen.points.filter((point) => point.rate === null).map((point) => point.label);
  byId("speed-message").textContent = `Without a measured speed (no model was run, or all scores came from the store): ${lacking.join(", ")}.`;
  return rows.length ? draw(byId("speed-chart"), "speed", rows, chosen.domains) : null;
}

function startSpeed() {
  const select = byId("speed-board");
  const several = new Set(report.tasks.map((one) => one.protocol)).size > 1;
  const names = report.boards.map((one) => (several ? `${one.name} (${one.protocol})` : one.name));
  const first = report.boards.findIndex((one) => one.name === byId("filter-task").value);
  fillSelect(select, names, Math.max(0, first));
  select.addEventListener("change", showSpeed);
  byId("filter-task").addEventListener("change", () => {
    const found = report.boards.findIndex((one) => one.name === byId("filter-task").value);
    if (found < 0) return;
    select.value = String(found);
    showSpeed();
  });
  return showSpeed();
}
