//! The SDK for Rust: a program for the grid is a list of functions, and this file, which needs only the standard library.
//!
//! ```
//! mod grid; // this file beside main.rs, or a crate by the Cargo.toml here
//!
//! fn shout(input: Vec<u8>) -> grid::Result<Vec<u8>> {
//!     Ok(input.to_ascii_uppercase())
//! }
//!
//! #[no_mangle]
//! extern "C" fn grid_call() -> i32 {
//!     grid::call(&[grid::raw("shout", shout).doc("Makes letters upper case.")])
//! }
//! ```
//!
//! ```text
//! rustc --target wasm32-wasip1 --crate-type cdylib -O -o shout.wasm main.rs
//! ```
//!
//! Such a program is a library: every task finds memory as it was before the first. What is costly and the same for all
//! tasks belongs into a function `_initialize` that the program exports; it calls [`start`] first.
//!
//! stdout is the task's result, and `eprintln!` writes to its log. Errors and panics arrive with the name of the function
//! and of the input that it was at. docs/abi.md of the grid's repository specifies what lies below; README.md beside this
//! file shows more.
#![allow(dead_code)]

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::fs::{self, File};
use std::hash::{BuildHasherDefault, Hasher};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// Version of the interface that this file is for.
const ABI: u32 = 2;

mod host {
    #[link(wasm_import_module = "grid")]
    extern "C" {
        pub fn kv(p: *const u8, len: usize, fd: *mut u32) -> u32;
        pub fn progress(done: u64, total: u64) -> u32;
        pub fn count(p: *const u8, len: usize, n: u64) -> u32;
        pub fn observe(p: *const u8, len: usize, v: f64) -> u32;
        pub fn http_open(p: *const u8, len: usize, fd: *mut u32) -> u32;
        pub fn spawn(p: *const u8, len: usize, child: *mut u32) -> u32;
        #[link_name = "await"]
        pub fn wait(child: u32, fd: *mut u32, exit: *mut u32) -> u32;
        pub fn last_error(p: *mut u8, len: usize, used: *mut u32) -> u32;
    }

    #[repr(C)]
    pub struct Buffer {
        pub p: *mut u8,
        pub len: usize,
    }

    #[link(wasm_import_module = "wasi_snapshot_preview1")]
    extern "C" {
        pub fn fd_read(fd: u32, buffers: *const Buffer, n: usize, read: *mut usize) -> u32;
        pub fn fd_close(fd: u32) -> u32;
        pub fn environ_sizes_get(n: *mut usize, size: *mut usize) -> u32;
        pub fn environ_get(pointers: *mut *const u8, text: *mut u8) -> u32;
    }

    extern "C" {
        pub fn __wasm_call_ctors();
    }
}

/// Has the C library below begin. A program that exports `_initialize` calls it there first.
pub fn start() {
    // The linker leaves it to us, since it sees the call.
    if !STARTED.swap(true, Ordering::Relaxed) {
        unsafe { host::__wasm_call_ctors() }
    }
}

static STARTED: AtomicBool = AtomicBool::new(false);

// Errors.

/// What functions give.
pub type Result<T = (), E = Error> = std::result::Result<T, E>;

/// Why something failed: a message, and an error number of WASI where the host gave one.
#[derive(Clone, PartialEq, Eq)]
pub struct Error {
    pub message: String,
    /// Such as [`NOT_FOUND`]; 0 for none.
    pub errno: u32,
}

/// Error numbers to expect.
pub const NOT_FOUND: u32 = 44;
/// A condition of a transaction did not hold.
pub const CONFLICT: u32 = 6;
/// The job was not granted that.
pub const DENIED: u32 = 76;

/// Makes an error of anything that can be shown, as in `.map_err(grid::error)`.
pub fn error(message: impl fmt::Display) -> Error {
    Error { message: message.to_string(), errno: 0 }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl From<io::Error> for Error {
    fn from(e: io::Error) -> Error {
        Error { message: e.to_string(), errno: e.raw_os_error().unwrap_or(0) as u32 }
    }
}

macro_rules! from {
    ($($t:ty),*) => { $(impl From<$t> for Error {
        fn from(e: $t) -> Error {
            error(e)
        }
    })* };
}
from!(&str, String, fmt::Error, std::num::ParseIntError, std::num::ParseFloatError, std::str::Utf8Error, std::string::FromUtf8Error);

/// The host's message about the call that has just failed.
fn message() -> String {
    let (mut text, mut used) = ([0u8; 1024], 0u32);
    let errno = unsafe { host::last_error(text.as_mut_ptr(), text.len(), &mut used) };
    let used = if errno == 0 { text.len().min(used as usize) } else { 0 };
    String::from_utf8_lossy(&text[..used]).trim_end().to_string()
}

fn told(errno: u32, what: impl fmt::Display) -> Result {
    if errno == 0 {
        return Ok(());
    }
    let mut text = message();
    if text.is_empty() {
        text = io::Error::from_raw_os_error(errno as i32).to_string();
    }
    Err(Error { message: format!("{}: {}", what, text), errno })
}

// Functions.

/// One function of the program, by its name. Make it with [`raw`], [`func`], [`map`], [`reduce`] or [`task`].
pub struct Function {
    name: &'static str,
    kind: &'static str,
    doc: &'static str,
    input: &'static str,
    output: &'static str,
    run: Box<dyn Fn() -> Result>,
}

impl Function {
    fn new(name: &'static str, kind: &'static str, run: impl Fn() -> Result + 'static) -> Function {
        Function { name, kind, doc: "", input: "", output: "", run: Box::new(run) }
    }

    /// Says what it is for.
    pub fn doc(mut self, text: &'static str) -> Function {
        self.doc = text;
        self
    }

    /// Gives JSON schemas of what a function takes and gives, where its types do not say them; "" for none.
    pub fn schemas(mut self, input: &'static str, output: &'static str) -> Function {
        self.input = input;
        self.output = output;
        self
    }
}

/// A function from bytes to bytes: its whole input, and its result.
pub fn raw<O: AsRef<[u8]>>(name: &'static str, f: impl Fn(Vec<u8>) -> Result<O> + 'static) -> Function {
    Function::new(name, "func", move || print(f(whole()?)?.as_ref()))
}

/// A function from a value to a value, which travel as JSON.
pub fn func<I: Json, O: Json>(name: &'static str, f: impl Fn(I) -> Result<O> + 'static) -> Function {
    let run = move || {
        let text = String::from_utf8(whole()?)?;
        let input = I::from_json(text.trim()).ok_or_else(|| format!("the input {:.100?} is not what it takes", text))?;
        print(f(input)?.to_json().as_bytes())
    };
    Function::new(name, "func", run).schemas(I::SCHEMA, O::SCHEMA)
}

/// A function that is called for each input of a task, and emits values under keys. `combine` puts a value to the one that
/// is under its key already; it must not mind the order. The task leaves each key once.
pub fn map<V: Json + 'static>(
    name: &'static str,
    combine: impl Fn(&mut V, V) + 'static,
    f: impl Fn(&mut Input, &mut Emitter<V>) -> Result + 'static,
) -> Function {
    Function::new(name, "map", move || {
        let mut out = Emitter { combine: &combine, values: HashMap::default() };
        for input in inputs()? {
            f(&mut input?, &mut out)?;
        }
        let mut w = BufWriter::with_capacity(64 << 10, io::stdout().lock());
        for (key, value) in out.sorted() {
            let mut from = 0;
            for (i, c) in key.iter().enumerate() {
                if let Some(at) = ESCAPED.iter().position(|e| e == c) {
                    w.write_all(&key[from..i])?;
                    w.write_all(&[b'\\', b"\\tnr"[at]])?;
                    from = i + 1;
                }
            }
            w.write_all(&key[from..])?;
            writeln!(w, "\t{}", value.to_json())?;
        }
        Ok(w.flush()?)
    })
}

/// A function that gets what all tasks of a [`map`] emitted: each key once, in order, with its values combined.
pub fn reduce<V: Json + 'static>(
    name: &'static str,
    combine: impl Fn(&mut V, V) + 'static,
    f: impl Fn(Vec<(Vec<u8>, V)>) -> Result + 'static,
) -> Function {
    Function::new(name, "reduce", move || {
        let mut all = Emitter { combine: &combine, values: HashMap::default() };
        let mut line = Vec::new();
        for input in inputs()? {
            let mut input = input?;
            for number in 1.. {
                line.clear();
                if input.read_until(b'\n', &mut line)? == 0 {
                    break;
                }
                all.record(&line).map_err(|e| format!("line {}: {}", number, e))?;
            }
        }
        f(all.sorted())
    })
}

/// A function that is called once for each task, and does what it likes.
pub fn task(name: &'static str, f: impl Fn() -> Result + 'static) -> Function {
    Function::new(name, "task", f)
}

/// A value that travels as JSON. Numbers and bool do; others do by two methods.
pub trait Json: Sized {
    /// A JSON schema; "" says nothing.
    const SCHEMA: &'static str = "";
    fn from_json(text: &str) -> Option<Self>;
    fn to_json(&self) -> String;
}

macro_rules! json {
    ($schema:literal, $($t:ty),*) => { $(impl Json for $t {
        const SCHEMA: &'static str = concat!("{\"type\":\"", $schema, "\"}");
        fn from_json(text: &str) -> Option<$t> {
            text.parse().ok()
        }
        fn to_json(&self) -> String {
            self.to_string()
        }
    })* };
}
json!("integer", i32, u32, i64, u64, usize);
json!("boolean", bool);

impl Json for f64 {
    const SCHEMA: &'static str = "{\"type\":\"number\"}";
    fn from_json(text: &str) -> Option<f64> {
        text.parse().ok().filter(|v: &f64| v.is_finite())
    }
    /// JSON has no infinities and no NaN: they become null, which is no number again.
    fn to_json(&self) -> String {
        if self.is_finite() { self.to_string() } else { "null".to_string() }
    }
}

/// Collects values under keys, which are any bytes.
pub struct Emitter<'a, V> {
    combine: &'a dyn Fn(&mut V, V),
    values: HashMap<Vec<u8>, V, BuildHasherDefault<Fnv>>,
}

impl<V> Emitter<'_, V> {
    /// Adds a value under a key.
    pub fn emit(&mut self, key: impl AsRef<[u8]>, value: V) {
        match self.values.get_mut(key.as_ref()) {
            Some(v) => (self.combine)(v, value),
            None => {
                self.values.insert(key.as_ref().to_vec(), value);
            }
        }
    }

    fn sorted(self) -> Vec<(Vec<u8>, V)> {
        let mut all: Vec<_> = self.values.into_iter().collect();
        all.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        all
    }
}

/// Records are lines: a key, a tab, and a value in JSON. In a key these are written as a backslash and one of \tnr.
const ESCAPED: &[u8] = b"\\\t\n\r";

impl<V: Json> Emitter<'_, V> {
    fn record(&mut self, line: &[u8]) -> Result {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let tab = line.iter().position(|c| *c == b'\t').ok_or("it is no record of a map function: it has no tab")?;
        let value = std::str::from_utf8(&line[tab + 1..]).ok().and_then(|s| V::from_json(s.trim())).ok_or("its value is of another kind")?;
        if !line[..tab].contains(&b'\\') {
            self.emit(&line[..tab], value);
            return Ok(());
        }
        let (mut key, mut rest) = (Vec::new(), line[..tab].iter());
        while let Some(c) = rest.next() {
            let stands = |c: &u8| b"\\tnr".iter().position(|e| e == c).map(|at| ESCAPED[at]);
            key.push(if *c != b'\\' { *c } else { rest.next().and_then(stands).ok_or("a backslash that stands for nothing")? });
        }
        self.emit(key, value);
        Ok(())
    }
}

/// A hash that is quick for short keys, and the same for every task.
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Fnv {
        Fnv(0xcbf29ce484222325)
    }
}

impl Hasher for Fnv {
    fn write(&mut self, bytes: &[u8]) {
        for b in bytes {
            self.0 = (self.0 ^ *b as u64).wrapping_mul(0x100000001b3);
        }
    }
    fn finish(&self) -> u64 {
        self.0 ^ self.0 >> 32
    }
}

// What a task has.

thread_local! {
    static READING: RefCell<String> = RefCell::new(String::new()); // name of the input at which the function is
}

fn reading(name: &str) {
    READING.with(|r| *r.borrow_mut() = name.to_string());
}

/// An input file of the task, open for reading.
pub struct Input {
    /// Its path below /in.
    pub name: String,
    reader: BufReader<Box<dyn Read>>,
}

impl Input {
    /// Reads all that is left.
    pub fn rest(&mut self) -> Result<Vec<u8>> {
        let mut all = Vec::new();
        self.reader.read_to_end(&mut all)?;
        Ok(all)
    }
}

impl Read for Input {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buf)
    }
}

impl BufRead for Input {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.reader.fill_buf()
    }
    fn consume(&mut self, n: usize) {
        self.reader.consume(n)
    }
}

/// Opens the task's inputs one after the other, in order of their names. Without input files the only one is stdin.
pub fn inputs() -> Result<impl Iterator<Item = Result<Input>>> {
    let mut names = Vec::new();
    if Path::new("/in").is_dir() {
        walk("", 0, &mut names)?;
    }
    let stdin = names.is_empty();
    if stdin {
        names.push("stdin".to_string());
    }
    let open = move |name: String| {
        reading(&name);
        let file: Box<dyn Read> = if stdin { Box::new(io::stdin()) } else { Box::new(File::open(format!("/in/{}", name))?) };
        Ok(Input { name, reader: BufReader::with_capacity(16 << 10, file) })
    };
    let end = std::iter::from_fn(|| {
        reading("");
        None
    });
    Ok(names.into_iter().map(open).chain(end))
}

/// Lists the files below a folder in /in. Of folders that tasks of an earlier stage have left, NNNNNNN.out, only the
/// stdouts that lie beside them are inputs.
fn walk(dir: &str, depth: usize, names: &mut Vec<String>) -> Result {
    let mut entries = fs::read_dir(format!("/in/{}", dir))?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(|e| e.file_name());
    for e in entries {
        let name = e.file_name().into_string().map_err(|n| format!("the input {:?} has a name that is not UTF-8", n))?;
        let left = name.len() == 11 && name.ends_with(".out") && name.bytes().take(7).all(|c| c.is_ascii_digit());
        let path = format!("{}{}", dir, name);
        if !e.file_type()?.is_dir() {
            names.push(path);
        } else if depth > 1 || !left {
            walk(&(path + "/"), depth + 1, names)?;
        }
    }
    Ok(())
}

fn whole() -> Result<Vec<u8>> {
    let mut all = Vec::new();
    for input in inputs()? {
        input?.read_to_end(&mut all)?;
    }
    Ok(all)
}

fn print(bytes: &[u8]) -> Result {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    Ok(out.flush()?)
}

/// The stage's arguments. Variables are had by `std::env::var`.
pub fn args() -> Vec<String> {
    std::env::args().skip(1).collect()
}

/// The task's number, as text, in stages that have no inputs.
pub fn number() -> Option<String> {
    std::env::var("GRID_TASK").ok()
}

/// Makes a file that the task leaves behind, by its path below /out, with the folders on its way.
pub fn create(path: &str) -> Result<BufWriter<File>> {
    let make = || {
        let path = Path::new("/out").join(path);
        fs::create_dir_all(path.parent().unwrap_or(&path))?;
        File::create(&path)
    };
    Ok(BufWriter::new(make().map_err(|e| format!("create {}: {}", path, e))?))
}

/// Opens granted data: a file of the DAG with that CID, or the DAG itself with an empty path.
pub fn open(cid: &str, path: &str) -> Result<File> {
    let name = format!("/cid/{}/{}", cid, path);
    File::open(name.trim_end_matches('/')).map_err(|e| about(format!("open {}", name), e))
}

/// Gives a granted secret.
pub fn secret(name: &str) -> Result<Vec<u8>> {
    fs::read(format!("/secrets/{}", name)).map_err(|e| about(format!("secret {:?}", name), e))
}

fn about(what: String, e: io::Error) -> Error {
    let mut e = Error::from(e);
    e.message = format!("{}: {}", what, e.message);
    e
}

/// Says how far the task is; total 0 is unknown.
pub fn progress(done: u64, total: u64) {
    refused(told(unsafe { host::progress(done, total) }, "progress"))
}

/// Adds to a counter, whose name is of letters, digits and '_'.
pub fn count(name: &str, n: u64) {
    refused(told(unsafe { host::count(name.as_ptr(), name.len(), n) }, format!("count {}", name)))
}

/// Adds a value to a histogram, named like a counter.
pub fn observe(name: &str, value: f64) {
    refused(told(unsafe { host::observe(name.as_ptr(), name.len(), value) }, format!("observe {}", name)))
}

/// What the host does not take is logged: it is no reason to fail.
fn refused(r: Result) {
    if let Err(e) = r {
        eprintln!("{}", e);
    }
}

/// A descriptor of the host's, to be read.
struct Stream(u32);

impl Read for Stream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let (b, mut n) = (host::Buffer { p: buf.as_mut_ptr(), len: buf.len() }, 0);
        match unsafe { host::fd_read(self.0, &b, 1, &mut n) } {
            0 => Ok(n),
            errno => {
                let e = io::Error::from_raw_os_error(errno as i32);
                let text = message();
                Err(if text.is_empty() { e } else { io::Error::new(e.kind(), text) })
            }
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        unsafe { host::fd_close(self.0) };
    }
}

fn word(request: &mut Vec<u8>, bytes: &[u8]) {
    request.extend((bytes.len() as u32).to_le_bytes());
    request.extend(bytes);
}

/// The realm's map, as far as the job was granted it.
pub mod kv {
    use super::{host, told, word, Error, Read, Result, Stream, CONFLICT, NOT_FOUND};

    /// A key's value. The version changes with each write.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Entry {
        pub key: String,
        pub value: Vec<u8>,
        pub version: u64,
    }

    /// Sends a request and gives the response.
    fn ask(request: &[u8], what: &str) -> Result<Vec<u8>> {
        let mut fd = 0;
        told(unsafe { host::kv(request.as_ptr(), request.len(), &mut fd) }, what)?;
        let mut response = Vec::new();
        Stream(fd).read_to_end(&mut response)?;
        Ok(response)
    }

    /// Takes n bytes off the front of a response.
    fn take<'a>(response: &mut &'a [u8], n: usize) -> Result<&'a [u8]> {
        if n > response.len() {
            return Err("the host's response is too short".into());
        }
        let (taken, rest) = response.split_at(n);
        *response = rest;
        Ok(taken)
    }

    fn number(response: &mut &[u8], n: usize) -> Result<u64> {
        Ok(take(response, n)?.iter().rev().fold(0, |v, b| v << 8 | *b as u64))
    }

    /// Gives a key's entry, if there is one.
    pub fn get(key: &str) -> Result<Option<Entry>> {
        let mut request = vec![1];
        word(&mut request, key.as_bytes());
        match ask(&request, &format!("get {:?}", key)) {
            Ok(response) => {
                let mut rest = &response[..];
                let version = number(&mut rest, 8)?;
                Ok(Some(Entry { key: key.to_string(), value: rest.to_vec(), version }))
            }
            Err(Error { errno: NOT_FOUND, .. }) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Writes a key, whatever it was.
    pub fn put(key: &str, value: impl AsRef<[u8]>) -> Result {
        Txn::new().put(key, value).commit().map(|_| ())
    }

    /// Removes a key, if it is there.
    pub fn delete(key: &str) -> Result {
        Txn::new().delete(key).commit().map(|_| ())
    }

    /// Gives the entries whose keys begin with a prefix, in order. They are read some at a time, and so need not be of
    /// one moment. An error is the last item.
    pub fn list(prefix: &str) -> impl Iterator<Item = Result<Entry>> {
        let (prefix, mut after, mut more) = (prefix.to_string(), String::new(), true);
        let pages = std::iter::from_fn(move || {
            if !more {
                return None;
            }
            let (page, others) = match page(&prefix, &after) {
                Ok((page, others)) => (page.into_iter().map(Ok).collect(), others),
                Err(e) => (vec![Err(e)], false),
            };
            match page.last() {
                Some(Ok(e)) => after = e.key.clone(),
                _ => more = false,
            }
            more = more && others;
            Some(page)
        });
        pages.flatten()
    }

    fn page(prefix: &str, after: &str) -> Result<(Vec<Entry>, bool)> {
        let mut request = vec![2];
        request.extend(1000u32.to_le_bytes());
        word(&mut request, prefix.as_bytes());
        word(&mut request, after.as_bytes());
        let response = ask(&request, &format!("list {:?}", prefix))?;
        let (mut rest, mut page) = (&response[..], Vec::new());
        let more = number(&mut rest, 1)? != 0;
        while !rest.is_empty() {
            let n = number(&mut rest, 4)? as usize;
            let key = String::from_utf8(take(&mut rest, n)?.to_vec())?;
            let version = number(&mut rest, 8)?;
            let n = number(&mut rest, 4)? as usize;
            page.push(Entry { key, version, value: take(&mut rest, n)?.to_vec() });
        }
        Ok((page, more))
    }

    /// Conditions and writes that are applied together or not at all.
    #[derive(Default)]
    pub struct Txn {
        parts: [(u32, Vec<u8>); 3],
    }

    impl Txn {
        pub fn new() -> Txn {
            Txn::default()
        }

        fn part(&mut self, i: usize, key: &str) -> &mut Vec<u8> {
            self.parts[i].0 += 1;
            word(&mut self.parts[i].1, key.as_bytes());
            &mut self.parts[i].1
        }

        /// Makes it a condition that a key still has a version; 0 is that of a key that is not there.
        pub fn expect(mut self, key: &str, version: u64) -> Txn {
            self.part(0, key).extend(version.to_le_bytes());
            self
        }

        pub fn put(mut self, key: &str, value: impl AsRef<[u8]>) -> Txn {
            word(self.part(1, key), value.as_ref());
            self
        }

        pub fn delete(mut self, key: &str) -> Txn {
            self.part(2, key);
            self
        }

        /// Applies it. It is false when a condition did not hold, and nothing was done.
        pub fn commit(self) -> Result<bool> {
            let mut request = vec![3];
            for (n, part) in self.parts {
                request.extend(n.to_le_bytes());
                request.extend(part);
            }
            match ask(&request, "commit") {
                Ok(_) => Ok(true),
                Err(Error { errno: CONFLICT, .. }) => Ok(false),
                Err(e) => Err(e),
            }
        }
    }
}

/// An HTTP request for [`fetch`].
#[derive(Default)]
pub struct Request<'a> {
    /// "" is GET.
    pub method: &'a str,
    pub url: &'a str,
    pub headers: &'a [(&'a str, &'a str)],
    pub body: &'a [u8],
}

/// What came of it. The body is read from it.
pub struct Response {
    pub status: u16,
    /// Names in lower case, in order.
    pub headers: Vec<(String, String)>,
    body: BufReader<Stream>,
}

impl Response {
    /// The first header of that name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|h| h.0.eq_ignore_ascii_case(name)).map(|h| &h.1[..])
    }
}

impl Read for Response {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.body.read(buf)
    }
}

/// Sends an HTTP request to where the job was granted. An answer with any status is a response, not an error.
pub fn fetch(r: Request) -> Result<Response> {
    let method = if r.method.is_empty() { "GET" } else { r.method };
    let mut request = format!("{} {}\n", method, r.url);
    for (name, value) in r.headers {
        if name.contains('\n') || value.contains('\n') {
            return Err(format!("fetch {}: the header {:?} has a newline", r.url, name).into());
        }
        request += &format!("{}: {}\n", name, value);
    }
    let mut request = (request + "\n").into_bytes();
    request.extend(r.body);
    let mut fd = 0;
    told(unsafe { host::http_open(request.as_ptr(), request.len(), &mut fd) }, format!("fetch {}", r.url))?;
    let mut response = Response { status: 0, headers: Vec::new(), body: BufReader::new(Stream(fd)) };
    let mut line = String::new();
    response.body.read_line(&mut line)?;
    response.status = line.get(..3).and_then(|s| s.parse().ok()).ok_or("the response does not begin with a status")?;
    loop {
        line.clear();
        response.body.read_line(&mut line)?;
        match line.trim_end_matches('\n').split_once(": ") {
            Some((name, value)) => response.headers.push((name.to_string(), value.to_string())),
            None => return Ok(response),
        }
    }
}

/// Has a function of this program run as a task of its own, with the bytes as its input.
pub fn spawn(function: &str, input: &[u8], args: &[&str]) -> Result<Child> {
    let mut request = Vec::new();
    word(&mut request, function.as_bytes());
    request.extend((args.len() as u32).to_le_bytes());
    for a in args {
        word(&mut request, a.as_bytes());
    }
    request.extend(input);
    let mut child = 0;
    told(unsafe { host::spawn(request.as_ptr(), request.len(), &mut child) }, format!("spawn {}", function))?;
    Ok(Child { number: child, function: function.to_string() })
}

/// A task that was spawned.
pub struct Child {
    number: u32,
    function: String,
}

impl Child {
    /// Waits until it has ended, and gives what it printed.
    pub fn wait(self) -> Result<Vec<u8>> {
        let (mut fd, mut exit) = (0, 0);
        let what = format!("task {}", self.function);
        told(unsafe { host::wait(self.number, &mut fd, &mut exit) }, &what)?;
        let mut stream = Stream(fd);
        if exit != 0 {
            let (what, text) = (format!("{}: exit code {}", what, exit), message());
            // What it has said of itself is said once, and so is what it has said of its own children.
            let text = text.strip_prefix(&format!("{}: ", self.function)).unwrap_or(&text);
            return Err(error(if text.starts_with(&what) { text.to_string() } else { format!("{}: {}", what, text) }));
        }
        let mut out = Vec::new();
        stream.read_to_end(&mut out)?;
        Ok(out)
    }
}

// Being called.

/// Runs the function that the grid wants, and gives the exit code. It is all that a program's `grid_call` does.
pub fn call(functions: &[Function]) -> i32 {
    start();
    environment();
    let name = std::env::var("GRID_FUNC").unwrap_or_default();
    let run = || {
        if name == "grid.describe" {
            return print(describe(functions).as_bytes());
        }
        let f = pick(functions, &name)?;
        std::panic::set_hook(Box::new({
            let name = f.name;
            move |p| eprintln!("{}{}", at(name), p)
        }));
        (f.run)().and_then(|_| Ok(io::stdout().flush()?)).map_err(|e| error(at(f.name) + &e.message))
    };
    match run() {
        Ok(()) => 0,
        Err(e) => {
            let _ = io::stdout().flush();
            eprintln!("{}", e);
            1
        }
    }
}

/// Takes the task's variables in place of those that the library found at its start.
fn environment() {
    let (mut n, mut size) = (0, 0);
    unsafe { host::environ_sizes_get(&mut n, &mut size) };
    let (mut pointers, mut text) = (vec![std::ptr::null(); n], vec![0; size]);
    unsafe { host::environ_get(pointers.as_mut_ptr(), text.as_mut_ptr()) };
    for (name, _) in std::env::vars_os() {
        std::env::remove_var(name);
    }
    for variable in text.split(|c| *c == 0) {
        if let Some((name, value)) = std::str::from_utf8(variable).ok().and_then(|v| v.split_once('=')) {
            if !name.is_empty() {
                std::env::set_var(name, value);
            }
        }
    }
}

/// The function and the input that it is at, to begin a message with.
fn at(function: &str) -> String {
    READING.with(|r| match &r.borrow()[..] {
        "" => format!("{}: ", function),
        input => format!("{}: input {}: ", function, input),
    })
}

fn pick<'a>(functions: &'a [Function], name: &str) -> Result<&'a Function> {
    if let (true, [f]) = (name.is_empty(), functions) {
        return Ok(f);
    }
    let names = functions.iter().map(|f| f.name).collect::<Vec<_>>().join(", ");
    functions.iter().find(|f| f.name == name).ok_or_else(|| {
        error(if name.is_empty() {
            format!("no function was named; this program has: {}", names)
        } else {
            format!("this program has no function {:?}, only: {}", name, names)
        })
    })
}

/// What functions there are, as JSON.
fn describe(functions: &[Function]) -> String {
    let list: Vec<String> = functions
        .iter()
        .map(|f| {
            let mut text = format!("{{\"name\":{},\"kind\":{}", quote(f.name), quote(f.kind));
            if !f.doc.is_empty() {
                text += &format!(",\"doc\":{}", quote(f.doc));
            }
            for (name, schema) in [("input", f.input), ("output", f.output)] {
                if !schema.is_empty() {
                    text += &format!(",\"{}\":{}", name, schema);
                }
            }
            text + "}"
        })
        .collect();
    format!("{{\"abi\":{},\"functions\":[{}]}}\n", ABI, list.join(","))
}

/// Writes text as JSON has it, for a [`Json`] of one's own.
pub fn quote(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\0'..='\x1f' => out += &format!("\\u{:04x}", c as u32),
            _ => out.push(c),
        }
    }
    out + "\""
}
