// Data: pins and how they stand, refs, the store of this node; and what a CID holds, as folders and files.

import {brief, bytes, count, el, fill, known, when} from '../lib.js';
import {card, cardWith, facts, field, maxDownload, meter, preview, save, state, table, tiles, upload, words} from '../parts.js';

export const title = 'Data';

export function mount(root, app) {
  if (app.path[0] === 'cid' && app.path[1]) return browse(root, app, app.path[1], app.path.slice(2));
  return overview(root, app);
}

const rank = {lost: 0, degraded: 1, ok: 2};

function overview(root, app) {
  const figures = tiles('The store of this node');
  const go = el('input', {type: 'search', placeholder: 'CID, or NAME of a ref', 'aria-label': 'Look into a CID or ref', spellcheck: false});
  const look = el('form.bar', {role: 'search', onsubmit: async e => {
    e.preventDefault();
    if (!go.value.trim()) return;
    try {
      const n = await app.api.get('/resolve', {name: go.value.trim()});
      app.go(app.hashOf('data', 'cid', n.cid));
    } catch (x) {
      app.fail(x);
    }
  }}, go, el('button', {type: 'submit'}, 'Look'));
  const files = el('input', {type: 'file', multiple: true, hidden: true, tabIndex: -1, onchange: () => add([...files.files])});
  async function add(list) {
    if (!list.length) return;
    app.say('Sending…');
    try {
      const made = await upload(app.api, list.map(f => ({name: f.name, data: f})), app.signal);
      app.say('It is stored.');
      app.go(app.hashOf('data', 'cid', made.files.length === 1 ? made.files[0].cid : made.root.cid));
    } catch (e) {
      app.fail(e);
    }
  }
  app.head('Data', app.may('submitter') && [files, el('button', {type: 'button', onclick: () => files.click()}, 'Add files…')]);
  const unpin = p => el('button', {type: 'button', 'aria-label': `Unpin ${p.name || p.root}`, onclick: async () => {
    if (!await app.confirm({title: 'Unpin it?', text: `${p.name ? p.name + ', ' : ''}${p.root}: its copies may be deleted when room is needed, unless something else keeps them.`, yes: 'Unpin', danger: true})) return;
    try {
      await app.api.delete('/pins/' + p.root);
      app.say('It is kept no longer.');
      await load();
    } catch (e) {
      app.fail(e);
    }
  }}, 'Unpin');
  const wanted = p => p.code && p.code.data ? p.code.data + p.code.parity : p.replicas || 0;
  const have = p => (p.copies || []).filter(c => c.state === 'durable').length;
  const pins = table('Pins: what lacks copies comes first', [
    {name: 'Pin', class: 'words', cell: p => [app.link.cid(p.root), p.name && el('div.dim', words(p.name))]},
    {name: 'Health', class: 'fit', cell: p => state(p.health)},
    {name: 'Copies', class: 'fit', cell: p => [`${have(p)} of ${wanted(p) || '?'}`, p.code && p.code.data ? el('div.dim', `coded ${p.code.data}+${p.code.parity}`) : null]},
    {name: 'Where', cell: p => el('div.tags', (p.copies || []).slice(0, 6).map(c => el('span.tag', {title: `${c.node}: ${c.state}${c.note ? ', ' + c.note : ''}`}, `${brief(c.node.slice(-8), 8)}${c.state === 'durable' ? '' : ' ' + c.state}`)), (p.copies || []).length > 6 && el('span.tag', `and ${p.copies.length - 6} more`))},
    {name: 'Size', class: 'num', cell: p => bytes(p.size_bytes)},
    {name: 'Since', class: 'fit', cell: p => when(p.created)},
    ...(app.may('submitter') ? [{name: '', class: 'num', cell: unpin}] : []),
  ], p => p.root, 'Nothing is pinned.');
  const more = el('p.empty', {hidden: true});
  const refs = table('Refs', [
    {name: 'Name', class: 'words', cell: r => words(r.name)},
    {name: 'Names', class: 'fit', cell: r => app.link.cid(r.cid)},
    {name: 'By', class: 'fit', cell: r => r.job ? app.link.job(r.job) : el('span.dim', '–')},
    {name: 'Set', class: 'num', cell: r => count(r.count) + '×'},
    {name: 'Changed', class: 'fit', cell: r => when(r.updated)},
  ], r => r.name, 'There are no refs.');
  fill(root, figures, cardWith('Pins', look, pins, more), card('Refs', refs));
  async function load() {
    const at = {signal: app.signal};
    const [use, list, names] = await Promise.all([app.api.get('/store', null, at), app.api.page('/pins', {limit: 1000}, at), app.api.get('/refs', {limit: 500, stale: true}, at)]);
    figures.show([
      ['On disk', bytes(use.disk_bytes), use.quota_bytes ? el('div', meter(use.disk_bytes, use.quota_bytes, `${bytes(use.disk_bytes)} of ${bytes(use.quota_bytes)}`), 'of ' + bytes(use.quota_bytes)) : 'without a bound'],
      ['Needed', bytes(use.pinned_bytes), count(use.pinned_blocks) + ' blocks'],
      ['Cached', bytes(use.cached_bytes), 'may go when room is needed'],
      ['Blocks', count(use.blocks)],
      ['Damaged', count((use.damaged || []).length), (use.damaged || []).length ? state('failed', 'grid store verify --repair') : 'none known'],
    ]);
    pins.show(list.items.sort((a, b) => rank[a.health] - rank[b.health] || (a.created < b.created ? 1 : -1)));
    more.hidden = !list.next;
    more.textContent = 'The oldest 1,000 pins; grid pin ls lists all.';
    refs.show(names);
  }
  app.every(4000, load);
}

const segments = parts => parts.map(p => encodeURIComponent(p)).join('/');

async function browse(root, app, cid, parts) {
  const where = `${encodeURIComponent(cid)}/${segments(parts)}`;
  const at = {signal: app.signal};
  const name = parts.at(-1) || '';
  const crumbs = el('nav.crumbs', {'aria-label': 'Path'}, app.link.cid(cid), parts.map((p, i) => [el('span.dim', '/'), app.link.cid(cid, parts.slice(0, i + 1).join('/'), p)]));
  fill(root, crumbs, el('p.dim', 'Looking for it…'));
  const info = await app.api.get('/stat/' + where, null, at);
  const download = el('button', {type: 'button', onclick: async () => {
    const dir = info.kind === 'dir';
    if (info.size > maxDownload) {
      app.say(`It has ${bytes(info.size)}, more than a page should hold: grid get ${info.cid} fetches it.`, true);
      return;
    }
    download.disabled = true;
    try {
      const resp = await app.api.raw((dir ? '/tar/' : '/cat/') + where, at);
      save(await resp.blob(), (name || brief(cid, 20)) + (dir ? '.tar' : ''));
    } catch (e) {
      app.fail(e);
    } finally {
      download.disabled = false;
    }
  }}, info.kind === 'dir' ? 'Download as tar' : 'Download');
  const pin = app.may('submitter') && el('button', {type: 'button', onclick: async () => {
    try {
      await app.api.post('/pins', {root: info.cid, name: name.slice(0, 100)});
      app.say('It is pinned.');
    } catch (e) {
      app.fail(e);
    }
  }}, 'Pin');
  app.head(name || brief(cid, 20), download, pin, el('a.button', {href: '#/data'}, 'All data'));
  const about = facts([['CID', el('span.id', info.cid)], ['Kind', {dir: 'folder', file: 'file', symlink: 'symlink'}[info.kind] || info.kind], ['Size', bytes(info.size)], ['Leads to', info.target]]);
  const body = el('div');
  fill(root, crumbs, el('section.card', {'aria-label': 'About it'}, about), body);
  if (info.kind === 'file') {
    fill(body, card('Preview', el('p.empty', 'Reading…')));
    const load = async n => (await app.api.raw('/cat/' + where, {...at, headers: {Range: `bytes=0-${Math.max(0, n - 1)}`}})).arrayBuffer();
    fill(body, card('Preview', await preview(load, info.size, name)));
    return;
  }
  if (info.kind !== 'dir') return;
  const rows = table('What the folder holds', [
    {name: 'Name', class: 'words', cell: f => app.link.cid(cid, [...parts, f.name].join('/'), f.name.length > 300 ? f.name.slice(0, 300) + '…' : f.name)},
    {name: 'Kind', class: 'fit', cell: f => f.kind === 'dir' ? 'folder' : f.kind},
    {name: 'Size', class: 'num', cell: f => bytes(f.size)},
    {name: 'CID', class: 'fit', cell: f => el('span.id.dim', {title: f.cid}, brief(f.cid, 16))},
  ], f => f.name, 'The folder is empty.');
  let all = [], after = '';
  const next = el('button', {type: 'button', onclick: () => load().catch(e => app.fail(e))}, 'Show more');
  async function load() {
    const p = await app.api.page('/ls/' + where, {limit: 500, after}, at);
    all = all.concat(p.items);
    after = p.next;
    next.hidden = !after;
    rows.show(all);
  }
  fill(body, card('Folder', rows), el('div.actions', next));
  await load();
}
