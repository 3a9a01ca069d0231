// What all views need: elements, words for numbers, and the client of the API. It knows nothing of the page around.

// el makes an element: el('a.quiet#x', {href: '#/jobs', onclick: f}, 'text', [more, elements]). Strings become text, never markup.
// A property that begins with "on" is a listener, "data"/"aria" and whatever the element has no property for an attribute; null, undefined and
// false leave it out. Style is an object of CSS properties, as a style attribute is not allowed here.
export function el(what, props, ...inside) {
  const [head, id] = what.split('#');
  const [tag, ...classes] = head.split('.');
  const e = document.createElement(tag || 'div');
  if (id) e.id = id;
  if (classes.length) e.className = classes.join(' ');
  if (props !== null && props !== undefined && (typeof props !== 'object' || props instanceof Node || Array.isArray(props))) {
    inside.unshift(props);
    props = null;
  }
  for (const [k, v] of Object.entries(props || {})) {
    if (v === null || v === undefined || v === false) continue;
    if (k.startsWith('on')) e.addEventListener(k.slice(2), v);
    else if (k === 'style') for (const [p, x] of Object.entries(v)) e.style.setProperty(p, x);
    else if (k === 'class') e.classList.add(...String(v).split(' ').filter(Boolean));
    else if (k in e && k !== 'list' && k !== 'form' && k !== 'role') e[k] = v;
    else e.setAttribute(k, v === true ? '' : v);
  }
  add(e, inside);
  return e;
}

// add appends elements and texts; what is null, undefined, false or true is nothing.
export function add(e, inside) {
  for (const x of [inside].flat(Infinity)) {
    if (x === null || x === undefined || x === false || x === true) continue;
    e.append(x instanceof Node ? x : String(x));
  }
  return e;
}

// fill replaces what an element holds, and does nothing if it holds that already (by key, if one is given).
export function fill(e, ...inside) {
  e.replaceChildren();
  return add(e, inside);
}

// text sets an element's text if it is another one, so that a screen reader hears of changes only.
export function text(e, s) {
  if (e.textContent !== s) e.textContent = s;
  return e;
}

// prose is a text in which `words` are code, as hints of the API have them.
export const prose = s => String(s || '').split('`').map((x, i) => i % 2 ? el('code', x) : x);

// sentence is an error or a hint of the API as one.
export const sentence = s => s ? prose(s[0].toUpperCase() + s.slice(1) + (/[.!?…`]$/.test(s) ? '' : '.')) : '';

// count is a whole number for people: 12,345.
export const count = n => Number(n || 0).toLocaleString('en');

// short is a number in few characters: 12.3k.
export function short(n) {
  n = Number(n || 0);
  for (const [unit, x] of [['G', 1e9], ['M', 1e6], ['k', 1e3]]) {
    if (Math.abs(n) >= x) return trim(n / x) + unit;
  }
  return Number.isInteger(n) ? String(n) : trim(n);
}

// bytes is a size: 1.5 MiB.
export function bytes(n) {
  n = Number(n || 0);
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
  let i = 0;
  while (n >= 1024 && i < units.length - 1) {
    n /= 1024;
    i++;
  }
  return (i ? trim(n) : String(n)) + ' ' + units[i];
}

const trim = x => x >= 100 ? x.toFixed(0) : x >= 10 ? x.toFixed(1).replace(/\.0$/, '') : x.toFixed(2).replace(/\.?0+$/, '');

// duration is nanoseconds for people: 1.5 s, 2 min 3 s.
export function duration(ns) {
  const s = Number(ns || 0) / 1e9;
  if (s === 0) return '0 s';
  if (s < 1e-3) return trim(s * 1e6) + ' µs';
  if (s < 1) return trim(s * 1e3) + ' ms';
  if (s < 60) return trim(s) + ' s';
  if (s < 3600) return Math.floor(s / 60) + ' min ' + Math.floor(s % 60) + ' s';
  if (s < 86400) return Math.floor(s / 3600) + ' h ' + Math.floor(s % 3600 / 60) + ' min';
  return Math.floor(s / 86400) + ' d ' + Math.floor(s % 86400 / 3600) + ' h';
}

// known reports whether a time of the API is set.
export const known = t => !!t && !t.startsWith('0001-');

// ago is how long a time is past, in few characters.
export function ago(t) {
  if (!known(t)) return '–';
  const s = Math.max(0, (Date.now() - Date.parse(t)) / 1000);
  if (s < 5) return 'now';
  if (s < 60) return Math.floor(s) + ' s ago';
  if (s < 3600) return Math.floor(s / 60) + ' min ago';
  if (s < 86400) return Math.floor(s / 3600) + ' h ago';
  return Math.floor(s / 86400) + ' d ago';
}

// when is a <time> element: how long ago, with the moment as its title.
export function when(t) {
  if (!known(t)) return el('span.dim', '–');
  return el('time.ago', {dateTime: t, title: new Date(t).toLocaleString()}, ago(t));
}

// clock is the time of day, with milliseconds.
export function clock(t) {
  const d = new Date(t);
  const p = (n, w = 2) => String(n).padStart(w, '0');
  return `${p(d.getHours())}:${p(d.getMinutes())}:${p(d.getSeconds())}.${p(d.getMilliseconds(), 3)}`;
}

// brief shortens an identifier in its middle or to its end; the whole of it belongs into a title.
export const brief = (s, n = 12) => !s ? '' : s.length <= n ? s : s.slice(0, n - 4) + '…' + s.slice(-3);

// nodeName is what people call a node: the end of its ID, since all begin alike.
export const nodeName = id => !id ? '' : '…' + id.slice(-8);

// Problem is an error that the API has told, or that kept it from telling anything (status 0).
export class Problem extends Error {
  constructor(status, p) {
    super(p.detail || p.title || 'the node gave no reason');
    this.status = status;
    this.code = p.code || 'unknown';
    this.hint = p.hint || '';
  }
}

const wait = (ms, signal) => new Promise((ok, no) => {
  if (signal && signal.aborted) return no(signal.reason);
  const t = setTimeout(done, ms);
  function done() {
    clearTimeout(t);
    if (signal) signal.removeEventListener('abort', stop);
    wakers.delete(done);
    ok();
  }
  function stop() {
    clearTimeout(t);
    wakers.delete(done);
    no(signal.reason);
  }
  wakers.add(done);
  if (signal) signal.addEventListener('abort', stop, {once: true});
});
const wakers = new Set();

// API speaks to the node that serves the page. on is told of what matters to the frame: lost(error) and found() as the node
// ceases and begins to answer, denied(problem) when the token is not good any more.
export class API {
  constructor(on) {
    this.on = on;
    this.token = '';
    this.up = true;
  }

  // url refuses a path that leads elsewhere than it says: parts of it may come from the hash, which whoever made a link has chosen.
  url(path, query) {
    if (/(^|\/)(\.|%2e){1,2}(\/|$)/i.test(path) || /[?#\\]/.test(path)) throw new Problem(400, {detail: 'That names nothing in the grid.', code: 'invalid-argument'});
    const q = new URLSearchParams();
    for (const [k, v] of Object.entries(query || {})) {
      if (v !== null && v !== undefined && v !== '' && v !== false) q.set(k, v === true ? '1' : v);
    }
    const s = q.toString();
    return '/v1' + path + (s ? '?' + s : '');
  }

  // raw asks, and gives a good Response; it throws a Problem, or an AbortError. opts: method, query, headers, body, signal.
  async raw(path, opts = {}) {
    const headers = new Headers(opts.headers || {});
    if (this.token) headers.set('Authorization', 'Bearer ' + this.token);
    let resp;
    try {
      resp = await fetch(this.url(path, opts.query), {
        method: opts.method || 'GET', headers, body: opts.body, signal: opts.signal,
        cache: 'no-store', credentials: 'omit', redirect: 'error', referrerPolicy: 'no-referrer',
      });
    } catch (e) {
      if (opts.signal && opts.signal.aborted) throw e;
      const p = new Problem(0, {detail: 'The node does not answer.', code: 'unavailable', hint: 'It may be starting again, or the network is down.'});
      if (this.up) {
        this.up = false;
        this.on.lost(p);
      }
      throw p;
    }
    if (resp.status === 502) { // told by grid dash, which is there, of the node, which is not
      const p = await problem(resp);
      p.status = 0;
      if (this.up) {
        this.up = false;
        this.on.lost(p);
      }
      throw p;
    }
    if (!this.up) {
      this.up = true;
      for (const f of [...wakers]) f();
      this.on.found();
    }
    if (resp.ok) return resp;
    const p = await problem(resp);
    if (resp.status === 401 && !opts.trial) this.on.denied(p);
    throw p;
  }

  async json(path, opts) {
    return (await this.raw(path, opts)).json();
  }

  // get reads JSON.
  get(path, query, opts = {}) {
    return this.json(path, {...opts, query});
  }

  // page reads one page of a list: {items, next}, next being what to send as after, "" at the end.
  async page(path, query, opts = {}) {
    const resp = await this.raw(path, {...opts, query});
    return {items: await resp.json() || [], next: decodeURIComponent(resp.headers.get('Grid-Next') || '')};
  }

  // send changes something. A POST has a key, so that it is done once.
  send(method, path, body, opts = {}) {
    const headers = {...opts.headers};
    const blob = body instanceof Blob || body instanceof ArrayBuffer || body instanceof Uint8Array;
    if (body !== undefined && !blob) headers['Content-Type'] = 'application/json';
    if (method === 'POST' && !opts.plain) headers['Idempotency-Key'] = crypto.getRandomValues(new Uint32Array(4)).join('-');
    return this.raw(path, {...opts, method, headers, body: body === undefined || blob ? body : JSON.stringify(body)});
  }

  async post(path, body, opts) {
    return (await this.send('POST', path, body, opts)).json();
  }
  async put(path, body, opts) {
    return (await this.send('PUT', path, body, opts)).json();
  }
  async delete(path, body, opts) {
    return (await this.send('DELETE', path, body, opts)).json();
  }

  // stream reads a stream's values, f being told of each with the event's id, until it ends; then it resolves. While the
  // page is hidden it lets go of the connection: browsers have six for a server, of all tabs together, without HTTP/2. It comes back by itself, as
  // it does when the connection is lost: behind the last event that had an id, else from the beginning, which opts.restart() is told before. It
  // throws a Problem that the node has told, and AbortError when opts.signal ends it. opts.query as of get; a function
  // of it is asked before each try. opts.once: do not come back.
  async stream(path, opts, f) {
    let last = '', began = false, pause = 500;
    for (;;) {
      const ctl = new AbortController();
      const stop = () => ctl.abort(opts.signal.reason);
      let hide = 0;
      const hidden = () => {
        clearTimeout(hide);
        if (document.hidden && !opts.once) hide = setTimeout(() => ctl.abort(new DOMException('hidden', 'AbortError')), 5000);
      };
      if (opts.signal) {
        if (opts.signal.aborted) throw opts.signal.reason;
        opts.signal.addEventListener('abort', stop);
      }
      document.addEventListener('visibilitychange', hidden);
      const woke = () => opts.once || ctl.abort(new DOMException('the machine slept', 'AbortError'));
      woken.addEventListener('woken', woke);
      try {
        hidden();
        const headers = {Accept: 'text/event-stream'};
        if (last) headers['Last-Event-ID'] = last;
        else if (began && opts.restart) opts.restart();
        began = true;
        const resp = await this.raw(path, {query: typeof opts.query === 'function' ? opts.query() : opts.query, headers, signal: ctl.signal});
        let failed = null, ended = false;
        await events(resp.body, (kind, data, id) => {
          pause = 500;
          if (id) last = id;
          if (kind === 'end') ended = true;
          else if (kind === 'error') failed = new Problem(data.status || 500, data);
          else f(data, id);
          return ended || failed;
        });
        if (failed) throw failed;
        if (ended || opts.once) return;
      } catch (e) {
        if (opts.signal && opts.signal.aborted) throw opts.signal.reason;
        if (e instanceof Problem && e.status !== 0 && e.status !== 429 && e.status !== 503) throw e;
        if (opts.once) throw e;
      } finally {
        clearTimeout(hide);
        ctl.abort();
        document.removeEventListener('visibilitychange', hidden);
        woken.removeEventListener('woken', woke);
        if (opts.signal) opts.signal.removeEventListener('abort', stop);
      }
      await shown(opts.signal);
      await wait(pause, opts.signal);
      pause = Math.min(pause * 2, 10000);
    }
  }
}

// slept looks whether the machine has: then connections may be dead without anybody being told, and streams are begun anew.
const woken = new EventTarget();
let looked = Date.now();
export function slept(now = Date.now()) {
  if (now - looked > 60000) woken.dispatchEvent(new Event('woken'));
  looked = now;
}
setInterval(() => slept(), 5000);

async function problem(resp) {
  let p = {};
  try {
    p = await resp.json();
  } catch {
    p = {detail: `the node answers ${resp.status}`};
  }
  return new Problem(resp.status, p);
}

// shown resolves as soon as the page is not hidden.
export function shown(signal) {
  if (!document.hidden) return Promise.resolve();
  return new Promise((ok, no) => {
    const done = () => {
      if (!document.hidden) {
        document.removeEventListener('visibilitychange', done);
        ok();
      }
    };
    document.addEventListener('visibilitychange', done);
    if (signal) {
      signal.addEventListener('abort', () => {
        document.removeEventListener('visibilitychange', done);
        no(signal.reason);
      }, {once: true});
    }
  });
}

const maxEvent = 32 << 20; // characters of one event; more is a fault
const tooLong = () => new Problem(500, {detail: 'an event of the stream is too long', code: 'limit-exceeded'});

// events reads server-sent events until f returns something true, or they end.
async function events(body, f) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '', kind = '', id = '', data = [], size = 0;
  try {
    for (;;) {
      const {value, done} = await reader.read();
      if (done) return;
      rest += value;
      if (rest.length > maxEvent) throw tooLong();
      let from = 0, at;
      while ((at = rest.indexOf('\n', from)) >= 0) {
        const line = rest.slice(from, at);
        from = at + 1;
        if (line === '') {
          if (data.length && f(kind, JSON.parse(data.join('\n')), id)) return;
          kind = id = '';
          data = [];
          size = 0;
        } else if (line.startsWith('data: ')) {
          data.push(line.slice(6));
          if ((size += line.length) > maxEvent) throw tooLong();
        }
        else if (line.startsWith('event: ')) kind = line.slice(7);
        else if (line.startsWith('id: ')) id = line.slice(4);
      }
      rest = rest.slice(from);
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

// every calls an async function now and then: again so many milliseconds after it has ended, not while the page is hidden, and at once when
// the node answers again. What it throws goes to fail. It ends with signal.
export async function every(ms, signal, f, fail = () => {}) {
  try {
    for (;;) {
      await shown(signal);
      try {
        await f();
      } catch (e) {
        if (signal.aborted) return;
        fail(e);
      }
      await wait(ms, signal);
    }
  } catch {
    // the view has gone
  }
}
