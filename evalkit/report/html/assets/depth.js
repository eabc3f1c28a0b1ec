// Each result's leading measure by how many candidates are reranked: a small chart per result.
async function startDepths() {
  if (!report.depths.length) return;
  const holders = report.depths.map((depth) => {
    const title = make("figcaption", "", make("b", "", written(depth.name)), make("span", "", depth.metric));
    const chart = make("div", "chart");
    return [make("figure", "", title, chart), chart];
  });
  byId("depth-charts").replaceChildren(...holders.map(([figure]) => figure));
  for (const [place, [, chart]] of holders.entries()) await draw(chart, "depth", report.depths[place].points);
}
