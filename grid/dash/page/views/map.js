// The swarm map: each node a circle whose rim fills with its busy slots, its links, and the tasks that are being stolen, as dots that go along.
// Nodes lie by zone, in the order in which they started, so that one that comes moves no other; see place.
//
// window.gridView.map() tells what it shows, for tests and for who is curious.
import {Rows, Sheet, Tip, clamp, fitText, hash, lasting, part, still, theme} from '../draw.js';
import {bytes, count, el, fill, nodeName, short, text} from '../lib.js';
import {full, label, pulses} from '../pulses.js';

export const title = 'Swarm map';

const fewLinks = 60; // with more nodes, only the links of the one that is chosen are drawn
const mostDots = 300;
const trip = 900; // milliseconds that a dot is on its way
const dotRadius = 8; // up to which nodes are drawn as dots

export function mount(root, app) {
  const view = new SwarmMap(root, app);
  return () => view.close();
}

// place puts nodes, which have {id, zone, started}, on a plane, the next neighbours about 1 apart. A zone is a ring of few nodes, or else a spiral like
// a sunflower's, whose places do not depend on how many there are; zones lie in a ring. It returns {at: Map of id to {x, y}, zones: [{name, x, y, r}],
// box: [left, top, right, bottom]}.
export function place(nodes) {
  const zones = new Map();
  for (const n of nodes) {
    if (!zones.has(n.zone)) zones.set(n.zone, []);
    zones.get(n.zone).push(n);
  }
  const order = (a, b) => (a.started < b.started ? -1 : a.started > b.started ? 1 : hash(a.id) - hash(b.id) || (a.id < b.id ? -1 : 1));
  const all = [...zones].sort((a, b) => (a[0] < b[0] ? -1 : 1)).map(([name, members]) => {
    members.sort(order);
    const n = members.length, ring = n <= 14;
    const r = n === 1 ? 0 : ring ? Math.max(0.8, n / (2 * Math.PI)) : 0.56 * Math.sqrt(n);
    return {name, ring, r: r + 0.75, members};
  });
  // Each zone has its part of the ring of zones, which is wide enough that neighbours do not overlap.
  const whole = all.reduce((n, z) => n + z.r, 0), part = z => (2 * Math.PI * z.r) / whole;
  const far = all.length < 2 ? 0 : Math.max(...all.map((z, i) => {
    const next = all[(i + 1) % all.length];
    return (1.08 * (z.r + next.r)) / (2 * Math.sin(Math.min(Math.PI / 2, (part(z) + part(next)) / 4)));
  }));
  let angle = (all.length === 2 ? Math.PI : -Math.PI / 2) - (all.length ? part(all[0]) / 2 : 0);
  const at = new Map(), out = [], box = [Infinity, Infinity, -Infinity, -Infinity];
  for (const z of all) {
    const x = far * Math.cos(angle + part(z) / 2), y = far * Math.sin(angle + part(z) / 2);
    angle += part(z);
    z.members.forEach((n, i) => {
      const a = z.ring ? -Math.PI / 2 + (2 * Math.PI * i) / z.members.length : i * 2.399963, r = z.ring ? z.r - 0.75 : 0.56 * Math.sqrt(i + 0.5);
      at.set(n.id, {x: x + r * Math.cos(a), y: y + r * Math.sin(a)});
    });
    out.push({name: z.name, x, y, r: z.r});
    box[0] = Math.min(box[0], x - z.r);
    box[1] = Math.min(box[1], y - z.r);
    box[2] = Math.max(box[2], x + z.r);
    box[3] = Math.max(box[3], y + z.r);
  }
  return {at, zones: out, box: all.length ? box : [-1, -1, 1, 1]};
}

class SwarmMap {
  constructor(root, app) {
    this.app = app;
    this.nodes = new Map(); // id: {x, y, from, since, pulse}
    this.zones = [];
    this.drawn = new Map(); // small nodes
    this.chosen = app.query.get('node') || '';
    this.over = '';
    this.dots = [];
    this.moved = 0; // tasks that were seen moving
    this.view = {x: 0, y: 0, k: 1};
    this.build(root);
    this.unlisten = pulses.listen(app, moved => moved && this.take(moved));
    this.take([]);
    window.gridView = {...window.gridView, map: () => this.inspect()};
  }

  build(root) {
    this.canvas = el('canvas', {
      tabIndex: 0, role: 'application', 'aria-roledescription': 'swarm map',
      'aria-label': 'Swarm map. Arrow keys go from node to node, Enter opens one, plus and minus zoom. The table below tells the same.',
    });
    this.stage = el('div.live-stage', this.canvas);
    this.side = el('div.live-side');
    this.told = el('p.hide', {role: 'status'});
    this.facts = el('span.dim');
    this.table = new Rows('Nodes', [{name: 'Node'}, {name: 'State'}, {name: 'Zone'}, {name: 'Busy', num: true}, {name: 'Queued', num: true}, {name: 'Tasks/s', num: true}, {name: 'Stolen/s', num: true}, {name: 'p50', num: true}, {name: 'p99', num: true}, {name: 'Memory', num: true}, {name: 'Links', num: true}], 25);
    const button = (words, does, f) => el('button', {type: 'button', 'aria-label': does, title: does, onclick: f}, words);
    root.append(el('div.bar', button('−', 'Zoom out (-)', () => this.zoom(0.7)), button('+', 'Zoom in (+)', () => this.zoom(1.4)), button('Fit', 'Show all (0)', () => this.fit()), this.facts),
      el('section.card.live.live-map', {'aria-label': 'Swarm map'}, this.stage, this.side), this.told, this.table.root);
    this.tip = new Tip(this.stage);
    this.sheet = new Sheet(this.app, this.canvas, (g, w, h, now, changed) => this.paint(g, w, h, now, changed));
    this.hands();
  }

  close() {
    this.unlisten();
    this.sheet.close();
    const {map, ...rest} = window.gridView;
    window.gridView = rest;
  }

  // take takes in what came: pulses, and tasks that moved.
  take(moved) {
    const list = pulses.list();
    const now = performance.now();
    if (this.shape !== pulses.shape) {
      this.shape = pulses.shape;
      const {at, zones, box} = place(list.map(n => ({id: n.pulse.node, zone: n.pulse.zone || '', started: n.pulse.started || '~'})));
      this.zones = zones;
      this.box = box;
      for (const [id, p] of at) {
        const was = this.nodes.get(id);
        const from = was && !still() ? this.spot(was, now) : p;
        this.nodes.set(id, {...p, from, since: now});
      }
      for (const id of this.nodes.keys()) if (!at.has(id)) this.nodes.delete(id);
      this.moving = now + 500;
    }
    for (const {pulse} of list) this.nodes.get(pulse.node).pulse = pulse;
    for (const m of moved) {
      this.moved += m.tasks;
      if (!this.nodes.has(m.from) || !this.nodes.has(m.to)) continue;
      const n = Math.min(m.tasks, 1 + Math.ceil(Math.log2(m.tasks)), 8);
      for (let i = 0; i < n && this.dots.length < mostDots; i++) this.dots.push({from: m.from, to: m.to, at: now + (i * trip) / n, tasks: m.tasks});
    }
    if (list.length && (now - (this.written || 0) > 900 || moved.length === 0)) this.tell(list, now);
    this.sheet.touch();
  }

  // spot is where a node is at a moment, on its way to its place.
  spot(n, now) {
    const t = clamp((now - n.since) / 400, 0, 1), e = 1 - (1 - t) ** 3;
    return {x: n.from.x + (n.x - n.from.x) * e, y: n.from.y + (n.y - n.from.y) * e};
  }

  // to maps the plane onto the canvas; k is how many pixels a unit is.
  to(w, h) {
    const [l, t, r, b] = this.box || [-1, -1, 1, 1], k = Math.min((w - 40) / (r - l), (h - 50) / (b - t), 180) * this.view.k;
    return {x: v => w / 2 + this.view.x + (v - (l + r) / 2) * k, y: v => h / 2 + this.view.y + (v - (t + b) / 2) * k, k};
  }

  radius(n, k) { return clamp(k * 0.3 * clamp(0.75 + 0.08 * Math.log2((n.pulse?.load.slots || 1) + 1), 0.8, 1.2), 2, 30); }

  // The picture.

  // paint draws what stays where it is, a thousand nodes perhaps, on a layer of its own, and that only when it has changed: while tasks move, a frame
  // is a copy of the layer with dots on it.
  paint(g, w, h, now, changed) {
    const moves = now < (this.moving || 0);
    if (changed || moves) this.paintStill(w, h, now);
    g.drawImage(this.layer, 0, 0, w, h);
    return this.steals(g, theme(), this.spots, now) || moves;
  }

  paintStill(w, h, now) {
    const c = theme(), {x, y, k} = this.to(w, h), many = this.nodes.size > fewLinks, {width, height} = this.canvas;
    if (!this.layer) this.layer = document.createElement('canvas');
    if (this.layer.width !== width) this.layer.width = width;
    if (this.layer.height !== height) this.layer.height = height;
    const g = this.layer.getContext('2d');
    g.setTransform(this.sheet.dense, 0, 0, this.sheet.dense, 0, 0);
    g.clearRect(0, 0, w, h);
    const spots = new Map();
    for (const [id, n] of this.nodes) {
      const s = this.spot(n, now);
      spots.set(id, {x: x(s.x), y: y(s.y), r: this.radius(n, k), n});
    }
    this.spots = spots;
    const sees = s => s.x > -40 && s.y > -40 && s.x < w + 40 && s.y < h + 40;

    g.textAlign = 'center';
    g.textBaseline = 'middle';
    if (this.zones.length > 1) for (const z of this.zones) {
      g.fillStyle = c.faint;
      g.globalAlpha = 0.55;
      g.beginPath();
      g.arc(x(z.x), y(z.y), z.r * k, 0, 7);
      g.fill();
      g.globalAlpha = 1;
    }

    this.links(g, c, spots, many);
    for (const [id, s] of spots) if (s.n.pulse && sees(s)) this.node(g, c, s, id);
    this.label(g, c, [...spots].filter(([, s]) => s.n.pulse && sees(s)), this.to(w, h));
    this.stills = (this.stills || 0) + 1;
    if (this.nodes.size === 0) {
      g.font = `13px ${c.font}`;
      g.fillStyle = c.dim;
      g.fillText('Asking the nodes…', w / 2, h / 2);
    }
  }

  // label writes names, and what is queued, where there is room: whose matter most come first.
  label(g, c, spots, {x, y, k}) {
    const taken = k < 46 ? [] : spots.map(([, s]) => [s.x - s.r, s.y - s.r, s.x + s.r, s.y + s.r]);
    const write = (words, X, Y, font, colour, sure) => {
      g.font = font;
      const w = g.measureText(words).width / 2 + 3, box = [X - w, Y - 7, X + w, Y + 7];
      if (!sure && taken.some(o => o[0] < box[2] && o[2] > box[0] && o[1] < box[3] && o[3] > box[1])) return false;
      taken.push(box);
      g.lineWidth = 3;
      g.lineJoin = 'round';
      g.strokeStyle = c.ground;
      g.strokeText(words, X, Y);
      g.fillStyle = colour;
      g.fillText(words, X, Y);
      return true;
    };
    if (this.zones.length > 1) for (const z of this.zones) if (z.r * k > 24) write(fitText(g, z.name || 'no zone', z.r * k * 2), x(z.x), y(z.y) - z.r * k - 9, `600 12px ${c.font}`, c.dim, true);
    this.named = 0;
    const rank = ([id, s]) => (id === this.chosen ? 0 : id === this.over ? 1 : s.n.pulse.leader ? 2 : 3);
    const some = k < 46 ? spots.filter(s => rank(s) < 3) : [...spots].sort((a, b) => rank(a) - rank(b));
    for (const [id, s] of some) {
      const p = s.n.pulse, first = rank([id, s]) < 2;
      if (!write(fitText(g, label(p), 130), s.x, s.y + s.r + 11, `${id === this.chosen ? '600 ' : ''}12px ${c.font}`, p.state === 'silent' ? c.dim : c.text, first)) continue;
      this.named++;
      if (p.load.queued > 0) write(`${short(p.load.queued)} queued`, s.x, s.y + s.r + 26, `11px ${c.font}`, c.dim, false);
    }
    for (const [ms, X, Y] of this.times) write(lasting(ms), X, Y, `11px ${c.font}`, c.accent, false);
  }

  // links draws each connection once: the nearer in time, the stronger; one by a relay dashed.
  links(g, c, spots, many) {
    const drawn = new Set(), focus = this.over || this.chosen;
    this.linked = 0;
    this.times = [];
    g.lineCap = 'round';
    for (const strong of [false, true]) for (const [id, s] of spots) {
      if (!s.n.pulse || s.n.pulse.state === 'silent' || (many && id !== focus && !strong)) continue;
      for (const l of s.n.pulse.links || []) {
        const mine = id === focus || l.node === focus, o = spots.get(l.node);
        if (mine !== strong || !o) continue;
        const key = id < l.node ? id + l.node : l.node + id;
        if (drawn.has(key)) continue;
        drawn.add(key);
        const ms = l.rtt_ns / 1e6, near = ms > 0 ? clamp(1 - Math.log10(1 + ms) / 2.6, 0.15, 1) : 0.4;
        g.globalAlpha = strong ? 0.9 : 0.25 + 0.4 * near;
        g.strokeStyle = strong ? c.accent : c.strong;
        g.lineWidth = strong ? 1 + near : 0.6 + 0.8 * near;
        g.setLineDash(l.transport === 'relay' ? [4, 5] : []);
        g.beginPath();
        g.moveTo(s.x, s.y);
        g.lineTo(o.x, o.y);
        g.stroke();
        if (strong && ms > 0) this.times.push([ms, s.x + (o.x - s.x) * 0.6, s.y + (o.y - s.y) * 0.6]);
        this.linked++;
      }
    }
    g.setLineDash([]);
    g.globalAlpha = 1;
  }

  node(g, c, s, id) {
    const p = s.n.pulse, busy = full(p), r = s.r, silent = p.state === 'silent', draining = p.state === 'draining';
    if (id === this.chosen || id === this.over) {
      g.beginPath();
      g.arc(s.x, s.y, r + 5, 0, 7);
      g.strokeStyle = c.accent;
      g.lineWidth = id === this.chosen ? 2.5 : 1.5;
      g.stroke();
    }
    if (r < dotRadius) { // no room for a rim
      const dot = this.dot(silent ? c.dim : draining ? c.warn : c.accent, silent ? 2 : Math.round(2 + 6 * busy), c), half = (r * (dotRadius + 1)) / dotRadius;
      g.drawImage(dot, s.x - half, s.y - half, 2 * half, 2 * half);
    } else {
      g.beginPath();
      g.arc(s.x, s.y, r, 0, 7);
      g.fillStyle = c.ground;
      g.fill();
      const rim = clamp(r / 4, 3, 6), turn = -Math.PI / 2;
      g.fillStyle = silent ? c.ground : draining ? c.warn : c.soft;
      if (draining) g.globalAlpha = 0.25;
      g.fill();
      g.globalAlpha = 1;
      g.lineWidth = rim;
      g.strokeStyle = silent ? c.strong : c.line;
      g.setLineDash(silent ? [3, 4] : []);
      if (silent) g.lineWidth = 1.5;
      g.beginPath();
      g.arc(s.x, s.y, r - g.lineWidth / 2, 0, 7);
      g.stroke();
      g.setLineDash([]);
      if (!silent && busy > 0) {
        g.strokeStyle = draining ? c.warn : c.accent;
        g.lineCap = 'butt';
        g.beginPath();
        g.arc(s.x, s.y, r - rim / 2, turn, turn + busy * 2 * Math.PI);
        g.stroke();
      }
      if (r >= 13) {
        g.font = `600 ${r >= 20 ? 12 : 10}px ${c.font}`;
        g.fillStyle = silent ? c.dim : c.text;
        g.fillText(silent ? '?' : `${p.load.running}/${p.load.slots}`, s.x, s.y + 0.5);
      }
    }
    if (p.leader && !silent) star(g, s.x + r * 0.75, s.y - r * 0.75, clamp(r * 0.45, 4, 8), c);
  }

  // dot is a small node of a colour, as full as that many eighths, of the radius dotRadius: drawn once, as there are many alike, of whatever size.
  dot(colour, eighths, c) {
    const key = [colour, eighths, c.ground, this.sheet.dense].join();
    let dot = this.drawn.get(key);
    if (!dot) {
      if (this.drawn.size > 300) this.drawn.clear();
      dot = document.createElement('canvas');
      dot.width = dot.height = 2 * (dotRadius + 1) * Math.ceil(this.sheet.dense);
      const g = dot.getContext('2d');
      g.scale(Math.ceil(this.sheet.dense), Math.ceil(this.sheet.dense));
      g.arc(dotRadius + 1, dotRadius + 1, dotRadius, 0, 7);
      g.fillStyle = c.ground;
      g.fill();
      g.globalAlpha = eighths / 8;
      g.fillStyle = g.strokeStyle = colour;
      g.fill();
      g.globalAlpha = 1;
      g.lineWidth = 1.5;
      g.stroke();
      this.drawn.set(key, dot);
    }
    return dot;
  }

  // steals draws the dots that are on their way; without motion, the links that tasks took. It reports whether there are any.
  steals(g, c, spots, now) {
    this.dots = this.dots.filter(d => now < d.at + trip);
    g.fillStyle = c.warn;
    g.strokeStyle = c.warn;
    for (const d of this.dots) {
      const a = spots.get(d.from), b = spots.get(d.to);
      if (!a || !b) continue;
      if (still()) {
        g.globalAlpha = this.nodes.size > fewLinks ? 0.2 : 0.5;
        g.lineWidth = this.nodes.size > fewLinks ? 1 : 2;
        g.beginPath();
        g.moveTo(a.x, a.y);
        g.lineTo(b.x, b.y);
        g.stroke();
        continue;
      }
      if (now < d.at) continue;
      const t = (now - d.at) / trip, e = t < 0.5 ? 2 * t * t : 1 - 2 * (1 - t) ** 2;
      g.globalAlpha = Math.min(1, 4 * (1 - t), 6 * t);
      g.beginPath();
      g.arc(a.x + (b.x - a.x) * e, a.y + (b.y - a.y) * e, clamp(Math.min(a.r, b.r) * 0.28, 1.6, 4.5), 0, 7);
      g.fill();
    }
    g.globalAlpha = 1;
    if (still() && this.dots.length) {
      clearTimeout(this.fade);
      this.fade = setTimeout(() => this.sheet.touch(), trip);
      return false;
    }
    return this.dots.length > 0;
  }

  // Words.

  tell(list, now) {
    this.written = now;
    const up = list.filter(n => n.pulse.state !== 'silent');
    const busy = up.reduce((n, q) => n + q.pulse.load.running, 0), slots = up.reduce((n, q) => n + q.pulse.load.slots, 0), rate = up.reduce((n, q) => n + q.rates.tasks, 0);
    text(this.facts, `${count(up.length)} of ${count(list.length)} ${list.length === 1 ? 'node' : 'nodes'}, ${count(busy)} of ${count(slots)} slots busy, ${short(Math.round(rate * 10) / 10)} tasks/s`);
    this.table.show(list.map(({pulse: p, rates}) => [
      {text: label(p), go: () => this.choose(p.node)}, p.leader ? `${p.state}, leader` : p.state, p.zone || '–', `${p.load.running}/${p.load.slots}`, short(p.load.queued), rated(rates.tasks), rated(rates.steals),
      p.p50_ns ? lasting(p.p50_ns / 1e6) : '–', p.p99_ns ? lasting(p.p99_ns / 1e6) : '–', bytes(p.memory_bytes), (p.links || []).length,
    ]));
    this.tellChosen();
  }

  tellChosen() {
    const n = pulses.nodes.get(this.chosen);
    if (!n) {
      if (this.shownSide !== '') fill(this.side, el('h2', 'No node is chosen'), el('p.dim', 'Choose one on the map or in the table.'), legend());
      this.shownSide = '';
      return;
    }
    const {pulse: p, rates} = n;
    const facts = {
      State: p.state + (p.leader ? ', leads the ledger' : ''), Why: p.error, Zone: p.zone, Slots: `${p.load.running} of ${p.load.slots} busy`, Queued: count(p.load.queued), Parked: p.load.parked ? count(p.load.parked) : '',
      'Jobs it owns': count(p.jobs), 'Tasks/s': rated(rates.tasks), 'Tasks ended': count(p.tasks_ran), Failed: count(p.tasks_failed), Stolen: count(p.tasks_stolen),
      'Median task': p.p50_ns ? lasting(p.p50_ns / 1e6) : '', '99 of 100 below': p.p99_ns ? lasting(p.p99_ns / 1e6) : '', Fetched: `${bytes(rates.bytesIn)}/s`, Sent: `${bytes(rates.bytesOut)}/s`,
      Disk: p.quota_bytes ? `${bytes(p.disk_bytes)} of ${bytes(p.quota_bytes)}` : bytes(p.disk_bytes), Memory: bytes(p.memory_bytes), Goroutines: count(p.goroutines), Version: p.version, Up: lasting(Date.parse(p.at) - Date.parse(p.started)),
    };
    const links = (p.links || []).slice(0, 12);
    const shown = p.node + Object.values(facts).map(Boolean).join() + links.map(l => l.node + l.transport).join();
    if (shown !== this.shownSide) {
      this.shownSide = shown;
      this.values = {};
      this.rtts = [];
      fill(this.side, el('h2.clip', label(p)), el('p', this.app.link.node(p.node, nodeName(p.node)), ' ', el('button.quiet', {type: 'button', onclick: () => this.choose('')}, 'Close')),
        el('dl.facts', Object.entries(facts).filter(([, v]) => v).map(([k]) => [el('dt', k), this.values[k] = el('dd')])),
        links.length > 0 && [el('h2', 'Links'), el('dl.facts', links.map((l, i) => {
          const other = pulses.nodes.get(l.node);
          return [el('dt', other ? label(other.pulse) : nodeName(l.node)), this.rtts[i] = el('dd')];
        })), p.links.length > links.length && el('p.dim', `and ${p.links.length - links.length} more`)]);
    }
    for (const [k, v] of Object.entries(facts)) if (v) text(this.values[k], v);
    links.forEach((l, i) => text(this.rtts[i], `${l.rtt_ns ? lasting(l.rtt_ns / 1e6) : 'not measured'}, ${l.transport}`));
  }

  choose(id) {
    this.chosen = id;
    this.app.set({node: id});
    const n = pulses.nodes.get(id);
    text(this.told, n ? `${label(n.pulse)}, ${n.pulse.state}${n.pulse.leader ? ', leader' : ''}, ${n.pulse.load.running} of ${n.pulse.load.slots} slots busy, ${n.pulse.load.queued} queued` : '');
    this.tellChosen();
    this.sheet.touch();
  }

  // Hands.

  zoom(by, px = this.sheet.width / 2, py = this.sheet.height / 2) {
    const k = clamp(this.view.k * by, 0.5, 40), f = k / this.view.k, cx = px - this.sheet.width / 2, cy = py - this.sheet.height / 2;
    this.view = {k, x: cx - (cx - this.view.x) * f, y: cy - (cy - this.view.y) * f};
    this.sheet.touch();
  }

  fit() {
    this.view = {x: 0, y: 0, k: 1};
    this.sheet.touch();
  }

  hit(px, py) {
    let best = '', near = 14;
    for (const [id, s] of this.spots || []) {
      const d = Math.hypot(s.x - px, s.y - py) - s.r;
      if (d < near) (near = d), (best = id);
    }
    return best;
  }

  // step chooses the nearest node in a direction.
  step(dx, dy) {
    const at = this.spots?.get(this.chosen);
    if (!at) {
      const first = pulses.list()[0];
      if (first) this.choose(first.pulse.node);
      return;
    }
    let best = '', least = Infinity;
    for (const [id, s] of this.spots) {
      const along = (s.x - at.x) * dx + (s.y - at.y) * dy, across = Math.abs((s.x - at.x) * dy) + Math.abs((s.y - at.y) * dx);
      const cost = along + 2.5 * across;
      if (id !== this.chosen && along > 0.5 && cost < least) (least = cost), (best = id);
    }
    if (!best) return;
    this.choose(best);
    const s = this.spots.get(best), w = this.sheet.width, h = this.sheet.height;
    if (s.x < 30 || s.x > w - 30) this.view.x += w / 2 - s.x;
    if (s.y < 30 || s.y > h - 30) this.view.y += h / 2 - s.y;
  }

  hands() {
    const c = this.canvas, pointers = new Map();
    let far = 0;
    const at = e => {
      const r = c.getBoundingClientRect();
      return [e.clientX - r.left, e.clientY - r.top];
    };
    c.addEventListener('wheel', e => {
      if (!e.ctrlKey && !e.metaKey && document.activeElement !== c && this.view.k === 1 && e.deltaY > 0) return; // the page scrolls
      e.preventDefault();
      this.zoom(Math.exp(-clamp(e.deltaY * (e.deltaMode === 1 ? 16 : 1), -300, 300) * 0.002), ...at(e));
    }, {passive: false});
    c.addEventListener('pointerdown', e => {
      if (pointers.size === 0) far = 0;
      pointers.set(e.pointerId, at(e));
      c.setPointerCapture(e.pointerId);
    });
    c.addEventListener('pointermove', e => {
      const is = at(e), was = pointers.get(e.pointerId);
      if (!was) {
        const id = this.hit(...is);
        c.style.cursor = id ? 'pointer' : '';
        if (id !== this.over) {
          this.over = id;
          this.sheet.touch();
        }
        if (id) this.tip.show(is[0], is[1], ...this.what(id));
        else this.tip.hide();
        return;
      }
      const other = [...pointers].find(([id]) => id !== e.pointerId)?.[1];
      far = Math.max(far, other ? 99 : Math.hypot(is[0] - was[0], is[1] - was[1]) + far);
      if (other) {
        const d0 = Math.hypot(was[0] - other[0], was[1] - other[1]), d1 = Math.hypot(is[0] - other[0], is[1] - other[1]);
        if (d0 > 5) this.zoom(d1 / d0, (is[0] + other[0]) / 2, (is[1] + other[1]) / 2);
      } else if (far > 4) {
        this.view.x += is[0] - was[0];
        this.view.y += is[1] - was[1];
        this.tip.hide();
        this.sheet.touch();
      }
      pointers.set(e.pointerId, is);
    });
    const up = e => {
      const is = pointers.get(e.pointerId);
      pointers.delete(e.pointerId);
      if (is && e.type === 'pointerup' && far <= 4) this.choose(this.hit(...is));
    };
    c.addEventListener('pointerup', up);
    c.addEventListener('pointercancel', up);
    c.addEventListener('pointerleave', () => {
      this.over = '';
      this.tip.hide();
      this.sheet.touch();
    });
    c.addEventListener('keydown', e => {
      if (e.ctrlKey || e.metaKey || e.altKey) return;
      const does = {
        ArrowLeft: () => this.step(-1, 0), ArrowRight: () => this.step(1, 0), ArrowUp: () => this.step(0, -1), ArrowDown: () => this.step(0, 1),
        '+': () => this.zoom(1.4), '=': () => this.zoom(1.4), '-': () => this.zoom(0.7), 0: () => this.fit(), Escape: () => this.choose(''),
        Enter: () => this.chosen && this.app.go(this.app.hashOf('nodes', this.chosen)),
      }[e.key];
      if (!does) return;
      e.preventDefault();
      e.stopPropagation();
      does();
    });
  }

  what(id) {
    const {pulse: p, rates} = pulses.nodes.get(id);
    const rows = [['State', p.state + (p.leader ? ', leader' : '')], ['Slots', `${p.load.running} of ${p.load.slots} busy (${part(p.load.running, p.load.slots)})`], ['Queued', count(p.load.queued)], ['Tasks', `${rated(rates.tasks)}/s`]];
    if (p.p50_ns) rows.push(['Median', lasting(p.p50_ns / 1e6)]);
    rows.push(['Memory', bytes(p.memory_bytes)]);
    return [label(p), rows];
  }

  inspect() {
    return {
      nodes: [...this.nodes].map(([id, n]) => ({id, x: n.x, y: n.y, state: n.pulse?.state, running: n.pulse?.load.running, leader: !!n.pulse?.leader})), zones: this.zones.map(z => z.name),
      links: this.linked, named: this.named, dots: this.dots.length, moved: this.moved, chosen: this.chosen, told: this.told.textContent, frames: this.sheet.frames, stills: this.stills, worst: this.sheet.worst,
    };
  }
}

const rated = n => short(Math.round(n * 10) / 10);

// star marks the leader.
function star(g, x, y, r, c) {
  g.beginPath();
  for (let i = 0; i < 10; i++) {
    const a = -Math.PI / 2 + (i * Math.PI) / 5, q = i % 2 ? r * 0.45 : r;
    g.lineTo(x + q * Math.cos(a), y + q * Math.sin(a));
  }
  g.closePath();
  g.lineWidth = 3;
  g.strokeStyle = c.ground;
  g.stroke();
  g.fillStyle = c.warn;
  g.fill();
}

// legend tells what is drawn how.
function legend() {
  const svg = (...shapes) => {
    const s = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
    for (const [k, v] of Object.entries({width: 22, height: 18, viewBox: '0 0 22 18', 'aria-hidden': 'true'})) s.setAttribute(k, v);
    for (const [tag, props] of shapes) {
      const e = document.createElementNS('http://www.w3.org/2000/svg', tag);
      for (const [k, v] of Object.entries(props)) e.setAttribute(k, v);
      s.append(e);
    }
    return s;
  };
  const ring = {cx: 11, cy: 9, r: 6.5, fill: 'none', 'stroke-width': 3};
  return el('ul.live-key',
    el('li', svg(['circle', {...ring, stroke: 'var(--line-strong)', opacity: 0.4}], ['circle', {...ring, stroke: 'var(--accent)', 'stroke-dasharray': '25 99'}]), 'busy worker slots'),
    el('li', svg(['circle', {...ring, stroke: 'var(--warn)'}]), 'draining'),
    el('li', svg(['circle', {...ring, stroke: 'var(--line-strong)', 'stroke-width': 1.5, 'stroke-dasharray': '3 3'}]), 'silent: does not answer'),
    el('li', svg(['path', {d: 'M11 2l2.1 4.6 5 .6-3.700 3.400 1 4.900-4.400-2.500-4.400 2.500 1-4.900-3.700-3.400 5-.6z', fill: 'var(--warn)'}]), 'leader of the ledger'),
    el('li', svg(['path', {d: 'M1 9h20', stroke: 'var(--line-strong)', 'stroke-width': 1.5}]), 'link, the stronger the nearer'),
    el('li', svg(['path', {d: 'M1 9h20', stroke: 'var(--line-strong)', 'stroke-width': 1.5, 'stroke-dasharray': '3 4'}]), 'link by a relay'),
    el('li', svg(['circle', {cx: 11, cy: 9, r: 3.5, fill: 'var(--warn)'}]), 'tasks that are being stolen'));
}
