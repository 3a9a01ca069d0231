// The conformance plugin in AssemblyScript: what each function does is said in docs/languages.md.
import * as grid from "../../../../sdk/assemblyscript/grid";
import { Emitter, Input, Pair, Result, Txn, bytes, func, kv, map, reduce, stdout, task, text } from "../../../../sdk/assemblyscript/grid";
export { grid_call } from "../../../../sdk/assemblyscript/grid";

let warm: string = "made at the start";

func<Uint8Array, Uint8Array>("echo", "Gives what it gets.", (b) => b);

func<Uint8Array, Uint8Array>("upper", "Makes ASCII letters upper case.", (b) => {
  for (let i = 0; i < b.length; i++) if (b[i] >= 0x61 && b[i] <= 0x7a) b[i] -= 0x20;
  return b;
});

task("once", "Tells whether it is the first.", () => {
  stdout.line(warm);
  warm = "used";
});

task("args", "Prints its arguments.", () => {
  const args = grid.args();
  for (let i = 0; i < args.length; i++) stdout.line(args[i]);
});

task("env", "Prints variables.", () => {
  const args = grid.args();
  for (let i = 0; i < args.length; i++) {
    const v = grid.env(args[i]);
    stdout.line(args[i] + "=" + (v === null ? "(unset)" : v));
  }
});

task("number", "Prints the task's number.", () => {
  const n = grid.number();
  stdout.line(n === null ? "(none)" : n);
});

task("files", "Copies its inputs.", () => {
  for (let input = grid.nextInput(); input; input = grid.nextInput()) {
    const data = input.bytes();
    const f = grid.create("copy/" + input.name);
    f.write(data);
    f.close();
    stdout.line(input.name + " " + data.length.toString());
  }
});

task("lines", "Counts lines and bytes.", () => {
  let n = 0;
  let size = 0;
  for (let input = grid.nextInput(); input; input = grid.nextInput()) {
    for (let line = input.lineBytes(); line; line = input.lineBytes()) {
      n++;
      size += line.length;
    }
  }
  stdout.line(n.toString() + " " + size.toString());
});

map<i64>("words", "Counts what is between semicolons.", (a, b) => a + b, (input: Input, out: Emitter<i64>) => {
  const all = input.text();
  if (all.startsWith("!")) grid.fail(all.slice(1));
  if (all == "") return;
  const words = all.split(";");
  for (let i = 0; i < words.length; i++) out.emit(words[i], 1);
});

reduce<i64>("total", "Prints what words counted.", (a, b) => a + b, (all: Pair<i64>[]) => {
  for (let i = 0; i < all.length; i++) stdout.line("[" + all[i].key + "]=" + all[i].value.toString());
});

func<string, string>("fail", "Fails with its input.", (message) => {
  grid.fail(message);
  return "";
});

task("crash", "Traps.", () => unreachable());

task("log", "Writes to the log.", () => {
  grid.log("one");
  grid.log("two");
});

task("progress", "Tells its progress.", () => {
  grid.progress(1, 4);
  grid.progress(4, 4);
  grid.progress(7, 0);
});

task("metrics", "Counts and measures.", () => {
  grid.count("lines", 3);
  grid.count("lines", 4);
  grid.observe("size", 0.5);
  grid.observe("size", 3);
  grid.count("not a name", 1);
});

function came(r: Result<bool>): string {
  if (r.errno == grid.DENIED) return "denied";
  return r.value ? "done" : "conflict";
}

function operation(words: string[]): string {
  const op = words[0];
  const key = words[1];
  if (op == "get") {
    const r = kv.get(key);
    if (r.errno == grid.DENIED) return "denied";
    return r.value.version ? r.value.text : "none";
  }
  if (op == "put") return came(kv.put(key, bytes(words[2])));
  if (op == "delete") return came(kv.remove(key));
  if (op == "list") {
    const limit = I32.parseInt(words[2]);
    const all = kv.list(key, limit + 1).value;
    for (let i = 0; i < min(limit, all.length); i++) stdout.line(all[i].key + " = " + all[i].text);
    return all.length > limit ? "more" : "end";
  }
  if (op == "add") {
    const old = kv.get(key).value;
    const sum = (old.version ? I64.parseInt(old.text) : 0) + I64.parseInt(words[2]);
    return came(new Txn().expect(key, old.version).put(key, bytes(sum.toString())).commit());
  }
  if (op == "new") return came(new Txn().expect(key, 0).put(key, bytes("")).delete(words[2]).commit());
  throw new Error("what is " + op + "?");
}

task("kv", "Works on the realm's map.", () => {
  const input = grid.nextInput()!;
  for (let line = input.line(); line !== null; line = input.line()) stdout.line(operation(line.split(" ")));
});

func<string, Uint8Array>("secret", "Tells a secret.", (name) => grid.secret(name).value);

task("data", "Prints granted data.", () => {
  const args = grid.args();
  stdout.write(grid.openData(args[0], args[1]).value!.bytes());
});

task("random", "Prints random bytes.", () => {
  const b = new Uint8Array(8);
  grid.random(b);
  let hex = "";
  for (let i = 0; i < b.length; i++) hex += (b[i] < 16 ? "0" : "") + b[i].toString(16);
  stdout.line(hex);
});

task("clock", "Prints the time.", () => stdout.line(grid.now().toString()));

func<i64, i64>("fib", 'Computes Fibonacci numbers by "tasks".', (n) => {
  if (n < 2) return n;
  const a = grid.spawn("fib", bytes((n - 1).toString()));
  const b = grid.spawn("fib", bytes((n - 2).toString()));
  return I64.parseInt(text(a.wait().value)) + I64.parseInt(text(b.wait().value));
});

task("children", "Has others run.", () => {
  const names = ["args", "fail", "crash", "absent"];
  const children: grid.Child[] = [];
  for (let i = 0; i < names.length; i++) children.push(grid.spawn(names[i], bytes("on purpose"), ["a", "b c"]));
  for (let i = names.length - 1; i >= 0; i--) {
    const r = children[i].wait();
    if (r.ok) stdout.text(names[i] + ": " + text(r.value));
    else stdout.line(r.message);
  }
});

func<string, string>("fetch", "Sends a request.", (url) => {
  const r = grid.fetch("POST", url, [["x-test", "yes"]], bytes("hello"));
  if (r.errno == grid.DENIED) return "denied";
  const response = r.value!;
  const answer = response.header("X-Answer");
  const body = response.body.text();
  response.body.close();
  return response.status.toString() + " " + (answer !== null ? answer : "no") + " " + body;
});
