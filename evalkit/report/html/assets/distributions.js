// How the scores of relevant and irrelevant candidates lie: a small chart per model.
function binRows(distribution) {
  const rows = [];
  for (const kind of ["irrelevant", "relevant"]) {
    const shares = distribution[kind];
    const width = (distribution.high - distribution.low) / shares.length;
    // the last one again, so that its step has a width
    for (let bin = 0; bin <= shares.length; bin += 1) {
      rows.push({ kind, score: distribution.low + bin * width, share: 100 * shares[Math.min(bin, shares.length - 1)] });
    }
  }
  return rows;
}

async function showDistributions() {
  const { distributions, systems } = task();
  const holders = distributions.map((distribution, place) => {
    const separation = distribution.separation === null ? "" : `${(100 * distribution.separation).toFixed(1)} %`;
    const title = make("figcaption", "", make("b", "", written(label(systems[place]))));
    if (separation) title.append(make("span", "", `relevant above irrelevant: ${separation}`));
    const chart = make("div", "chart");
    return [make("figure", "", title, chart), chart];
  });
  byId("distributions").replaceChildren(...holders.map(([figure]) => figure));
  for (const [place, [, chart]] of holders.entries()) {
    if (chart.isConnected) await draw(chart, "distribution", binRows(distributions[place]));
  }
}

function startDistributions() {
  shown.listeners.push(showDistributions);
  return showDistributions();
}
