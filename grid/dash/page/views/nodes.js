// Nodes: those of the realm, and one of them.

import {bytes, count, duration, el, fill, nodeName, when} from '../lib.js';
import {card, facts, meter, state, table, tiles, words} from '../parts.js';

export const title = 'Nodes';

export function mount(root, app) {
  return app.path[0] ? one(root, app, app.path[0]) : list(root, app);
}

// follow keeps nodes as they say they are.
function follow(app, f) {
  let nodes = new Map();
  app.api.stream('/nodes', {query: {follow: true, every: 2}, signal: app.signal, restart: () => { nodes = new Map(); }}, some => {
    for (const n of some) nodes.set(n.node, n);
    f([...nodes.values()]);
  }).catch(e => app.fail(e));
}

const order = {silent: 0, draining: 1, up: 2};

function list(root, app) {
  const rows = table('Nodes of the realm', [
    {name: 'Node', cell: n => [app.link.node(n.node), (n.name || n.zone) && el('div.dim', words([n.name, n.zone].filter(Boolean).join(' · '))), n.node === app.node.id && el('div', el('span.tag.accent', 'this one'))]},
    {name: 'State', class: 'fit', cell: n => [state(n.state), n.leader && el('div', el('span.tag', 'leads the ledger'))]},
    {name: 'Slots', cell: n => el('div.progress', meter(n.load.running, n.load.slots, `${n.load.running} of ${n.load.slots} slots busy`), el('small', `${n.load.running} / ${n.load.slots} busy`))},
    {name: 'Queued', class: 'num', cell: n => count(n.load.queued)},
    {name: 'Tasks', class: 'num', cell: n => [count(n.tasks_ran), n.tasks_failed ? el('div.bad', count(n.tasks_failed) + ' failed') : null]},
    {name: 'Stolen', class: 'num', cell: n => count(n.tasks_stolen)},
    {name: 'p50 / p99', class: 'num', cell: n => n.p99_ns ? `${duration(n.p50_ns)} / ${duration(n.p99_ns)}` : '–'},
    {name: 'Data', class: 'num', cell: n => bytes(n.disk_bytes)},
    {name: 'Memory', class: 'num', cell: n => bytes(n.memory_bytes)},
    {name: 'Since', class: 'fit', cell: n => when(n.started)},
  ], n => n.node, 'No node has answered yet.');
  fill(root, el('section.card', {'aria-label': 'Nodes'}, rows));
  follow(app, all => rows.show(all.sort((a, b) => order[a.state] - order[b.state] || (a.node < b.node ? -1 : 1)).slice(0, 1000).map(({links, at, steals, ...n}) => n)));
}

async function one(root, app, id) {
  const own = id === app.node.id;
  const figures = tiles('The node');
  const about = el('div'), reach = el('div'), drain = el('div'), bad = el('div');
  const links = table('Connections to others', [
    {name: 'Node', cell: l => app.link.node(l.node)}, {name: 'Round trip', class: 'num', cell: l => l.rtt_ns ? duration(l.rtt_ns) : '–'}, {name: 'Transport', cell: l => l.transport},
  ], l => l.node, 'It is connected to nobody that it tells of.');
  const steals = table('Tasks that it took from others', [
    {name: 'From', cell: s => app.link.node(s.from)}, {name: 'Tasks', class: 'num', cell: s => count(s.tasks)},
  ], s => s.from, 'It has taken none.');
  const refused = own && table('What it has refused', [
    {name: 'Whom', cell: r => !r.from ? 'others' : /^(12D3|Qm)/.test(r.from) ? app.link.node(r.from) : el('span.mono', r.from)},
    {name: 'What', cell: r => r.protocol || 'connections'}, {name: 'Why', cell: r => r.reason}, {name: 'Times', class: 'num', cell: r => count(r.count)},
  ], r => [r.from, r.protocol, r.reason].join(' '), 'It has refused nobody anything.');
  app.head(`Node ${nodeName(id)}`, el('a.button', {href: '#/nodes'}, 'All nodes'));
  fill(root, el('p.id', id), bad, figures, drain, el('div.cards', about, reach), el('div.cards', card('Connections', links), card('Stolen from', steals), own && card('Refused since it was started', refused)));
  let there = false;
  follow(app, all => {
    const n = all.find(n => n.node === id);
    if (!n) {
      if (!there) fill(bad, el('p.note', 'No node of this realm has that ID, or it is not known any more.'));
      return;
    }
    there = true;
    fill(bad, n.error && el('p.note', n.error));
    figures.show([
      ['State', state(n.state), n.leader ? 'leads the ledger' : ''],
      ['Slots busy', `${n.load.running} / ${n.load.slots}`, count(n.load.queued) + ' tasks queued'],
      ['Tasks', count(n.tasks_ran), n.tasks_failed ? count(n.tasks_failed) + ' failed' : ''],
      ['Stolen', count(n.tasks_stolen)],
      ['Jobs', count(n.jobs), 'that it drives'],
      ['Memory', bytes(n.memory_bytes), count(n.goroutines) + ' goroutines'],
      ['Data', bytes(n.disk_bytes), n.quota_bytes ? 'of ' + bytes(n.quota_bytes) : ''],
    ]);
    fill(about, card('About it', facts([
      ['Name', n.name && words(n.name)], ['Version', n.version], ['Zone', n.zone && words(n.zone)], ['Up since', when(n.started)],
      ['Attempts took', n.p99_ns ? `${duration(n.p50_ns)} for half of them, ${duration(n.p99_ns)} for 99 of 100` : ''],
      ['Came in', bytes(n.bytes_in)], ['Went out', bytes(n.bytes_out)],
      ['Addresses', own && app.node.addrs && app.node.addrs.map(a => el('div.mono', a))],
      ['Labels', own && app.node.capacity.labels && el('div.tags', Object.entries(app.node.capacity.labels).map(([k, v]) => el('span.tag', `${k}=${v}`)))],
    ])));
    links.show(n.links || []);
    steals.show(n.steals || []);
  });
  if (!own) {
    const peer = (await app.api.get('/peers', null, {signal: app.signal})).find(p => p.id === id);
    if (peer) {
      fill(reach, card('From here', facts([
        ['Transport', peer.transport], ['By way of', peer.relay && app.link.node(peer.relay)], ['Round trip', peer.rtt_ns ? duration(peer.rtt_ns) : ''], ['Connected', when(peer.since)],
        ['Realm', peer.realm], ['Addresses', (peer.addrs || []).map(a => el('div.mono', a))],
        ['Results', peer.standing && `${count(peer.standing.agreed || 0)} agreed with others' and ${count(peer.standing.refuted || 0)} were refuted`],
      ])));
    }
    return;
  }
  const st = await app.api.get('/node', null, {signal: app.signal});
  const r = st.reach;
  if (r) {
    fill(reach, card('How others reach it', facts([
      ['Seen as', state(r.reachability)], ['NAT', r.nat], ['Port forwarded', r.port_map ? 'it asks the router to' : 'no'],
      ['Relays', (r.relays || []).map(a => el('div.mono', a))], ['Carries for others', r.relaying ? `${r.circuits} connections` : 'nothing'],
      ['Told to join', r.bootstrap_peers ? String(r.bootstrap_peers) + ' nodes' : ''], ['Local network', r.mdns ? 'looks for nodes' : 'does not look'],
      ['API', st.remote && st.remote.map(u => el('div.mono', u))],
    ])));
  }
  app.every(10000, async () => {
    const list = await app.api.get('/refusals', null, {signal: app.signal});
    refused.show(list.slice(0, 100));
    return list;
  });
  const draining = async () => {
    const d = await app.api.get('/drain', null, {signal: app.signal});
    fill(drain, (d.draining || app.may('admin')) && card('Draining',
      el('div.body.bar', d.draining ? el('p', d.left ? `${count(d.left)} pins, ${bytes(d.left_bytes)}, are still needed here.` : 'Nothing is needed here any more: it can be stopped.', d.note && ' ' + d.note) :
        el('p', 'Before it is taken away for good, it can hand on what it keeps.'),
      app.may('admin') && el('button', {type: 'button', class: d.draining ? '' : 'danger', onclick: async () => {
        if (!d.draining && !await app.confirm({title: 'Drain this node?', text: 'Other nodes get what it keeps, and it gets nothing new to keep.', yes: 'Drain it', danger: true})) return;
        try {
          await app.api.post('/drain', {on: !d.draining});
          await draining();
        } catch (e) {
          app.fail(e);
        }
      }}, d.draining ? 'End draining' : 'Drain'))));
    return d;
  };
  await draining();
}
