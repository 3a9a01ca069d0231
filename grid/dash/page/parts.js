// Parts that several views are made of.

import {add, bytes, count, el, fill, text} from './lib.js';

// card is a box with a heading.
export function card(title, ...inside) {
  return el('section.card', el('h2', title), inside);
}

// cardWith is a card with something beside its heading.
export function cardWith(title, beside, ...inside) {
  return el('section.card', el('div.title', el('h2', title), el('div.actions', beside)), inside);
}

// tiles shows a few numbers: [[name, value, note]]. show sets them anew.
export function tiles(label) {
  const dl = el('dl.tiles', {'aria-label': label});
  dl.show = list => {
    list = list.filter(Boolean);
    while (dl.childNodes.length > list.length) dl.lastChild.remove();
    list.forEach(([name, value, note], i) => {
      let d = dl.childNodes[i];
      if (!d) {
        d = el('div', el('dt'), el('dd', el('span'), el('small')));
        dl.append(d);
      }
      text(d.firstChild, name);
      const [v, n] = d.lastChild.childNodes;
      if (value instanceof Node) fill(v, value);
      else text(v, String(value));
      if (note instanceof Node) fill(n, note);
      else text(n, note || '');
      n.hidden = !note;
    });
  };
  return dl;
}

// facts is a list of names and what they mean: [[name, content]]; those without content are left out.
export function facts(list) {
  return el('dl.facts', list.filter(x => x && x[1] !== null && x[1] !== undefined && x[1] !== '' && x[1] !== false && !(Array.isArray(x[1]) && !x[1].length)).map(([k, v]) => [el('dt', k), el('dd', v)]));
}

// table is a table that can be shown anew: columns are {name, class, cell(item)}, the first names the row; key(item) tells rows apart. Rows that
// have not changed are left alone, so that what has the focus keeps it. empty is said when there are none.
export function table(caption, columns, key, empty) {
  const body = el('tbody');
  const none = el('p.empty', empty);
  const t = el('table', el('caption.hide', caption),
    el('thead', el('tr', columns.map(c => el('th', {scope: 'col', class: c.class}, c.name)))), body);
  const box = el('div', el('div.scroll', t), none);
  const rows = new Map();
  box.show = list => {
    const seen = new Set();
    let at = body.firstChild;
    for (const item of list) {
      const k = key(item);
      if (seen.has(k)) continue;
      seen.add(k);
      const sig = JSON.stringify(item);
      let r = rows.get(k);
      if (!r) rows.set(k, r = {tr: el('tr'), sig: ''});
      if (r.sig !== sig) {
        r.sig = sig;
        const had = r.tr.contains(document.activeElement) ? [...r.tr.querySelectorAll('a, button, input')].indexOf(document.activeElement) : -1;
        fill(r.tr, columns.map((c, i) => el(i ? 'td' : 'th', {class: c.class, scope: i ? null : 'row'}, c.cell(item))));
        if (had >= 0) {
          const again = r.tr.querySelectorAll('a, button, input')[had];
          if (again) again.focus();
        }
      }
      if (r.tr === at) at = at.nextSibling;
      else body.insertBefore(r.tr, at);
    }
    for (const [k, r] of rows) {
      if (!seen.has(k)) {
        r.tr.remove();
        rows.delete(k);
      }
    }
    t.parentNode.hidden = !list.length;
    none.hidden = !!list.length;
  };
  box.show([]);
  none.hidden = !empty;
  return box;
}

const states = {
  done: 'ok', running: 'run', failed: 'bad', waiting: 'warn', cancelled: 'off', paused: 'warn',
  up: 'ok', silent: 'bad', draining: 'warn', ok: 'ok', degraded: 'warn', lost: 'bad', durable: 'ok', fetching: 'run', unreachable: 'bad', surplus: 'off',
  queued: 'off', unplaced: 'bad', runs: 'run', free: 'ok', busy: 'warn', unfit: 'bad', accused: 'bad',
  leader: 'ok', member: 'ok', revoked: 'bad', left: 'off', expired: 'warn', public: 'ok', private: 'warn', down: 'bad',
};

// state is a word with a mark of its own shape and colour.
export const state = (s, word) => el('span.state', {class: states[s] || ''}, word || s);

// words is somebody else's text in a line or two, the whole of it as a title. It is set apart, so that its direction does not reach beyond.
export const words = s => s ? el('span.clip', {title: s.length < 2000 ? s : s.slice(0, 2000) + '…'}, s.length < 2000 ? s : s.slice(0, 2000) + '…') : null;

// progress is how far stages are, together: a bar and its words.
export function progress(stages, dense) {
  const sum = k => stages.reduce((n, s) => n + (s[k] || 0), 0);
  const tasks = sum('tasks'), done = sum('done'), failed = sum('failed');
  const label = `${count(done)} of ${count(tasks)}` + (failed ? `, ${count(failed)} failed` : '');
  const bar = el('div.meter', {role: 'img', 'aria-label': label + ' tasks'},
    el('i', {class: done === tasks ? 'ok' : '', style: {width: tasks ? 100 * done / tasks + '%' : '0'}}),
    el('i.bad', {style: {width: tasks ? 100 * failed / tasks + '%' : '0'}}));
  return el('div.progress', bar, !dense && el('small', label));
}

// meter is how much of something is used.
export function meter(used, all, label) {
  const part = all ? Math.min(1, used / all) : 0;
  return el('div.meter', {role: 'img', 'aria-label': label}, el('i', {class: part > .95 ? 'bad' : '', style: {width: 100 * part + '%'}}));
}

// tabs are links to parts of a page: [[name, title]].
export function tabs(label, hash, list, current) {
  return el('nav.tabs', {'aria-label': label}, list.map(([name, title]) =>
    el('a', {href: hash + (name ? '?tab=' + name : ''), 'aria-current': name === current ? 'page' : null}, title)));
}

// field is a labelled control, with help.
export function field(label, control, help) {
  if (!control.id) control.id = 'f' + (++fields);
  if (help) control.setAttribute('aria-describedby', control.id + '-help');
  return el('div.field', el('label', {htmlFor: control.id}, label), control, help && el('span.dim', {id: control.id + '-help'}, help));
}
let fields = 0;

// save hands bytes to the user as a file.
export function save(blob, name) {
  const url = URL.createObjectURL(blob);
  const a = el('a', {href: url, download: name.replace(/[^\w.+-]+/g, '_').slice(-120) || 'data'});
  document.body.append(a);
  a.click();
  a.remove();
  setTimeout(() => URL.revokeObjectURL(url), 60000);
}

// Bounds on what is previewed and downloaded.
const previewText = 256 << 10, previewImage = 8 << 20, previewPixels = 40e6, previewRows = 200, previewColumns = 40, previewCell = 300;
export const maxDownload = 1 << 30;

// preview shows what bytes hold: an image, a table, text, or some of them in hex. load(n) gives the first n of them, size is how many there are.
export async function preview(load, size, name = '') {
  let data = new Uint8Array(await load(Math.min(size, previewText)));
  const kind = imageKind(data);
  if (kind && size <= previewImage) {
    if (data.length < size) data = new Uint8Array(await load(size));
    const n = pixels(data, kind);
    if (!n) return el('p.empty', 'It begins like an image, but is none that can be shown.');
    if (n > previewPixels) return el('p.empty', `It is an image of ${count(n)} pixels, more than a page should hold. Download it to see it.`);
    const url = URL.createObjectURL(new Blob([data], {type: kind}));
    const img = el('img', {alt: 'The image ' + (name || 'that the data holds')});
    const box = el('div.preview', img);
    await new Promise(ok => {
      img.onload = ok;
      img.onerror = () => {
        fill(box, el('p.empty', 'It begins like an image, but is none that can be shown.'));
        ok();
      };
      img.src = url;
    });
    URL.revokeObjectURL(url);
    return box;
  }
  if (!size) return el('p.empty', 'It is empty.');
  const s = utf8(data, data.length < size);
  if (s === null) {
    return el('div.preview', el('p.empty', `${bytes(size)} that are no text. They begin:`), el('pre.text', hex(data.subarray(0, 512))));
  }
  const cut = data.length < size ? el('p.empty', `The first ${bytes(data.length)} of ${bytes(size)}.`) : null;
  return el('div.preview', cut, tabular(s, name, !!cut) || el('pre.text', {tabIndex: 0}, pretty(s, !!cut)));
}

function imageKind(b) {
  const is = (at, ...x) => x.every((v, i) => b[at + i] === v);
  if (is(0, 0x89, 0x50, 0x4e, 0x47)) return 'image/png';
  if (is(0, 0xff, 0xd8, 0xff)) return 'image/jpeg';
  if (is(0, 0x47, 0x49, 0x46, 0x38)) return 'image/gif';
  if (is(0, 0x52, 0x49, 0x46, 0x46) && is(8, 0x57, 0x45, 0x42, 0x50)) return 'image/webp';
  return '';
}

// pixels is how many an image has, by its header: a few bytes may stand for more than memory holds. 0: it does not say.
export function pixels(b, kind) {
  const d = new DataView(b.buffer, b.byteOffset, b.length), u24 = at => d.getUint16(at, true) | b[at + 2] << 16;
  try {
    switch (kind) {
      case 'image/png': return d.getUint32(16) * d.getUint32(20);
      case 'image/gif': return d.getUint16(6, true) * d.getUint16(8, true);
      case 'image/webp':
        switch (String.fromCharCode(...b.subarray(12, 16))) {
          case 'VP8 ': return (d.getUint16(26, true) & 0x3fff) * (d.getUint16(28, true) & 0x3fff);
          case 'VP8L': return (d.getUint16(21, true) % 0x4000 + 1) * ((d.getUint32(21, true) >>> 14) % 0x4000 + 1);
          case 'VP8X': return (u24(24) + 1) * (u24(27) + 1);
        }
        return 0;
      case 'image/jpeg':
        for (let at = 2; b[at] === 0xff;) {
          const m = b[at + 1];
          if (m >= 0xc0 && m <= 0xcf && m !== 0xc4 && m !== 0xc8 && m !== 0xcc) return d.getUint16(at + 5) * d.getUint16(at + 7);
          at += m === 0xff ? 1 : 2 + d.getUint16(at + 2); // bytes to fill may stand before a marker
        }
    }
  } catch {
    // it is cut
  }
  return 0;
}

// utf8 is bytes as text; null if they are none. The last characters may be missing of what was cut.
function utf8(b, cut) {
  if (b.includes(0)) return null;
  for (let less = 0; less < (cut ? 4 : 1); less++) {
    try {
      return new TextDecoder('utf-8', {fatal: true}).decode(b.subarray(0, b.length - less));
    } catch {
      // perhaps a character was cut
    }
  }
  return null;
}

function hex(b) {
  let s = '';
  for (let i = 0; i < b.length; i += 16) {
    const row = [...b.subarray(i, i + 16)];
    s += i.toString(16).padStart(6, '0') + '  ' + row.map(x => x.toString(16).padStart(2, '0')).join(' ').padEnd(49) + row.map(x => x > 31 && x < 127 ? String.fromCharCode(x) : '.').join('') + '\n';
  }
  return s;
}

function pretty(s, cut) {
  if (cut || !/^\s*[[{]/.test(s)) return s;
  let depth = 0;
  for (const c of s) {
    if (c === '[' || c === '{') depth++;
    else if (c === ']' || c === '}') depth--;
    if (depth > 100) return s; // it would be mostly spaces
  }
  try {
    return JSON.stringify(JSON.parse(s), null, 2);
  } catch {
    return s;
  }
}

// tabular makes a table of CSV, TSV, and of JSON that is a list of objects or one a line; null if it is none of these.
function tabular(s, name, cut) {
  let rows = null, head = null;
  const objects = list => {
    if (!Array.isArray(list) || !list.length || !list.every(x => x && typeof x === 'object' && !Array.isArray(x))) return;
    list = list.slice(0, previewRows + 1);
    head = [...new Set(list.flatMap(x => Object.keys(x)))].slice(0, previewColumns + 1);
    rows = list.map(x => head.map(k => x[k] === undefined ? '' : typeof x[k] === 'object' ? JSON.stringify(x[k]) : String(x[k])));
  };
  try {
    if (/^\s*\[/.test(s) && !cut) objects(JSON.parse(s));
    else if (/^\s*\{.*\}[ \t\r]*\n\s*\{/.test(s)) objects(s.trim().split('\n').slice(0, previewRows + 1).map(x => JSON.parse(x)));
  } catch {
    // it only looked like JSON
  }
  if (!rows) {
    const sep = /\.tsv$/i.test(name) ? '\t' : /\.csv$/i.test(name) ? ',' : guess(s);
    if (!sep) return null;
    rows = csv(s, sep, previewRows + 2);
    if (rows.length < 2 || rows[0].length < 2) return null;
    head = rows.shift().slice(0, previewColumns + 1);
  }
  const more = rows.length > previewRows || head.length > previewColumns;
  const cell = x => x.length > previewCell ? x.slice(0, previewCell) + '…' : x;
  const number = head.map((_, i) => rows.slice(0, 20).every(r => !r[i] || /^-?[\d.,]+(e-?\d+)?$/i.test(r[i])));
  head = head.slice(0, previewColumns);
  return el('div', more && el('p.empty', `The first ${Math.min(rows.length, previewRows)} rows` + (head.length === previewColumns ? ` and ${previewColumns} columns.` : '.')),
    el('div.scroll', el('table', el('caption.hide', 'What ' + (name || 'the data') + ' holds'),
      el('thead', el('tr', head.map((h, i) => el('th', {scope: 'col', class: number[i] ? 'num' : ''}, cell(h))))),
      el('tbody', rows.slice(0, previewRows).map(r => el('tr', head.map((_, i) => el('td', {class: number[i] ? 'num' : ''}, cell(r[i] || '')))))))));
}

// guess finds what parts columns: a character that the first lines have equally often.
function guess(s) {
  const lines = s.split('\n').slice(0, 6).filter(Boolean);
  if (lines.length < 3) return '';
  return [',', '\t', ';'].find(c => {
    const n = lines[0].split(c).length;
    return n > 1 && n < 200 && lines.slice(0, -1).every(l => l.split(c).length === n);
  }) || '';
}

// csv reads the first rows of RFC 4180.
function csv(s, sep, most) {
  const rows = [];
  let row = [], cell = '', quoted = false;
  for (let i = 0; i < s.length && rows.length < most; i++) {
    const c = s[i];
    if (quoted) {
      if (c !== '"') cell += c;
      else if (s[i + 1] === '"') cell += s[++i];
      else quoted = false;
    } else if (c === '"' && !cell) quoted = true;
    else if (c === sep) {
      row.push(cell);
      cell = '';
    } else if (c === '\n' || c === '\r') {
      if (c === '\r' && s[i + 1] === '\n') i++;
      row.push(cell);
      rows.push(row);
      row = [];
      cell = '';
    } else cell += c;
  }
  if (rows.length < most && (cell || row.length)) rows.push([...row, cell]);
  return rows;
}

// lines is a list of log lines that stays at its end as long as the reader is there, and keeps the last of them.
export function lines(label, most = 2000) {
  const box = el('div.log', {tabIndex: 0, role: 'log', 'aria-live': 'off', 'aria-label': label});
  let waiting = [], frame = 0;
  const flush = () => {
    frame = 0;
    const atEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 40;
    const some = waiting.splice(0).slice(-most);
    add(box, some.map(l => l instanceof Node ? l : el('div', {class: l.class}, el('span.at', {title: l.title}, l.at), el('span.from', {title: l.from}, l.from), el('span.what', l.text))));
    while (box.childNodes.length > most) box.firstChild.remove();
    if (atEnd) box.scrollTop = box.scrollHeight;
  };
  box.put = l => {
    waiting.push(l);
    if (waiting.length > 2 * most) waiting = waiting.slice(-most);
    if (!frame) frame = requestAnimationFrame(flush);
  };
  box.clear = () => {
    waiting = [];
    box.replaceChildren();
  };
  return box;
}

// tar makes an archive of files: [{name, data: Blob}], as POST /add takes it.
export function tar(files) {
  const parts = [], enc = new TextEncoder();
  for (const f of files) {
    const h = new Uint8Array(512), name = enc.encode(f.name);
    if (name.length > 100) throw new Error(`the name ${f.name.slice(0, 60)}… is too long to be sent from here`);
    const put = (at, s) => h.set(typeof s === 'string' ? enc.encode(s) : s, at);
    put(0, name);
    put(100, '0000644\0');
    put(108, '0000000\0');
    put(116, '0000000\0');
    if (f.data.size >= 8 ** 11) throw new Error(`${f.name} is too large to be sent from here`);
    put(124, f.data.size.toString(8).padStart(11, '0') + '\0');
    put(136, '00000000000\0');
    put(148, '        ');
    put(156, '0');
    put(257, 'ustar\u000000');
    put(148, h.reduce((a, b) => a + b, 0).toString(8).padStart(6, '0') + '\0 ');
    parts.push(h, f.data, new Uint8Array((512 - f.data.size % 512) % 512));
  }
  parts.push(new Uint8Array(1024));
  return new Blob(parts, {type: 'application/x-tar'});
}

// upload sends files, and gives what each became: [{name, cid, size}], and the folder of them.
export async function upload(api, files, signal) {
  const resp = await api.send('POST', '/add', tar(files), {headers: {'Content-Type': 'application/x-tar'}, plain: true, signal});
  const all = (await resp.text()).trim().split('\n').map(l => JSON.parse(l));
  const root = all.pop();
  return {root, files: all.filter(f => f.kind === 'file')};
}
