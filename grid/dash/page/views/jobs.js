// Jobs: a list of them, and one of them with all that is known of it.

import {ago, brief, bytes, clock, count, duration, el, fill, known, nodeName, prose, text, when} from '../lib.js';
import {card, cardWith, facts, lines, maxDownload, preview, progress, save, state, table, tabs, tiles, words} from '../parts.js';
import {timeline} from './stream.js';

export const title = 'Jobs';

export function mount(root, app) {
  return app.path[0] ? one(root, app, app.path[0]) : list(root, app);
}

// who is a user: somebody's name, or the node that a job was submitted to without one.
const who = (app, user) => !user ? el('span.dim', '–') : user.startsWith('12D3') ? app.link.node(user) : words(user);

const ended = s => s === 'done' || s === 'failed' || s === 'cancelled';
const took = j => duration((known(j.ended) ? Date.parse(j.ended) : Date.now()) * 1e6 - Date.parse(j.submitted) * 1e6);

function list(root, app) {
  app.head('Jobs', app.may('submitter') && el('a.button.primary', {href: '#/submit'}, 'Submit a job'));
  const {query} = app;
  let after = [query.get('after') || ''], next = '';
  const find = el('input', {type: 'search', value: query.get('find') || '', placeholder: 'ID, name or user', 'aria-label': 'Find jobs by ID, name or user'});
  const which = el('select', {'aria-label': 'State'}, [['', 'All states'], ['running', 'Running'], ['waiting', 'Waiting'], ['done', 'Done'], ['failed', 'Failed'], ['cancelled', 'Cancelled']].map(([v, t]) =>
    el('option', {value: v, selected: v === (query.get('state') || '')}, t)));
  const rows = table('Jobs, the newest first', [
    {name: 'Job', class: 'words', cell: j => [el('span.swatch', {style: {background: app.colour(j.id)}, 'aria-hidden': 'true'}), app.link.job(j.id), j.name && el('div.dim', words(j.name))]},
    {name: 'State', class: 'fit', cell: j => state(j.state)},
    {name: 'Tasks', class: 'fit', cell: j => progress(j.stages || [])},
    {name: 'Stages', class: 'num wide', cell: j => (j.stages || []).length},
    {name: 'User', class: 'wide', cell: j => who(app, j.user)},
    {name: 'Submitted', class: 'fit wide', cell: j => when(j.submitted)},
    {name: 'Took', class: 'num wide', cell: j => ended(j.state) ? took(j) : el('span.dim', 'so far ' + took(j))},
  ], j => j.id, 'There are no such jobs.');
  const newer = el('button', {type: 'button', onclick: () => go(-1)}, 'Newer'), older = el('button', {type: 'button', onclick: () => go(1)}, 'Older');
  fill(root, el('div.bar', {role: 'search'}, find, which), el('section.card', {'aria-label': 'Jobs'}, rows), el('div.actions', newer, older));
  async function load() {
    let p;
    try {
      p = await app.api.page('/jobs', {limit: 50, after: after.at(-1), state: query.get('state'), find: query.get('find')}, {signal: app.signal});
    } catch (e) {
      if (e.status !== 410) throw e;
      after = ['']; // what the page began behind is gone
      return load();
    }
    next = p.next;
    rows.show(p.items);
    newer.disabled = after.length < 2;
    older.disabled = !next;
    newer.parentNode.hidden = newer.disabled && older.disabled;
  }
  function go(by) {
    if (by > 0 && next) after.push(next);
    else if (by < 0 && after.length > 1) after.pop();
    load().catch(e => app.fail(e));
  }
  let typing = 0;
  const filter = () => {
    after = [''];
    app.set({find: find.value.trim(), state: which.value});
    load().catch(e => app.fail(e));
  };
  find.addEventListener('input', () => {
    clearTimeout(typing);
    typing = setTimeout(filter, 250);
  });
  which.addEventListener('change', filter);
  app.every(2000, load);
}

async function one(root, app, id) {
  const tab = app.query.get('tab') || '';
  let job = await app.api.get('/jobs/' + encodeURIComponent(id), null, {signal: app.signal});
  id = job.id;
  const hash = app.hashOf('jobs', id);
  const heading = job.name && job.name.length <= 80 ? job.name : brief(id, 14);
  const cancel = el('button.danger', {type: 'button', onclick: async () => {
    if (!await app.confirm({title: 'Cancel this job?', text: `Tasks of ${id} that run are stopped. What has ended stays known.`, yes: 'Cancel the job', danger: true})) return;
    try {
      await app.api.post(`/jobs/${id}/cancel`);
      app.say('The job is cancelled.');
    } catch (e) {
      app.fail(e);
    }
  }}, 'Cancel');
  const again = el('button', {type: 'button', onclick: async () => {
    if (!await app.confirm({title: 'Run this job again?', text: 'A new job does the same. Tasks whose results are known are run anew, too.', yes: 'Run again'})) return;
    try {
      const req = await app.api.get(`/jobs/${id}/request`);
      req.no_cache = true;
      if (app.access.name) delete req.user;
      delete req.publish; // refs are not moved by accident
      const made = await app.api.post('/jobs', req);
      app.say('A new job has begun.');
      app.go(app.hashOf('jobs', made.id));
    } catch (e) {
      app.fail(e);
    }
  }}, 'Run again');
  const forget = el('button', {type: 'button', onclick: async () => {
    if (!await app.confirm({title: 'Forget this job?', text: 'What it came to is not kept any longer, unless a pin or ref keeps it.', yes: 'Forget it', danger: true})) return;
    try {
      await app.api.delete('/jobs/' + id);
      app.say('The job is forgotten.');
      app.go('#/jobs');
    } catch (e) {
      app.fail(e);
    }
  }}, 'Forget');
  app.head(heading, ...(app.may('submitter') ? [cancel, again, forget] : []));
  const note = el('div', {role: 'status'});
  const figures = tiles('The job');
  const box = el('div.view');
  fill(root, el('p.dim', el('span.swatch', {style: {background: app.colour(id)}, 'aria-hidden': 'true'}), el('span.id', id)), job.name && heading !== job.name && words(job.name), note, figures,
    tabs('Parts of the job', hash, [['', 'Stages'], ['tasks', 'Tasks'], ['timeline', 'Timeline'], ['logs', 'Logs'], ['events', 'Events'], ['why', 'Why'], ['request', 'Request']], tab), box);
  const views = {'': stages, tasks, timeline, logs, events, why, request};
  const show = (views[tab] || stages)(box, app, job, () => job) || (() => {});
  const update = j => {
    job = j;
    const sum = k => (j.stages || []).reduce((n, s) => n + (s[k] || 0), 0);
    figures.show([
      ['State', state(j.state), j.note || ''],
      ['Tasks', `${count(sum('done'))} / ${count(sum('tasks'))}`, [sum('failed') && count(sum('failed')) + ' failed', sum('cached') && count(sum('cached')) + ' known before'].filter(Boolean).join(', ')],
      ['Took', took(j), known(j.ended) ? 'ended ' + ago(j.ended) : 'since ' + new Date(j.submitted).toLocaleTimeString()],
      ['Guests ran', duration(sum('ran_ns')), 'all tasks together'],
      ['Nodes', new Set((j.stages || []).flatMap(s => Object.keys(s.nodes || {}))).size, 'that ran tasks of it'],
    ]);
    cancel.hidden = ended(j.state);
    again.hidden = forget.hidden = !ended(j.state);
    const own = app.may('admin') || j.user === app.access.name;
    cancel.disabled = forget.disabled = !own;
    if (j.error && !note.firstChild) fill(note, el('div.problem', el('p', el('strong', 'It has failed: '), j.error)));
    show(j);
  };
  update(job);
  if (!ended(job.state)) {
    app.api.stream(`/jobs/${id}/watch`, {signal: app.signal}, update).catch(e => app.fail(e, note));
  }
}

function stages(box, app, job) {
  const rows = table('Stages', [
    {name: 'Stage', class: 'words', cell: s => [words(s.name || 'stage'), s.plugin && el('div', el('a.tag', {href: app.hashOf('plugins', s.plugin)}, s.plugin))]},
    {name: 'Tasks', class: 'fit', cell: s => progress([s])},
    {name: 'Known before', class: 'num', cell: s => count(s.cached)},
    {name: 'Waiting for others', class: 'num', cell: s => count(s.blocked)},
    {name: 'Guests ran', class: 'num', cell: s => duration(s.ran_ns)},
    {name: 'Nodes', cell: s => el('div.tags', Object.entries(s.nodes || {}).sort((a, b) => b[1] - a[1]).slice(0, 6).map(([n, k]) => el('span.tag', {title: n}, `${nodeName(n)} ${count(k)}`)),
      Object.keys(s.nodes || {}).length > 6 && el('span.tag', `and ${Object.keys(s.nodes).length - 6} more`))},
  ], s => s.n, 'It is not known yet what stages it has.');
  const told = el('div');
  const metrics = table('What the tasks have counted and measured', [
    {name: 'Metric', cell: m => words(m.name)},
    {name: 'Stage', cell: m => m.stage},
    {name: 'Value', class: 'num', cell: m => m.value},
  ], m => m.stage + '\0' + m.name, '');
  const measured = card('Metrics of the tasks', metrics);
  fill(box, card('Stages', rows), measured, told);
  return j => {
    rows.show((j.stages || []).map((s, n) => ({...s, n})));
    const all = (j.stages || []).flatMap((s, i) => (s.metrics || []).map(m => ({stage: s.name || String(i), name: m.name, value: String(m.value ?? m.count ?? m.sum ?? '')})));
    measured.hidden = !all.length;
    metrics.show(all);
    fill(told, card('About it', facts([
      ['User', who(app, j.user)],
      ['Priority', j.priority ? String(j.priority) : ''],
      ['Owner', app.link.node(j.owner)],
      ['Owners so far', j.epoch > 1 ? String(j.epoch) : ''],
      ['Submitted', new Date(j.submitted).toLocaleString()],
      ['Ended', known(j.ended) ? new Date(j.ended).toLocaleString() : ''],
      ['Copies', String(j.copies)],
      ['Spec', el('span.id', j.spec)],
      ['Result', j.result && el('span.id', j.result)],
    ])));
  };
}

const mostTasks = 500, mostRead = 200000;

function tasks(box, app, job) {
  const seen = new Map();
  let onlyFailed = app.query.get('failed') === '1', read = 0, full = false, dirty = false;
  const bad = t => !!t.fault || t.exit !== 0;
  const fact = el('p.empty', {role: 'status'}, 'Reading…');
  const detail = el('div.view');
  const rows = table('Tasks that have ended', [
    {name: 'Task', class: 'fit', cell: t => el('button.quiet', {type: 'button', onclick: () => open(t)}, `${stageName(t.stage)} · ${t.index}`)},
    {name: 'Result', class: 'fit', cell: t => t.fault ? state('failed', t.fault.code) : t.exit ? state('failed', 'exit ' + t.exit) : state('done', t.cached ? 'known before' : 'done')},
    {name: 'What went wrong', class: 'words', cell: t => t.fault ? words(t.fault.message) : el('span.dim', '–')},
    {name: 'Input', class: 'words', cell: t => t.input ? [words(t.input), t.inputs > 1 && el('span.dim', ` and ${t.inputs - 1} more`)] : el('span.dim', '–')},
    {name: 'Node', class: 'fit', cell: t => t.cached ? el('span.dim', '–') : app.link.node(t.node)},
    {name: 'Ran', class: 'num', cell: t => t.cached ? '–' : duration(t.phases.run_ns)},
    {name: 'Memory', class: 'num', cell: t => bytes(t.memory_bytes)},
    {name: 'Printed', class: 'num', cell: t => bytes((t.stdout.size || 0) + (t.stderr.size || 0))},
  ], t => t.stage + ' ' + t.index, 'No such task has ended yet.');
  const failed = el('input', {type: 'checkbox', checked: onlyFailed, onchange: () => {
    onlyFailed = failed.checked;
    app.set({failed: onlyFailed ? '1' : ''});
    begin();
  }});
  const stageName = i => ((job.stages || [])[i] || {}).name || String(i);
  fill(box, detail, el('section.card', el('div.title', el('h2', 'Tasks that have ended'), el('label.check', failed, 'only those that failed')), rows, fact));

  let ctl = new AbortController();
  app.signal.addEventListener('abort', () => ctl.abort());
  function begin() {
    ctl.abort();
    ctl = new AbortController();
    seen.clear();
    read = 0;
    full = false;
    draw();
    app.api.stream(`/jobs/${job.id}/tasks`, {query: {follow: true}, signal: ctl.signal, restart: () => { seen.clear(); read = 0; }}, t => {
      read++;
      if (!onlyFailed || bad(t)) seen.set(t.stage + ' ' + t.index, slim(t));
      if (seen.size >= mostTasks || read >= mostRead) {
        full = true;
        ctl.abort();
      }
      if (!dirty) {
        dirty = true;
        setTimeout(draw, 200);
      }
    }).then(draw, e => e.name === 'AbortError' || app.fail(e, fact));
  }
  // slim is of a task what the page shows: its output is read when it is opened.
  const slim = ({stage, index, input, inputs, node, cached, exit, fault, phases, memory_bytes, stdout, stderr, out, started, fuel}) =>
    ({stage, index, input, inputs, node, cached, exit, fault, phases, memory_bytes, stdout, stderr, out, started, fuel});
  function draw() {
    dirty = false;
    rows.show([...seen.values()]);
    const failures = (job.stages || []).reduce((n, s) => n + s.failed, 0);
    text(fact, full ? `Of ${count((job.stages || []).reduce((n, s) => n + s.done + s.failed, 0))} tasks that have ended, the first ${count(seen.size)}` + (onlyFailed ? ' that failed, as far as they were read.' : '. See only those that failed, or use grid job and grid logs for all.') :
      `${count(seen.size)} shown` + (failures && !onlyFailed ? `, ${count(failures)} of all have failed.` : '.'));
  }
  async function open(t) {
    const out = k => el('div');
    const o = out(), e = out();
    fill(detail, cardWith(`Task ${t.index} of ${stageName(t.stage)}`, el('button', {type: 'button', onclick: () => fill(detail)}, 'Close'),
      t.fault && el('div.body', el('div.problem', el('p', el('strong', t.fault.code + ': '), t.fault.message), t.fault.stack && el('pre.text', t.fault.stack))),
      facts([
        ['Input', t.input && words(t.input)], ['Node', t.cached ? 'known before' : app.link.node(t.node)], ['Exit code', String(t.exit)],
        ['Began', known(t.started) ? clock(t.started) : ''],
        ['Phases', t.cached ? '' : [['fetch', 'fetch'], ['compile', 'compile'], ['queue', 'queue'], ['start', 'start'], ['run', 'run'], ['store', 'store']].map(([k, w]) => t.phases[k + '_ns'] ? `${w} ${duration(t.phases[k + '_ns'])}` : '').filter(Boolean).join(', ')],
        ['Fuel', t.fuel ? count(t.fuel) : ''], ['Memory', bytes(t.memory_bytes)],
        ['Files', t.out && app.link.cid(t.out)],
      ])),
      output('Standard output', t.stdout, o), output('Standard error', t.stderr, e));
    detail.firstChild.querySelector('button').focus();
    detail.scrollIntoView({block: 'nearest'});
  }
  function output(name, o, at) {
    if (!o || !o.size) return null;
    const load = n => o.data ? Promise.resolve(Uint8Array.from(atob(o.data), c => c.charCodeAt(0)).subarray(0, n)) :
      app.api.raw('/cat/' + o.cid + '/', {headers: {Range: `bytes=0-${n - 1}`}, signal: app.signal}).then(r => r.arrayBuffer());
    preview(load, o.size).then(x => fill(at, x), e => app.fail(e, at));
    return cardWith(`${name}, ${bytes(o.size)}`, o.size <= maxDownload && el('button', {type: 'button', onclick: async () => {
      try {
        save(o.data ? new Blob([await load(o.size)]) : await (await app.api.raw('/cat/' + o.cid + '/')).blob(), `${job.id}-${name.split(' ')[1]}`);
      } catch (e) {
        app.fail(e);
      }
    }}, 'Download'), at);
  }
  begin();
  return j => { job = j; };
}

function logs(box, app, job) {
  const q = app.query;
  const stage = el('select', {'aria-label': 'Stage'}, el('option', {value: ''}, 'All stages'), (job.stages || []).map((s, i) => el('option', {value: String(i), selected: q.get('stage') === String(i)}, s.name || String(i))));
  const stream = el('select', {'aria-label': 'Stream'}, [['', 'Both streams'], ['stdout', 'Standard output'], ['stderr', 'Standard error']].map(([v, t]) => el('option', {value: v, selected: q.get('stream') === v}, t)));
  const task = el('input', {type: 'number', min: 0, value: q.get('task') || '', placeholder: 'Task', 'aria-label': 'Task number', style: {width: '96px'}});
  const grep = el('input', {type: 'search', value: q.get('grep') || '', placeholder: 'Search (a regular expression)', 'aria-label': 'Search the log, by a regular expression'});
  const log = lines('Log of the job');
  const fact = el('p.empty', {role: 'status'});
  fill(box, el('section.card', el('div.title', el('h2', 'Log'), el('div.bar', stage, stream, task, grep)), log, fact));
  let ctl = new AbortController(), n = 0, typing = 0;
  app.signal.addEventListener('abort', () => ctl.abort());
  async function begin() {
    ctl.abort();
    const mine = ctl = new AbortController();
    const query = {stage: stage.value, stream: stream.value, task: task.value, grep: grep.value};
    app.set(query);
    log.clear();
    n = 0;
    text(fact, 'Reading…');
    try {
      await app.api.stream(`/jobs/${job.id}/logs`, {query: {...query, follow: true, limit: 100000}, signal: mine.signal, restart: () => { log.clear(); n = 0; }}, l => {
        n++;
        const s = (job.stages || [])[l.stage];
        log.put({class: l.stream === 'stderr' ? 'err' : '', at: known(l.at) ? clock(l.at) : '', title: l.at, from: `${s && s.name || l.stage} · ${l.task}`, text: l.text});
        if (n === 1) text(fact, '');
      });
      text(fact, n ? (n === 1 ? 'One line.' : `${count(n)} lines.`) : 'Nothing was printed that is looked for.');
    } catch (e) {
      if (!mine.signal.aborted) app.fail(e, fact);
    }
  }
  for (const c of [stage, stream]) c.addEventListener('change', begin);
  for (const c of [task, grep]) {
    c.addEventListener('input', () => {
      clearTimeout(typing);
      typing = setTimeout(begin, 300);
    });
  }
  begin();
  return j => { job = j; };
}

function events(box, app, job) {
  const list = el('ol.events');
  const fact = el('p.empty', 'Reading…');
  fill(box, card('What has happened', list, fact));
  app.api.stream('/events', {query: {job: job.id, follow: true}, signal: app.signal, restart: () => fill(list)}, e => {
    fact.hidden = true;
    list.append(el('li', el('time.dim.mono', {dateTime: e.at, title: new Date(e.at).toLocaleString()}, clock(e.at).slice(0, 12)), el('span', {class: ['failed', 'lost', 'accused', 'unplaced'].includes(e.kind) ? 'bad' : 'dim'}, e.kind),
      el('span.what', e.text, e.node && [' ', app.link.node(e.node)])));
    while (list.childNodes.length > 5000) list.firstChild.remove();
  }).catch(e => app.fail(e, fact));
}

function why(box, app, job) {
  const nodes = table('What each node has to do with it', [
    {name: 'Node', class: 'fit', cell: n => app.link.node(n.node)},
    {name: 'State', class: 'fit', cell: n => state(n.state)},
    {name: 'Slots that run it', class: 'num', cell: n => n.running},
    {name: 'Why', class: 'words', cell: n => [words(n.text), Object.entries(n.lacks || {}).map(([s, w]) => el('div.dim', `${s}: ${w}`))]},
  ], n => n.node, 'The job has ended: nodes have nothing to do with it any more.');
  const stages = table('How its stages stand', [
    {name: 'Stage', cell: s => words(s.name)}, {name: 'State', class: 'fit', cell: s => s.state === 'done' ? state('left', 'ended') : state(s.state)}, {name: 'Left', class: 'num', cell: s => count(s.left)},
    {name: 'Running', class: 'num', cell: s => s.running}, {name: 'Nodes that can', class: 'num', cell: s => s.fit}, {name: 'Why', class: 'words', cell: s => words(s.text)},
  ], s => s.name, 'Its stages are not known.');
  const said = el('div.body');
  fill(box, card('Why it stands as it does', said), card('Stages', stages), card('Nodes', nodes));
  const load = async () => {
    const e = await app.api.get(`/jobs/${job.id}/why`, null, {signal: app.signal});
    fill(said, el('p', el('strong', prose(e.reason))), (e.advice || []).map(a => el('p.dim', prose(a))));
    stages.show(e.stages || []);
    nodes.show(e.nodes || []);
    return e;
  };
  app.every(3000, load);
}

function request(box, app, job) {
  const pre = el('div');
  fill(box, card('What was submitted', pre));
  app.api.get(`/jobs/${job.id}/request`, null, {signal: app.signal}).then(r => fill(pre, el('pre.text', {tabIndex: 0}, JSON.stringify(r, null, 2))), e => app.fail(e, pre));
}
