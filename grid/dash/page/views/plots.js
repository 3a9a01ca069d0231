// The plots: how much the grid does, and how fast, over the last fifteen minutes. What nodes count is kept from when the page was opened; what
// they ran before that is asked for, so that throughput by job begins with its past.
//
// window.gridView.plots() tells what they show, for tests and for who is curious.
import {Ring, Rows, Sheet, Tip, clamp, clock, fitText, lasting, lowerBound, scale, series, steps, theme, times} from '../draw.js';
import {brief, bytes, el, fill, short, text} from '../lib.js';
import * as of from '../pulses.js';
import {moment} from '../tracks.js';

export const title = 'Plots';

const {pulses} = of;
const mostLines = 8; // of one plot; the rest are one line together

export function mount(root, app) {
  const view = new Plots(root, app);
  return () => view.close();
}

// Rates counts tasks by job and second.
export class Rates {
  constructor(seconds) {
    this.n = seconds;
    this.jobs = new Map(); // job: Float64Array of tasks that ended in each second
    this.end = 0; // the second after the last that is counted
  }
  // add counts n tasks that ended between two moments.
  add(job, from, to, n) {
    const hi = Math.floor(to / 1000), lo = n > 1 ? Math.min(hi, Math.floor(from / 1000)) : hi;
    this.upTo(hi + 1);
    if (hi < this.end - this.n || hi >= this.end) return;
    let all = this.jobs.get(job);
    if (!all) {
      if (this.jobs.size >= 200) this.jobs.delete(this.jobs.keys().next().value);
      this.jobs.set(job, (all = new Float64Array(this.n)));
    }
    for (let s = Math.max(lo, this.end - this.n); s <= hi; s++) all[s % this.n] += n / (hi - lo + 1);
  }
  // upTo moves on to a second, and forgets what is too old. It follows no clock that is far off.
  upTo(end) {
    if (this.end === 0) this.end = end;
    if (end <= this.end || (end > this.end + 86400 && this.jobs.size > 0)) return;
    for (const all of this.jobs.values()) {
      if (end - this.end >= this.n) all.fill(0);
      else for (let s = this.end; s < end; s++) all[s % this.n] = 0;
    }
    this.end = end;
  }
  at(job, second) {
    return second < this.end - this.n || second >= this.end ? NaN : this.jobs.get(job)[second % this.n];
  }
  sum(job) { return this.jobs.get(job).reduce((a, b) => a + b, 0); }
}

// binned averages what value(i) gives over bins of time, so that a line has no more points than can be seen: [[time, value]]; time is the middle of
// the bin, and a bin in which nothing was measured is NaN.
export function binned(n, time, value, from, to, bin) {
  const out = [];
  let i = lowerBound(n, time, from);
  for (let t = Math.floor(from / bin) * bin; t < to; t += bin) {
    let sum = 0, k = 0;
    for (; i < n && time(i) < t + bin; i++) {
      const v = value(i);
      if (!Number.isNaN(v)) (sum += v), k++;
    }
    out.push([t + bin / 2, k ? sum / k : NaN]);
  }
  return out;
}

class Plots {
  constructor(root, app) {
    this.app = app;
    this.span = pulses.total.length < 100 ? 120e3 : 900e3;
    this.by = 'job';
    this.rates = new Rates(of.kept);
    this.names = new Map();
    this.cursor = 0; // the moment under the pointer, of all plots
    this.build(root);
    this.unlisten = pulses.listen(app, moved => moved === null && this.tick());
    this.abort = new AbortController();
    this.follow();
    this.tick();
    window.gridView = {...window.gridView, plots: () => this.inspect()};
  }

  build(root) {
    const press = (group, words, does, f) => {
      const b = el('button', {type: 'button', title: does, 'aria-pressed': 'false', onclick: () => {
        f();
        for (const o of group) o.setAttribute('aria-pressed', String(o === b));
        for (const p of this.plots) {
          p.gather(p.sheet.width);
          p.tell();
        }
        this.touch();
      }}, words);
      group.push(b);
      return b;
    };
    const ranges = [], bys = [];
    press(ranges, '2 min', 'Show the last two minutes', () => { this.span = 120e3; }).setAttribute('aria-pressed', String(this.span === 120e3));
    press(ranges, '15 min', 'Show the last fifteen minutes', () => { this.span = 900e3; }).setAttribute('aria-pressed', String(this.span === 900e3));
    press(bys, 'By job', 'Throughput by job', () => { this.by = 'job'; }).setAttribute('aria-pressed', 'true');
    press(bys, 'By node', 'Throughput by node', () => { this.by = 'node'; });
    const rate = n => short(Math.round(n * 100) / 100), whole = n => short(Math.round(n * 10) / 10), total = pulses.total;
    const line = (name, k, colour, more) => ({name, key: name, colour, n: () => total.length, time: i => total.time(i), value: i => total.value(i, k), ...more});
    this.plots = [
      new Plot(this, 'Throughput', 'tasks/s', rate, () => (this.by === 'job' ? this.byJob() : this.byNode()), {stacked: true, actions: bys}),
      new Plot(this, 'Time of a task', '', v => lasting(v), () => [line('median (p50)', of.p50, series(0)), line('p99 of the slowest node', of.p99, series(2))], {log: true, tick: v => (v < 1000 ? lasting(v) : `${short(v / 1000)} s`)}),
      new Plot(this, 'Worker slots', '', whole, () => [line('slots', of.slots, theme().strong, {flat: true}), line('busy', of.busy, series(0), {area: true})], {whole: true}),
      new Plot(this, 'Queued tasks', '', whole, () => [line('queued', of.queued, series(1), {area: true})], {whole: true}),
      new Plot(this, 'Stolen and failed', 'tasks/s', rate, () => [line('stolen', of.steals, series(4)), line('failed', of.failed, theme().bad)]),
      new Plot(this, 'Data between nodes', '', v => bytes(Math.round(v)) + '/s', () => [line('fetched', of.bytesIn, series(0)), line('sent', of.bytesOut, series(1))], {base: 1024}),
      new Plot(this, 'Memory of all nodes', '', v => bytes(Math.round(v)), () => [line('memory', of.memory, series(2), {area: true})], {base: 1024}),
    ];
    this.told = el('p.hide', {role: 'status'});
    this.table = new Rows('Latest values', [{name: 'What'}, {name: 'Now', num: true}, {name: 'Mean', num: true}, {name: 'Most', num: true}], 100);
    root.append(el('div.bar', ranges), el('div.live-plots', this.plots.map(p => p.root)), this.told, this.table.root);
    for (const p of this.plots) p.begin();
  }

  close() {
    this.unlisten();
    this.abort.abort(new DOMException('the view was left', 'AbortError'));
    for (const p of this.plots) p.sheet.close();
    const {plots, ...rest} = window.gridView;
    window.gridView = rest;
  }

  // follow takes in what ran in the last fifteen minutes, and what ends from now on.
  follow() {
    this.app.api.stream('/stretches', {
      query: () => ({follow: 1, since: new Date(this.last || Date.now() - of.kept * 1000).toISOString(), resolution: 1000, limit: 20000}), signal: this.abort.signal,
    }, s => {
      const to = moment(s.to);
      if (!Number.isFinite(to)) return;
      this.last = Math.max(this.last || 0, to + 1);
      this.rates.add(s.job, moment(s.from), to, s.tasks);
    }).catch(e => this.app.fail(e));
  }

  tick() {
    this.touch();
    const now = Date.now();
    if (document.hidden || now - (this.written || 0) < 1900) return;
    this.written = now;
    this.name();
    for (const p of this.plots) p.tell();
    this.table.show(this.plots.flatMap(p => p.lines.map(l => [`${p.title}: ${l.name}`, p.say(l.now), p.say(l.mean), p.say(l.most)])));
  }

  touch() {
    for (const p of this.plots) p.sheet?.touch();
  }

  // name finds out how jobs are called.
  async name() {
    if (this.naming || [...this.rates.jobs.keys()].every(j => this.names.has(j))) return;
    this.naming = true;
    try {
      for (const j of await this.app.api.get('/jobs', {limit: 500}, {signal: this.abort.signal})) if (j.name) this.names.set(j.id, j.name);
    } catch {
      // then they are called by their IDs
    }
    for (const j of this.rates.jobs.keys()) if (!this.names.has(j)) this.names.set(j, brief(j, 10));
    this.naming = false;
  }

  // byJob and byNode are the lines of throughput: those with the most tasks, and all others together.
  byJob() {
    const r = this.rates, n = of.kept;
    r.upTo(Math.floor(Date.now() / 1000));
    const all = [...r.jobs.keys()].map(job => [r.sum(job), job]).filter(([sum]) => sum > 0).sort((a, b) => b[0] - a[0]).map(([, job]) => job);
    const line = (name, key, colour, jobs) => ({
      name, key, colour, area: true, n: () => n, time: i => (r.end - n + i) * 1000,
      value: i => jobs.reduce((sum, job) => sum + r.at(job, r.end - n + i), 0),
    });
    const out = all.slice(0, mostLines).map(job => line(this.names.get(job) || brief(job, 10), job, this.app.colour(job), [job]));
    if (all.length > mostLines) out.push(line(`${all.length - mostLines} others`, '', theme().strong, all.slice(mostLines)));
    return out.length ? out : [line('no job', '', theme().strong, [])];
  }

  byNode() {
    const all = pulses.list().filter(n => pulses.perNode.has(n.pulse.node)).map(n => [n.rates.tasks, n.pulse]);
    if (all.length > mostLines) all.sort((a, b) => b[0] - a[0]);
    const line = (name, key, colour, rings) => ({
      name, key, colour, area: true, n: () => rings[0].length, time: i => rings[0].time(i),
      value: i => {
        let sum = 0;
        for (const r of rings) {
          const k = r === rings[0] ? i : r.near(rings[0].time(i));
          if (k >= 0) sum += r.value(k, 0);
        }
        return sum;
      },
    });
    const out = all.slice(0, mostLines).map(([, p], i) => line(of.label(p), p.node, series(i), [pulses.perNode.get(p.node)]));
    if (all.length > mostLines) {
      // The others are what is left of the total.
      const total = pulses.total, shown = all.slice(0, mostLines).map(([, p]) => pulses.perNode.get(p.node));
      out.push({
        name: `${all.length - mostLines} others`, key: '', colour: theme().strong, area: true, n: () => total.length, time: i => total.time(i),
        value: i => Math.max(0, shown.reduce((left, r) => {
          const k = r.near(total.time(i));
          return left - (k >= 0 && Math.abs(r.time(k) - total.time(i)) < 1500 ? r.value(k, 0) : 0);
        }, total.value(i, of.tasks))),
      });
    }
    return out;
  }

  inspect() {
    return {
      samples: pulses.total.length, span: this.span, by: this.by, jobs: [...this.rates.jobs.keys()],
      plots: this.plots.map(p => ({title: p.title, lines: p.lines.map(l => ({name: l.name, now: l.now, mean: l.mean, most: l.most})), frames: p.sheet.frames, worst: p.sheet.worst})),
    };
  }
}

// Plot is one picture: lines over time, of one unit.
class Plot {
  constructor(plots, title, unit, say, lines, {stacked = false, log = false, tick = say, whole = false, base = 10, actions = []} = {}) {
    Object.assign(this, {plots, title, unit, format: say, make: lines, tick, stacked, log, whole, base, lines: []});
    this.canvas = el('canvas', {tabIndex: 0, role: 'application', 'aria-roledescription': 'plot', 'aria-label': `${title}${unit && ', ' + unit}. Left and right go through time. The table below has the latest values.`});
    this.stage = el('div.live-stage', this.canvas);
    this.names = el('div.live-names');
    this.root = el('section.card.live', {'aria-label': title}, el('div.title', el('h2', title, unit && el('span.dim', ' ' + unit)), actions.length > 0 && el('div.bar', actions)), this.stage, this.names);
  }

  begin() {
    this.tip = new Tip(this.stage);
    this.sheet = new Sheet(this.plots.app, this.canvas, (g, w, h) => this.paint(g, w, h));
    const c = this.canvas, here = e => {
      const r = c.getBoundingClientRect();
      this.point(this.x?.back(e.clientX - r.left) || 0, e.clientY - r.top);
    };
    c.addEventListener('pointermove', here);
    c.addEventListener('pointerdown', here);
    for (const kind of ['pointerleave', 'blur']) c.addEventListener(kind, () => this.point(0));
    c.addEventListener('keydown', e => {
      const step = {ArrowLeft: -1, ArrowRight: 1}[e.key];
      if (e.key === 'Escape') this.point(0);
      if (!step || !this.x || e.ctrlKey || e.metaKey || e.altKey) return;
      e.preventDefault();
      const to = this.to - this.bin / 2;
      this.point(clamp((this.plots.cursor || to) + step * this.bin * (e.shiftKey ? 10 : 1), this.to - this.plots.span, to), 20);
      if (this.under) text(this.plots.told, [this.title, clock(this.under.at), ...this.under.rows.map(([name, v]) => `${name} ${v}`)].join(', '));
    });
  }

  // point moves the line that marks a moment, in all plots; 0 takes it away.
  point(t, y) {
    this.plots.cursor = t;
    this.plots.touch();
    this.under = null;
    if (!t || !this.x) {
      this.tip.hide();
      return;
    }
    const rows = [];
    let at = t;
    for (const l of this.lines) {
      const p = l.points[clamp(Math.round((t - (l.points[0]?.[0] ?? 0)) / this.bin), 0, l.points.length - 1)];
      if (p) (at = p[0]), rows.push([l.name, this.say(p[1]), l.colour]);
    }
    this.under = {at, rows};
    this.tip.show(this.x(at), y, clock(at), rows);
  }

  say(v) { return Number.isNaN(v) || v === undefined ? '–' : this.format(v); }

  // gather works out what is shown.
  gather(w) {
    // Bins are longer than from one sample to the next, and end before what nodes have yet to tell.
    const span = this.plots.span, bin = this.bin = Math.max(2000, Math.ceil(span / Math.max(40, w / 4) / 1000) * 1000);
    this.to = Math.floor((Date.now() - 2000) / bin) * bin;
    const from = this.to - span;
    this.lines = this.make().map(l => {
      const points = binned(l.n(), l.time, l.value, from, this.to, bin);
      let sum = 0, n = 0, most = NaN, now = NaN;
      for (const [t, v] of points) if (!Number.isNaN(v)) {
        sum += v;
        n++;
        if (!(v <= most)) most = v;
        if (t > this.to - Math.max(3 * bin, 5000)) now = v;
      }
      return {...l, points, now, most, mean: n ? sum / n : NaN};
    });
    return from;
  }

  paint(g, w, h) {
    const c = theme(), from = this.gather(w), left = 72, floor = h - 24, top = 12;
    const x = this.x = scale(from, this.to, left, w - 14);
    // One above the other, what is stacked.
    let high = 0, low = Infinity;
    const base = new Map();
    for (const l of this.lines) l.drawn = l.points.map(([t, v]) => {
      if (Number.isNaN(v)) return [t, NaN, 0];
      const under = this.stacked && !l.flat ? base.get(t) || 0 : 0;
      base.set(t, under + v);
      high = Math.max(high, under + v);
      if (v > 0) low = Math.min(low, v);
      return [t, under + v, under];
    });
    let y, ticks;
    if (this.log) {
      const a = Number.isFinite(low) ? Math.floor(Math.log10(low)) : 0, b = Math.max(a + 1, high > 0 ? Math.ceil(Math.log10(high)) : 1), k = scale(a, b, floor, top);
      y = v => k(Math.log10(Math.max(v, 10 ** a)));
      ticks = Array.from({length: b - a + 1}, (_, i) => 10 ** (a + i));
      if (ticks.length > 5) ticks = ticks.filter((_, i) => i % Math.ceil(ticks.length / 5) === 0);
    } else {
      const most = high > 0 ? high : 1;
      ticks = steps(0, most * 1.02, 4, this.base);
      if (this.whole) ticks = ticks.filter(Number.isInteger);
      const step = ticks.length > 1 ? ticks[1] - ticks[0] : most;
      if (high > ticks[ticks.length - 1]) ticks.push(ticks[ticks.length - 1] + step);
      y = scale(0, Math.max(most, ticks[ticks.length - 1]), floor, top);
    }
    g.font = `11px ${c.font}`;
    g.textBaseline = 'middle';
    g.textAlign = 'right';
    for (const t of ticks) {
      g.fillStyle = t === 0 ? c.line : c.faint;
      g.fillRect(left, Math.round(y(t)), w - 14 - left, 1);
      g.fillStyle = c.dim;
      g.fillText(fitText(g, this.tick(t), left - 12), left - 8, y(t));
    }
    const marks = times(from, this.to, Math.max(2, (w - left) / 75));
    g.textAlign = 'center';
    for (const t of marks.at) if (x(t) > left + 16 && x(t) < w - 24) g.fillText(clock(t, marks.step), x(t), floor + 13);
    for (const l of this.lines) this.line(g, l, x, y, c);
    const at = this.plots.cursor;
    if (at > from && at < this.to) {
      g.fillStyle = c.dim;
      g.fillRect(Math.round(x(at)), top, 1, floor - top);
    }
    if (this.lines.every(l => Number.isNaN(l.now) && Number.isNaN(l.most))) {
      g.font = `13px ${c.font}`;
      g.fillStyle = c.dim;
      g.fillText('Nothing was measured yet.', left + (w - left) / 2, (top + floor) / 2);
    }
  }

  // line draws one line, broken where nothing was measured.
  line(g, l, x, y, c) {
    const runs = [];
    let run = null;
    for (const p of l.drawn) {
      if (Number.isNaN(p[1])) run = null;
      else if (run) run.push(p);
      else runs.push(run = [p]);
    }
    for (const r of runs) {
      if (l.area) {
        g.beginPath();
        r.forEach(([t, v], i) => g[i ? 'lineTo' : 'moveTo'](x(t), y(v)));
        for (let i = r.length - 1; i >= 0; i--) g.lineTo(x(r[i][0]), y(r[i][2]));
        g.globalAlpha = this.stacked ? 0.55 : 0.18;
        g.fillStyle = l.colour;
        g.fill();
        g.globalAlpha = 1;
      }
      g.beginPath();
      r.forEach(([t, v], i) => g[i ? 'lineTo' : 'moveTo'](x(t), y(v)));
      g.lineWidth = l.flat ? 1 : 1.75;
      g.lineJoin = 'round';
      g.setLineDash(l.flat ? [4, 3] : []);
      g.strokeStyle = l.colour;
      g.stroke();
      g.setLineDash([]);
      if (r.length === 1) {
        g.beginPath();
        g.arc(x(r[0][0]), y(r[0][1]), 2, 0, 7);
        g.fillStyle = l.colour;
        g.fill();
      }
    }
  }

  // tell writes the names of the lines with their latest values.
  tell() {
    const key = this.lines.map(l => l.key + l.name + l.colour).join();
    if (key !== this.key) {
      this.key = key;
      this.values = [];
      fill(this.names, this.lines.map((l, i) => el('span', el('i.swatch', {style: {background: l.colour}}), el('bdi', l.name), this.values[i] = el('b'))));
    }
    this.lines.forEach((l, i) => text(this.values[i], this.say(l.now)));
  }
}
