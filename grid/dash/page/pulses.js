// What nodes say of themselves (GET /v1/nodes?follow=1), made into rates. All views look at the same Pulses, so what was gathered stays
// when the user goes from one to the other.
import {Ring, clamp} from './draw.js';
import {nodeName} from './lib.js';

// Samples are taken once a second, for fifteen minutes.
export const every = 1000;
export const kept = 900;

// The series of a Ring of samples.
export const tasks = 0, failed = 1, busy = 2, slots = 3, queued = 4, p50 = 5, p99 = 6, bytesIn = 7, bytesOut = 8, memory = 9, steals = 10;
const all = 11;

const sum = rate => (Number.isFinite(rate) ? rate : 0);

// Pulses knows the nodes, by ID: {pulse, rates, since, changed}, where rates are per second between the last two pulses.
export class Pulses {
  constructor() {
    this.nodes = new Map();
    this.total = new Ring(kept, all);
    this.perNode = new Map(); // ID: ring of [tasks/s]
    this.began = 0; // when the first answer came
    this.taken = 0; // lists that came
    this.shape = 0; // grows when a node comes or goes, or is another one: what is laid out by it is laid out anew then
    this.listeners = new Set();
  }

  // take takes in a list of pulses: all, or those that have changed. It returns the tasks that went from node to node since the last:
  // [{from, to, tasks}].
  take(list, now) {
    const moved = [];
    this.began ||= now;
    this.taken++;
    for (const pulse of list) {
      const was = this.nodes.get(pulse.node);
      const node = {pulse, rates: was?.rates ?? noRates, since: was?.since ?? now};
      const before = was?.pulse;
      if (!before || ['name', 'zone', 'started'].some(k => before[k] !== pulse[k])) this.shape++;
      if (before && pulse.state !== 'silent' && before.started === pulse.started) {
        const dt = (Date.parse(pulse.at) - Date.parse(before.at)) / 1000;
        if (dt > 0.05) {
          const rate = key => Math.max(0, (pulse[key] - before[key]) / dt);
          node.rates = {tasks: rate('tasks_ran'), failed: rate('tasks_failed'), steals: rate('tasks_stolen'), bytesIn: rate('bytes_in'), bytesOut: rate('bytes_out')};
          const then = new Map((before.steals || []).map(f => [f.from, f.tasks]));
          for (const f of pulse.steals || []) {
            const n = f.tasks - (then.get(f.from) || 0);
            if (n > 0) moved.push({from: f.from, to: pulse.node, tasks: n});
          }
        }
      } else if (pulse.state === 'silent') node.rates = noRates;
      node.changed = now;
      this.nodes.set(pulse.node, node);
    }
    // Who is not told of any more for ten minutes is forgotten: a list of changes does not say who is gone for good.
    if (this.taken % 60 === 0) for (const [id, n] of this.nodes) if (n.pulse.state === 'silent' && now - n.changed > 600e3) {
      this.nodes.delete(id);
      this.shape++;
    }
    return moved;
  }

  // sample adds how all are now to the rings.
  sample(now) {
    const s = new Array(all).fill(0);
    const halves = [];
    let worst = 0;
    for (const [id, {pulse, rates, changed}] of this.nodes) {
      if (pulse.state === 'silent') continue;
      // A node that has not changed is not told of: it did nothing meanwhile.
      const r = now - changed > 15 * every ? noRates : rates;
      s[tasks] += sum(r.tasks);
      s[failed] += sum(r.failed);
      s[steals] += sum(r.steals);
      s[bytesIn] += sum(r.bytesIn);
      s[bytesOut] += sum(r.bytesOut);
      s[busy] += pulse.load.running;
      s[slots] += pulse.load.slots;
      s[queued] += pulse.load.queued;
      s[memory] += pulse.memory_bytes;
      if (pulse.p50_ns > 0) halves.push([pulse.p50_ns / 1e6, Math.max(r.tasks, 0.001)]);
      worst = Math.max(worst, pulse.p99_ns / 1e6);
      let ring = this.perNode.get(id);
      if (!ring) this.perNode.set(id, (ring = new Ring(kept, 1)));
      ring.push(now, [r.tasks]);
    }
    s[p50] = weighted(halves);
    s[p99] = worst || NaN;
    this.total.push(now, s);
    for (const id of this.perNode.keys()) if (!this.nodes.has(id)) this.perNode.delete(id);
  }

  // list returns the nodes in a fixed order: by name, then ID.
  list() {
    if (this.listed !== this.shape) {
      this.order = [...this.nodes.keys()].sort((a, b) => natural(label(this.nodes.get(a).pulse), label(this.nodes.get(b).pulse)) || natural(a, b));
      this.listed = this.shape;
    }
    return this.order.map(id => this.nodes.get(id));
  }

  // listen calls f(moved) whenever something came, and f(null) when a sample was taken; what it returns ends that. The node is asked only while somebody listens.
  listen(app, f) {
    this.listeners.add(f);
    if (this.listeners.size === 1) this.start(app);
    return () => {
      this.listeners.delete(f);
      if (this.listeners.size === 0) this.stop();
    };
  }

  start(app) {
    const stop = new AbortController();
    this.abort = stop;
    app.api.stream('/nodes', {query: {follow: 1, every: 1}, signal: stop.signal}, list => {
      const moved = this.take(list, Date.now());
      for (const f of this.listeners) f(moved);
    }).catch(e => app.fail(e));
    this.timer = setInterval(() => {
      if (this.nodes.size === 0) return;
      this.sample(Date.now());
      for (const f of this.listeners) f(null);
    }, every);
  }

  stop() {
    this.abort.abort(new DOMException('nobody looks', 'AbortError'));
    clearInterval(this.timer);
  }
}

const noRates = {tasks: 0, failed: 0, steals: 0, bytesIn: 0, bytesOut: 0};
// natural orders names as people do: 9 comes before 10.
export const natural = new Intl.Collator('en', {numeric: true}).compare;

// weighted returns the middle of [value, weight] pairs, NaN of none.
export function weighted(pairs) {
  pairs.sort((a, b) => a[0] - b[0]);
  let left = pairs.reduce((n, p) => n + p[1], 0) / 2;
  for (const [v, w] of pairs) {
    left -= w;
    if (left <= 0) return v;
  }
  return pairs.length ? pairs[pairs.length - 1][0] : NaN;
}

// label is what people call a node: the name that its member has, or the end of its ID.
export const label = pulse => pulse.name || nodeName(pulse.node);

// full is how much of a node's slots is busy, 0 to 1.
export const full = pulse => (pulse.load.slots > 0 ? clamp(pulse.load.running / pulse.load.slots, 0, 1) : 0);

// pulses is what the views of this page share.
export const pulses = new Pulses();
