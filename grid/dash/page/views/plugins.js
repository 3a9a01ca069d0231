// Plugins: the catalogue, and one with its functions.

import {bytes, el, fill, known, when} from '../lib.js';
import {card, facts, state, table, words} from '../parts.js';

export const title = 'Plugins';

export function mount(root, app) {
  return app.path[0] ? one(root, app, app.path[0]) : list(root, app);
}

function list(root, app) {
  const find = el('input', {type: 'search', placeholder: 'Name or description', 'aria-label': 'Find plugins', value: app.query.get('find') || ''});
  const removed = el('input', {type: 'checkbox', checked: app.query.get('removed') === '1'});
  const rows = table('Plugins of the realm', [
    {name: 'Plugin', cell: p => [el('a', {href: app.hashOf('plugins', `${p.name}@${p.version}`)}, p.name), p.description && el('div.dim', words(p.description))]},
    {name: 'Version', class: 'fit', cell: p => [p.version, (p.aliases || []).map(a => [' ', el('span.tag.accent', a)])]},
    {name: 'Functions', cell: p => el('div.tags', (p.functions || []).map(f => el('span.tag', f.name)))},
    {name: 'Signed', class: 'fit', cell: p => (p.signers || []).length ? state('ok', `by ${p.signers.length}`) : state('off', 'no')},
    {name: 'Size', class: 'num', cell: p => bytes(p.size_bytes)},
    {name: 'Published', class: 'fit', cell: p => known(p.removed) ? state('off', 'removed') : when(p.published)},
  ], p => p.name + '@' + p.version, 'No plugin is installed, or none like that. grid plugin install DIR installs one.');
  fill(root, el('div.bar', {role: 'search'}, find, el('label.check', removed, 'also what was removed')), el('section.card', {'aria-label': 'Plugins'}, rows));
  let all = [];
  const draw = () => {
    const f = find.value.trim().toLowerCase();
    app.set({find: f, removed: removed.checked ? '1' : ''});
    rows.show(all.filter(p => (removed.checked || !known(p.removed)) && (!f || p.name.includes(f) || (p.description || '').toLowerCase().includes(f))).slice(0, 1000));
  };
  find.addEventListener('input', draw);
  removed.addEventListener('change', draw);
  app.every(10000, async () => {
    all = await app.api.get('/plugins', null, {signal: app.signal});
    draw();
  });
}

async function one(root, app, ref) {
  const p = await app.api.get('/plugins/' + encodeURIComponent(ref), {manifest: true}, {signal: app.signal});
  const m = p.manifest || {functions: p.functions || []};
  const all = await app.api.get('/plugins', {name: p.name}, {signal: app.signal});
  const versions = table('Versions', [
    {name: 'Version', cell: v => [el('a', {href: app.hashOf('plugins', `${v.name}@${v.version}`)}, v.version), (v.aliases || []).map(a => [' ', el('span.tag.accent', a)])]},
    {name: 'Published', class: 'fit', cell: v => known(v.removed) ? state('off', 'removed') : when(v.published)},
    {name: 'By', class: 'fit', cell: v => app.link.node(v.publisher)},
  ], v => v.version, '');
  versions.show(all);
  app.head(`${p.name} ${p.version}`, el('a.button', {href: '#/plugins'}, 'All plugins'),
    app.may('submitter') && !known(p.removed) && el('a.button.primary', {href: '#/submit?program=' + encodeURIComponent(`${p.name}@${p.version}`)}, 'Run it'));
  const wants = Object.entries(p.wants || {}).flatMap(([k, v]) => [v].flat().map(x => `${k}: ${x}`));
  fill(root, p.description && el('p', p.description), known(p.removed) && el('p.note', 'This version was removed: nothing new can be run by its name.'),
    el('div.cards', card('About it', facts([
      ['Module', app.link.cid(p.cid)], ['Size', bytes(p.size_bytes)], ['ABI', String(p.abi)], ['License', p.license], ['Authors', (m.authors || []).join(', ')], ['Homepage', m.homepage],
      ['Published', when(p.published)], ['By', app.link.node(p.publisher)],
      ['Signed by', (p.signers || []).length ? p.signers.map(s => el('div.id', s)) : 'nobody'],
      ['Wants', wants.length ? wants.map(w => el('div.mono', w)) : 'nothing beyond its inputs'],
    ])), card('Versions', versions)),
    card('Functions', (m.functions || []).map(f => el('div.body', el('h3', el('code', f.name), ' ', el('span.tag', f.kind)), f.doc && el('p.dim', f.doc),
      f.input && el('details', el('summary', 'What it takes'), el('pre.text', {tabIndex: 0}, JSON.stringify(f.input, null, 2))),
      f.output && el('details', el('summary', 'What it gives'), el('pre.text', {tabIndex: 0}, JSON.stringify(f.output, null, 2)))))),
    m.docs && card('Documentation', el('pre.text', {tabIndex: 0}, m.docs)));
}
