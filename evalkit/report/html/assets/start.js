// The first task shown is the one the leaderboard opens with, if it opens with a task.
async function start() {
  startTheme();
  startLeaderboard();
  for (const select of document.querySelectorAll(".task-choice")) {
    fillSelect(select, taskNames(), 0);
    select.addEventListener("change", () => showTask(Number(select.value)));
  }
  startQueries();
  addEventListener("scroll", () => showTooltip(null, null, null, null), { passive: true });
  await startDepths();
  await startSpeed();
  await startComparison();
  await startDistributions();
  document.documentElement.dataset.drawn = "true"; // all charts stand
}

start();
