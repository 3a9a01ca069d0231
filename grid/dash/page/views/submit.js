// Submit: a form for a job of one stage, and a field for a request as the API takes it.

import {bytes, el, fill, sentence, text} from '../lib.js';
import {card, field, tabs, upload} from '../parts.js';

export const title = 'Submit';

export function mount(root, app) {
  if (!app.may('submitter')) {
    fill(root, el('p', 'The token may look at jobs, but not submit any: that takes one with the role submitter.'));
    return;
  }
  app.head('Submit a job');
  const tab = app.query.get('tab') || '';
  const box = el('div');
  fill(root, tabs('Ways to submit', '#/submit', [['', 'Form'], ['json', 'As JSON']], tab), box);
  return tab === 'json' ? json(box, app) : form(box, app);
}

// dropZone has files dropped onto an element.
function dropZone(e, f) {
  const over = on => ev => {
    ev.preventDefault();
    e.classList.toggle('over', on);
  };
  e.addEventListener('dragover', over(true));
  e.addEventListener('dragleave', over(false));
  e.addEventListener('drop', ev => {
    over(false)(ev);
    f([...ev.dataTransfer.files]);
  });
  return e;
}

async function send(app, button, error, make) {
  button.disabled = true;
  fill(error);
  try {
    const made = await app.api.post('/jobs', await make());
    app.say('The job has begun.');
    app.go(app.hashOf('jobs', made.id));
  } catch (e) {
    if (e.name === 'AbortError') return;
    fill(error, el('div.problem', el('p', el('strong', sentence(e.message))), e.hint && el('p', sentence(e.hint))));
    error.scrollIntoView({block: 'nearest'});
  } finally {
    button.disabled = false;
  }
}

function form(box, app) {
  const program = el('input', {value: app.query.get('program') || '', spellcheck: false, placeholder: 'bafy… or word-count@1.0.0'});
  const func = el('input', {spellcheck: false});
  const name = el('input', {maxLength: 200});
  const args = el('textarea', {rows: 3, spellcheck: false});
  const tasks = el('input', {type: 'number', min: 1, max: 1000000, value: 1, required: true});
  const cache = el('input', {type: 'checkbox'});
  let module = null, inputs = [];
  const chosen = el('p.dim', 'No file is chosen.'), given = el('p.dim', 'None: the tasks differ by their number alone.');
  const pick = el('input', {type: 'file', accept: '.wasm', hidden: true, tabIndex: -1, onchange: () => take([...pick.files])});
  const files = el('input', {type: 'file', multiple: true, hidden: true, tabIndex: -1, onchange: () => feed([...files.files])});
  function take(list) {
    module = list[0] || null;
    text(chosen, module ? `${module.name}, ${bytes(module.size)}` : 'No file is chosen.');
    if (module) program.value = '';
  }
  function feed(list) {
    inputs = list;
    text(given, list.length ? `${list.length === 1 ? list[0].name : list.length + ' files'}, ${bytes(list.reduce((n, f) => n + f.size, 0))}: one task for each.` : 'None: the tasks differ by their number alone.');
    tasks.disabled = !!list.length;
  }
  const error = el('div', {role: 'alert'});
  const button = el('button.primary', {type: 'submit'}, 'Submit');
  const f = el('form.form', {onsubmit: e => {
    e.preventDefault();
    send(app, button, error, make);
  }},
  error,
  el('div.drop', el('h2', 'Program'), field('CID of a module, or a plugin', program, 'A plugin is named as on its page, also with a function: NAME@VERSION or NAME.FUNCTION.'),
    el('div.bar', el('span', 'or'), el('button', {type: 'button', onclick: () => pick.click()}, 'Choose a .wasm file…'), pick, chosen)),
  el('div.two', field('Function', func, 'Of a plugin or module of the SDK; nothing: its main program.'), field('Name of the job', name, 'For people.')),
  field('Arguments, one a line', args, '{} stands for the paths of the task’s input.'),
  el('div.drop', el('h2', 'Inputs'), el('div.bar', el('button', {type: 'button', onclick: () => files.click()}, 'Choose files…'), files, given)),
  el('div.two', field('Tasks', tasks, 'Each finds its number in GRID_TASK.'), el('div.field', el('span.dim', 'Results'), el('label.check', cache, 'run tasks even if their results are known'))),
  el('div.actions', button));
  const [drop1, drop2] = f.querySelectorAll('.drop');
  dropZone(drop1, take);
  dropZone(drop2, feed);
  async function make() {
    const stage = {tasks: Number(tasks.value), args: args.value.split('\n').map(l => l.trim()).filter(Boolean), func: func.value.trim()};
    if (!module && !program.value.trim()) throw new Error('Name a program, or choose a file.');
    const sent = [...(module ? [{name: 'module/' + 'program.wasm', data: module}] : []), ...inputs.map((x, i) => ({name: `inputs/${i}/${x.name}`, data: x}))];
    let up = null;
    if (sent.length) up = await upload(app.api, sent, app.signal);
    const cidOf = n => {
      const x = up.files.find(x => x.name === n || x.name.endsWith('/' + n));
      if (!x) throw new Error(`The node does not tell what ${n} became.`);
      return x.cid;
    };
    if (module) stage.module = cidOf('module/program.wasm');
    else if (/^[a-z0-9]{46,}$|^Qm/.test(program.value.trim())) stage.module = program.value.trim();
    else {
      const p = await app.api.get('/plugins/' + encodeURIComponent(program.value.trim()));
      stage.module = p.cid;
      stage.plugin = `${p.name}@${p.version}`;
      stage.func = stage.func || p.function || '';
    }
    const req = {name: name.value.trim(), stages: [stage], no_cache: cache.checked};
    if (inputs.length) {
      req.rows = [inputs.map((x, i) => [{name: x.name, cid: cidOf(`inputs/${i}/${x.name}`), size: x.size}])];
      stage.tasks = inputs.length;
    }
    return req;
  }
  fill(box, el('section.card.narrow', {'aria-label': 'A new job'}, el('div.body', f)));
}

function json(box, app) {
  const area = el('textarea', {rows: 18, spellcheck: false, required: true, placeholder: '{"name": "hello", "stages": [{"module": "bafy…", "tasks": 3}]}'});
  const error = el('div', {role: 'alert'});
  const button = el('button.primary', {type: 'submit'}, 'Submit');
  const f = el('form.form', {onsubmit: e => {
    e.preventDefault();
    send(app, button, error, async () => {
      try {
        return JSON.parse(area.value);
      } catch (x) {
        throw new Error(/^\s*(#|[a-z_]+:)/m.test(area.value) ? 'That is no JSON. Job files in YAML name files on a machine: grid submit FILE reads them there.' : `That is no JSON: ${x.message}`);
      }
    });
  }}, error, dropZone(field('Request', area, 'What POST /v1/jobs takes: paste it, or drop a file here. The Request of another job is on its page.'), async list => {
    if (list[0] && list[0].size < 8 << 20) area.value = await list[0].text();
  }), el('div.actions', button));
  fill(box, el('section.card.narrow', {'aria-label': 'A new job'}, el('div.body', f)));
}
