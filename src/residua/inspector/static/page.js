// The page: it asks the server it came from, at addresses relative to its own, which holds the token.
// Whatever it is told becomes text, never markup.

const at = (id) => document.getElementById(id);

function make(tag, about = {}, ...within) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(about)) {
    if (typeof value === "function") node.addEventListener(name, value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...within.flat().filter((one) => one !== null && one !== undefined && one !== false && one !== ""));
  return node;
}

// Numbers in words; the exact one is the element's value.

const percent = (x, signed = false) => x === null ? "—" : `${signed && x > 0 ? "+" : ""}${(100 * x).toFixed(2)}\u00a0%`.replace("-", "\u2212");
const digits = (x) => {
  if (x === null) return "—";
  const size = Math.abs(x);
  const text = size !== 0 && (size < 1e-3 || size >= 1e5) ? x.toExponential(2) : String(Number(x.toPrecision(4)));
  return text.replace("-", "\u2212").replace("e\u2212", "e-");
};
const signed = (x) => (x > 0 ? "+" : "") + digits(x);
const count = (n, noun) => `${n.toLocaleString("en")} ${noun}${n === 1 ? "" : "s"}`;
const value = (x, text, about = {}) => make("data", { value: x, ...about }, text);

// Asking and telling.

let sayer;
function say(text, seconds = 8) {
  clearTimeout(sayer);
  at("said").textContent = text;
  sayer = setTimeout(() => at("said").replaceChildren(), 1000 * seconds);
}

async function answer(request) {
  let response;
  try {
    response = await request;
  } catch {
    throw new Error("The inspector does not answer: it was closed, or this machine is busy.");
  }
  const told = await response.json().catch(() => ({ error: `The inspector failed (${response.status}).` }));
  if (!response.ok) throw new Error(told.error);
  return told;
}

const ask = (path, about = {}) => answer(fetch(`${path}?${new URLSearchParams(about)}`));
const tell = (path, about = {}) => answer(fetch(path, {
  method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(about),
}));
const bring = (kind, body) => answer(fetch(`${kind}/upload`, {
  method: "POST", headers: { "Content-Type": "application/octet-stream" }, body,
}));

const guarded = (work) => async (...given) => {
  try {
    return await work(...given);
  } catch (error) {
    say(error.message);
  }
};

// What is looked at now.

let about;
let status;
let example = null;
let which = "all";
let examplesPage = 0;
let memoriesPage = 0;
const settings = {};

const changed = () => Object.fromEntries(
  about.sliders.filter((one) => settings[one.name] !== one.value).map((one) => [one.name, settings[one.name]]),
);

// Sliders: 1000 steps, which are squares of a whole number's share, or equal factors.

const STEPS = 1000;
const place = (one, x) => {
  if (one.scale === "log") return STEPS * Math.log(x / one.least) / Math.log(one.most / one.least);
  const share = (x - one.least) / ((one.most - one.least) || 1);
  return STEPS * (one.scale === "whole" ? Math.sqrt(share) : share);
};
const valueAt = (one, step) => {
  const share = step / STEPS;
  if (one.scale === "whole") return Math.round(one.least + (one.most - one.least) * share * share);
  if (one.scale === "log") return Number((one.least * (one.most / one.least) ** share).toPrecision(4));
  return Number((one.least + (one.most - one.least) * share).toFixed(3));
};

function makeSlider(one) {
  const id = `slider-${one.name}`;
  const range = make("input", { type: "range", id, min: 0, max: STEPS, step: 1 });
  const number = make("input", {
    type: "number", id: `number-${one.name}`, "aria-label": `${one.symbol}, exactly`, step: one.scale === "whole" ? 1 : "any",
    min: one.least, max: one.most,
  });
  const show = () => {
    range.value = place(one, settings[one.name]);
    range.setAttribute("aria-valuetext", `${one.symbol} = ${digits(settings[one.name])}`);
    number.value = one.scale === "whole" ? settings[one.name] : Number(settings[one.name].toPrecision(4));
  };
  const move = (x) => {
    settings[one.name] = x;
    show();
    settingsMoved();
  };
  range.addEventListener("input", () => move(valueAt(one, Number(range.value))));
  number.addEventListener("change", () => {
    const x = Number(number.value);
    if (number.value !== "" && Number.isFinite(x)) move(Math.min(one.most, Math.max(one.least, x)));
    else show();
  });
  one.show = show;
  show();
  return make("div", { class: "slider" },
    make("label", { for: id }, make("b", {}, one.symbol), one.meaning),
    make("div", {}, range, number));
}

function showCode() {
  const moved = Object.entries(changed()).map(([name, x]) => `${name}=${x}`).join(", ");
  at("code").textContent = moved ? `reader.with_params(${moved})` : `${about.reader}, as given`;
}

// One request at a time, and then the latest: nothing waits behind what nobody wants any more.

let running = false;
let again = false;
const settingsMoved = guarded(async () => {
  showCode();
  if (running) {
    again = true;
    return;
  }
  running = true;
  at("figures").setAttribute("aria-busy", "true");
  try {
    do {
      again = false;
      await Promise.all([loadFigures(), loadExplanation()]);
      if (!again) await loadExamples();
    } while (again);
  } finally {
    running = false;
    at("figures").removeAttribute("aria-busy");
  }
});

// Figures.

async function loadFigures() {
  if (!about.data?.labels) return;
  const began = performance.now();
  const told = await ask("figures", changed());
  const took = performance.now() - began;
  const share = about.task !== "regression";
  const shown = (x, plus) => share ? percent(x, plus) : plus ? signed(x) : digits(x);
  const tiles = told.changes.map((one) => {
    const isShare = one.key === "improved" || one.key === "worsened" || share;
    const text = isShare ? percent(one.value, one.key === "gain") : shown(one.value, true);
    return make("div", {}, make("dt", {}, one.name), make("dd", {}, value(one.value, text, { "data-figure": one.key })));
  });
  const rows = told.measures.map((one) => {
    const asShare = share && one.name !== "log-loss";
    const form = (x) => asShare ? percent(x) : digits(x);
    const better = one.base !== null && one.memory !== one.base && (one.memory > one.base) === one.more_is_better;
    const verdict = one.memory === one.base ? "" : better ? "better" : "worse";
    return make("tr", {},
      make("th", { scope: "row" }, one.name),
      make("td", {}, value(one.base, form(one.base), { "data-figure": `base ${one.name}` })),
      make("td", { class: verdict }, value(one.memory, form(one.memory), { "data-figure": one.name }),
        verdict && make("span", { class: "hidden" }, `, ${verdict}`)));
  });
  at("figures-shown").replaceChildren(
    make("dl", { class: "tiles" }, tiles),
    make("table", {}, make("thead", {}, make("tr", {},
      make("td", {}, make("span", { class: "hidden" }, "measure")),
      make("th", { scope: "col", class: "of-base" }, "base"), make("th", { scope: "col", class: "of-memory" }, "memory"))),
    make("tbody", {}, rows)),
    make("p", { class: "hint" }, `${count(told.rows, about.text ? "token" : "example")}, in ${took.toFixed(0)} ms`));
}

// The list of examples.

const inText = (text) => text && make("span", { class: "text" }, text[0], text[1] && make("mark", {}, text[1]));
const picture = (address, alt) => {
  const image = make("img", { src: address, alt, loading: "lazy" });
  image.addEventListener("load", () => image.classList.toggle("small-picture", image.naturalWidth < 97));
  image.addEventListener("error", () => image.remove());
  return image;
};
const inFacts = (facts) => {
  const all = Object.entries(facts);
  if (!all.length) return null;
  const some = all.slice(0, 12).map(([name, x]) => make("span", {}, `${name} `, make("b", {}, x)));
  return make("span", { class: "facts" }, some, all.length > 12 ? make("span", {}, `and ${all.length - 12} more`) : null);
};

function verdictOf(one) {
  const several = about.task === "multi-label";  // of which some may still be wrong
  if (one.gain > 0) return make("span", { class: "verdict fixed" }, several ? "✓ better" : "✓ fixed");
  if (one.gain < 0) return make("span", { class: "verdict broken" }, several ? "✗ worse" : "✗ broken");
  return null;
}

async function loadExamples() {
  if (!about.data) return;
  const told = await ask("examples", { ...changed(), which, page: examplesPage });
  examplesPage = told.page;
  const pictures = told.examples.some((one) => one.picture);
  at("examples").className = pictures ? "pictures" : "";
  at("examples").replaceChildren(...told.examples.map((one) => make("li", {}, make("button", {
    type: "button", "data-example": one.example, "aria-current": one.example === example ? "true" : false,
    click: () => choose(one.example),
  },
  one.picture && picture(one.picture, ""),
  one.text ? inText(one.text) : make("span", {}, one.name),
  make("span", { class: "what" }, one.base === one.prediction ? one.prediction : `${one.base} → ${one.prediction}`),
  verdictOf(one)))));
  if (!told.total) at("examples").replaceChildren(make("li", { class: "empty" }, "There are none under these settings."));
  pager(at("examples-pages"), told, (page) => {
    examplesPage = page;
    guarded(loadExamples)();
  }, count(told.total, "example"));
}

function pager(where, told, go, what) {
  const turn = (text, page, able) => make("button", { type: "button", class: "small", disabled: !able, click: () => go(page) }, text);
  where.replaceChildren(make("span", {}, what));
  if (told.pages > 1) {
    where.append(turn("Previous", told.page - 1, told.page > 0),
      make("span", {}, `page ${(told.page + 1).toLocaleString("en")} of ${told.pages.toLocaleString("en")}`),
      turn("Next", told.page + 1, told.page + 1 < told.pages));
  }
}

const choose = guarded(async (one) => {
  example = one;
  for (const button of at("examples").querySelectorAll("button")) {
    if (button.dataset.example === example) button.setAttribute("aria-current", "true");
    else button.removeAttribute("aria-current");
  }
  await loadExplanation();
  const top = at("detail").getBoundingClientRect().top;
  if (top > innerHeight - 100) at("detail").scrollIntoView({ block: "start" });
});

// One example, taken apart.

const bar = (part, kind) => {
  const inner = make("i", { class: kind });
  inner.style.setProperty("--part", Math.max(0, Math.min(1, part || 0)));
  return make("span", { class: "bar", "aria-hidden": "true" }, inner);
};

async function loadExplanation() {
  if (example === null) return;
  const asked = example;
  const told = await ask("explanation", { ...changed(), example });
  if (asked !== example) return;
  at("detail").replaceChildren(asQuery(told), asScores(told), asNeighbours(told));
}

function asQuery(told) {
  const query = told.query;
  const answers = [["true", told.label, null], ["base says", told.base, told.base_right], ["with the memory", told.prediction, told.right]];
  return make("div", { class: `card asked${query.picture ? "" : " plain"}` },
    query.picture && picture(query.picture, `the picture of ${query.name}`),
    make("div", {},
      make("h3", {}, query.name),
      inText(query.text),
      inFacts(query.facts),
      make("dl", { class: "answers" }, answers.filter((one) => one[1] !== null).map(([name, x, right]) => make("div", {},
        make("dt", {}, name),
        make("dd", {}, x, right === null ? null : right ? " ✓" : " ✗",
          right === null ? null : make("span", { class: "hidden" }, right ? "right" : "wrong")))))));
}

function asScores(told) {
  const largest = Math.max(1e-12, ...told.scores.flatMap((one) => [Math.abs(one.base * told.scale), Math.abs(one.score)]));
  const rows = told.scores.map((one) => make("tr", {},
    make("th", { scope: "row" }, one.name),
    make("td", {}, value(one.base, digits(one.base)), bar(Math.abs(one.base * told.scale) / largest, one.base < 0 ? "away" : "base")),
    make("td", {}, value(one.added, signed(one.added)), bar(Math.abs(one.added) / largest, one.added < 0 ? "away" : "memory")),
    make("td", {}, value(one.score, digits(one.score)), bar(Math.abs(one.score) / largest, one.score < 0 ? "away" : "memory"))));
  const first = told.scores[0];
  const scale = told.scale === 1 ? "" : `${digits(told.scale)} × `;
  return make("div", { class: "card" },
    make("h3", {}, told.space === "logit" ? "Scores (logits)" : "Scores"),
    make("table", { class: "scores" },
      make("thead", {}, make("tr", {}, make("td", {}, make("span", { class: "hidden" }, "output")),
        make("th", { scope: "col", class: "of-base" }, "base"), make("th", { scope: "col" }, "memories add"),
        make("th", { scope: "col", class: "of-memory" }, "score"))),
      make("tbody", {}, rows)),
    first && make("p", { class: "sum" }, `${first.name}: ${scale}${digits(first.base)} ${first.added < 0 ? "−" : "+"} ${digits(Math.abs(first.added))} = ${digits(first.score)}`),
    told.more_outputs ? make("p", { class: "hint" }, `and ${count(told.more_outputs, "more output")}`) : null);
}

function asNeighbours(told) {
  const column = told.columns[0];
  const largest = Math.max(1e-12, ...told.neighbours.map((one) => Math.abs(one.moved[0])));
  const cards = told.neighbours.map((one) => {
    const moves = told.columns.map((name, i) => make("span", { class: "move" }, `${signed(one.moved[i])} to ${name}`));
    return make("li", { "data-id": one.id },
      one.picture && picture(one.picture, `the picture of ${one.name}`),
      make("span", { class: "label" }, one.label),
      inText(one.text),
      make("span", { class: "numbers" }, one.name, make("br"), `distance ${digits(one.distance)}, weight ${digits(one.weight)}`),
      make("span", { class: "moves" }, moves),
      bar(Math.abs(one.moved[0]) / largest, one.moved[0] < 0 ? "away" : "memory"),
      inFacts(one.facts),
      one.id === null ? null : doing(one.id, one.name, one.label, null));
  });
  const pictures = told.neighbours.some((one) => one.picture);
  const rest = told.rest.count ? `and ${count(told.rest.count, "more neighbour")}, of weight ${digits(told.rest.weight)} together` : "";
  return make("div", { class: "card" },
    make("h3", {}, "The memories that moved it most"),
    make("p", { class: "hint" }, cards.length
      ? `${told.shared ? "Each one's share of what all add together" : "What each adds"}; the bar is to “${column}”.`
      : "No memory was read: this is the model alone."),
    make("ol", { class: `neighbours${pictures ? " pictures" : ""}` }, cards),
    rest && make("p", { class: "hint" }, rest));
}

// Edits.

function doing(id, name, label, bearers) {
  const many = bearers > 1 ? ` ${bearers.toLocaleString("en")} rows` : "";
  const forget = make("button", {
    type: "button", class: "small", "data-forget": id, "aria-label": `Forget${many} of ${name}`.replace("Forget of", "Forget"),
    click: () => edit("forget", { ids: [id] }),
  }, `Forget${many}`);
  const relabel = make("button", {
    type: "button", class: "small", "data-relabel": id, "aria-label": `Relabel ${name}`, click: () => askLabel(id, name, label),
  }, "Relabel");
  return make("span", { class: "do" }, forget, about.text ? null : relabel);
}

const edit = guarded(async (what, told = {}) => {
  const done = await tell(what, told);
  const said = {
    forget: () => `${count(done.forgotten, "row")} forgotten. Undo takes it back.`,
    relabel: () => `${count(done.relabelled, "row")} relabelled. Undo takes it back.`,
    undo: () => `Taken back: ${done.undone}`,
    keep: () => `Kept in ${done.kept}`,
  };
  say(said[what]());
  showStatus(done);
  await edited();
});

async function edited() {
  for (const one of about.sliders) {
    if (one.name !== "k") continue;
    one.most = Math.min(one.deepest, status.rows);
    if (settings.k > one.most) settings.k = one.most;
    at("number-k").max = one.most;
    one.show();
  }
  await Promise.all([loadMemories(), settingsMoved()]);
}

let relabelling = null;
function askLabel(id, name, label) {
  relabelling = id;
  at("relabel-what").textContent = `${name}, now ${label}`;
  at("relabel-label").value = "";
  at("relabel-hint").textContent = {
    classification: about.classes ? "A class by its name or number." : `A class: a number from 0 to ${about.outputs - 1}.`,
    "multi-label": "Classes with commas between them, or none.",
    regression: about.outputs > 1 ? `${about.outputs} numbers with commas between them.` : "A number.",
  }[about.task];
  at("relabel").showModal();
  at("relabel-label").focus();
}

function showStatus(told) {
  status = told;
  const parts = [];
  if (told.edits) parts.push(`${count(told.edits, "edit")} not kept`);
  if (told.elsewhere) parts.push("others saved here; Keep takes that in");
  at("edits").textContent = parts.join("; ");
  at("undo").disabled = told.undo === null;
  at("undo").title = told.undo ? `Takes back: ${told.undo}` : "There is nothing to take back";
  at("keep").disabled = about.folder === null || !(told.edits || told.elsewhere);
  at("keep").title = about.folder ? `Saves into ${about.folder}` : "No folder was given to save into";
  at("logged").textContent = `${count(told.logged, "edit")} since it was made, the last first; ${count(told.rows, "row")} now.`;
  at("log").replaceChildren(...told.log.map((one) => make("li", {}, one)));
}

// Memories.

async function loadMemories() {
  const form = new FormData(at("search"));
  const told = await ask("memories", { ...Object.fromEntries(form), page: memoriesPage });
  memoriesPage = told.page;
  const some = (name) => told.rows.some((one) => one[name] !== null);
  const heads = [some("picture") && "", "name", some("text") && "text", "label", some("base") && "the model says",
    told.rows.some((one) => Object.keys(one.facts).length) && "also", "id", ""];
  const head = heads.filter((one) => one !== false).map((one) => one ? make("th", { scope: "col" }, one) : make("td"));
  const rows = told.rows.map((one) => make("tr", { "data-id": one.id },
    some("picture") && make("td", { class: "of-picture" }, one.picture && picture(one.picture, `the picture of ${one.name}`)),
    make("td", { class: "name" }, one.name, one.also > 0 ? ` and ${count(one.also, "other name")}` : ""),
    some("text") && make("td", {}, inText(one.text)),
    make("td", { class: "label", "data-head": "label" }, one.label),
    some("base") && make("td", { "data-head": "the model says" }, one.base),
    heads[5] && make("td", {}, inFacts(one.facts)),
    make("td", { "data-head": "id" }, one.id),
    make("td", {}, doing(one.id, one.name, one.label, one.bearers))));
  at("memories").replaceChildren(make("thead", {}, make("tr", {}, head)), make("tbody", {}, rows));
  at("found").textContent = count(told.total, "row");
  pager(at("memories-pages"), told, (page) => {
    memoriesPage = page;
    guarded(loadMemories)();
  }, "");
}

// Bringing one's own.

function showBring() {
  const kinds = about.uploads;
  if (!kinds.length) return;
  const isText = kinds.includes("text");
  const field = make("textarea", { id: "bring-text", rows: 3, spellcheck: "false" });
  const file = isText ? null : make("input", { type: "file", id: "bring-file", accept: kinds.includes("picture") ? "image/*,.npy" : ".npy" });
  const form = make("form", {},
    make("label", { for: "bring-text" }, isText ? "A text, whose next token is explained" : "Numbers, as the model takes them"), field,
    file && make("label", { for: "bring-file" }, kinds.includes("picture") ? "or a picture, or an .npy file" : "or an .npy file"), file,
    make("button", { type: "submit", class: "strong" }, "Ask"));
  form.addEventListener("submit", guarded(async (event) => {
    event.preventDefault();
    const chosen = file?.files[0];
    const kind = isText ? "text" : !chosen || chosen.name.endsWith(".npy") ? "vector" : "picture";
    const told = await bring(kind, chosen || field.value);
    await choose(told.example);
  }));
  at("bring").replaceChildren(make("details", {}, make("summary", {}, "Bring your own"), form));
}

// Views, by the address's last part.

const VIEWS = ["examples", "memories", "log"];
function showView() {
  const wanted = location.hash.slice(2);
  const view = VIEWS.includes(wanted) ? wanted : about.data || about.uploads.length ? "examples" : "memories";
  for (const one of VIEWS) {
    at(`view-${one}`).hidden = one !== view;
    const link = document.querySelector(`nav a[href="#/${one}"]`);
    if (one === view) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `${view} · residua inspector`;
}

const start = guarded(async () => {
  about = await ask("about");
  for (const one of about.sliders) {
    settings[one.name] = one.value;
    one.deepest = one.most;
  }
  at("sliders").replaceChildren(...about.sliders.map(makeSlider));
  showCode();
  at("classes").replaceChildren(...(about.classes ?? []).slice(0, 1000).map((one) => make("option", { value: one })));
  at("facts").replaceChildren(...[["reader", about.reader], ...Object.entries(about.params), ...Object.entries(about.memory)]
    .flatMap(([name, x]) => [make("dt", {}, name), make("dd", {}, x)]));
  at("search-text").hidden = !(about.text && about.tokenizer);
  at("which").replaceChildren(...(about.which.length > 1 ? about.which : []).map((one) => make("button", {
    type: "button", class: "small", "aria-pressed": one === which ? "true" : "false",
    click: (event) => {
      which = one;
      examplesPage = 0;
      for (const button of at("which").children) button.setAttribute("aria-pressed", String(button === event.target));
      guarded(loadExamples)();
    },
  }, one)));
  if (about.data?.labels) at("figures-shown").replaceChildren(make("p", { class: "hint" }, `Searching the memory for ${count(about.data.rows, "example")}, once …`));
  if (about.data && !about.data.labels) at("figures-shown").replaceChildren(make("p", { class: "hint" }, "The data hold no labels to compare with."));
  if (!about.data) at("figures-shown").replaceChildren(make("p", { class: "hint" }, "No data was given: residua inspect MEMORY test.npz"));
  if (about.data?.total > about.data?.rows) {
    at("heading-list").textContent = `${count(about.data.rows, "example")} of ${about.data.total.toLocaleString("en")}`;
  }
  at("detail").replaceChildren(make("p", { class: "card empty" }, "Choose an example to see which memories moved it."));
  showBring();
  showView();
  showStatus(await ask("status"));
  if (about.data) example = "row-0";
  await Promise.all([loadMemories(), settingsMoved()]);
});

window.addEventListener("hashchange", showView);
at("reset").addEventListener("click", () => {
  for (const one of about.sliders) {
    settings[one.name] = Math.min(one.value, one.most);
    one.show();
  }
  settingsMoved();
});
at("settings").addEventListener("submit", (event) => event.preventDefault());
at("undo").addEventListener("click", () => edit("undo"));
at("keep").addEventListener("click", () => edit("keep"));
at("search").addEventListener("submit", guarded(async (event) => {
  event.preventDefault();
  memoriesPage = 0;
  await loadMemories();
}));
at("search").addEventListener("reset", () => setTimeout(guarded(async () => {
  memoriesPage = 0;
  await loadMemories();
})));
at("relabel-cancel").addEventListener("click", () => at("relabel").close());
at("relabel").querySelector("form").addEventListener("submit", (event) => {
  event.preventDefault();
  at("relabel").close();
  edit("relabel", { ids: [relabelling], label: at("relabel-label").value });
});
setInterval(guarded(async () => {
  if (about && !document.hidden) showStatus(await ask("status"));
}), 15000);
start();
