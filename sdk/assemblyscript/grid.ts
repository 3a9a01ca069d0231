// The SDK for AssemblyScript: a program for the grid is a list of functions, and this file.
//
//	import { func } from "./grid";
//	export { grid_call } from "./grid";
//
//	func<string, string>("shout", "Makes letters upper case.", (text) => text.toUpperCase());
//
//	asc main.ts -O --exportStart _initialize --use abort=grid/abort --use seed=grid/seed --use trace=grid/trace -o main.wasm
//
// Such a program is a library: its top-level statements run once, and every task finds memory as they have left it. So what
// is costly and the same for all tasks belongs there.
//
// stdout is the task's result, and log() writes to its log. There are no exceptions to catch in AssemblyScript: what may
// fail gives a Result, whose value ends the task when there is none. docs/abi.md of the grid's repository specifies what
// lies below; README.md beside this file shows more.

const ABI: i32 = 2;

// Error numbers to expect in a Result.
export const NOT_FOUND: i32 = 44;
export const CONFLICT: i32 = 6; // a condition of a transaction did not hold
export const DENIED: i32 = 76; // the job was not granted that
const EXIST: i32 = 20;
const IO: i32 = 29;
const CANCELED: i32 = 11;

// @ts-ignore: decorator
@external("wasi_snapshot_preview1", "args_sizes_get") declare function args_sizes_get(n: usize, size: usize): i32;
// @ts-ignore: decorator
@external("wasi_snapshot_preview1", "args_get") declare function args_get(pointers: usize, text: usize): i32;
// @ts-ignore: decorator
@external("wasi_snapshot_preview1", "environ_sizes_get") declare function environ_sizes_get(n: usize, size: usize): i32;
// @ts-ignore: decorator
@external("wasi_snapshot_preview1", "environ_get") declare function environ_get(pointers: usize, text: usize): i32;
// @ts-ignore: decorator
@external("wasi_snapshot_preview1", "clock_time_get") declare function clock_time_get(id: i32, precision: i64, time: usize): i32;
// @ts-ignore: decorator
@external("wasi_snapshot_preview1", "random_get") declare function random_get(p: usize, len: usize): i32;
// @ts-ignore: decorator
@external("wasi_snapshot_preview1", "proc_exit") declare function proc_exit(code: i32): void;
// @ts-ignore: decorator
@external("wasi_snapshot_preview1", "fd_read") declare function fd_read(fd: i32, buffers: usize, n: usize, read: usize): i32;
// @ts-ignore: decorator
@external("wasi_snapshot_preview1", "fd_write") declare function fd_write(fd: i32, buffers: usize, n: usize, written: usize): i32;
// @ts-ignore: decorator
@external("wasi_snapshot_preview1", "fd_close") declare function fd_close(fd: i32): i32;
// @ts-ignore: decorator
@external("wasi_snapshot_preview1", "fd_readdir") declare function fd_readdir(fd: i32, p: usize, len: usize, cookie: u64, used: usize): i32;
// @ts-ignore: decorator
@external("wasi_snapshot_preview1", "path_create_directory") declare function path_create_directory(fd: i32, p: usize, len: usize): i32;
// @ts-ignore: decorator
@external("wasi_snapshot_preview1", "path_open") declare function path_open(dir: i32, look: i32, p: usize, len: usize, how: i32, rights: u64, inherited: u64, flags: i32, fd: usize): i32;
// @ts-ignore: decorator
@external("grid", "kv") declare function host_kv(p: usize, len: usize, fd: usize): i32;
// @ts-ignore: decorator
@external("grid", "progress") declare function host_progress(done: u64, total: u64): i32;
// @ts-ignore: decorator
@external("grid", "count") declare function host_count(p: usize, len: usize, n: u64): i32;
// @ts-ignore: decorator
@external("grid", "observe") declare function host_observe(p: usize, len: usize, v: f64): i32;
// @ts-ignore: decorator
@external("grid", "http_open") declare function host_http_open(p: usize, len: usize, fd: usize): i32;
// @ts-ignore: decorator
@external("grid", "spawn") declare function host_spawn(p: usize, len: usize, child: usize): i32;
// @ts-ignore: decorator
@external("grid", "await") declare function host_await(child: i32, fd: usize, exit: usize): i32;
// @ts-ignore: decorator
@external("grid", "last_error") declare function host_last_error(p: usize, len: usize, used: usize): i32;

// Where calls put what they give: two words, and a buffer's address and length.
const got: usize = memory.data(8, 8);
const vec: usize = memory.data(8, 8);

// Bytes and text.

/** The bytes of a text, as UTF-8. */
export function bytes(text: string): Uint8Array {
  return Uint8Array.wrap(String.UTF8.encode(text));
}

/** The text of bytes that are UTF-8. */
export function text(b: Uint8Array): string {
  return String.UTF8.decodeUnsafe(b.dataStart, b.byteLength);
}

/** Bytes that grow. */
export class Buffer {
  private data: Uint8Array = new Uint8Array(256);
  length: i32 = 0;

  /** Makes room for n more bytes, and gives their address. */
  room(n: i32): usize {
    let size = this.data.length;
    if (size - this.length < n) {
      while (size - this.length < n) size += max(size, 256);
      const data = new Uint8Array(size);
      memory.copy(data.dataStart, this.data.dataStart, this.length);
      this.data = data;
    }
    return this.data.dataStart + this.length;
  }

  byte(b: u8): void {
    store<u8>(this.room(1), b);
    this.length++;
  }

  write(b: Uint8Array): void {
    memory.copy(this.room(b.length), b.dataStart, b.length);
    this.length += b.length;
  }

  /** Appends a number, little-endian. */
  number<T>(n: T): void {
    store<T>(this.room(sizeof<T>()), n);
    this.length += sizeof<T>();
  }

  /** Appends a length and bytes. */
  word(b: Uint8Array): void {
    this.number<u32>(b.length);
    this.write(b);
  }

  get start(): usize {
    return this.data.dataStart;
  }

  /** What there is; it shares the buffer's memory. */
  bytes(): Uint8Array {
    return this.data.subarray(0, this.length);
  }
}

// Failing.

let current: string = ""; // the function that runs
let reading: string = ""; // the input at which it is
let result: Writer | null = null; // stdout

/** Ends the task as failed, with a message, to which the function and its input are added. */
export function fail(message: string): void {
  const out = result;
  result = null; // it may be that which fails
  if (out) out.flush();
  log((current != "" ? current + ": " : "") + (reading != "" ? "input " + reading + ": " : "") + message);
  proc_exit(1);
  unreachable();
}

// Where AssemblyScript goes with what is thrown, with failed assertions and the like.
export function abort(message: string | null, file: string | null, line: u32, column: u32): void {
  fail((message !== null ? message : "aborted") + "\n\tat " + (file !== null ? file : "?") + ":" + line.toString() + ":" + column.toString());
}

// Where Math.random takes its seed from.
export function seed(): f64 {
  random_get(got, 8);
  return reinterpret<f64>(load<u64>(got) >> 1);
}

export function trace(message: string, n: i32, a0: f64, a1: f64, a2: f64, a3: f64, a4: f64): void {
  const all: f64[] = [a0, a1, a2, a3, a4];
  for (let i = 0; i < n; i++) message += " " + all[i].toString();
  log(message);
}

/** What came of a call that may fail. */
export class Result<T> {
  constructor(
    private some: T,
    /** The error number of WASI, such as NOT_FOUND; 0 when it did not fail. */
    readonly errno: i32 = 0,
    readonly message: string = "",
  ) {}

  get ok(): bool {
    return this.errno == 0;
  }

  /** What the call gave. If it failed, so does the task, with the call's message. */
  get value(): T {
    if (this.errno) fail(this.message);
    return this.some;
  }
}

/** The host's message about the call that has just failed. */
function message(): string {
  const b = new Uint8Array(1024);
  if (host_last_error(b.dataStart, b.length, got)) return "";
  return text(b.subarray(0, load<u32>(got))).trimEnd();
}

function told(what: string, errno: i32): string {
  if (!errno) return "";
  const m = message();
  return what + ": " + (m != "" ? m : "error " + errno.toString() + " of WASI");
}

// Files.

/** Reads what the host has open. */
export class Reader {
  private buffer: Uint8Array | null = null;
  private from: i32 = 0; // in the buffer
  private to: i32 = 0;
  private errno: i32 = 0;
  constructor(
    private fd: i32,
    readonly name: string,
  ) {}

  /** Reads on into b, and gives how many bytes; 0 at the end. */
  read(b: Uint8Array): i32 {
    if (this.from < this.to) {
      const n = min(b.length, this.to - this.from);
      memory.copy(b.dataStart, this.buffer!.dataStart + this.from, n);
      this.from += n;
      return n;
    }
    return this.next(b.dataStart, b.length);
  }

  private next(p: usize, len: i32): i32 {
    store<usize>(vec, p);
    store<usize>(vec, len, 4);
    const errno = fd_read(this.fd, vec, 1, got);
    if (errno) fail("read " + this.name + told("", errno));
    return load<i32>(got);
  }

  /** Reads all that is left. */
  bytes(): Uint8Array {
    const b = new Buffer();
    this.into(b);
    return b.bytes();
  }

  /** Appends all that is left to b. */
  into(b: Buffer): void {
    if (this.from < this.to) b.write(this.buffer!.subarray(this.from, this.to));
    this.from = this.to;
    for (let chunk = 4096, n = 1; n > 0; chunk = min(2 * chunk, 1 << 20)) {
      n = this.next(b.room(chunk), chunk);
      b.length += n;
    }
  }

  /** Reads all that is left, as text. */
  text(): string {
    return text(this.bytes());
  }

  /** Reads one line, without its newline; null at the end. An empty line is "", which is not null. */
  line(): string | null {
    const b = this.lineBytes();
    return b !== null ? text(b) : null;
  }

  /** Like line, as bytes, which are good until the next call. */
  lineBytes(): Uint8Array | null {
    if (!this.buffer) this.buffer = new Uint8Array(64 << 10);
    const buffer = this.buffer!;
    let kept: Buffer | null = null; // of a line longer than what was read
    while (true) {
      let i = this.from;
      while (i < this.to && unchecked(buffer[i]) != 0x0a) i++;
      const part = buffer.subarray(this.from, i);
      if (i < this.to) {
        this.from = i + 1;
        if (!kept) return part;
        kept.write(part);
        return kept.bytes();
      }
      if (i > this.from || kept) {
        if (!kept) kept = new Buffer();
        kept.write(part);
      }
      this.from = 0;
      this.to = this.next(buffer.dataStart, buffer.length);
      if (this.to == 0) return kept && kept.length ? kept.bytes() : null;
    }
  }

  close(): void {
    if (this.fd > 2) fd_close(this.fd);
  }
}

/** Writes to what the host has open. */
export class Writer {
  private buffer: Buffer = new Buffer();
  constructor(
    private fd: i32,
    readonly name: string,
  ) {}

  write(b: Uint8Array): void {
    if (this.buffer.length + b.length > 64 << 10) this.flush();
    if (b.length > 32 << 10) this.put(b.dataStart, b.length);
    else this.buffer.write(b);
  }

  /** Writes text as it is. */
  text(s: string): void {
    this.write(bytes(s));
  }

  /** Writes text and a newline. */
  line(s: string): void {
    this.text(s + "\n");
  }

  flush(): void {
    const n = this.buffer.length;
    this.buffer.length = 0; // first of all, for failing writes, too
    this.put(this.buffer.start, n);
  }

  private put(p: usize, left: i32): void {
    while (left > 0) {
      store<usize>(vec, p);
      store<i32>(vec, left, 4);
      const errno = fd_write(this.fd, vec, 1, got);
      if (errno) fail("write " + this.name + ": error " + errno.toString() + " of WASI");
      p += load<i32>(got);
      left -= load<i32>(got);
    }
  }

  close(): void {
    this.flush();
    fd_close(this.fd);
  }
}

/** The task's result. */
export const stdout: Writer = new Writer(1, "stdout");
result = stdout;

/** Writes a line to the task's log. */
export function log(message: string): void {
  const w = new Writer(2, "stderr");
  w.line(message);
  w.flush();
}

const readable: u64 = 1 << 1 | 1 << 2 | 1 << 14 | 1 << 21; // read, seek, list, stat
const writable: u64 = 1 << 6;

// open gives a descriptor of a path below the root, or a negative error number.
function open(path: string, how: i32, rights: u64): i32 {
  const p = bytes(path);
  const errno = path_open(3, 1, p.dataStart, p.length, how, rights, rights, 0, got);
  return errno ? -errno : load<i32>(got);
}

function openFile(what: string, path: string): Result<Reader | null> {
  const fd = open(path, 0, readable & ~(1 << 14));
  if (fd >= 0) return new Result<Reader | null>(new Reader(fd, path));
  return new Result<Reader | null>(null, -fd, what + ": " + (-fd == NOT_FOUND ? "no such file" : "error " + (-fd).toString() + " of WASI"));
}

/** An input file of the task, open for reading. Its name is its path below /in. */
export class Input extends Reader {}

let names: string[] = []; // of inputs
let listed: bool = false;
let at: i32 = 0; // the next one
let last: Input | null = null;

/** Opens the task's next input, in order of names, and closes the one before; null after the last. Without input files
 * the only one is stdin. */
export function nextInput(): Input | null {
  if (!listed) {
    listed = true;
    walk("in", 0);
  }
  const before = last;
  if (before) before.close();
  last = null;
  reading = "";
  const i = at++;
  if (names.length == 0 && i == 0) {
    reading = "stdin";
    last = new Input(0, "stdin");
  } else if (i < names.length) {
    reading = names[i];
    const fd = open("in/" + reading, 0, readable & ~(1 << 14));
    if (fd < 0) fail("open: error " + (-fd).toString() + " of WASI");
    last = new Input(fd, reading);
  }
  return last;
}

const entries: usize = memory.data(8192); // of a folder, some at a time

// walk lists the files below a folder. Of folders that tasks of an earlier stage have left, NNNNNNN.out, only the stdouts
// that lie beside them are inputs.
function walk(path: string, depth: i32): void {
  const fd = open(path, 2, readable);
  if (fd < 0) {
    if (depth > 0) fail("read the folder " + path + ": error " + (-fd).toString() + " of WASI");
    return;
  }
  const found: string[] = []; // folders with a slash behind them
  let cookie: u64 = 0;
  for (let more = true; more; ) {
    const errno = fd_readdir(fd, entries, 8192, cookie, got);
    if (errno) fail("read the folder " + path + ": error " + errno.toString() + " of WASI");
    const used = load<u32>(got);
    more = used == 8192;
    // An entry: where the next one is, inode, length of the name, type, name.
    for (let i: u32 = 0; used - i >= 24; ) {
      const n = load<u32>(entries + i, 16);
      if (used - i - 24 < n) break; // only a part of it
      const name = String.UTF8.decodeUnsafe(entries + i + 24, n);
      const folder = load<u8>(entries + i, 20) == 3;
      if (name != "." && name != ".." && !(folder && depth <= 1 && left(name))) found.push(folder ? name + "/" : name);
      cookie = load<u64>(entries + i);
      i += 24 + n;
    }
  }
  fd_close(fd);
  for (let i = 0; i < found.length; i++) {
    const below = path + "/" + found[i];
    if (below.endsWith("/")) walk(below.slice(0, -1), depth + 1);
    else names.push(below.slice(3));
  }
}

function left(name: string): bool {
  if (name.length != 11 || !name.endsWith(".out")) return false;
  for (let i = 0; i < 7; i++) if (name.charCodeAt(i) < 0x30 || name.charCodeAt(i) > 0x39) return false;
  return true;
}

function whole(): Uint8Array {
  const b = new Buffer();
  for (let i = nextInput(); i; i = nextInput()) i.into(b);
  return b.bytes();
}

/** Makes a file that the task leaves behind, by its path below /out, with the folders on its way. Close it. */
export function create(path: string): Writer {
  path = "out/" + path;
  for (let i = path.indexOf("/", 4); i >= 0; i = path.indexOf("/", i + 1)) {
    const p = bytes(path.slice(0, i));
    const errno = path_create_directory(3, p.dataStart, p.length);
    if (errno && errno != EXIST) fail("create " + path + ": error " + errno.toString() + " of WASI");
  }
  const fd = open(path, 1 | 8, writable); // to be made, or emptied
  if (fd < 0) fail("create " + path + ": error " + (-fd).toString() + " of WASI");
  return new Writer(fd, path);
}

/** Opens granted data: a file of the DAG with that CID, or the DAG itself with an empty path. */
export function openData(cid: string, path: string): Result<Reader | null> {
  const name = "cid/" + cid + (path != "" ? "/" + path : "");
  return openFile("open /" + name, name);
}

/** Gives a granted secret. */
export function secret(name: string): Result<Uint8Array> {
  const f = openFile('secret "' + name + '"', "secrets/" + name);
  if (!f.ok) return new Result<Uint8Array>(new Uint8Array(0), f.errno, f.message);
  const b = f.value!.bytes();
  f.value!.close();
  return new Result<Uint8Array>(b);
}

// What a task is told.

// strings makes a list of what n pointers point at, which is in data.
function strings(n: usize, pointers: Uint8Array, data: Uint8Array): string[] {
  const list: string[] = [];
  for (let i: usize = 0; i < n; i++) {
    const from = <i32>(load<usize>(pointers.dataStart + i * sizeof<usize>()) - data.dataStart);
    list.push(text(data.subarray(from, data.indexOf(0, from))));
  }
  return list;
}

/** The stage's arguments. */
export function args(): string[] {
  args_sizes_get(got, got + 4);
  const n = load<usize>(got);
  const data = new Uint8Array(<i32>load<usize>(got, 4));
  const pointers = new Uint8Array(<i32>(n * sizeof<usize>()));
  args_get(pointers.dataStart, data.dataStart);
  return strings(n, pointers, data).slice(1);
}

/** A variable of the stage, null without one. */
export function env(name: string): string | null {
  environ_sizes_get(got, got + 4);
  const n = load<usize>(got);
  const data = new Uint8Array(<i32>load<usize>(got, 4));
  const pointers = new Uint8Array(<i32>(n * sizeof<usize>()));
  environ_get(pointers.dataStart, data.dataStart);
  const list = strings(n, pointers, data);
  for (let i = 0; i < list.length; i++) if (list[i].startsWith(name + "=")) return list[i].slice(name.length + 1);
  return null;
}

/** The task's number, as text; null in stages that have inputs. */
export function number(): string | null {
  return env("GRID_TASK");
}

/** The time in milliseconds since 1970. In a pure task it is that of a clock that the host makes up. */
export function now(): i64 {
  clock_time_get(0, 0, got);
  return load<i64>(got) / 1_000_000;
}

/** Fills b with random bytes, which are the same for the same call in a pure task. */
export function random(b: Uint8Array): void {
  random_get(b.dataStart, b.length);
}

/** Says how far the task is; total 0 is unknown. */
export function progress(done: u64, total: u64): void {
  refused("progress", host_progress(done, total));
}

/** Adds to a counter, whose name is of letters, digits and '_'. */
export function count(name: string, n: u64): void {
  const b = bytes(name);
  refused("count " + name, host_count(b.dataStart, b.length, n));
}

/** Adds a value to a histogram, named like a counter. */
export function observe(name: string, value: f64): void {
  const b = bytes(name);
  refused("observe " + name, host_observe(b.dataStart, b.length, value));
}

// What the host does not take is logged: it is no reason to fail.
function refused(what: string, errno: i32): void {
  if (errno) log(told(what, errno));
}

// The realm's map.

/** A key's value. The version changes with each write, and is 0 when there is no such key. */
export class Entry {
  constructor(
    readonly key: string,
    readonly value: Uint8Array,
    readonly version: u64,
  ) {}

  get text(): string {
    return text(this.value);
  }
}

/** Conditions and writes that are applied together or not at all. */
export class Txn {
  private parts: Buffer[] = [new Buffer(), new Buffer(), new Buffer()];
  private n: u32[] = [0, 0, 0];

  /** Makes it a condition that a key still has a version; 0 is that of a key that is not there. */
  expect(key: string, version: u64): Txn {
    this.part(0, key).number<u64>(version);
    return this;
  }

  put(key: string, value: Uint8Array): Txn {
    this.part(1, key).word(value);
    return this;
  }

  delete(key: string): Txn {
    this.part(2, key);
    return this;
  }

  private part(i: i32, key: string): Buffer {
    this.n[i]++;
    this.parts[i].word(bytes(key));
    return this.parts[i];
  }

  /** Applies it. It is false when a condition did not hold, and nothing was done. */
  commit(): Result<bool> {
    const request = new Buffer();
    request.byte(3);
    for (let i = 0; i < 3; i++) {
      request.number<u32>(this.n[i]);
      request.write(this.parts[i].bytes());
    }
    const r = ask(request, "commit");
    if (r.errno == CONFLICT) return new Result<bool>(false);
    return new Result<bool>(r.ok, r.errno, r.message);
  }
}

function ask(request: Buffer, what: string): Result<Uint8Array> {
  const errno = host_kv(request.start, request.length, got);
  if (errno) return new Result<Uint8Array>(new Uint8Array(0), errno, told(what, errno));
  const f = new Reader(load<i32>(got), what);
  const b = f.bytes();
  f.close();
  return new Result<Uint8Array>(b);
}

/** The realm's map, as far as the job was granted it. */
export namespace kv {
  /** Gives a key's entry, of version 0 when there is none. */
  export function get(key: string): Result<Entry> {
    const request = new Buffer();
    request.byte(1);
    request.word(bytes(key));
    const r = ask(request, "get " + key);
    const none = new Entry(key, new Uint8Array(0), 0);
    if (r.errno == NOT_FOUND) return new Result<Entry>(none);
    if (!r.ok) return new Result<Entry>(none, r.errno, r.message);
    const b = r.value;
    if (b.length < 8) return new Result<Entry>(none, IO, "get " + key + ": the host's response is too short");
    return new Result<Entry>(new Entry(key, b.subarray(8), load<u64>(b.dataStart)));
  }

  /** Writes a key, whatever it was. */
  export function put(key: string, value: Uint8Array): Result<bool> {
    return new Txn().put(key, value).commit();
  }

  /** Removes a key, if it is there. */
  export function remove(key: string): Result<bool> {
    return new Txn().delete(key).commit();
  }

  /** Gives the entries whose keys begin with prefix, in order, limit of them at most. */
  export function list(prefix: string, limit: i32 = i32.MAX_VALUE): Result<Entry[]> {
    const all: Entry[] = [];
    for (let more = true; more && all.length < limit; ) {
      const request = new Buffer();
      request.byte(2);
      request.number<u32>(min(limit - all.length, 1000));
      request.word(bytes(prefix));
      request.word(bytes(all.length ? all[all.length - 1].key : ""));
      const r = ask(request, "list " + prefix);
      if (!r.ok) return new Result<Entry[]>(all, r.errno, r.message);
      const before = all.length;
      const b = r.value;
      let i = 1;
      // Each: a key, its version, and a value, with lengths before both texts.
      while (b.length - i >= 16) {
        const n = load<i32>(b.dataStart + i);
        if (n < 0 || b.length - i - 16 < n) break;
        const size = load<i32>(b.dataStart + i + 12 + n);
        if (size < 0 || b.length - i - 16 - n < size) break;
        const value = i + 16 + n;
        all.push(new Entry(text(b.subarray(i + 4, i + 4 + n)), b.slice(value, value + size), load<u64>(b.dataStart + i + 4 + n)));
        i = value + size;
      }
      if (i != b.length) return new Result<Entry[]>(all, IO, "list " + prefix + ": the host's response is too short");
      more = b[0] != 0 && all.length > before;
    }
    return new Result<Entry[]>(all);
  }
}

// HTTP.

/** What came of a request. */
export class Response {
  status: i32 = 0;
  names: string[] = []; // of headers, in lower case
  values: string[] = []; // of the same
  constructor(readonly body: Reader) {}

  /** The first header of that name, null without one. */
  header(name: string): string | null {
    const i = this.names.indexOf(name.toLowerCase());
    return i < 0 ? null : this.values[i];
  }
}

/** Sends an HTTP request to where the job was granted. Headers are pairs of a name and a value. An answer with any status
 * is a response, not an error. Close its body. */
export function fetch(method: string, url: string, headers: string[][] = [], body: Uint8Array = new Uint8Array(0)): Result<Response | null> {
  let head = method + " " + url + "\n";
  for (let i = 0; i < headers.length; i++) {
    if (headers[i][0].includes("\n") || headers[i][1].includes("\n")) fail("fetch " + url + ": the header " + headers[i][0] + " has a newline");
    head += headers[i][0] + ": " + headers[i][1] + "\n";
  }
  const request = new Buffer();
  request.write(bytes(head + "\n"));
  request.write(body);
  const errno = host_http_open(request.start, request.length, got);
  if (errno) return new Result<Response | null>(null, errno, told("fetch " + url, errno));
  const r = new Response(new Reader(load<i32>(got), url));
  const status = r.body.line();
  r.status = status !== null ? I32.parseInt(status) : 0;
  for (let h = r.body.line(); h !== null && h != ""; h = r.body.line()) {
    const i = h.indexOf(": ");
    r.names.push(h.slice(0, i));
    r.values.push(h.slice(i + 2));
  }
  return new Result<Response | null>(r);
}

// Tasks of tasks.

/** Has a function of this program run as a task of its own, with the bytes as its input. */
export function spawn(name: string, input: Uint8Array, args: string[] = []): Child {
  const request = new Buffer();
  request.word(bytes(name));
  request.number<u32>(args.length);
  for (let i = 0; i < args.length; i++) request.word(bytes(args[i]));
  request.write(input);
  const errno = host_spawn(request.start, request.length, got);
  if (errno) fail(told("spawn " + name, errno));
  return new Child(load<i32>(got), name);
}

/** A task that was spawned. */
export class Child {
  constructor(
    private number: i32,
    readonly name: string,
  ) {}

  /** Waits until it has ended, and gives what it printed. */
  wait(): Result<Uint8Array> {
    const none = new Uint8Array(0);
    const errno = host_await(this.number, got, got + 4);
    if (errno) return new Result<Uint8Array>(none, errno, told("task " + this.name, errno));
    const f = new Reader(load<i32>(got), "task " + this.name);
    const exit = load<u32>(got, 4);
    if (exit) {
      f.close();
      const what = "task " + this.name + ": exit code " + exit.toString();
      let m = message();
      // What it has said of itself is said once, and so is what it has said of its own children.
      if (m.startsWith(this.name + ": ")) m = m.slice(this.name.length + 2);
      return new Result<Uint8Array>(none, CANCELED, m.startsWith(what) ? m : m != "" ? what + ": " + m : what);
    }
    const b = f.bytes();
    f.close();
    return new Result<Uint8Array>(b);
  }
}

// Functions.

abstract class Func {
  input: string = "";
  output: string = "";
  constructor(
    readonly name: string,
    readonly kind: string,
    readonly doc: string,
  ) {}
  abstract run(): void;
}

const functions: Func[] = [];

function register(f: Func): void {
  functions.push(f);
}

class Typed<I, O> extends Func {
  constructor(
    name: string,
    doc: string,
    private f: (input: I) => O,
  ) {
    super(name, "func", doc);
    this.input = schema<I>();
    this.output = schema<O>();
  }

  run(): void {
    const b = whole();
    if (isString<I>()) {
      // @ts-ignore: it is a string
      this.print(this.f(text(b)));
    } else if (isInteger<I>() || isFloat<I>()) {
      this.print(this.f(parse<I>(text(b).trim(), "the input")));
    } else {
      // @ts-ignore: it is bytes
      this.print(this.f(b));
    }
  }

  private print(v: O): void {
    if (isString<O>()) {
      // @ts-ignore: it is a string
      stdout.text(v);
    } else if (isInteger<O>() || isFloat<O>()) {
      stdout.text(json<O>(v));
    } else {
      // @ts-ignore: it is bytes
      stdout.write(v);
    }
  }
}

// Values as JSON: numbers and booleans.

function schema<T>(): string {
  if (isBoolean<T>()) return '{"type":"boolean"}';
  if (isInteger<T>()) return '{"type":"integer"}';
  if (isFloat<T>()) return '{"type":"number"}';
  return "";
}

function json<T>(v: T): string {
  // @ts-ignore: it has no other types
  if (isFloat<T>()) return isFinite(<f64>v) ? v.toString() : "null";
  // @ts-ignore: it has no other types
  return v.toString();
}

// digits gives where those end that begin at i, 0 when there are none.
function digits(s: string, i: i32): i32 {
  const from = i;
  while (i < s.length && s.charCodeAt(i) >= 0x30 && s.charCodeAt(i) <= 0x39) i++;
  return i > from ? i : 0;
}

function parse<T>(s: string, what: string): T {
  if (isBoolean<T>()) {
    if (s != "true" && s != "false") fail(what + " " + s + " is not true or false");
    return <T>(s == "true");
  }
  let end = digits(s, s.startsWith("-") ? 1 : 0);
  if (isFloat<T>() && end > 0) {
    if (s.charAt(end) == ".") end = digits(s, end + 1);
    if (end > 0 && s.charAt(end).toLowerCase() == "e") end = digits(s, end + (s.charAt(end + 1) == "-" || s.charAt(end + 1) == "+" ? 2 : 1));
  }
  if (end != s.length) fail(what + " " + s + " is no number of its kind");
  if (isFloat<T>()) return <T>F64.parseFloat(s);
  const v = <T>I64.parseInt(s);
  // @ts-ignore: it has no other types
  if (v.toString() != s && s != "-0") fail(what + " " + s + " does not fit");
  return v;
}

/** Registers a function from a value to a value. A string or Uint8Array stands for the bytes as they are; numbers and
 * booleans travel as JSON. */
export function func<I, O>(name: string, doc: string, f: (input: I) => O): void {
  register(new Typed<I, O>(name, doc, f));
}

class Task extends Func {
  constructor(
    name: string,
    doc: string,
    private f: () => void,
  ) {
    super(name, "task", doc);
  }
  run(): void {
    this.f();
  }
}

/** Registers a function that is called once for each task, and does what it likes. */
export function task(name: string, doc: string, f: () => void): void {
  register(new Task(name, doc, f));
}

/** A key and its value. */
export class Pair<V> {
  private b: ArrayBuffer;
  constructor(
    readonly key: string,
    readonly value: V,
  ) {
    this.b = String.UTF8.encode(key);
  }

  /** In order of the bytes of keys. */
  compare(other: Pair<V>): i32 {
    const n = min(this.b.byteLength, other.b.byteLength);
    const c = memory.compare(changetype<usize>(this.b), changetype<usize>(other.b), n);
    return c ? c : this.b.byteLength - other.b.byteLength;
  }
}

/** Collects values under keys: numbers or booleans. */
export class Emitter<V> {
  private values: Map<string, V> = new Map<string, V>();
  constructor(private combine: (a: V, b: V) => V) {}

  /** Adds a value under a key. */
  emit(key: string, value: V): void {
    this.values.set(key, this.values.has(key) ? this.combine(this.values.get(key), value) : value);
  }

  sorted(): Pair<V>[] {
    const keys = this.values.keys();
    const all = new Array<Pair<V>>(keys.length);
    for (let i = 0; i < keys.length; i++) all[i] = new Pair<V>(keys[i], this.values.get(keys[i]));
    return all.sort((a, b) => a.compare(b));
  }
}

class Mapper<V> extends Func {
  constructor(
    name: string,
    doc: string,
    private combine: (a: V, b: V) => V,
    private f: (input: Input, out: Emitter<V>) => void,
  ) {
    super(name, "map", doc);
  }

  run(): void {
    const out = new Emitter<V>(this.combine);
    for (let i = nextInput(); i; i = nextInput()) this.f(i, out);
    const all = out.sorted();
    for (let i = 0; i < all.length; i++) {
      // Records are lines, so in keys these are written as a backslash and a letter.
      const key = all[i].key.replaceAll("\\", "\\\\").replaceAll("\t", "\\t").replaceAll("\n", "\\n").replaceAll("\r", "\\r");
      stdout.line(key + "\t" + json<V>(all[i].value));
    }
  }
}

/** Registers a function that is called for each input of a task, and emits values under keys. What it emits under one key
 * is combined, in any order; the task leaves each key once. */
export function map<V>(name: string, doc: string, combine: (a: V, b: V) => V, f: (input: Input, out: Emitter<V>) => void): void {
  register(new Mapper<V>(name, doc, combine, f));
}

class Reducer<V> extends Func {
  constructor(
    name: string,
    doc: string,
    private combine: (a: V, b: V) => V,
    private f: (all: Pair<V>[]) => void,
  ) {
    super(name, "reduce", doc);
  }

  run(): void {
    const all = new Emitter<V>(this.combine);
    for (let i = nextInput(); i; i = nextInput()) {
      let n = 1;
      for (let line = i.line(); line !== null; line = i.line()) {
        const what = "line " + n.toString();
        const tab = line.indexOf("\t");
        if (tab < 0) fail(what + " is no record of a map function: it has no tab");
        all.emit(unescape(line.slice(0, tab), what), parse<V>(line.slice(tab + 1).trim(), what + ": the value"));
        n++;
      }
    }
    this.f(all.sorted());
  }
}

function unescape(key: string, what: string): string {
  let out = "";
  let from = 0;
  for (let at = key.indexOf("\\"); at >= 0; at = key.indexOf("\\", from)) {
    out += key.slice(from, at);
    const i = "\\tnr".indexOf(at + 1 < key.length ? key.charAt(at + 1) : "?");
    if (i < 0) fail(what + ": a backslash that stands for nothing");
    out += "\\\t\n\r".charAt(i);
    from = at + 2;
  }
  return from ? out + key.slice(from) : key;
}

/** Registers a function that gets what all tasks of a map emitted: each key once, in order, with its values combined. */
export function reduce<V>(name: string, doc: string, combine: (a: V, b: V) => V, f: (all: Pair<V>[]) => void): void {
  register(new Reducer<V>(name, doc, combine, f));
}

/** Gives JSON schemas of what a registered function takes and gives, where its types do not say them; "" for none. */
export function schemas(name: string, input: string, output: string): void {
  for (let i = 0; i < functions.length; i++) {
    if (functions[i].name == name) {
      functions[i].input = input;
      functions[i].output = output;
    }
  }
}

// Being called.

function quote(s: string): string {
  let out = '"';
  for (let i = 0; i < s.length; i++) {
    const c = s.charCodeAt(i);
    if (c == 0x22 || c == 0x5c) out += "\\" + s.charAt(i);
    else if (c < 0x20) out += "\\u00" + (c < 0x10 ? "0" : "") + c.toString(16);
    else out += s.charAt(i);
  }
  return out + '"';
}

function describe(): void {
  const list: string[] = [];
  for (let i = 0; i < functions.length; i++) {
    const f = functions[i];
    let s = '{"name":' + quote(f.name) + ',"kind":' + quote(f.kind);
    if (f.doc != "") s += ',"doc":' + quote(f.doc);
    if (f.input != "") s += ',"input":' + f.input;
    if (f.output != "") s += ',"output":' + f.output;
    list.push(s + "}");
  }
  stdout.line('{"abi":' + ABI.toString() + ',"functions":[' + list.join(",") + "]}");
}

function pick(name: string): Func | null {
  if (name == "" && functions.length == 1) return functions[0];
  const known: string[] = [];
  for (let i = 0; i < functions.length; i++) {
    if (functions[i].name == name) return functions[i];
    known.push(functions[i].name);
  }
  if (name == "") fail("no function was named; this program has: " + known.join(", "));
  fail('this program has no function "' + name + '", only: ' + known.join(", "));
  return null;
}

/** Where the grid enters, whichever function it wants. A program exports it. */
export function grid_call(): i32 {
  const named = env("GRID_FUNC");
  const name = named !== null ? named : "";
  if (name == "grid.describe") {
    describe();
  } else {
    const f = pick(name)!;
    current = f.name;
    f.run();
  }
  stdout.flush();
  return 0;
}
