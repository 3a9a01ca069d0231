// The task stream: a row for each worker slot, grouped by node, and in it a bar for each attempt, in the colour of its stage of its job. It keeps to
// what can be seen: the node is asked for stretches as fine as the pixels are, and only those in sight are drawn.
//
// window.gridView.stream() tells what it shows, for tests and for who is curious.
import {Rows, Sheet, Tip, clamp, clock, fitText, lasting, lowerBound, ofStage, part, scale, still, theme, times} from '../draw.js';
import {brief, el, fill, known, nodeName, short, text} from '../lib.js';
import {label, natural, pulses} from '../pulses.js';
import {Tracks, phaseNames} from '../tracks.js';

export const title = 'Task stream';

const axis = 24; // height of the axis of time
const most = 50000; // stretches of one question
const mostKept = 400000; // in the page
const manyNodes = 40; // with more, those in sight are asked for by name
const narrowest = 1e-2, widest = 7 * 24 * 3600e3; // of the window, in milliseconds

// How strongly each phase is drawn within a bar.
const shades = {fetch: 0.3, compile: 0.42, queue: 0.18, start: 0.62, run: 1, store: 0.5};

export function mount(root, app) {
  const view = new Stream(root, app);
  return () => view.close();
}

// timeline shows what one job, as the API tells of it, ran where and when, until the view is left.
export function timeline(root, app, job) {
  const view = new Stream(root, app, job);
  app.signal.addEventListener('abort', () => view.close());
}

class Stream {
  constructor(root, app, job) {
    this.app = app;
    this.job = job ? job.id : '';
    this.tracks = new Tracks();
    this.loaded = null; // {from, to, fine} of all nodes
    this.details = new Map(); // node: the same, of it alone
    this.asking = new Set(); // nodes
    this.fresh = new Map(); // node: what is being asked for
    this.skew = 0; // of the node's clock
    this.span = 120e3;
    this.end = this.now();
    this.follow = !job || !known(job.ended);
    if (job) {
      if (!this.follow) this.end = Date.parse(job.ended);
      this.span = clamp((this.end - Date.parse(job.submitted)) * 1.04, 2000, widest);
      if (!this.follow) this.end += this.span * 0.02;
    }
    this.only = ''; // the job whose bars stand out
    this.names = new Map(); // of jobs
    this.chosen = null; // {track, from}: where the keyboard is
    this.live = 0;
    this.aborts = new Set();
    this.rowHeight = 0; // 0: by how many there are
    this.build(root);
    this.unlisten = pulses.listen(app, moved => this.pulsed(moved));
    this.timer = setInterval(() => this.tick(), still() ? 1000 : 250);
    this.slow = setInterval(() => this.tell(), 2000);
    this.pulsed([]);
    this.wanted();
    this.followLive();
    window.gridView = {...window.gridView, stream: () => this.inspect()};
  }

  build(root) {
    const button = (label, does, f, more = {}) => el('button', {type: 'button', 'aria-label': does, title: does, onclick: f, ...more}, label);
    this.following = button('Follow', 'Follow what happens now (F)', () => this.setFollow(!this.follow), {'aria-pressed': String(this.follow)});
    this.ranges = [[10e3, '10 s'], [120e3, '2 min'], [900e3, '15 min']].map(([ms, name]) => [ms, button(name, `Show ${name}`, () => this.zoom(ms / this.span), {'aria-pressed': String(ms === this.span)})]);
    this.tabled = button('Table', 'Show as a table', () => this.setTable(this.table.root.hidden), {'aria-pressed': 'false'});
    this.facts = el('span.dim');
    this.legend = el('div.bar.live-legend', {role: 'group', 'aria-label': 'Jobs and their stages'});
    this.canvas = el('canvas', {
      tabIndex: 0, role: 'application', 'aria-roledescription': 'task stream',
      'aria-label': 'Task stream. Arrow keys go from task to task, Shift with arrows moves the window, plus and minus zoom, F follows, Enter opens the job. The table tells the same.',
    });
    this.sheetBox = el('div', this.canvas);
    this.scroller = el('div.live-scroll', this.sheetBox);
    this.stage = el('div.live-stage', this.scroller);
    this.told = el('p.hide', {role: 'status'});
    this.note = el('p.note', {hidden: true});
    this.table = new Rows('Worker slots in the time that is shown', [{name: 'Node'}, {name: 'Slots', num: true}, {name: 'Tasks', num: true}, {name: 'Failed', num: true}, {name: 'Stolen', num: true}, {name: 'Busy', num: true}, {name: 'Latest job'}]);
    this.table.root.hidden = true;
    root.append(el('div.bar', {role: 'toolbar', 'aria-label': 'Time'}, this.following, this.ranges.map(([, b]) => b),
      button('◀', 'Earlier', () => this.pan(-this.span / 2)), button('▶', 'Later', () => this.pan(this.span / 2)),
      button('−', 'Zoom out (-)', () => this.zoom(2)), button('+', 'Zoom in (+)', () => this.zoom(0.5)),
      button('↕', 'Height of rows', () => this.nextHeight()), this.tabled, this.facts),
    this.note, el('section.card.live', {'aria-label': 'Task stream'}, this.legend, this.stage), this.told, this.table.root);
    this.tip = new Tip(this.stage);
    this.sheet = new Sheet(this.app, this.canvas, (g, w, h) => this.paint(g, w, h));
    this.scroller.addEventListener('scroll', () => {
      this.sheet.touch();
      this.wanted();
    }, {passive: true});
    this.hands();
  }

  close() {
    this.closed = true;
    this.unlisten();
    clearInterval(this.timer);
    clearInterval(this.slow);
    clearTimeout(this.later);
    for (const a of this.aborts) a.abort();
    this.sheet.close();
    const {stream, ...rest} = window.gridView;
    window.gridView = rest;
  }

  // now is the time of the node that is asked, as far as its answers tell.
  now() { return Date.now() + this.skew; }

  from() { return this.end - this.span; }

  // Rows.

  pulsed(moved) {
    if (moved === null) return;
    for (const {pulse} of pulses.nodes.values()) this.tracks.slots(pulse.node, pulse.load.slots);
    this.relay();
  }

  // relay lays out anew if there are other nodes or slots than before.
  relay() {
    let rows = 0, used = 0;
    for (const all of this.tracks.nodes.values()) {
      rows += all.length;
      if (this.job && all.some(t => t.n > 0)) used++;
    }
    const shape = [pulses.shape, rows, used].join();
    if (shape === this.shape) return;
    this.shape = shape;
    this.layout();
  }

  // layout decides where each node's rows are.
  layout() {
    this.known = this.tracks.nodes.size;
    const name = id => pulses.nodes.has(id) ? label(pulses.nodes.get(id).pulse) : nodeName(id);
    const all = [...this.tracks.nodes].map(([id, tracks]) => ({id, name: name(id), tracks}))
      .filter(g => g.tracks.length > 0 && (!this.job || g.tracks.some(t => t.n > 0)))
      .sort((a, b) => natural(a.name, b.name) || natural(a.id, b.id));
    const rows = all.reduce((n, g) => n + g.tracks.length, 0);
    const h = this.rowHeight || (rows <= 24 ? 18 : rows <= 80 ? 10 : 5);
    let y = 6;
    for (const g of all) {
      g.y = y;
      g.h = h;
      y += Math.max(g.tracks.length * h, 14) + (h > 8 ? 8 : 5);
    }
    this.groups = all;
    this.rows = rows;
    this.tall = y;
    this.sheetBox.style.height = `${y + axis}px`;
    this.scroller.style.setProperty('--tall', `${Math.max(y + axis, this.job ? 120 : 280)}px`);
    this.sheet?.touch();
  }

  // visible are the groups in sight, and `more` pixels around.
  visible(more = 0) {
    const top = this.scroller.scrollTop - more, bottom = this.scroller.scrollTop + this.sheet.height + more;
    const g = this.groups || [];
    const first = Math.max(0, lowerBound(g.length, i => g[i].y, top) - 1);
    const out = [];
    for (let i = first; i < g.length && g[i].y < bottom; i++) out.push(g[i]);
    return out;
  }

  gutter(w) { return w < 520 ? 64 : 120; }

  // Time.

  x(w) { return scale(this.from(), this.end, this.gutter(w), w - 6); }

  setFollow(on) {
    this.follow = on;
    this.following.setAttribute('aria-pressed', String(on));
    if (on) this.end = this.now();
    this.moved();
  }

  pan(ms) {
    if (this.follow) this.setFollow(false);
    this.end += ms;
    if (this.end > this.now() + this.span * 0.9) this.end = this.now() + this.span * 0.9;
    this.moved();
  }

  // zoom makes the window `by` times as wide, about a moment; that is now when it follows.
  zoom(by, about = this.follow ? this.end : this.end - this.span / 2) {
    const span = clamp(this.span * by, narrowest, widest);
    if (!this.follow) this.end = about + ((this.end - about) * span) / this.span;
    this.span = span;
    this.moved();
  }

  moved() {
    this.ranges.forEach(([ms, b]) => b.setAttribute('aria-pressed', String(ms === this.span)));
    this.sheet.touch();
    this.wanted();
  }

  tick() {
    if (document.hidden) return;
    if (this.follow) {
      this.end = this.now();
      this.sheet.touch();
      this.wanted();
    }
  }

  nextHeight() {
    const at = [5, 10, 18, 28], now = this.groups?.[0]?.h || 18;
    this.rowHeight = at[(at.indexOf(now) + 1) % at.length];
    this.layout();
    this.wanted();
  }

  // Asking.

  // wanted sees to it that what is in the window is there, as fine as its pixels, a moment after the window came to rest.
  wanted() {
    if (this.later) return;
    this.later = setTimeout(() => {
      this.later = 0;
      if (!this.closed) this.ask();
    }, 150);
  }

  // covers says whether what was asked for has the window, as fine as it is to be: neither much coarser nor much finer.
  covers(have, from, to, fine, coarse = 2) {
    return have && have.from <= from && have.to >= to && have.fine <= fine * coarse && (have.whole || have.fine >= fine / 16);
  }

  ask() {
    const now = this.now(), from = Math.max(this.from(), now - widest), to = Math.min(this.end, now), fine = this.span / Math.max(100, this.sheet.width - 120);
    if (to <= from) return;
    const many = this.known > manyNodes;
    if (!this.asking.has('') && !this.covers(this.loaded, from, to, fine, many ? 64 : 2)) this.load('', from, to, fine);
    if (!many || this.job) return;
    for (const g of this.visible(200)) {
      if (this.asking.size > 1) return; // a browser has few connections for a server
      if (!this.asking.has(g.id) && !this.covers(this.details.get(g.id), from, to, fine)) this.load(g.id, from, to, fine);
    }
  }

  // load asks for what a node ran, or all nodes did, in the window and as much to its sides, and puts it in the place of what was there.
  async load(node, from, to, fine) {
    this.asking.add(node);
    const span = to - from, now = this.now(), since = from - span, until = Math.min(to + span, now + 5000);
    const fresh = new Tracks();
    fresh.kinds = this.tracks.kinds;
    fresh.places = this.tracks.places;
    this.fresh.set(node, fresh);
    const stop = new AbortController();
    this.aborts.add(stop);
    try {
      await this.app.api.stream('/stretches', {
        query: {since: iso(since), until: iso(until), resolution: Math.floor(fine), limit: node ? 5000 : most, node, job: this.job}, signal: stop.signal, once: true,
      }, s => { fresh.take(s); });
      if (this.closed) return;
      // What ends from now on is told to whoever follows, if it is not too much to be told in full.
      const have = {from: since, to: until < now ? until : node ? now + 10e3 : Infinity, fine, whole: fine < 1};
      if (node) {
        this.replace(node, fresh);
        this.details.set(node, have);
      } else {
        for (const id of this.tracks.nodes.keys()) if (!this.details.has(id) || !this.covers(this.details.get(id), from, to, fine)) this.replace(id, fresh);
        for (const id of fresh.nodes.keys()) if (!this.tracks.nodes.has(id)) this.replace(id, fresh);
        this.loaded = have;
      }
      this.tracks.latest = Math.max(this.tracks.latest, fresh.latest);
      this.problem('');
      this.relay();
      this.sheet.touch();
      if (performance.now() - (this.toldAt || 0) > 500) this.tell();
      this.listJobs();
    } catch (err) {
      if (!stop.signal.aborted) {
        this.problem(err.message);
        // Asked again at the next movement, but not at once.
        await new Promise(f => setTimeout(f, 2000));
      }
    } finally {
      this.fresh.delete(node);
      this.aborts.delete(stop);
      this.asking.delete(node);
      if (!this.closed) this.wanted();
    }
  }

  replace(id, fresh) {
    const was = this.tracks.nodes.get(id) || [], is = fresh.slots(id, was.length);
    this.tracks.size += is.reduce((n, t) => n + t.n, 0) - was.reduce((n, t) => n + t.n, 0);
    this.tracks.nodes.set(id, is);
    const group = this.groups.find(g => g.id === id);
    if (group) group.tracks = is;
    if (this.chosen?.track.node === id) this.chosen.track = is[this.chosen.track.slot] || this.chosen.track;
  }

  // followLive takes in what ends from now on.
  followLive() {
    const stop = new AbortController();
    this.aborts.add(stop);
    let lags = [];
    this.app.api.stream('/stretches', {
      query: () => ({follow: 1, since: iso(Math.max(this.live, this.now() - 2000)), resolution: 50, limit: this.known > manyNodes ? 5000 : most, job: this.job}), signal: stop.signal,
      restart: () => { this.loaded = null; this.details.clear(); },
    }, s => {
      if (!this.tracks.take(s)) return;
      for (const fresh of this.fresh.values()) fresh.take(s);
      const to = Date.parse(s.to);
      this.live = Math.max(this.live, to);
      lags.push(Date.now() - to);
      if (lags.length >= 16) {
        // What has just ended tells how the node's clock and ours differ.
        const lag = Math.min(...lags);
        if (lag + this.skew < 0 || lag + this.skew > 5000) this.skew = -lag;
        lags = [];
      }
      if (!this.relaid) this.relaid = setTimeout(() => {
        this.relaid = 0;
        if (!this.closed) this.relay();
      }, 200);
      if (!this.names.has(s.job)) this.listJobs();
      if (this.tracks.size > mostKept) this.forget();
      this.sheet.touch();
    }).catch(e => this.closed || this.problem(e.message));
  }

  // forget lets go of what is oldest; whoever goes back to it has it asked for again.
  forget() {
    for (const age of [900e3, 300e3, 60e3, 10e3]) {
      const before = this.tracks.latest - age;
      this.tracks.drop(before);
      for (const have of [this.loaded, ...this.details.values()]) if (have && have.from < before) have.from = before;
      if (this.tracks.size < mostKept * 0.8) return;
    }
  }

  // listJobs finds out how jobs are called.
  async listJobs() {
    if (this.naming || this.tracks.kinds.every(k => this.names.has(k.job))) return;
    this.naming = true;
    try {
      const list = await this.app.api.get('/jobs', {limit: 500}, {signal: this.app.signal});
      for (const j of list) if (j.name) this.names.set(j.id, j.name);
    } catch { /* Then they are called by their IDs. */ }
    for (const k of this.tracks.kinds) if (!this.names.has(k.job)) this.names.set(k.job, brief(k.job, 10));
    this.naming = false;
    this.sheet.touch();
    this.tell();
  }

  problem(words) {
    text(this.note, words);
    this.note.hidden = !words;
  }

  // Drawing.

  paint(g, w, h) {
    const c = theme(), left = this.gutter(w), x = this.x(w), from = this.from(), to = this.end, top = this.scroller.scrollTop, floor = h - axis;
    const ticks = times(from, to, Math.max(2, Math.floor((w - left) / 110)));
    g.font = `11px ${c.font}`;
    g.textBaseline = 'middle';
    g.fillStyle = c.line;
    for (const t of ticks.at) g.fillRect(Math.round(x(t)), 0, 1, floor);

    // Bars are gathered by colour, since changing it is what costs.
    const fills = new Map(), failed = [], stolen = [], texts = [];
    const fill = (kind, strong, X, Y, W, H) => {
      const key = kind * 16 + Math.round(strong * 15);
      let list = fills.get(key);
      if (!list) fills.set(key, (list = []));
      list.push(X, Y, W, H);
    };
    let shown = 0;
    this.drawn = 0;
    g.save();
    g.beginPath();
    g.rect(left, 0, w - left, floor);
    g.clip();
    for (const group of this.visible()) {
      const rowH = group.h, barH = rowH > 8 ? rowH - 2 : rowH - 1;
      group.tracks.forEach((track, slot) => {
        const y = Math.round(group.y - top + slot * rowH);
        if (y + rowH < 0 || y > floor) return;
        g.fillStyle = c.line;
        g.globalAlpha = 0.35;
        g.fillRect(left, y, w - left, barH);
        g.globalAlpha = 1;
        let last = -1, lower = -1;
        for (let i = track.first(from); i < track.n && track.from[i] < to; i++) {
          shown++;
          const X = Math.max(left - 2, x(track.from[i])), end = Math.min(w + 2, x(track.to[i])), kind = track.kind[i];
          const mark = track.failed[i] > 0;
          // Of what overlaps, the later is in the lower half; a pixel that is full already is left alone.
          const under = X < last - 1.5;
          if (end <= last && !mark && (!under || end <= lower)) continue;
          const W = Math.max(end - X, 1), Y = under ? y + barH / 2 : y, H = under ? barH / 2 : barH;
          if (under) lower = X + W - 0.5;
          else last = X + W - 0.5;
          const dim = this.only && this.only !== this.tracks.kinds[kind].job ? 0.15 : 1;
          this.drawn++;
          if (W < 30) {
            const ran = phaseSum(track, i), share = track.tasks[i] > 1 && track.to[i] > track.from[i] ? clamp(ran / (track.to[i] - track.from[i]), 0.35, 1) : 1;
            fill(kind, dim * (ran > 0 ? share : 1), X, Y, W > 3 ? W - 0.5 : W, H);
          } else this.phases(track, i, (strong, a, b) => fill(kind, strong * dim, x(a), Y, x(b) - x(a) - (b === track.to[i] ? 1 : 0), H), from, to);
          if (mark) failed.push(X, Y, W, H);
          if (track.stolen[i] && W > 8 && rowH > 8) stolen.push(X, Y);
          if (W > 44 && H >= 12) texts.push(X, Y, W, H, track, i);
        }
      });
    }
    for (const [key, list] of fills) {
      g.globalAlpha = (key % 16) / 15;
      g.fillStyle = this.colour(Math.floor(key / 16));
      for (let i = 0; i < list.length; i += 4) g.fillRect(list[i], list[i + 1], list[i + 2], list[i + 3]);
    }
    g.globalAlpha = 1;
    // What failed has a red foot, and a cross where there is room.
    g.fillStyle = c.bad;
    for (let i = 0; i < failed.length; i += 4) g.fillRect(failed[i], failed[i + 1] + failed[i + 3] - Math.max(2, failed[i + 3] / 3), Math.max(2, failed[i + 2]), Math.max(2, failed[i + 3] / 3));
    // What was stolen has a corner.
    g.fillStyle = c.text;
    g.globalAlpha = 0.8;
    g.beginPath();
    for (let i = 0; i < stolen.length; i += 2) {
      g.moveTo(stolen[i], stolen[i + 1]);
      g.lineTo(stolen[i] + 5, stolen[i + 1]);
      g.lineTo(stolen[i], stolen[i + 1] + 5);
    }
    g.fill();
    g.globalAlpha = 1;
    g.fillStyle = c.dark ? '#0b0f14' : '#fff';
    for (let i = 0; i < texts.length; i += 6) {
      const X = Math.max(texts[i], left), words = fitText(g, span(texts[i + 4], texts[i + 5]), texts[i] + texts[i + 2] - X - 14);
      if (words) g.fillText(words, X + 8, texts[i + 1] + texts[i + 3] / 2 + 0.5);
    }
    const now = this.now();
    if (now > from && now < to + 1) {
      g.fillStyle = c.accent;
      g.fillRect(Math.min(w - 7, Math.round(x(now))), 0, 1, floor);
    }
    this.ring(g, x, top, c);
    g.restore();

    // Names of nodes.
    g.fillStyle = c.text;
    g.textAlign = 'left';
    for (const group of this.visible()) {
      const y = group.y - top, tall = Math.max(14, group.tracks.length * group.h), node = pulses.nodes.get(group.id);
      if (y > floor) continue;
      g.save();
      g.beginPath();
      g.rect(0, 0, left, floor);
      g.clip();
      g.fillStyle = node?.pulse.state === 'silent' ? c.dim : c.text;
      g.fillText(fitText(g, group.name, left - 20), 12, y + 7);
      if (tall >= 30 && node) {
        g.fillStyle = c.dim;
        g.fillText(fitText(g, node.pulse.state === 'up' ? `${node.pulse.load.running}/${node.pulse.load.slots} busy` : node.pulse.state, left - 20), 12, y + 21);
      }
      g.restore();
    }
    // Time.
    g.fillStyle = c.line;
    g.fillRect(0, floor, w, 1);
    g.fillStyle = c.dim;
    g.textAlign = 'center';
    for (const t of ticks.at) {
      const X = x(t);
      if (X > left + 24 && X < w - 24) g.fillText(clock(t, ticks.step), X, floor + 13);
    }
    g.textAlign = 'left';
    g.fillText(fitText(g, lasting(this.span), left - 20), 12, floor + 13);
    this.shown = shown;
    this.blank(g, w, floor, left, c);
    return false;
  }

  blank(g, w, floor, left, c) {
    if (this.shown > 0) return;
    g.fillStyle = c.dim;
    g.font = `13px ${c.font}`;
    g.textAlign = 'center';
    g.fillText(this.asking.has('') && !this.loaded ? 'Asking the nodes…' : 'No task ran in this time.', left + (w - left) / 2, floor / 2);
  }

  // phases calls f(strength, from, to) for the phases of an attempt, one after the other. What a merged stretch stands for is not in order; its
  // phases are drawn as shares of the whole.
  phases(track, i, f, from, to) {
    const sum = phaseSum(track, i), a = track.from[i], b = track.to[i], p = i * phaseNames.length;
    if (sum <= 0 || b <= a) return f(1, Math.max(a, from), Math.min(b, to));
    const k = track.tasks[i] > 1 ? (b - a) / sum : Math.min(1, (b - a) / sum);
    let t = a;
    phaseNames.forEach((name, n) => {
      const end = n === phaseNames.length - 1 ? b : t + track.phases[p + n] * k;
      const lo = Math.max(t, from), hi = Math.min(end, to);
      if (hi > lo) f(shades[name], lo, hi);
      t = end;
    });
  }

  ring(g, x, top, c) {
    const at = this.chosen;
    if (!at) return;
    const group = this.groups.find(q => q.id === at.track.node), i = at.track.under(at.from + 1e-6);
    if (!group || i < 0) return;
    g.strokeStyle = c.text;
    g.lineWidth = 2;
    g.strokeRect(x(at.track.from[i]) - 1, Math.round(group.y - top + at.track.slot * group.h) - 1, Math.max(3, x(at.track.to[i]) - x(at.track.from[i])) + 2, group.h + 1);
  }

  colour(kind) {
    const k = this.tracks.kinds[kind];
    return ofStage(this.app, k.job, k.spawned ? k.stage + 3 : k.stage);
  }

  name(job) { return this.names.get(job) || brief(job, 10); }

  // Words.

  // what is what there is to say of a bar.
  what(track, i) {
    const k = this.tracks.kinds[track.kind[i]], n = track.tasks[i], p = i * phaseNames.length;
    const node = pulses.nodes.get(track.node);
    const rows = [
      [k.spawned ? 'Spawned' : n > 1 ? 'Attempts' : 'Task', n > 1 ? `${short(n)} of tasks ${span(track, i)}` : span(track, i)],
      ['Slot', `${node ? label(node.pulse) : nodeName(track.node)} / ${track.slot}`],
      ['From', clock(track.from[i], 1)], ['Took', lasting(track.to[i] - track.from[i])],
    ];
    if (track.failed[i]) rows.push(['Failed', n > 1 ? short(track.failed[i]) : 'yes', theme().bad]);
    if (track.stolen[i]) rows.push(['Stolen', 'yes']);
    phaseNames.forEach((name, q) => {
      const ms = track.phases[p + q];
      if (ms > 0) rows.push([name, lasting(ms)]);
    });
    return [`${this.name(k.job)}, stage ${k.stage}${k.spawned ? ', spawned' : ''}`, rows];
  }

  choose(track, i) {
    this.chosen = { track, from: track.from[i] };
    const [title, rows] = this.what(track, i);
    text(this.told, [title, ...rows.map(([name, value]) => `${name} ${value}`)].join(', '));
    // Into sight.
    const group = this.groups.find(q => q.id === track.node);
    if (group) {
      const y = group.y + track.slot * group.h, see = this.sheet.height - axis;
      if (y < this.scroller.scrollTop) this.scroller.scrollTop = y - 20;
      else if (y + group.h > this.scroller.scrollTop + see) this.scroller.scrollTop = y + group.h - see + 20;
    }
    if (track.from[i] < this.from() || track.to[i] > this.end) this.pan(track.from[i] - (this.end - this.span / 2));
    this.sheet.touch();
    if (group) {
      const x = this.x(this.sheet.width);
      this.tip.show(clamp(x(track.from[i]), this.gutter(this.sheet.width), this.sheet.width), group.y + (track.slot + 1) * group.h - this.scroller.scrollTop, title, rows);
    }
  }

  // step moves the keyboard's place: along the row, or to the next row that has something.
  step(along, across) {
    const rows = this.groups.flatMap(g => g.tracks);
    if (!this.chosen) {
      const seen = this.visible().flatMap(g => g.tracks).find(t => t.first(this.from()) < t.n) || rows.find(t => t.n > 0);
      if (seen) this.choose(seen, Math.max(0, Math.min(seen.n - 1, seen.first(this.end) - 1)));
      return;
    }
    const {track, from} = this.chosen;
    if (along) {
      const i = track.under(from + 1e-6, 1), next = i + along;
      if (i >= 0 && next >= 0 && next < track.n) this.choose(track, next);
      return;
    }
    for (let r = rows.indexOf(track) + across; r >= 0 && r < rows.length; r += across) if (rows[r].n > 0) {
      const i = clamp(rows[r].first(from), 0, rows[r].n - 1);
      return this.choose(rows[r], i);
    }
  }

  // hit is what lies under a place on the canvas.
  hit(px, py) {
    const w = this.sheet.width, y = py + this.scroller.scrollTop;
    if (py > this.sheet.height - axis) return null;
    for (const g of this.visible()) {
      const slot = Math.floor((y - g.y) / g.h);
      if (slot < 0 || slot >= g.tracks.length) continue;
      const x = this.x(w), track = g.tracks[slot], i = track.under(x.back(px), (3 * this.span) / w);
      return i >= 0 ? {track, i} : null;
    }
    return null;
  }

  // hands takes in pointers, wheel and keys.
  hands() {
    const c = this.canvas, pointers = new Map();
    let grip = null, far = 0;
    const place = e => { const r = c.getBoundingClientRect(); return [e.clientX - r.left, e.clientY - r.top]; };
    c.addEventListener('wheel', e => {
      const [px] = place(e), w = this.sheet.width;
      if (px < this.gutter(w) || (this.job && !e.ctrlKey && !e.metaKey && !e.shiftKey && Math.abs(e.deltaX) < Math.abs(e.deltaY))) return; // scrolls rows, or the page
      e.preventDefault();
      const unit = e.deltaMode === 1 ? 16 : e.deltaMode === 2 ? 400 : 1;
      if (e.shiftKey || Math.abs(e.deltaX) > Math.abs(e.deltaY)) this.pan((((e.deltaX || e.deltaY) * unit) / w) * this.span);
      else this.zoom(Math.exp(clamp(e.deltaY * unit, -400, 400) * 0.002), this.x(w).back(px));
      this.tip.hide();
    }, {passive: false});
    c.addEventListener('pointerdown', e => {
      pointers.set(e.pointerId, place(e));
      c.setPointerCapture(e.pointerId);
      grip = {at: place(e), scroll: this.scroller.scrollTop};
      if (pointers.size === 1) far = 0;
    });
    c.addEventListener('pointermove', e => {
      const at = place(e), was = pointers.get(e.pointerId);
      if (!was) {
        const hit = this.hit(...at);
        c.style.cursor = hit ? 'pointer' : '';
        if (hit) this.tip.show(at[0], at[1], ...this.what(hit.track, hit.i));
        else this.tip.hide();
        return;
      }
      const others = [...pointers].filter(([id]) => id !== e.pointerId);
      if (others.length === 1) {
        const o = others[0][1], d0 = Math.abs(was[0] - o[0]), d1 = Math.abs(at[0] - o[0]);
        if (d0 > 10 && d1 > 10) this.zoom(d0 / d1, this.x(this.sheet.width).back((at[0] + o[0]) / 2));
        far = 99;
      } else if (others.length === 0) {
        far = Math.max(far, Math.hypot(at[0] - grip.at[0], at[1] - grip.at[1]));
        if (far > 4) {
          if (at[0] !== was[0]) this.pan((-(at[0] - was[0]) / (this.sheet.width - this.gutter(this.sheet.width))) * this.span);
          if (e.pointerType === 'mouse') this.scroller.scrollTop -= at[1] - was[1];
          this.tip.hide();
        }
      }
      pointers.set(e.pointerId, at);
    });
    const up = e => {
      const at = pointers.get(e.pointerId);
      pointers.delete(e.pointerId);
      if (!at || e.type === 'pointercancel' || far > 4) return;
      const hit = this.hit(...at);
      if (!hit) return;
      if (e.pointerType === 'mouse') this.open(hit.track, hit.i);
      else { // a finger cannot hover: the first tap tells, the second one opens
        if (this.chosen?.track === hit.track && this.chosen.from === hit.track.from[hit.i]) this.open(hit.track, hit.i);
        else this.choose(hit.track, hit.i);
      }
    };
    c.addEventListener('pointerup', up);
    c.addEventListener('pointercancel', up);
    c.addEventListener('pointerleave', () => { if (pointers.size === 0) this.tip.hide(); });
    c.addEventListener('blur', () => this.tip.hide());
    c.addEventListener('keydown', e => {
      if (e.ctrlKey || e.metaKey || e.altKey) return;
      const shift = e.shiftKey;
      const does = {
        ArrowLeft: () => (shift ? this.pan(-this.span / 8) : this.step(-1, 0)), ArrowRight: () => (shift ? this.pan(this.span / 8) : this.step(1, 0)),
        ArrowUp: () => (shift ? (this.scroller.scrollTop -= 60) : this.step(0, -1)), ArrowDown: () => (shift ? (this.scroller.scrollTop += 60) : this.step(0, 1)),
        '+': () => this.zoomAtChosen(0.5), '=': () => this.zoomAtChosen(0.5), '-': () => this.zoomAtChosen(2), f: () => this.setFollow(!this.follow), F: () => this.setFollow(!this.follow),
        End: () => this.setFollow(true), PageUp: () => (this.scroller.scrollTop -= this.sheet.height * 0.8), PageDown: () => (this.scroller.scrollTop += this.sheet.height * 0.8),
        Enter: () => { if (this.chosen) { const i = this.chosen.track.under(this.chosen.from + 1e-6, 1); if (i >= 0) this.open(this.chosen.track, i); } },
        Escape: () => { this.chosen = null; this.tip.hide(); this.sheet.touch(); },
      }[e.key];
      if (!does) return;
      e.preventDefault();
      e.stopPropagation();
      does();
    });
  }

  zoomAtChosen(by) {
    if (this.chosen && this.follow) this.setFollow(false);
    this.zoom(by, this.chosen ? this.chosen.from : undefined);
  }

  open(track, i) {
    const job = this.tracks.kinds[track.kind[i]].job;
    if (job !== this.job) this.app.go(this.app.hashOf('jobs', job));
  }

  // Tables and legend.

  setTable(on) {
    this.table.root.hidden = !on;
    this.tabled.setAttribute('aria-pressed', String(on));
    this.tell();
  }

  // summary is what is in the window, by node and by kind.
  summary() {
    const from = this.from(), to = this.end, kinds = new Map(), nodes = [];
    for (const g of this.groups || []) {
      const n = {id: g.id, name: g.name, slots: g.tracks.length, tasks: 0, failed: 0, stolen: 0, busy: 0, last: -1, latest: 0};
      for (const t of g.tracks) for (let i = t.first(from); i < t.n && t.from[i] < to; i++) {
        n.tasks += t.tasks[i];
        n.failed += t.failed[i];
        n.stolen += t.stolen[i] ? t.tasks[i] : 0;
        n.busy += Math.min(to, t.to[i]) - Math.max(from, t.from[i]);
        kinds.set(t.kind[i], (kinds.get(t.kind[i]) || 0) + t.tasks[i]);
        if (t.to[i] > n.latest) (n.latest = t.to[i]), (n.last = t.kind[i]);
      }
      nodes.push(n);
    }
    return {kinds, nodes};
  }

  tell() {
    if (document.hidden || this.closed) return;
    this.toldAt = performance.now();
    const {kinds, nodes} = this.summary();
    const total = nodes.reduce((n, q) => n + q.tasks, 0), failed = nodes.reduce((n, q) => n + q.failed, 0);
    text(this.facts, `${short(total)} ${total === 1 ? 'task' : 'tasks'}${failed ? `, ${short(failed)} failed,` : ''} on ${short(this.rows || 0)} slots of ${short(nodes.length)} ${nodes.length === 1 ? 'node' : 'nodes'}`);
    if (!this.table.root.hidden) this.table.show(nodes.map(n => {
      const job = n.last < 0 ? '' : this.tracks.kinds[n.last].job;
      return [{text: n.name, href: this.app.hashOf('nodes', n.id)}, n.slots, short(n.tasks), short(n.failed), short(n.stolen), part(n.busy, this.span * n.slots),
        job ? {text: this.name(job), href: this.app.hashOf('jobs', job)} : '–'];
    }));
    const order = k => [this.name(this.tracks.kinds[k].job), this.tracks.kinds[k].stage];
    const top = [...kinds].sort((a, b) => b[1] - a[1]).slice(0, 12).map(([k]) => k).sort((a, b) => (order(a) < order(b) ? -1 : 1));
    const key = top.map(k => `${k} ${this.name(this.tracks.kinds[k].job)}`).join() + this.only + theme().dark;
    if (key === this.legendKey) return;
    this.legendKey = key;
    fill(this.legend, top.map(k => {
      const {job, stage, spawned} = this.tracks.kinds[k];
      return el('button.quiet', {
        type: 'button', 'aria-pressed': String(this.only === job), title: 'Have this job stand out',
        onclick: () => {
          this.only = this.only === job ? '' : job;
          this.sheet.touch();
          this.tell();
        },
      }, el('i.swatch', {style: {background: this.colour(k)}}), el('bdi', this.name(job)), ` / ${stage}${spawned ? ' spawned' : ''}`);
    }), el('span.spring'), el('span.dim', el('i.swatch.live-failed'), 'failed'), el('span.dim', el('i.swatch.live-stolen'), 'stolen'));
  }

  inspect() {
    const {nodes} = this.summary();
    return {
      nodes: nodes.map(n => ({...n})), rows: this.rows, stretches: this.tracks.size, shown: this.shown, drawn: this.drawn, from: this.from(), to: this.end, latest: this.tracks.latest, span: this.span,
      follow: this.follow, loaded: !!this.loaded, asking: this.asking.size, details: this.details.size, frames: this.sheet.frames, worst: this.sheet.worst, told: this.told.textContent,
      jobs: [...new Set(this.tracks.kinds.map(k => k.job))],
    };
  }
}

const iso = t => new Date(t).toISOString();

// span is which tasks a bar is of.
const span = (track, i) => (track.tasks[i] > 1 ? `${track.lo[i]}–${track.hi[i] - 1}` : `${track.lo[i]}`);

function phaseSum(track, i) {
  let s = 0;
  for (let k = i * phaseNames.length, n = k + phaseNames.length; k < n; k++) s += track.phases[k];
  return s;
}
