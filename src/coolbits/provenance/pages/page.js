"use strict";
// What is shown depends on the fragment of the address alone: #mark/7, #row/loss/12, #run/NAME, #artifact/KIND/NAME,
// #kind/KIND, or nothing for the result itself. Text reaches the page as text nodes only, never as markup.
(() => {
  const facts = JSON.parse(document.getElementById("facts").textContent);
  const panel = document.getElementById("panel");
  const spots = Array.from(document.querySelectorAll("#marks a"));
  const places = new Map(facts.artifacts.map((artifact, place) => [label(artifact), place]));
  const ROWS_BESIDE = 6, RUN_WORDS = ["run", "trajectory", "model", "optimizer", "states", "peak_lr", "schedule", "seed"];

  // The values of a row that are there, by column.
  const valuesOf = ([name, number]) => {
    const { columns, rows } = facts.tables[name];
    return Object.fromEntries(rows[number][0].map((value, place) => [columns[place], value]).filter(([, value]) => value !== null));
  };

  function label(artifact) { return artifact.kind + "/" + artifact.name; }

  function make(name, attributes, ...children) {
    const element = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.append(...children.flat().filter((child) => child !== null).map((child) => child instanceof Node ? child : String(child)));
    return element;
  }

  const link = (parts, text) => make("a", { href: "#" + parts.map(encodeURIComponent).join("/") }, text);
  const toArtifact = (artifact) => link(["artifact", artifact.kind, ...artifact.name.split("/")], artifact.name);
  const count = (number, word) => `${number.toLocaleString("en")} ${word}${number === 1 ? "" : "s"}`;

  function bytes(size) {
    const steps = [[1e9, "GB"], [1e6, "MB"], [1e3, "kB"]];
    const [unit, name] = steps.find(([least]) => size >= least) || [1, "B"];
    return `${unit === 1 ? size : (size / unit).toPrecision(3)} ${name}`;
  }

  function say(value) { return typeof value === "object" ? JSON.stringify(value, null, 1) : String(value); }

  function list(pairs) {
    return make("dl", {}, pairs.filter(([, value]) => value !== undefined).flatMap(
      ([name, value]) => [make("dt", {}, name), make("dd", {}, value instanceof Node || Array.isArray(value) ? value : say(value))]));
  }

  function lazily(summary, fill, open = false) {
    const details = make("details", {}, make("summary", {}, summary));
    const unfold = () => { if (details.children.length === 1) details.append(fill()); };
    details.addEventListener("toggle", () => { if (details.open) unfold(); });
    if (open) { unfold(); details.open = true; }
    return details;
  }

  // The artifacts behind some, themselves included, by their places.
  function behind(starts) {
    const seen = new Set(starts), waiting = [...seen];
    while (waiting.length) {
      for (const parent of Object.values(facts.artifacts[waiting.pop()].parents || {})) {
        if (!seen.has(parent)) { seen.add(parent); waiting.push(parent); }
      }
    }
    return seen;
  }

  function sources(rows) { return rows.flatMap(([table, number]) => facts.tables[table].rows[number][1]); }
  const known = new Map();
  function behindMark(mark) {
    if (!known.has(mark)) known.set(mark, behind(sources(facts.marks[mark])));
    return known.get(mark);
  }

  function inside(artifact) {
    if (!artifact.fingerprint) return make("p", {}, "Not there, or its manifest is lost: coolbits audit says what is wrong.");
    const { versions, ...around } = artifact.circumstances === undefined ? {} : facts.circumstances[artifact.circumstances];
    const made = artifact.seconds === undefined ? undefined : `${artifact.seconds.toLocaleString("en")} s`;
    const parents = Object.entries(artifact.parents).flatMap(([role, place]) => [
      make("div", {}, role + ": ", toArtifact(facts.artifacts[place]))]);
    const place = places.get(label(artifact));
    const children = facts.artifacts.filter((other) => Object.values(other.parents || {}).includes(place));
    const rows = artifact.files.map(([name, size, digest]) =>
      make("tr", {}, make("td", {}, name), make("td", { class: "number" }, bytes(size)), make("td", {}, make("code", {}, digest))));
    const files = make("table", {}, make("thead", {}, make("tr", {}, ["File", "Size", "SHA-256"].map((name) => make("th", {}, name)))),
      make("tbody", {}, rows));
    return make("div", {},
      list([["at fault", artifact.faults && artifact.faults.join("; ")], ["folder", `results/${label(artifact)}`], ["started", artifact.started], ["took", made],
        ...Object.entries(around), ["fingerprint", artifact.fingerprint], ["manifest", artifact.digest],
        ["made from", parents.length ? parents : undefined],
        ["made into", children.length ? children.map((child) => make("div", {}, child.kind + " ", toArtifact(child))) : undefined]]),
      files,
      lazily("Recipe", () => make("pre", {}, say(facts.recipes[artifact.recipe]))),
      lazily("Outcome", () => make("pre", {}, say(artifact.summary))),
      versions ? lazily("Versions", () => list(Object.entries(versions))) : null);
  }

  function folded(artifact, open = false) {
    const diverged = artifact.summary && artifact.summary.outcome === "diverged" ? ", diverged" : "";
    const took = artifact.seconds === undefined ? "" : `, ${artifact.seconds.toLocaleString("en")} s`;
    return lazily([make("span", { class: "kind" }, artifact.kind + " "), artifact.name,
      make("span", { class: "kind" }, ` ${bytes(artifact.bytes)}${took}${diverged}`)], () => inside(artifact), open);
  }

  // From results back to documents: the last stage first.
  function chain(chosen) {
    const found = [...chosen].map((place) => facts.artifacts[place]);
    return facts.kinds.slice().reverse().flatMap((kind) => {
      const own = found.filter((artifact) => artifact.kind === kind);
      if (!own.length) return [];
      const folds = own.map((artifact) => folded(artifact));
      return own.length <= 4 ? folds : [lazily(count(own.length, kind), () => make("div", {}, folds))];
    });
  }

  function rowsBeside(rows) {
    const shown = rows.slice(0, ROWS_BESIDE).map((row) => [...row, valuesOf(row)]);
    const names = [...new Set(shown.flatMap(([, , values]) => Object.keys(values)))];
    const head = make("tr", {}, make("th", {}, ""), shown.map(([table, number]) => make("th", {}, link(["row", table, number], `${table} ${number}`))));
    const body = names.map((name) => {
      const cells = shown.map(([, , values]) => name in values ? say(values[name]) : "–");
      const differs = new Set(cells).size > 1 ? { class: "differs" } : {};
      return make("tr", differs, make("th", {}, name), cells.map((cell) => make("td", { class: cell.length < 20 ? "number" : "" }, cell)));
    });
    const more = rows.length - shown.length;
    const others = rows.slice(ROWS_BESIDE).map(([table, number]) => [link(["row", table, number], `${table} ${number}`), " "]);
    return [make("table", {}, make("thead", {}, head), make("tbody", {}, body)),
      more > 0 ? make("p", { class: "small" }, `and ${count(more, "row")}: `, others) : null];
  }

  function rowPanel(title, rows) {
    const said = rows.length > 1 ? `It stands for ${count(rows.length, "row")}: their mean or another summary of them.` : null;
    return [make("h2", {}, title), said ? make("p", { class: "small" }, said) : null, runsOf(rows),
      make("h3", {}, "Made from"), chain(behind(sources(rows))), make("h3", {}, "Values"), rowsBeside(rows)];
  }

  function runsOf(rows) {
    const runs = new Map();
    for (const values of rows.map(valuesOf)) {
      if ("trajectory" in values && !runs.has(values.trajectory)) runs.set(values.trajectory, values);
    }
    if (!runs.size) return null;
    const names = RUN_WORDS.filter((name) => [...runs.values()].some((values) => name in values));
    const head = make("tr", {}, names.map((name) => make("th", {}, name)));
    const body = [...runs].map(([trajectory, values]) => make("tr", {}, names.map((name) =>
      make("td", {}, name === "trajectory" ? link(["run", trajectory], trajectory) : name in values ? say(values[name]) : "–"))));
    return make("table", {}, make("thead", {}, head), make("tbody", {}, body));
  }

  function allRows() {
    return Object.entries(facts.tables).flatMap(([table, { rows }]) => Object.keys(rows).map((number) => [table, Number(number)]));
  }

  const rowKey = ([table, number]) => `${table}/${number}`;

  const panels = {
    "": () => {
      const top = facts.artifacts[facts.top], rows = allRows();
      const tables = Object.entries(facts.tables).map(([, table]) => folded(facts.artifacts[table.artifact]));
      return { marks: [], parts: [make("h2", {}, label(top)), inside(top),
        tables.length ? [make("h3", {}, "Tables"), tables] : null,
        rows.length ? [make("h3", {}, "Runs drawn"), runsOf(rows)] : [make("h3", {}, "Made from"), chain(behind([facts.top]))]].flat(2) };
    },
    mark: (number) => {
      const rows = facts.marks[Number(number)];
      return rows && { chosen: Number(number), marks: [], parts: rowPanel(`Mark ${Number(number) + 1} of ${facts.marks.length}`, rows) };
    },
    row: (table, number) => {
      if (!(Object.hasOwn(facts.tables, table) && Object.hasOwn(facts.tables[table].rows, number))) return undefined;
      const own = [table, Number(number)];
      const marks = facts.marks.flatMap((rows, mark) => rows.some((row) => rowKey(row) === rowKey(own)) ? [mark] : []);
      return { marks, parts: rowPanel(`Row ${number} of the table ${table}`, [own]) };
    },
    run: (...name) => {
      const trajectory = name.join("/");
      const rows = allRows().filter((row) => valuesOf(row).trajectory === trajectory);
      const keys = new Set(rows.map(rowKey));
      const marks = facts.marks.flatMap((own, mark) => own.some((row) => keys.has(rowKey(row))) ? [mark] : []);
      return rows.length && { marks, parts: rowPanel(`Run ${trajectory}`, rows) };
    },
    artifact: (...name) => {
      const place = places.get(name.join("/"));
      if (place === undefined) return undefined;
      const artifact = facts.artifacts[place];
      const marks = facts.marks.flatMap((_, mark) => behindMark(mark).has(place) ? [mark] : []);
      const others = behind([place]);
      others.delete(place);
      return { marks, parts: [make("h2", {}, label(artifact)), inside(artifact),
        others.size ? [make("h3", {}, "Made from"), chain(others)] : null].flat(2) };
    },
    kind: (kind) => {
      const own = facts.artifacts.filter((artifact) => artifact.kind === kind);
      const said = `${count(own.length, kind)} behind what is drawn`;
      return own.length && { marks: [], parts: [make("h2", {}, said), own.map((artifact) => folded(artifact))].flat() };
    },
  };

  function show() {
    let route;
    try { route = location.hash.slice(1).split("/").map(decodeURIComponent); } catch { route = ["?"]; }
    const [name, ...rest] = route;
    const found = (Object.hasOwn(panels, name) && panels[name](...rest)) || undefined;
    const back = name === "" ? null : make("p", { class: "small" }, make("a", { href: "#" }, "← the whole result"));
    const parts = found ? found.parts : [make("p", {}, "Nothing here has this name.")];
    panel.replaceChildren(...[back, ...parts].flat().filter((part) => part !== null));
    spots.forEach((spot, number) => {
      spot.classList.toggle("chosen", Boolean(found) && found.chosen === number);
      spot.classList.toggle("with", Boolean(found) && found.marks.includes(number));
    });
  }

  function told(rows) {
    const values = valuesOf(rows[0]);
    const words = ["run", "quantizer", "model", "tokens", "step", "seed"].filter((name) => name in values);
    return words.map((name) => `${name} ${say(values[name])}`).join(", ") + (rows.length > 1 ? `; ${rows.length} rows` : "");
  }

  spots.forEach((spot, number) => {
    const title = document.createElementNS("http://www.w3.org/2000/svg", "title");
    title.append(told(facts.marks[number]));
    spot.append(title);
    spot.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (!step) return;
      event.preventDefault();
      const next = spots[(number + step + spots.length) % spots.length];
      spot.tabIndex = -1;
      next.tabIndex = 0;
      next.focus();
    });
  });
  addEventListener("hashchange", show);
  show();
})();
