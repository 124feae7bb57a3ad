"use strict";
(() => {
const $ = (id) => document.getElementById(id);
const fail = (message) => {
  document.documentElement.dataset.error = message;
  $("error").hidden = false;
  $("error").textContent = "This page met an error: " + message;
};
window.addEventListener("error", (e) => fail(e.message));
const D = JSON.parse($("data").textContent);
const ready = () => { document.documentElement.dataset.ready = "true"; };
if (!D.rows.length) { ready(); return; }

// ---- words and numbers, as in number.go ----
const digits = (v) => {
  if (!v) return "0";
  const a = Math.abs(v);
  if (a >= 1e15 || a < 1e-6) return v.toPrecision(3);
  const s = v.toFixed(Math.max(0, 2 - Math.floor(Math.log10(a) + 1e-9)));
  return s.includes(".") ? s.replace(/\.?0+$/, "") : s;
};
// count and duration take their unit from a second number, if there is one, so that a mean and its interval share it.
const count = (v, like = v) => {
  const a = Math.abs(Math.abs(v) < Math.abs(like) / 100 ? v : like);
  for (const [size, name] of [[1e9, "G"], [1e6, "M"], [1e3, "k"]])
    if (a >= size * 0.9995 && (size > 1e3 || a >= 1e4)) return digits(v / size) + name;
  return a >= 999.5 ? v.toFixed(0) : digits(v);
};
const duration = (v, like = v) => {
  const a = Math.abs(Math.abs(v) < Math.abs(like) / 100 ? v : like);
  if (!v || !a) return v ? digits(v) + " s" : "0 s";
  if (a < 1e-3) return digits(v * 1e6) + " µs";
  if (a < 1) return digits(v * 1e3) + " ms";
  if (a < 120) return digits(v) + " s";
  if (a < 7200) return digits(v / 60) + " min";
  return a < 172800 ? digits(v / 3600) + " h" : digits(v / 86400) + " d";
};
const percent = (v) => {
  const a = Math.abs(v * 100);
  if (!a) return "0 %";
  if (a < 0.001) return "< 0.001 %";
  return (v * 100).toFixed(a >= 10 ? 1 : a >= 0.1 ? 2 : 3) + " %";
};
const show = (m, v, like = v) => m.unit === "share" ? percent(v) : m.unit === "ratio" ? digits(v) :
  m.unit === "s" && !m.title.endsWith("pod-seconds") ? duration(v, like) : count(v, like);
// clock writes an instant of the run: 3d 04:05:06, with as much as its length needs.
const clock = (t, length) => {
  const s = Math.round(t), p = (n) => String(n).padStart(2, "0");
  const d = Math.floor(s / 86400), h = Math.floor(s / 3600) % 24, m = Math.floor(s / 60) % 60;
  if (length < 5 && t !== s) return t.toFixed(1) + " s";
  return (length >= 86400 ? d + "d " : "") + (length >= 3600 ? p(h) + ":" : "") + p(m) + ":" + p(s % 60);
};
const brief = (name, n = 16) => name.length > n ? name.slice(0, n - 1) + "…" : name;
const plural = (n, noun) => n + " " + noun + (n === 1 ? "" : "s");

// ---- elements ----
const el = (tag, props, ...children) => {
  const e = document.createElement(tag);
  for (const [k, v] of Object.entries(props || {})) {
    if (k === "class") e.className = v;
    else if (k.startsWith("on")) e.addEventListener(k.slice(2), v);
    else if (v !== undefined && v !== false) e.setAttribute(k, v === true ? "" : v);
  }
  e.append(...children.filter((c) => c !== undefined && c !== null));
  return e;
};
const host = document.createElement("div");
host.innerHTML = "<svg></svg>";
const space = host.firstChild.namespaceURI;
const sv = (tag, props, ...children) => {
  const e = document.createElementNS(space, tag);
  for (const [k, v] of Object.entries(props || {})) e.setAttribute(k, v);
  e.append(...children);
  return e;
};
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// ---- colours: those of Okabe and Ito first, each with a lighter twin for dark pages ----
const dark = matchMedia("(prefers-color-scheme: dark)");
const colours = {
  light: ["#0072b2", "#d55e00", "#009e73", "#c04d93", "#b07900", "#2f9bd8", "#6b4fb3", "#6b6b00", "#8c1d45", "#3d4852"],
  dark: ["#4da6ff", "#ff7f2a", "#2ec99a", "#e79bc6", "#ffc145", "#9edcff", "#b79cff", "#c9c94d", "#ff7a9c", "#c3ccd6"],
};
const colour = (p) => colours[dark.matches ? "dark" : "light"][p % 10];
const shapes = [
  (r) => sv("circle", { r }),
  (r) => sv("rect", { x: -r * 0.9, y: -r * 0.9, width: r * 1.8, height: r * 1.8 }),
  (r) => sv("path", { d: `M0 ${-r * 1.2}L${r * 1.15} ${r * 0.9}H${-r * 1.15}Z` }),
  (r) => sv("path", { d: `M0 ${-r * 1.3}L${r * 1.3} 0L0 ${r * 1.3}L${-r * 1.3} 0Z` }),
  (r) => sv("path", { d: `M0 ${r * 1.2}L${r * 1.15} ${-r * 0.9}H${-r * 1.15}Z` }),
];
const mark = (p, r = 5) => {
  const s = shapes[(p + Math.floor(p / 10)) % shapes.length](r);
  s.setAttribute("fill", colour(p));
  return s;
};
const dot = (p) => {
  const s = sv("svg", { viewBox: "-7 -7 14 14", class: "dot", "aria-hidden": "true" }, mark(p));
  return s;
};

// ---- what is shown ----
const key = (...parts) => parts.join("/");
const runAt = new Map(D.runs.map((r) => [key(r.s, r.t, r.seed, r.p), r]));
const state = { s: D.rows[0].s, t: D.rows[0].t, seed: "", on: new Set() };
const groupOf = (s, t) => D.rows.filter((r) => r.s === s && r.t === t);
const seedsOf = (s, t) => [...new Set(D.runs.filter((r) => r.s === s && r.t === t).map((r) => r.seed))];
{
  const first = D.policies.indexOf(D.baseline);
  if (first >= 0) state.on.add(first);
  for (let p = 0; p < D.policies.length && state.on.size < 4; p++) state.on.add(p);
}
const save = () => {
  const q = new URLSearchParams({ scenario: D.scenarios[state.s], trace: D.traces[state.t], seed: state.seed });
  for (const p of state.on) q.append("policy", D.policies[p]);
  try { history.replaceState(null, "", "#" + q); } catch { /* a page in a frame may not */ }
};
const load = () => {
  const q = new URLSearchParams(location.hash.slice(1));
  const find = (list, name, old) => { const i = list.indexOf(name); return i < 0 ? old : i; };
  state.s = find(D.scenarios, q.get("scenario"), state.s);
  state.t = find(D.traces, q.get("trace"), state.t);
  state.seed = q.get("seed") || "";
  const on = q.getAll("policy").map((n) => D.policies.indexOf(n)).filter((p) => p >= 0);
  if (on.length) state.on = new Set(on);
};
load();
const fix = () => {
  if (!groupOf(state.s, state.t).length) state.t = (D.rows.find((r) => r.s === state.s) || D.rows[0]).t;
  const seeds = seedsOf(state.s, state.t);
  if (!seeds.includes(state.seed)) state.seed = seeds[0] || "";
};

const fill = (select, names, value) => {
  select.replaceChildren(...names.map(([v, name]) => el("option", { value: v }, name || "(unnamed)")));
  select.value = value;
};
const bar = () => {
  fix();
  fill($("scenario"), D.scenarios.map((n, i) => [i, n]), state.s);
  $("scenario-box").hidden = D.scenarios.length < 2;
  fill($("trace"), D.traces.map((n, i) => [i, n]).filter(([i]) => groupOf(state.s, i).length), state.t);
  fill($("seed"), seedsOf(state.s, state.t).map((n) => [n, n]), state.seed);
  $("seed").disabled = !state.seed;
  $("chips").replaceChildren(...D.policies.map((name, p) => el("button", {
    type: "button", class: "chip", title: name, "aria-pressed": String(state.on.has(p)),
    onclick: () => { state.on.has(p) ? state.on.delete(p) : state.on.add(p); draw(false); },
  }, dot(p), el("span", {}, name || "(unnamed)"))));
};
$("scenario").onchange = (e) => { state.s = +e.target.value; draw(true); };
$("trace").onchange = (e) => { state.t = +e.target.value; draw(true); };
$("seed").onchange = (e) => { state.seed = e.target.value; draw(true); };

// ---- all traces at once ----
const ratioText = (q) => !q ? "–" : digits2(q[0]);
const digits2 = (v) => v >= 100 ? count(v) : v.toFixed(2);
const spread = (i) => i[3] > 1 && i[2] - i[1] > 2e-9 * Math.abs(i[0]);
const wide = (q, f) => spread(q) ? `95 %: ${f(q[1])} to ${f(q[2])}` : "";
// verdict tells whether a ratio or a difference is surely better or worse than the baseline.
const verdict = (q, even) => {
  if (!q || Math.abs(q[0] - even) < 1e-12) return "";
  const known = q[3] > 1;
  if (known ? q[2] < even : q[0] < even) return "better";
  if (known ? q[1] > even : q[0] > even) return "worse";
  return "";
};
const sign = { better: "▼ ", worse: "▲ ", "": "" };
const matrix = () => {
  const overall = D.overall.filter((o) => o.s === state.s);
  $("matrix-section").hidden = overall.length < 1;
  if (!overall.length) return;
  const base = D.baseline;
  $("matrix-lead").textContent = (base
    ? `Pod-seconds as a multiple of ${base}'s, over the seeds that both ran, and below it the share of requests that violate the SLO. ▲ costs more, ▼ less. The first line has geometric means. `
    : "Pod-seconds, and below them the share of requests that violate the SLO. ") + "Press a cell to see its trace.";
  const shade = (v) => {
    if (!base || !(v > 0)) return "";
    const x = Math.max(-1, Math.min(1, Math.log2(v))), a = Math.abs(x) * 0.42;
    return a < 0.02 ? "" : `background:rgba(${css(x > 0 ? "--up" : "--down")},${a.toFixed(3)})`;
  };
  const head = el("tr", {}, el("th", { class: "name", scope: "col" }, "trace"),
    ...D.policies.map((n, p) => el("th", { scope: "col", title: n }, dot(p), " ", n)));
  const total = el("tr", { class: "total" }, el("td", { class: "name l" }, "all traces"), ...D.policies.map((_, p) => {
    const o = overall.find((x) => x.p === p), q = o && o.ratio.podSeconds;
    if (!o) return el("td", {}, "–");
    const v = verdict(q, 1);
    return el("td", {
      class: "v", style: shade(q && q[0]),
      title: `${plural(o.traces, "trace")}. ${q ? wide(q, digits2) : ""} Worst trace: ${D.traces[o.worstTrace]}, ${percent(o.worst)}`,
    }, el("span", {}, sign[v] + ratioText(q)), el("small", {}, percent(o.mean.sloViolations || 0)));
  }));
  const rows = D.traces.map((name, t) => {
    const group = groupOf(state.s, t);
    if (!group.length) return null;
    return el("tr", { class: t === state.t ? "pick" : "" }, el("td", { class: "name l", title: name }, name), ...D.policies.map((_, p) => {
      const r = group.find((x) => x.p === p);
      if (!r) return el("td", { class: "v" }, "–");
      const q = r.ratio.podSeconds, v = verdict(q, 1), pods = r.mean.podSeconds;
      return el("td", {
        class: "v", style: shade(q && q[0]), title: q ? wide(q, digits2) : "",
        onclick: () => { state.t = t; state.on.add(p); draw(true); },
      }, el("span", {}, base ? sign[v] + ratioText(q) : pods ? count(pods[0]) : "–"), el("small", {}, r.mean.sloViolations ? percent(r.mean.sloViolations[0]) : "–"));
    }));
  }).filter(Boolean);
  $("matrix").replaceChildren(el("thead", {}, head), el("tbody", {}, base ? total : null, ...rows));
};

// ---- comparison ----
const sorting = { column: "", down: false };
const few = ["podSeconds", "sloViolations", "waitP99", "slowdownP99", "coldStarts", "lost", "reversals", "peakReplicas"];
const comparison = () => {
  const all = $("table-all").checked, everything = $("table-wide").checked;
  $("table-all").parentElement.hidden = D.traces.length < 2;
  const rows = D.rows.filter((r) => r.s === state.s && (all || r.t === state.t));
  const metrics = D.metrics.filter((m) => everything || few.includes(m.name));
  const base = D.baseline;
  const columns = [];
  if (all) columns.push({ id: "trace", title: "trace", left: true, value: (r) => D.traces[r.t], cell: (r) => el("td", { class: "l name", title: D.traces[r.t] }, D.traces[r.t]) });
  columns.push({ id: "policy", title: "policy", left: true, value: (r) => D.policies[r.p], cell: (r) => el("td", { class: "l" + (all ? "" : " name"), title: D.policies[r.p] }, dot(r.p), " ", D.policies[r.p], onFront(r) ? el("small", { title: "no other policy beats it in both pod-seconds and violations" }, " front") : null) });
  const best = new Map();
  const bestOf = (r, name) => {
    const k = key(r.s, r.t, name);
    if (!best.has(k)) {
      const v = groupOf(r.s, r.t).map((x) => x.mean[name]).filter(Boolean).map((x) => x[0]);
      best.set(k, Math.min(...v) < Math.max(...v) ? Math.min(...v) : NaN);
    }
    return best.get(k);
  };
  for (const m of metrics) {
    columns.push({
      id: m.name, title: m.title, unit: m.unit === "share" ? "share of requests" : "",
      value: (r) => r.mean[m.name] ? r.mean[m.name][0] : Infinity,
      cell: (r) => {
        const i = r.mean[m.name];
        if (!i) return el("td", {}, "–");
        const half = spread(i) ? (i[2] - i[1]) / 2 : 0, top = i[0] === bestOf(r, m.name);
        return el("td", { class: top ? "best" : "", title: top ? "best of this trace" : "" }, show(m, i[0]), half > 0 ? el("small", {}, " ± " + show(m, half, i[0])) : null);
      },
    });
    const against = (id, title, map, even, text, unit = "") => columns.push({
      id, title, value: (r) => r[map][m.name] ? r[map][m.name][0] : Infinity,
      cell: (r) => {
        const q = r[map][m.name];
        if (!q || D.policies[r.p] === base) return el("td", {}, el("small", {}, D.policies[r.p] === base ? "baseline" : "–"));
        const v = verdict(q, even);
        return el("td", { class: v }, sign[v] + text(q[0]) + unit, spread(q) ? el("small", {}, ` [${text(q[1])}, ${text(q[2])}]`) : null);
      },
    });
    if (base && m.name === "podSeconds") against("ratio", "× " + brief(base), "ratio", 1, digits2);
    if (base && m.name === "sloViolations") against("delta", "violations − " + brief(base), "delta", 0, (v) => (Math.abs(v) < 5e-5 ? "" : v > 0 ? "+" : "−") + Math.abs(v * 100).toFixed(2), " pp");
  }
  const c = columns.find((x) => x.id === sorting.column);
  if (c) rows.sort((a, b) => {
    const x = c.value(a), y = c.value(b);
    return (typeof x === "string" ? x.localeCompare(y) : x === y ? 0 : x - y) * (sorting.down ? -1 : 1);
  });
  const head = el("tr", {}, ...columns.map((x, i) => el("th", {
    class: (x.left ? "l" : "") + (i === 0 ? " name" : ""), scope: "col", title: x.unit || x.title,
    "aria-sort": sorting.column === x.id ? (sorting.down ? "descending" : "ascending") : false,
  }, el("button", { type: "button", onclick: () => {
    if (sorting.column === x.id && sorting.down) sorting.column = "";
    else { sorting.down = sorting.column === x.id; sorting.column = x.id; }
    comparison();
  } }, x.title))));
  let last = -1;
  $("table").replaceChildren(el("thead", {}, head), el("tbody", {}, ...rows.map((r) => {
    const group = all && !c && last >= 0 && r.t !== last;
    last = r.t;
    return el("tr", { class: group ? "group" : "" }, ...columns.map((x) => x.cell(r)));
  })));
  const one = rows[0];
  const seeds = rows.map((r) => r.seeds), least = Math.min(...seeds), most = Math.max(...seeds);
  $("table-lead").textContent = (all ? "All traces" : D.traces[state.t]) + (D.scenarios[state.s] ? ", scenario " + D.scenarios[state.s] : "") +
    (most > 1 ? `: means over ${least === most ? most : least + " to " + most} seeds, ± half the 95 % interval` : ": one seed, so no intervals") +
    (!all && one ? `; ${count(one.requests / one.seeds)} requests a run` : "") + ". Less is better everywhere; the best of a trace is shaded" +
    (base ? `. ▲ is worse than ${base}, ▼ better` + (most > 1 ? ", where the interval leaves no doubt" : "") : "") + ".";
};
const fronts = new Set(D.fronts.flatMap((f) => f.p.map((p) => key(f.s, f.t, p))));
const onFront = (r) => fronts.has(key(r.s, r.t, r.p));
$("table-all").onchange = $("table-wide").onchange = comparison;

// ---- plots in SVG: Pareto and waits ----
const ticksLinear = (lo, hi, n) => {
  const raw = (hi - lo) / n || 1, mag = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((k) => k * mag).find((s) => s >= raw * 0.999);
  const out = [];
  for (let v = Math.ceil(lo / step - 1e-9) * step; v <= hi + step * 1e-6; v += step) out.push(Math.abs(v) < step * 1e-6 ? 0 : v);
  return out;
};
const ticksLog = (lo, hi, most = 8) => {
  const out = [], a = Math.floor(Math.log10(lo) + 1e-9), b = Math.ceil(Math.log10(hi) - 1e-9);
  const every = Math.ceil((b - a) / most), between = Math.log10(hi / lo) <= most / 4 ? [1, 2, 5] : [1];
  for (let d = a; d <= b; d++) if ((d - a) % every === 0) out.push(...between.map((k) => k * 10 ** d));
  return out.filter((v) => v >= lo * 0.999 && v <= hi * 1.001);
};
// frame draws axes into a box and returns the scales. x and y: {lo, hi, log, text, title}.
const frame = (box, x, y) => {
  const w = Math.max(box.clientWidth, 200), h = Math.max(box.clientHeight, 200);
  const svg = sv("svg", { viewBox: `0 0 ${w} ${h}`, role: "img", "aria-label": `${y.title}, against ${x.title}` });
  const m = { l: 62, r: 16, t: 10, b: 44 };
  const scale = (a, from, to) => a.log
    ? (v) => from + (Math.log(Math.max(v, a.lo)) - Math.log(a.lo)) / (Math.log(a.hi) - Math.log(a.lo)) * (to - from)
    : (v) => from + (v - a.lo) / (a.hi - a.lo) * (to - from);
  const px = scale(x, m.l, w - m.r), py = scale(y, h - m.b, m.t);
  const xs = x.log ? ticksLog(x.lo, x.hi) : ticksLinear(x.lo, x.hi, w < 420 ? 4 : 6);
  const ys = y.log ? ticksLog(y.lo, y.hi) : ticksLinear(y.lo, y.hi, 5);
  for (const v of ys) svg.append(sv("line", { class: "grid", x1: m.l, x2: w - m.r, y1: py(v), y2: py(v) }), sv("text", { class: "tick", x: m.l - 8, y: py(v) + 4, "text-anchor": "end" }, y.text(v)));
  for (const v of xs) svg.append(sv("line", { class: "grid", x1: px(v), x2: px(v), y1: m.t, y2: h - m.b }), sv("text", { class: "tick", x: px(v), y: h - m.b + 17, "text-anchor": "middle" }, x.text(v)));
  svg.append(sv("line", { class: "axis", x1: m.l, x2: w - m.r, y1: h - m.b, y2: h - m.b }), sv("line", { class: "axis", x1: m.l, x2: m.l, y1: m.t, y2: h - m.b }));
  svg.append(sv("text", { class: "tick", x: (m.l + w - m.r) / 2, y: h - 6, "text-anchor": "middle" }, x.title));
  svg.append(sv("text", { class: "tick", transform: `translate(13 ${(m.t + h - m.b) / 2}) rotate(-90)`, "text-anchor": "middle" }, y.title));
  box.replaceChildren(svg);
  return { svg, px, py, w, h, m };
};
const tipAt = (box, x, y, ...children) => {
  let t = box.querySelector(".tip");
  if (!t) { t = el("div", { class: "tip" }); box.append(t); }
  t.replaceChildren(...children);
  t.hidden = false;
  const w = t.offsetWidth, h = t.offsetHeight;
  t.style.left = Math.max(0, Math.min(x + 14, box.clientWidth - w)) + "px";
  t.style.top = Math.max(0, y - h - 12 < 0 ? y + 14 : y - h - 12) + "px";
};
const tipOff = (box) => { const t = box.querySelector(".tip"); if (t) t.hidden = true; };
const none = (box, text) => box.replaceChildren(el("p", { class: "none" }, text));

// scatter draws points {p, x, y: [mean, low, high, n]} and their front.
const scatter = (box, points, xAxis, describe) => {
  if (!points.length) return none(box, "Nothing to show.");
  const xs = points.flatMap((q) => [q.x[0], q.x[1], q.x[2]]).filter((v) => v >= 0), ys = points.map((q) => q.y[0]);
  let lo = Math.min(...points.map((q) => q.x[0])), hi = Math.max(...points.map((q) => q.x[0]));
  lo = Math.max(Math.min(...xs), lo - (hi - lo)); hi = Math.min(Math.max(...xs), hi + (hi - lo || hi * 0.2));
  const pad = (hi - lo) * 0.12 || Math.abs(hi) * 0.1 || 1;
  const positive = [...ys, D.promises[state.s][1]].filter((v) => v > 0), least = positive.length ? Math.min(...positive) : 0.01;
  const floor = 10 ** Math.floor(Math.log10(least) - (ys.some((v) => !v) ? 0.7 : 0));
  const zero = ys.some((v) => !(v > 0));
  const x = { lo: Math.max(0, lo - pad), hi: hi + pad, text: xAxis.text, title: xAxis.title };
  const y = { lo: floor, hi: Math.max(10 ** Math.ceil(Math.log10(Math.max(...ys, floor)) + 1e-9), floor * 10), log: true, title: "requests that violate the SLO", text: (v) => zero && v <= floor * 1.01 ? "0" : digits(v * 100) + " %" };
  y.hi = Math.min(y.hi, 1) > floor ? Math.min(y.hi, 1) : y.hi;
  const f = frame(box, x, y);
  const clip = (v) => Math.max(f.m.l, Math.min(f.w - f.m.r, v));
  const front = points.filter((a) => !points.some((b) => b.x[0] <= a.x[0] && b.y[0] <= a.y[0] && (b.x[0] < a.x[0] || b.y[0] < a.y[0]))).sort((a, b) => a.x[0] - b.x[0]);
  const share = D.promises[state.s][1];
  if (share > y.lo && share < y.hi) f.svg.append(sv("line", { class: "promise", x1: f.m.l, x2: f.w - f.m.r, y1: f.py(share), y2: f.py(share) }),
    sv("text", { class: "tick promised", x: f.w - f.m.r - 4, y: f.py(share) - 5, "text-anchor": "end" }, `SLO: ${digits(share * 100)} %`));
  let d = "";
  front.forEach((q, i) => { d += i ? `H${f.px(q.x[0])}V${f.py(q.y[0])}` : `M${f.px(q.x[0])} ${f.m.t}V${f.py(q.y[0])}`; });
  d += `H${f.w - f.m.r}`;
  f.svg.append(sv("path", { d, fill: "none", stroke: css("--dim"), "stroke-width": 1.5, "stroke-dasharray": "5 4" }));
  const marks = [];
  for (const q of points) {
    const cx = f.px(q.x[0]), cy = f.py(q.y[0]);
    if (spread(q.x)) f.svg.append(sv("line", { x1: clip(f.px(q.x[1])), x2: clip(f.px(q.x[2])), y1: cy, y2: cy, stroke: colour(q.p), "stroke-width": 1.5, opacity: 0.6 }));
    if (spread(q.y)) f.svg.append(sv("line", { x1: cx, x2: cx, y1: f.py(Math.min(q.y[1], y.hi)), y2: f.py(Math.min(q.y[2], y.hi)), stroke: colour(q.p), "stroke-width": 1.5, opacity: 0.6 }));
    const g = mark(q.p, state.on.has(q.p) ? 6.5 : 5);
    g.setAttribute("transform", `translate(${cx} ${cy})`);
    g.setAttribute("stroke", css("--bg"));
    g.setAttribute("stroke-width", "1.5");
    g.setAttribute("data-point", "");
    f.svg.append(g);
    marks.push({ q, cx, cy });
  }
  // Labels: beside the mark where no other label is, else left out (the tip still tells).
  const taken = marks.map((k) => [k.cx - 7, k.cy - 7, k.cx + 7, k.cy + 7]);
  for (const e of f.svg.querySelectorAll(".promised")) { const b = e.getBBox(); taken.push([b.x, b.y, b.x + b.width, b.y + b.height]); }
  for (const k of [...marks].sort((a, b) => state.on.has(b.q.p) - state.on.has(a.q.p))) {
    if (marks.length > 10 && !state.on.has(k.q.p) && !front.includes(k.q)) continue;
    const name = brief(D.policies[k.q.p], 30);
    const text = sv("text", { class: "label", style: `fill:${colour(k.q.p)}` }, name);
    f.svg.append(text);
    const w = text.getComputedTextLength();
    const spots = [[11, 4], [-w / 2, -12], [-w / 2, 21], [11, -9], [11, 17], [-w - 11, 4], [-w - 11, -9], [-w - 11, 17]];
    const spot = spots.map(([dx, dy]) => [k.cx + dx, k.cy + dy]).find(([a, b]) => a >= f.m.l && a + w <= f.w && b - 11 >= 0 && b <= f.h - f.m.b + 2 &&
      !taken.some((o) => a < o[2] && a + w > o[0] && b - 11 < o[3] && b + 3 > o[1]));
    if (!spot) { text.remove(); continue; }
    text.setAttribute("x", spot[0]);
    text.setAttribute("y", spot[1]);
    taken.push([spot[0], spot[1] - 11, spot[0] + w, spot[1] + 3]);
  }
  f.svg.onpointerleave = () => tipOff(box);
  f.svg.onpointermove = f.svg.onpointerdown = (e) => {
    const b = box.getBoundingClientRect(), mx = e.clientX - b.left, my = e.clientY - b.top;
    const near = marks.map((k) => [Math.hypot(k.cx - mx, k.cy - my), k]).sort((a, b) => a[0] - b[0])[0];
    if (near[0] > 40) return tipOff(box);
    tipAt(box, near[1].cx, near[1].cy, el("b", {}, D.policies[near[1].q.p]), ...describe(near[1].q).map((s) => el("div", {}, s)));
  };
  box.dataset.drawn = points.length;
};
const pareto = () => {
  $("pareto-title").textContent = D.traces[state.t];
  const all = D.overall.filter((o) => o.s === state.s && o.ratio.podSeconds);
  $("pareto-all-box").hidden = !all.length; // before the other one is drawn, as it takes its width
  const band = (i, f) => f(i[0]) + (spread(i) ? ` ± ${f((i[2] - i[1]) / 2, i[0])}` : "");
  const points = groupOf(state.s, state.t).filter((r) => r.mean.podSeconds && r.mean.sloViolations).map((r) => ({ p: r.p, x: r.mean.podSeconds, y: r.mean.sloViolations, r }));
  scatter($("pareto"), points, { text: count, title: "pod-seconds" }, (q) => [band(q.x, count) + " pod-seconds", band(q.y, percent) + " violations",
    q.r.mean.coldStarts ? count(q.r.mean.coldStarts[0]) + " cold starts" : "", onFront(q.r) ? "on the front" : ""].filter(Boolean));
  if (!all.length) return;
  $("pareto-all-title").textContent = `All traces: multiples of ${D.baseline} (geometric mean)`;
  scatter($("pareto-all"), all.map((o) => ({ p: o.p, x: o.ratio.podSeconds, y: [o.mean.sloViolations || 0, 0, 0, 1], o })), { text: digits, title: `pod-seconds × ${brief(D.baseline, 40)}` },
    (q) => [`${digits2(q.x[0])} × pod-seconds` + (spread(q.x) ? ` [${digits2(q.x[1])}, ${digits2(q.x[2])}]` : ""), percent(q.y[0]) + " violations on average", `worst trace: ${D.traces[q.o.worstTrace]}, ${percent(q.o.worst)}`]);
};

// ---- runs that are drawn over time ----
const arr = (i) => D.arrays[i] || [];
const shown = () => [...state.on].sort((a, b) => a - b).map((p) => runAt.get(key(state.s, state.t, state.seed, p))).filter(Boolean);
const timed = () => shown().filter((r) => arr(r.a).length);
const title = () => D.traces[state.t] + (D.scenarios[state.s] ? ", " + D.scenarios[state.s] : "") + (state.seed ? ", seed " + state.seed : "");

const ccdf = () => {
  const box = $("ccdf"), runs = shown().filter((r) => r.ccdf[0].length);
  $("ccdf-title").textContent = title();
  delete box.dataset.drawn;
  if (!runs.length) return none(box, "No waits are embedded for this choice.");
  const xs = runs.flatMap((r) => r.ccdf[0]).filter((v) => v > 0), ys = runs.flatMap((r) => r.ccdf[1]).filter((v) => v > 0);
  if (!xs.length || !ys.length) return none(box, "No request waited.");
  const x = { lo: 10 ** Math.floor(Math.log10(Math.min(...xs)) + 1e-9), hi: Math.max(...xs) * 1.15, log: true, text: duration, title: "wait" };
  x.lo = Math.max(x.lo, Math.min(1e-4, x.hi / 100)); // what is below 0.1 ms tells nothing
  if (x.lo >= x.hi) x.lo = x.hi / 10;
  const y = { lo: Math.min(10 ** Math.floor(Math.log10(Math.min(...ys))), 0.001), hi: 1, log: true, text: (v) => digits(v * 100) + " %", title: "requests that waited longer" };
  const f = frame(box, x, y);
  const at = (r, v) => { // steps: between two bounds the share is at most the one at the lower bound
    let s = 1;
    for (let i = 0; i < r.ccdf[0].length && r.ccdf[0][i] <= v; i++) s = r.ccdf[1][i];
    return s;
  };
  for (const r of runs) {
    let d = `M${f.px(x.lo)} ${f.py(at(r, x.lo) || y.lo)}`;
    r.ccdf[0].forEach((v, i) => {
      if (v < x.lo) return;
      d += `L${f.px(v)} ${r.ccdf[1][i] > 0 ? f.py(r.ccdf[1][i]) : f.h - f.m.b}`;
    });
    f.svg.append(sv("path", { d, fill: "none", stroke: colour(r.p), "stroke-width": 2, "stroke-linejoin": "round", "stroke-dasharray": r.p >= 10 ? "6 3" : "" }));
  }
  const [limit, share] = D.promises[state.s];
  if (limit > x.lo && limit < x.hi) f.svg.append(sv("line", { class: "promise", x1: f.px(limit), x2: f.px(limit), y1: f.m.t, y2: f.h - f.m.b }),
    sv("text", { class: "tick promised", x: f.px(limit) + 5, y: f.m.t + 12 }, "SLO: " + duration(limit)));
  if (limit > 0 && share > y.lo && share < 1) f.svg.append(sv("line", { class: "promise", x1: f.m.l, x2: f.w - f.m.r, y1: f.py(share), y2: f.py(share) }),
    sv("text", { class: "tick promised", x: f.w - f.m.r - 4, y: f.py(share) - 5, "text-anchor": "end" }, digits(share * 100) + " %"));
  const hair = sv("line", { class: "hair", y1: f.m.t, y2: f.h - f.m.b, visibility: "hidden" });
  f.svg.append(hair);
  f.svg.onpointerleave = () => { tipOff(box); hair.setAttribute("visibility", "hidden"); };
  f.svg.onpointermove = f.svg.onpointerdown = (e) => {
    const mx = Math.max(f.m.l, Math.min(f.w - f.m.r, e.clientX - box.getBoundingClientRect().left));
    const v = Math.exp(Math.log(x.lo) + (mx - f.m.l) / (f.w - f.m.r - f.m.l) * (Math.log(x.hi) - Math.log(x.lo)));
    hair.setAttribute("x1", mx); hair.setAttribute("x2", mx); hair.setAttribute("visibility", "visible");
    tipAt(box, mx, 40, el("b", {}, "longer than " + duration(v)), ...runs.map((r) => el("div", {}, dot(r.p), el("span", {}, D.policies[r.p]), el("span", {}, percent(at(r, v))))));
  };
  box.dataset.drawn = runs.length;
};

// ---- charts over time ----
let plots = [], grid = null, range = [0, 1], syncing = false;
// onGrid brings a run's array to the common steps, as runs may end at different times.
const onGrid = (r, field) => {
  const values = arr(r[field]);
  if (r.step === grid.step && values.length === grid.n) return values;
  const out = new Array(grid.n), part = field === "v" || field === "c" ? grid.step / r.step : 1;
  for (let i = 0; i < grid.n; i++) {
    const v = values[Math.floor((i + 0.5) * grid.step / r.step)];
    out[i] = v === undefined || v === null ? null : v * part;
  }
  return out;
};
const axis = (extra) => ({ stroke: css("--dim"), grid: { stroke: css("--grid"), width: 1 }, ticks: { show: false }, font: "11.5px system-ui, sans-serif", ...extra });
const steps = uPlot.paths.stepped({ align: 1 });
const charts = (runs) => {
  const log = $("log-wait").checked;
  const one = runs[0];
  const per = (field, dash, more) => runs.map((r) => ({ label: D.policies[r.p], values: onGrid(r, field), stroke: colour(r.p), width: 1.6, dash: dash || (r.p >= 10 ? [8, 3] : undefined), ...more }));
  const pods = [{ label: "demand", values: onGrid(one, "d"), stroke: css("--areaLine"), fill: css("--area"), width: 1 }];
  if ($("show-ready").checked) pods.push(...per("r", undefined, { paths: steps, width: 2 }));
  if ($("show-wanted").checked) pods.push(...per("w", [5, 4], { paths: steps, width: 1.3 }));
  if ($("show-starting").checked) pods.push(...per("st", [1.5, 3], { paths: steps, width: 1.6 }));
  const lines = (dash, w) => `border-top:${w}px ${dash} currentColor`;
  const limit = D.promises[state.s][0];
  const promised = limit > 0 ? [{ label: "SLO", values: new Array(grid.n).fill(limit), stroke: css("--bad"), width: 1, dash: [6, 4] }] : [];
  const list = [
    { name: "Load", unit: "requests/s, and the pods that it needs (right)", height: 170, text: count, right: true,
      keys: [["arrivals", `border-top:2px solid ${css("--accent")}`], ["demand in pods", `border-top:2px solid ${css("--areaLine")}`]],
      series: [{ label: "arrivals", values: onGrid(one, "a"), stroke: css("--accent"), width: 1.5 }, { label: "demand", values: pods[0].values, stroke: css("--areaLine"), fill: css("--area"), width: 1, scale: "pods" }] },
    { name: "Replicas", unit: "pods", height: 240, text: count,
      keys: [["demand", `border-top:2px solid ${css("--areaLine")}`], ["ready", lines("solid", 2)], ["wanted", lines("dashed", 2)], ["starting", lines("dotted", 2)]], series: pods },
    { name: "Waiting", unit: "requests, held or queued, mean", height: 150, text: count, series: per("q"), log },
    { name: "Worst wait", unit: "of the requests that began to be served", height: 150, text: duration, series: [...promised, ...per("m")], log,
      keys: promised.length ? [["SLO: " + duration(limit), `border-top:2px dashed ${css("--bad")}`]] : [] },
    { name: "Violations and cold starts", unit: `requests in each ${duration(grid.step)}`, height: 150, text: count,
      keys: [["SLO violations", lines("solid", 2)], ["cold starts", lines("dotted", 2)]],
      series: [...per("v", undefined, { paths: steps }), ...per("c", [2, 3], { paths: steps, width: 1.8 })] },
  ];
  return list;
};
const timeCharts = () => {
  const old = grid && grid.id === key(state.s, state.t, state.seed) ? range : null;
  for (const u of plots) u.destroy();
  plots = [];
  const box = $("charts"), runs = timed();
  box.replaceChildren();
  if (!runs.length) {
    grid = null;
    $("time-lead").textContent = title() + ".";
    box.append(el("p", { class: "none" }, state.on.size ? "No series of the chosen policies are embedded here: choose another seed, or see the notes at the top." : "Choose a policy above."));
    readout(null);
    return;
  }
  const long = runs.reduce((a, b) => arr(b.a).length * b.step > arr(a.a).length * a.step ? b : a);
  grid = { id: key(state.s, state.t, state.seed), step: long.step, n: arr(long.a).length };
  grid.length = grid.step * grid.n;
  grid.x = Array.from({ length: grid.n }, (_, i) => i * grid.step);
  range = old || [0, Math.max(grid.length, grid.step)];
  const k = long.per;
  $("time-lead").textContent = `${title()}. A point stands for ${duration(grid.step)}` + (k > 1 ? ` (${k} steps of ${duration(grid.step / k)}: means, of the worst wait the longest, of counts the sum)` : "") +
    ". Drag to zoom all charts, press twice for the whole run. The table sums up what is seen, or shows the instant under the pointer.";
  const left = innerWidth < 640 ? 48 : 58, right = innerWidth < 640 ? 34 : 46;
  for (const c of charts(runs)) {
    const canvas = el("div", { class: "canvas", style: `height:${c.height}px` });
    box.append(el("div", { class: "chart" }, el("h3", {}, c.name, el("small", {}, c.unit), ...(c.keys || []).map(([n, s]) => el("small", { class: "key" }, el("i", { style: s }), n))), canvas));
    const top = (u, lo, hi) => [0, hi > 0 ? hi * 1.08 : 1];
    const positive = c.series.flatMap((s) => s.values).filter((v) => v > 0);
    const high = positive.length ? positive.reduce((a, b) => Math.max(a, b)) * 1.3 : 1;
    const low = Math.min(Math.max(10 ** Math.floor(Math.log10(positive.reduce((a, b) => Math.min(a, b), high))), high / 1e5), high / 10);
    if (c.log) for (const s of c.series) s.values = s.values.map((v) => v === null ? null : Math.max(v, low)); // zero lies on the floor
    const y = c.log ? { distr: 3, range: () => [low, high] } : { range: top };
    const u = new uPlot({
      width: canvas.clientWidth, height: c.height, legend: { show: false }, pxAlign: 1,
      padding: [8, c.right ? 0 : right, 0, 0],
      scales: { x: { time: false, range: (_, a, b) => [a, b] }, y, pods: { range: top } },
      cursor: { sync: { key: "time", setSeries: false }, drag: { x: true, y: false, dist: 5 }, points: { size: 6 }, y: false },
      axes: [
        axis({ values: (_, v) => v.map((t) => clock(t, range[1] - range[0] < 60 ? 1e3 : grid.length)), space: 90, size: 30, gap: 8, incrs: [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800, 345600, 604800, 1209600, 2592000] }),
        axis({ values: (_, v) => v.map((t) => t === null ? null : c.text(t)), size: left, ...(c.log ? { splits: () => ticksLog(low, high, 4), filter: (_, v) => v } : {}) }),
        ...(c.right ? [axis({ scale: "pods", side: 1, size: right, grid: { show: false }, values: (_, v) => v.map(count) })] : []),
      ],
      series: [{}, ...c.series.map((s) => ({ label: s.label, stroke: s.stroke, width: s.width, dash: s.dash, fill: s.fill, paths: s.paths, scale: s.scale || "y", spanGaps: false, points: { show: false } }))],
      hooks: {
        setScale: [(u, name) => { if (name === "x") moved(u); }],
        setCursor: [(u) => readout(u.cursor.idx)],
        draw: [() => { canvas.dataset.drawn = c.series.length; }],
      },
    }, [grid.x, ...c.series.map((s) => s.values)], canvas);
    plots.push(u);
  }
  go(range[0], range[1]);
  readout(null);
};
// moved follows one chart's zoom with all others.
const moved = (u) => {
  if (syncing || !grid) return;
  go(u.scales.x.min, u.scales.x.max);
};
const go = (a, b) => {
  if (!grid || a === null || a === undefined) return;
  const least = grid.step * 4;
  if (b - a < least) { const m = (a + b) / 2; a = m - least / 2; b = m + least / 2; }
  const width = Math.min(b - a, Math.max(grid.length, least));
  a = Math.max(0, Math.min(a, Math.max(grid.length, least) - width)); b = a + width;
  range = [a, b];
  syncing = true;
  for (const p of plots) if (p.scales.x.min !== a || p.scales.x.max !== b) p.setScale("x", { min: a, max: b });
  // uPlot sets scales in a microtask.
  queueMicrotask(() => { syncing = false; });
  $("whole").disabled = a <= 0 && b >= grid.length;
  readout(null);
  if ($("decision-range").checked) decisions();
};
const zoom = (f) => { const m = (range[0] + range[1]) / 2, w = (range[1] - range[0]) / 2 * f; go(m - w, m + w); };
$("in").onclick = () => zoom(0.5);
$("out").onclick = () => zoom(2);
$("left").onclick = () => { const w = (range[1] - range[0]) / 2; go(range[0] - w, range[1] - w); };
$("right").onclick = () => { const w = (range[1] - range[0]) / 2; go(range[0] + w, range[1] + w); };
$("whole").onclick = () => grid && go(0, grid.length);
for (const id of ["show-ready", "show-wanted", "show-starting", "log-wait"]) $(id).onchange = timeCharts;

// readout shows the values at a step, or sums up the range that is seen.
const readout = (i) => {
  const runs = timed(), at = i !== null && i !== undefined;
  const heads = at ? ["wanted", "ready", "starting", "waiting", "worst wait", "violations", "cold starts"]
    : ["wanted, mean", "ready, mean", "ready, most", "waiting, mean", "worst wait", "violations", "cold starts"];
  let first = "";
  const rows = [];
  if (grid) {
    const from = at ? i : Math.max(0, Math.floor(range[0] / grid.step)), to = at ? i + 1 : Math.min(grid.n, Math.max(from + 1, Math.ceil(range[1] / grid.step)));
    const over = (r, f, how) => {
      const v = onGrid(r, f).slice(from, to).filter((x) => x !== null && x !== undefined);
      if (!v.length) return null;
      return how === "sum" ? v.reduce((a, b) => a + b, 0) : how === "max" ? v.reduce((a, b) => Math.max(a, b), 0) : v.reduce((a, b) => a + b, 0) / v.length;
    };
    const t = (x) => clock(x, grid.length);
    const load = over(runs[0], "a", "mean"), demand = over(runs[0], "d", "mean");
    first = (at ? t(from * grid.step) : `${t(range[0])} – ${t(range[1])}`) + ` · load ${load === null ? "–" : count(load)}/s · demand ${demand === null ? "–" : count(demand)} pods`;
    const text = (v, f) => v === null ? "–" : f(v);
    for (const r of runs) rows.push(el("tr", {}, el("td", { class: "l name", title: D.policies[r.p] }, dot(r.p), " ", D.policies[r.p]),
      ...[[over(r, "w", "mean"), count], [over(r, "r", "mean"), count], [at ? over(r, "st", "mean") : over(r, "r", "max"), count], [over(r, "q", "mean"), count], [over(r, "m", "max"), duration], [over(r, "v", "sum"), count], [over(r, "c", "sum"), count]]
        .map(([v, f]) => el("td", {}, text(v, f)))));
  }
  $("instant").textContent = first;
  $("readout").replaceChildren(
    el("thead", {}, el("tr", {}, el("th", { class: "l name" }, "policy"), ...heads.map((h) => el("th", {}, h)))),
    el("tbody", {}, ...(rows.length ? rows : [el("tr", {}, el("td", { class: "l" }, "–"), ...heads.map(() => el("td", {}, "–")))])));
};

// ---- decisions ----
let most = 100;
const decisions = () => {
  const runs = shown(), words = $("decision-filter").value.toLowerCase(), inRange = $("decision-range").checked && grid;
  const all = runs.flatMap((r) => r.changes.map((c) => ({ p: r.p, c }))).sort((a, b) => a.c[0] - b.c[0] || a.p - b.p);
  const found = all.filter(({ c }) => (!inRange || (c[0] >= range[0] - 1e-9 && c[0] <= range[1])) && (!words || (c[3] + " " + c[4]).toLowerCase().includes(words)));
  const left = runs.filter((r) => r.changesAll > r.changes.length);
  $("decisions-lead").textContent = `Changes of the wanted count: ${found.length} of ${all.length} of the chosen policies.` +
    (left.length ? ` Only the last ${left[0].changes.length} of a run are here; raw/ may hold more.` : "") + " Press a time to see the charts around it.";
  const length = grid ? grid.length : 1;
  $("decisions").replaceChildren(
    el("thead", {}, el("tr", {}, el("th", { class: "l name" }, "time"), el("th", { class: "l" }, "policy"), el("th", {}, "from → to"), el("th", { class: "l" }, "reason"), el("th", { class: "l" }, "message"))),
    el("tbody", {}, ...found.slice(0, most).map(({ p, c }) => el("tr", {},
      el("td", { class: "l name" }, el("button", { type: "button", onclick: () => {
        const w = Math.max(grid.length / 40, grid.step * 20);
        go(c[0] - w, c[0] + w);
        $("charts").scrollIntoView({ block: "start" });
      } }, clock(c[0], length))),
      el("td", { class: "l" }, dot(p), " ", D.policies[p]),
      el("td", {}, `${c[1]} → ${c[2]} `, el("span", { title: c[2] > c[1] ? "up" : "down" }, c[2] > c[1] ? "↑" : "↓")),
      el("td", { class: "l" }, c[3]), el("td", { class: "l wrap" }, c[4]))),
    ...(found.length ? [] : [el("tr", {}, el("td", { class: "l", colspan: 5 }, "none"))])));
  $("more").hidden = found.length <= most;
  $("more").textContent = `show ${Math.min(200, found.length - most)} more of ${found.length - most}`;
};
$("decision-filter").oninput = () => { most = 100; decisions(); };
$("decision-range").onchange = decisions;
$("more").onclick = () => { most += 200; decisions(); };

// ---- all together ----
const draw = (reset) => {
  if (reset) most = 100;
  bar();
  matrix();
  comparison();
  pareto();
  timeCharts();
  ccdf();
  decisions();
  save();
};
let width = innerWidth, waiting = 0;
window.addEventListener("resize", () => {
  if (innerWidth === width) return;
  width = innerWidth;
  clearTimeout(waiting);
  waiting = setTimeout(() => { pareto(); timeCharts(); ccdf(); }, 120);
});
dark.addEventListener("change", () => draw(false));
window.addEventListener("hashchange", () => { load(); draw(true); });
draw(true);
// uPlot draws in a microtask; after this all is drawn.
setTimeout(ready);
})();
