// The page's data and how its elements are made. Texts of others enter the page as text nodes alone.
const report = JSON.parse(document.getElementById("report-data").textContent);
const byId = (id) => document.getElementById(id);

function make(tag, className, ...children) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

// A text that someone else wrote: it keeps its direction to itself.
function written(text, lang) {
  const element = make("bdi", "", text);
  element.dir = "auto";
  if (lang) element.lang = lang;
  return element;
}

function fillSelect(select, names, chosen) {
  select.replaceChildren(...names.map((name, place) => new Option(name, String(place), false, place === chosen)));
}

const label = (system) => report.systems[system].label;
const percent = (value) => (value * 100).toFixed(2);
const counted = (number, one, many) => `${number.toLocaleString("en")} ${number === 1 ? one : many}`;

function points(difference) {
  const text = Math.abs(difference * 100).toFixed(2);
  return `${difference < 0 && Number(text) !== 0 ? "−" : "+"}${text}`;
}

function score(number) {
  const size = Math.abs(number);
  const text = size !== 0 && (size < 0.001 || size >= 100000) ? number.toExponential(2) : String(Number(number.toPrecision(4)));
  return text.replace("-", "−");
}

// A query's own value of the task's metric: AP is what MAP is the mean of.
const queryMetric = () => task().metric.replace(/^M(?=AP|RR)/, "");

// What a search field holds, as the words that a text must have; case does not count.
const searched = (field) => field.value.toLowerCase().split(/\s+/).filter(Boolean);
const holds = (text, words) => words.every((word) => text.includes(word));

// The task that the scores, the comparison and the queries are about, and who must know of a change.
const shown = { task: 0, listeners: [] };
const task = () => report.tasks[shown.task];

function showTask(number) {
  shown.task = number;
  for (const select of document.querySelectorAll(".task-choice")) select.value = String(number);
  for (const listener of shown.listeners) listener();
}

function taskNames() {
  const several = new Set(report.tasks.map((one) => one.protocol)).size > 1;
  return report.tasks.map((one) => (several ? `${one.name} (${one.protocol})` : one.name));
}
