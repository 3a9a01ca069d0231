// Checks of what the live views are made of that can do without a picture. check() returns what is wrong.
import {Colours} from '/dash/colours.js';
import * as draw from '/dash/draw.js';
import {API, slept} from '/dash/lib.js';
import {pixels, preview} from '/dash/parts.js';
import {Pulses, weighted} from '/dash/pulses.js';
import {Track, Tracks, moment, phaseNames} from '/dash/tracks.js';
import {place} from '/dash/views/map.js';
import {Rates, binned} from '/dash/views/plots.js';

const wrong = [];
const same = (what, got, want) => {
  const g = JSON.stringify(got), w = JSON.stringify(want);
  if (g !== w) wrong.push(`${what}: ${g}, want ${w}`);
};

// random is xorshift: the same numbers each time.
let seed = 12345;
const random = n => {
  seed ^= seed << 13;
  seed ^= seed >>> 17;
  seed ^= seed << 5;
  return (seed >>> 0) % n;
};

function scales() {
  const s = draw.scale(10, 20, 0, 100);
  same('scale', [s(10), s(15), s.back(100)], [0, 50, 20]);
  same('a scale of nothing', draw.scale(1, 1, 5, 9)(1), 5);
  same('steps', draw.steps(0, 17, 5), [0, 5, 10, 15]);
  same('steps of bytes', draw.steps(0, 3 << 20, 4, 1024), [0, 1 << 20, 2 << 20, 3 << 20]);
  same('steps of nothing', draw.steps(3, 3, 5), [3]);
  for (let i = 0; i < 500; i++) {
    const lo = random(1000) - 500, hi = lo + random(100000) / 100 + 0.01, n = 2 + random(9), all = draw.steps(lo, hi, n);
    if (all.length > 2.6 * n + 2 || all.some(v => v < lo - 1e-6 || v > hi + 1e-6)) wrong.push(`steps(${lo}, ${hi}, ${n}): ${all}`);
  }
  const t = draw.times(0, 900e3, 6);
  same('times', [t.at, t.step], [[0, 300e3, 600e3, 900e3], 300e3]);
  for (const span of [0.02, 1, 999, 61e3, 86400e3, 1e11]) if (draw.times(1.7e12, 1.7e12 + span, 8).at.length > 200) wrong.push(`too many ticks in ${span} ms`);
  same('clock', [draw.clock(new Date(2026, 0, 2, 3, 4, 5, 678).getTime(), 1), draw.clock(new Date(2026, 0, 2, 3, 4, 5).getTime(), 60e3)], ['03:04:05.678', '03:04']);
  same('moment', moment('2026-11-26T13:09:10.1234567Z') - moment('2026-11-26T13:09:10Z') - 123.4567 < 1e-3, true);
  same('lowerBound', [draw.lowerBound(4, i => i, 2), draw.lowerBound(4, i => i, 9), draw.lowerBound(0, i => i, 1)], [2, 4, 0]);
  same('hash', [draw.hash(''), draw.hash('a')], [0x811c9dc5, 0xe40c292c]);
  const g = document.createElement('canvas').getContext('2d');
  for (const words of ['short', 'i'.repeat(50), 'W'.repeat(20) + 'i'.repeat(9000)]) for (const max of [0, 10, 40, 100]) {
    const fit = draw.fitText(g, words, max);
    if (g.measureText(fit).width > max || (fit && fit !== words && !fit.endsWith('…'))) wrong.push(`${words.slice(0, 9)} in ${max}: ${fit}`);
  }
  same('rgb', draw.rgb('#123456'), [0x12, 0x34, 0x56]);
}

function rings() {
  const r = new draw.Ring(3, 2);
  for (let i = 1; i <= 5; i++) r.push(i * 10, [i, -i]);
  same('ring', [r.length, r.time(0), r.time(2), r.value(0, 0), r.value(2, 1)], [3, 30, 50, 3, -5]);
  same('nearest', [r.near(0), r.near(36), r.near(99)], [0, 1, 2]);
  r.push(50, [7]);
  same('the same moment again', [r.length, r.value(2, 0), Number.isNaN(r.value(2, 1))], [3, 7, true]);
  same('bins', binned(4, i => [0, 5, 10, 30][i], i => [1, 3, 5, 7][i], 0, 40, 10), [[5, 2], [15, 5], [25, null], [35, 7]]);
  same('the middle by weight', [weighted([[5, 1], [1, 1], [3, 9]]), Number.isNaN(weighted([]))], [3, true]);

  const q = new Rates(60);
  q.add('a', 100e3, 100.5e3, 1);
  q.add('a', 100e3, 103.5e3, 8);
  q.add('b', 0, 1e3, 5); // far too old
  same('rates', [q.at('a', 100), q.at('a', 103), q.sum('a'), q.jobs.has('b')], [3, 2, 9, false]);
  q.upTo(163);
  same('rates later', [Number.isNaN(q.at('a', 102)), q.sum('a')], [true, 2]);
  q.add('a', 9e14, 9e14, 1); // a year that is not to be believed
  same('rates are not led astray', [q.end, q.sum('a')], [163, 2]);
}

const stretch = (from, to, kind, tasks, more) => ({from, to, kind, lo: 0, hi: 1, tasks, failed: 0, stolen: false, phases: phaseNames.map(() => 0), ...more});

// A slot ran tasks of three stages; they are told in fine and merged, partly twice and in any order.
function tracks() {
  for (let round = 0; round < 300; round++) {
    const fine = [];
    for (let t = 0; fine.length < 60;) {
      t += random(5);
      const long = 1 + random(8);
      fine.push(stretch(t, t + long, random(3), 1));
      t += long;
    }
    const last = new Map(), coarse = [];
    for (const s of fine) {
      const o = last.get(s.kind);
      if (o && s.from - o.to < 30) (o.to = s.to), o.tasks++;
      else {
        const c = {...s};
        last.set(s.kind, c);
        coarse.push(c);
      }
    }
    const some = fine.slice(random(60)), told = round % 3 === 0 ? [fine, fine] : round % 3 === 1 ? [some, coarse] : [coarse, some];
    const track = new Track('n', 0);
    for (const list of told) for (const s of list) track.add(s);
    let tasks = 0;
    for (let i = 0; i < track.n; i++) {
      tasks += track.tasks[i];
      if (i && (track.from[i] < track.from[i - 1] || track.reach[i] < track.reach[i - 1])) wrong.push(`round ${round}: not in order at ${i}`);
    }
    if (tasks !== 60) wrong.push(`round ${round}: ${tasks} tasks, want 60`);
    for (let t = 0; t < 300; t += 7) {
      let plain = 0;
      while (plain < track.n && !(track.to[plain] >= t)) plain++;
      const first = track.first(t);
      if (first > plain) wrong.push(`round ${round}: first(${t}) = ${first} hides ${plain}`);
      const u = track.under(t);
      if ((u < 0) !== ![...track.from.subarray(0, track.n)].some((a, i) => a <= t && track.to[i] >= t)) wrong.push(`round ${round}: under(${t}) = ${u}`);
    }
  }
  const all = new Tracks(), at = '2026-11-26T13:00:00.5Z', bad = {node: 'a', slot: 0, job: 'j', stage: 0, lo: 0, hi: 1, tasks: 1, from: at, to: at};
  same('a slot that is none', [all.take({...bad, slot: -1}), all.take({...bad, slot: 1e9}), all.take({...bad, from: 'now'}), all.size], [false, false, false, 0]);
  same('a good one, twice', [all.take({...bad, slot: 2}), all.take({...bad, slot: 2}), all.size, all.nodes.get('a').length], [true, false, 1, 3]);
  all.drop(moment(at) + 1);
  same('dropped', all.size, 0);

  // A million are found at once.
  const big = new Track('n', 0), began = performance.now();
  for (let i = 0; i < 1e6; i++) big.add(stretch(i * 10, i * 10 + 9, i % 5, 1));
  let found = 0;
  for (let i = 0; i < 1e5; i++) found += big.first(random(1e7)) >= 0 ? 1 : 0;
  console.log(`a million stretches kept, 100,000 searches in ${Math.round(performance.now() - began)} ms`);
  same('a million', [big.n, found], [1e6, 1e5]);
}

function map() {
  const nodes = n => Array.from({length: n}, (_, i) => ({id: `node${i * 7919}`, zone: ['', 'x', 'y'][i % 3], started: `2026-01-01T00:${String(1000 + i)}`}));
  for (const n of [0, 1, 2, 3, 14, 50, 300]) {
    const {at, zones, box} = place(nodes(n));
    same(`places of ${n}`, [at.size, zones.length], [n, Math.min(n, 3)]);
    same(`places of ${n} told in another order`, [...place(nodes(n).reverse()).at].sort(), [...at].sort());
    const p = [...at.values()];
    let nearest = Infinity;
    p.forEach((a, i) => p.slice(0, i).forEach(b => (nearest = Math.min(nearest, Math.hypot(a.x - b.x, a.y - b.y)))));
    if (nearest < 0.6) wrong.push(`of ${n} nodes two are only ${nearest} apart`);
    if (p.some(a => a.x < box[0] || a.y < box[1] || a.x > box[2] || a.y > box[3])) wrong.push(`of ${n} nodes one lies outside`);
    zones.forEach((a, i) => zones.slice(0, i).forEach(b => {
      if (Math.hypot(a.x - b.x, a.y - b.y) < a.r + b.r) wrong.push(`of ${n} nodes zones ${a.name} and ${b.name} overlap`);
    }));
  }
  // One more in a zone of many moves none of the others there.
  const one = n => n.filter(x => x.zone === 'x'), a = place(one(nodes(300))).at, b = place(one(nodes(303))).at;
  same('one more', [...a].every(([id, p]) => b.get(id).x === p.x && b.get(id).y === p.y), true);
}

function pulses() {
  const p = new Pulses(), pulse = (node, at, ran, more) => ({
    node, at: new Date(at).toISOString(), started: '2026-01-01T00:00:00Z', state: 'up', load: {queued: 3, running: 1, slots: 2}, tasks_ran: ran, tasks_failed: 0, tasks_stolen: 0,
    bytes_in: 0, bytes_out: 0, memory_bytes: 5, p50_ns: 2e6, p99_ns: 9e6, steals: [], ...more,
  });
  same('first', p.take([pulse('a', 1000, 10), pulse('b', 1000, 0)], 1000), []);
  same('moved', p.take([pulse('b', 3000, 0, {tasks_stolen: 4, steals: [{from: 'a', tasks: 4}]}), pulse('a', 3000, 30)], 3000), [{from: 'a', to: 'b', tasks: 4}]);
  same('rates', [p.nodes.get('a').rates.tasks, p.nodes.get('b').rates.steals], [10, 2]);
  p.sample(3000);
  same('sample', [p.total.value(0, 0), p.total.value(0, 2), p.total.value(0, 3), p.total.value(0, 4), p.total.value(0, 5), p.total.value(0, 6)], [10, 2, 4, 6, 2, 9]);
  p.take([pulse('a', 5000, 0, {started: '2026-01-02T00:00:00Z'}), pulse('b', 3000, 0, {state: 'silent'})], 5000);
  same('one that began anew has its last rate until it has another', p.nodes.get('a').rates.tasks, 10);
  p.sample(5000);
  same('one that is silent has no slots', p.total.value(1, 3), 2);
}

// Jobs that are shown together have different colours, whatever their IDs are, and keep them.
function colours() {
  const c = new Colours(), jobs = Array.from({length: 200}, () => 'j' + random(1e9)), had = new Map();
  jobs.forEach((j, i) => {
    had.set(j, c.of(j));
    const near = new Set(jobs.slice(Math.max(0, i - 9), i + 1).map(j => had.get(j)));
    if (near.size !== Math.min(i + 1, 10)) wrong.push(`of ten jobs two are alike: ${[...near]}`);
  });
  same('colours stay', jobs.every(j => c.of(j) === had.get(j)), true);
  same('a theme has its own', c.of(jobs[0], true) === c.of(jobs[0]), false);
  for (let i = 0; i < 6000; i++) c.of('k' + i);
  same('not all are kept', c.given.size, 5000);
}

// What leads elsewhere is refused before anything is asked.
function paths() {
  const api = new API({});
  for (const path of ['/stat/../jobs', '/jobs/..', '/jobs/%2e%2E/node', '/jobs/.%2e', '/jobs/./x', '/stat/x?y=/', '/stat/x#y', '/stat/..\\jobs']) {
    try {
      wrong.push(`${path} becomes ${api.url(path)}`);
    } catch (e) {
      same(path, e.status, 400);
    }
  }
  same('other paths', [api.url('/cat/bafy/a..b/...'), api.url('/jobs', {limit: 5, find: '../x?'})], ['/v1/cat/bafy/a..b/...', '/v1/jobs?limit=5&find=..%2Fx%3F']);
}

// Files that are small and would fill memory, or take for ever, are told of instead.
async function bombs() {
  const of = data => preview(n => Promise.resolve(data.slice(0, n).buffer), data.length);
  const canvas = Object.assign(document.createElement('canvas'), {width: 70, height: 50});
  canvas.getContext('2d').fillRect(1, 1, 5, 5);
  for (const kind of ['image/png', 'image/jpeg', 'image/webp']) {
    const blob = await new Promise(ok => canvas.toBlob(ok, kind)), data = new Uint8Array(await blob.arrayBuffer());
    same('made ' + kind, [blob.type, pixels(data, kind)], [kind, 3500]);
    same('shown ' + kind, (await of(data)).querySelector('img')?.naturalWidth, 70);
    same('cut ' + kind, pixels(data.subarray(0, 14), kind), 0);
    if (kind !== 'image/png') continue;
    new DataView(data.buffer).setUint32(16, 60000);
    new DataView(data.buffer).setUint32(20, 60000);
    const told = await of(data);
    same('a bomb', [told.querySelector('img'), told.textContent.includes('3,600,000,000 pixels')], [null, true]);
  }
  const said = async s => (await of(new TextEncoder().encode(s))).querySelectorAll('*').length < 20000;
  same('a table of too many columns', await said(`[{${Array.from({length: 9000}, (_, i) => `"k${i}":0`)}}${',{}'.repeat(50000)}]`), true);
  same('rows far apart', await said('{}' + '\n'.repeat(250000) + 'x'), true);
  same('a deep one', await said('{"a":'.repeat(5000) + '1' + '}'.repeat(5000)), true);
}

// A stream that says nothing is begun anew when the machine has slept, behind the last event; one that never ends an event is given up.
async function streams() {
  const was = window.fetch, stop = new AbortController(), asked = [], enc = new TextEncoder();
  let more = () => {};
  window.fetch = async (url, opts) => {
    if (url !== '/v1/x') return was(url, opts); // of the page around
    asked.push(opts.headers.get('Last-Event-ID'));
    return new Response(new ReadableStream({start(c) {
      opts.signal.addEventListener('abort', () => c.error(opts.signal.reason));
      more(c);
    }}));
  };
  try {
    const api = new API({}), seen = [];
    more = c => c.enqueue(enc.encode(`id: 7\ndata: ${asked.length}\n\n`));
    await new Promise((ok, no) => {
      api.stream('/x', {signal: stop.signal}, n => {
        seen.push(n);
        if (n === 1) slept(Date.now() + 120000);
        else ok();
      }).catch(no);
    });
    stop.abort();
    slept();
    same('begun anew', [asked, seen], [[null, '7'], [1, 2]]);
    const much = enc.encode('data: ' + 'x'.repeat(1 << 20) + '\n');
    more = c => { for (let i = 0; i < 40; i++) c.enqueue(much); };
    const e = await api.stream('/x', {once: true}, () => {}).catch(e => e);
    same('an event without end', e && e.code, 'limit-exceeded');
  } finally {
    window.fetch = was;
  }
}

export async function check() {
  for (const f of [scales, rings, tracks, map, pulses, colours, paths, bombs, streams]) {
    try {
      await f();
    } catch (e) {
      wrong.push(`${f.name}: ${e.stack}`);
    }
  }
  return wrong.slice(0, 30);
}
