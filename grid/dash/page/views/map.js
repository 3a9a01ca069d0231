// The swarm map: each node a circle whose rim fills with its busy slots, its links, and the tasks that are being stolen, as dots that go along.
// Nodes lie by zone, in the order in which they started, so that one that comes moves no other; see place.
//
// window.gridView.map() tells what it shows, for tests and for who is curious.
import {Rows, Sheet, Tip, clamp, fitText, hash, lasting, part, scale, still, theme} from '../draw.js';
import {bytes, count, el, fill, nodeName, short, text} from '../lib.js';
import {full, label, pulses} from '../pulses.js';

export const title = 'Swarm map';

const fewLinks = 60; // with more nodes, only the links of the one that is chosen are drawn
const mostDots = 300;
const trip = 900; // milliseconds that a dot is on its way

export function mount(root, app) {
  const view = new SwarmMap(root, app);
  return () => view.close();
}

// place puts nodes, which have {id, zone, started}, on a plane: Map of id to {x, y}. A zone is a ring of few nodes, or else a spiral like a
// sunflower's, whose places do not depend on how many there are; zones lie in a ring. It returns {at, zones: [{name, x, y, r}]}, all within 1 of 0.
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
    const r = n === 1 ? 0 : ring ? Math.max(1.4, n / 3.6) : 1.05 * Math.sqrt(n);
    return {name, ring, r, wide: r + 1.2, members};
  });
  // The ring of zones is wide enough for all to lie beside one another.
  const widest = Math.max(0, ...all.map(z => z.wide)), whole = all.reduce((n, z) => n + z.wide, 0);
  const R = all.length < 2 ? 0 : all.length === 2 ? widest * 1.1 : Math.max(widest * 1.15, widest / Math.sin(Math.min(Math.PI / 2, (Math.PI * widest) / whole)));
  let angle = Math.PI;
  const at = new Map(), out = [];
  for (const z of all) {
    const half = (Math.PI * z.wide) / whole;
    angle += half;
    const X = R * Math.cos(angle), Y = R * Math.sin(angle);
    angle += half;
    z.members.forEach((n, i) => {
      const a = z.ring ? -Math.PI / 2 + (2 * Math.PI * i) / z.members.length : i * 2.399963, r = z.ring ? z.r : 1.05 * Math.sqrt(i + 0.5);
      at.set(n.id, {x: X + r * Math.cos(a), y: Y + r * Math.sin(a)});
    });
    out.push({name: z.name, x: X, y: Y, r: z.wide});
  }
  const size = Math.max(1, ...out.map(z => Math.max(Math.abs(z.x), Math.abs(z.y)) + z.r));
  for (const p of [...at.values(), ...out]) (p.x /= size), (p.y /= size);
  for (const z of out) z.r /= size;
  return {at, zones: out, unit: 1 / size};
}

class SwarmMap {
  constructor(root, app) {
    this.app = app;
    this.nodes = new Map(); // id: {x, y, from, pulse}
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
    this.sheet = new Sheet(this.app, this.canvas, (g, w, h, now) => this.paint(g, w, h, now));
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
    const key = list.map(n => n.pulse.node + n.pulse.zone + n.pulse.started).join();
    const now = performance.now();
    if (key !== this.key) {
      this.key = key;
      const {at, zones, unit} = place(list.map(n => ({id: n.pulse.node, zone: n.pulse.zone || '', started: n.pulse.started || '~'})));
      this.zones = zones;
      this.unit = unit;
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

  // to maps the plane onto the canvas.
  to(w, h) {
    const k = (Math.min(w, h) / 2 - 26) * this.view.k;
    const x = scale(-1, 1, w / 2 - k + this.view.x, w / 2 + k + this.view.x), y = scale(-1, 1, h / 2 - k + this.view.y, h / 2 + k + this.view.y);
    return {x, y, k};
  }

  radius(n, k) {
    const slots = n.pulse?.load.slots || 1;
    return clamp(k * this.unit * 0.42 * clamp(0.72 + 0.1 * Math.log2(slots + 1), 0.7, 1.2), 2, 30);
  }

  // The picture.

  paint(g, w, h, now) {
    const c = theme(), {x, y, k} = this.to(w, h), many = this.nodes.size > fewLinks;
    const spots = new Map();
    for (const [id, n] of this.nodes) {
      const s = this.spot(n, now);
      spots.set(id, {x: x(s.x), y: y(s.y), r: this.radius(n, k), n});
    }
    this.spots = spots;
    const sees = s => s.x > -40 && s.y > -40 && s.x < w + 40 && s.y < h + 40;

    g.textAlign = 'center';
    g.textBaseline = 'middle';
    if (this.zones && this.zones.length > 1) for (const z of this.zones) {
      g.fillStyle = c.faint;
      g.globalAlpha = 0.55;
      g.beginPath();
      g.arc(x(z.x), y(z.y), z.r * k * 0.97, 0, 7);
      g.fill();
      g.globalAlpha = 1;
      g.fillStyle = c.dim;
      g.font = `600 12px ${c.font}`;
      g.fillText(fitText(g, z.name || 'no zone', z.r * k * 2), x(z.x), y(z.y) - z.r * k + 12);
    }

    this.links(g, c, spots, many);

    let named = 0;
    for (const [id, s] of spots) {
      if (!s.n.pulse || !sees(s)) continue;
      this.node(g, c, s, id);
      if (s.r >= 9 || id === this.chosen || id === this.over) {
        named++;
        g.font = `${id === this.chosen ? '600 ' : ''}12px ${c.font}`;
        const words = fitText(g, label(s.n.pulse), Math.max(90, s.r * 3.4));
        g.lineWidth = 3;
        g.lineJoin = 'round';
        g.strokeStyle = c.ground;
        g.strokeText(words, s.x, s.y + s.r + 13);
        g.fillStyle = s.n.pulse.state === 'silent' ? c.dim : c.text;
        g.fillText(words, s.x, s.y + s.r + 13);
        const queued = s.n.pulse.load.queued;
        if (s.r >= 13 && queued > 0) {
          g.font = `11px ${c.font}`;
          const more = `${short(queued)} queued`;
          g.strokeText(more, s.x, s.y + s.r + 28);
          g.fillStyle = c.dim;
          g.fillText(more, s.x, s.y + s.r + 28);
        }
      }
    }
    this.named = named;
    const going = this.steals(g, c, spots, now);
    if (this.nodes.size === 0) {
      g.font = `13px ${c.font}`;
      g.fillStyle = c.dim;
      g.fillText('Asking the nodes…', w / 2, h / 2);
    }
    return going || now < (this.moving || 0);
  }

  // links draws each connection once: the nearer in time, the stronger; one by a relay dashed.
  links(g, c, spots, many) {
    const drawn = new Set(), focus = this.over || this.chosen;
    this.linked = 0;
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
        if (strong && ms > 0 && this.nodes.size <= fewLinks) {
          const X = (s.x + o.x) / 2, Y = (s.y + o.y) / 2, words = lasting(ms);
          g.globalAlpha = 1;
          g.setLineDash([]);
          g.font = `11px ${c.font}`;
          g.lineWidth = 4;
          g.strokeStyle = c.ground;
          g.strokeText(words, X, Y);
          g.fillStyle = c.dim;
          g.fillText(words, X, Y);
        }
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
    g.beginPath();
    g.arc(s.x, s.y, r, 0, 7);
    g.fillStyle = c.ground;
    g.fill();
    if (r < 8) { // no room for a rim
      g.globalAlpha = silent ? 0.25 : 0.25 + 0.75 * busy;
      g.fillStyle = silent ? c.dim : draining ? c.warn : c.accent;
      g.fill();
      g.globalAlpha = 1;
      g.strokeStyle = silent ? c.dim : draining ? c.warn : c.accent;
      g.lineWidth = 1;
      g.stroke();
    } else {
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

  // steals draws the dots that are on their way; without motion, the links that tasks took. It reports whether there are any.
  steals(g, c, spots, now) {
    this.dots = this.dots.filter(d => now < d.at + trip);
    g.fillStyle = c.warn;
    g.strokeStyle = c.warn;
    for (const d of this.dots) {
      const a = spots.get(d.from), b = spots.get(d.to);
      if (!a || !b) continue;
      if (still()) {
        g.lineWidth = 2.5;
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
      fill(this.side, el('h2', el('bdi', label(p))), el('p', this.app.link.node(p.node, nodeName(p.node)), ' ', el('button.quiet', {type: 'button', onclick: () => this.choose('')}, 'Close')),
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
      nodes: [...this.nodes].map(([id, n]) => ({id, x: n.x, y: n.y, state: n.pulse?.state, running: n.pulse?.load.running, leader: !!n.pulse?.leader})), zones: (this.zones || []).map(z => z.name),
      links: this.linked, named: this.named, dots: this.dots.length, moved: this.moved, chosen: this.chosen, told: this.told.textContent, frames: this.sheet.frames, worst: this.sheet.worst,
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
