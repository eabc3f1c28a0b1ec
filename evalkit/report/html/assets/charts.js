// Charts are drawn as SVG whose colours are CSS variables. Vega interprets its expressions (ast), since the page's policy forbids eval.
const drawn = new Map();

// Draw a chart once its holder has a width; `domains` are the ends of its axes, by channel, where they are not the data's.
async function draw(holder, name, rows, domains = {}) {
  const turn = {};
  const earlier = drawn.get(holder);
  drawn.set(holder, turn);
  if (earlier && earlier.view) earlier.view.finalize();
  const spec = { ...structuredClone(report.charts.specs[name]), data: { values: rows } };
  for (const [channel, ends] of Object.entries(domains)) spec.encoding[channel].scale.domain = ends;
  await hasWidth(holder);
  if (drawn.get(holder) !== turn) return;
  const { config } = report.charts;
  const options = { ast: true, actions: false, defaultStyle: false, renderer: "svg", config, patch: placeLabels, tooltip: showTooltip };
  const result = await vegaEmbed(holder, spec, options);
  if (drawn.get(holder) === turn) turn.view = result.view;
  else result.view.finalize();
}

function hasWidth(holder) {
  if (holder.clientWidth) return null;
  return new Promise((resolve) => {
    const watch = new ResizeObserver(() => {
      if (!holder.clientWidth && holder.isConnected) return;
      watch.disconnect();
      resolve();
    });
    watch.observe(holder);
  });
}

// Vega can place labels beside points so that none overlap, leaving out those without room; Vega-Lite has no word for it.
function placeLabels(spec) {
  const points = spec.marks.find((mark) => mark.type === "symbol");
  const labels = spec.marks.find((mark) => mark.type === "text");
  if (!points || !labels) return spec;
  const { fontSize, limit } = labels.encode.update;
  labels.from = { data: points.name };
  labels.encode = { update: { text: { field: "datum.label" }, fill: { field: "fill" }, fontSize, limit } };
  const anchor = ["top", "bottom", "right", "left", "top-right", "bottom-right", "top-left", "bottom-left"];
  labels.transform = [{ type: "label", size: { signal: "[max(1, width), height]" }, anchor, offset: [5], avoidMarks: [points.name] }];
  return spec;
}

function showTooltip(_, event, __, value) {
  const box = byId("tooltip");
  box.hidden = value === null || value === undefined || value === "";
  if (box.hidden) return;
  const lines = Object.entries(value).filter(([, text]) => text !== "");
  box.replaceChildren(...lines.map(([name, text]) => make("p", "", make("span", "", name), make("b", "", String(text)))));
  const left = Math.min(event.clientX + 14, document.documentElement.clientWidth - box.offsetWidth - 8);
  box.style.left = `${Math.max(8, left)}px`;
  box.style.top = `${Math.min(event.clientY + 14, innerHeight - box.offsetHeight - 8)}px`;
}
