//! The conformance plugin in Rust: what each function does is said in docs/languages.md.
#[path = "../../../../sdk/rust/grid.rs"]
mod grid;

use grid::kv::Txn;
use grid::{Emitter, Input, Request, Result};
use std::io::{self, BufRead, Read, Write};
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

static WARM: Mutex<String> = Mutex::new(String::new()); // filled before the first task

#[no_mangle]
extern "C" fn _initialize() {
    grid::start();
    *WARM.lock().unwrap() = "made at the start".to_string();
}

fn once() -> Result {
    let mut warm = WARM.lock().unwrap();
    println!("{}", warm);
    *warm = "used".to_string();
    Ok(())
}

fn args() -> Result {
    for a in grid::args() {
        println!("{}", a);
    }
    Ok(())
}

fn env() -> Result {
    for name in grid::args() {
        println!("{}={}", name, std::env::var(&name).unwrap_or_else(|_| "(unset)".to_string()));
    }
    Ok(())
}

fn number() -> Result {
    println!("{}", grid::number().unwrap_or_else(|| "(none)".to_string()));
    Ok(())
}

fn files() -> Result {
    for input in grid::inputs()? {
        let mut input = input?;
        let data = input.rest()?;
        let mut f = grid::create(&format!("copy/{}", input.name))?;
        f.write_all(&data)?;
        f.flush()?;
        println!("{} {}", input.name, data.len());
    }
    Ok(())
}

fn lines() -> Result {
    let (mut n, mut bytes, mut line) = (0, 0, Vec::new());
    for input in grid::inputs()? {
        let mut input = input?;
        while input.read_until(b'\n', &mut line)? > 0 {
            n += 1;
            bytes += line.strip_suffix(b"\n").unwrap_or(&line).len();
            line.clear();
        }
    }
    println!("{} {}", n, bytes);
    Ok(())
}

fn words(input: &mut Input, out: &mut Emitter<i64>) -> Result {
    let text = input.rest()?;
    if text.first() == Some(&b'!') {
        return Err(String::from_utf8_lossy(&text[1..]).to_string().into());
    }
    if text.is_empty() {
        return Ok(());
    }
    for word in text.split(|c| *c == b';') {
        out.emit(word, 1);
    }
    Ok(())
}

fn total(all: Vec<(Vec<u8>, i64)>) -> Result {
    let mut out = io::stdout().lock();
    for (key, n) in all {
        out.write_all(b"[")?;
        out.write_all(&key)?;
        writeln!(out, "]={}", n)?;
    }
    Ok(())
}

fn progress() -> Result {
    grid::progress(1, 4);
    grid::progress(4, 4);
    grid::progress(7, 0);
    Ok(())
}

fn metrics() -> Result {
    grid::count("lines", 3);
    grid::count("lines", 4);
    grid::observe("size", 0.5);
    grid::observe("size", 3.0);
    grid::count("not a name", 1);
    Ok(())
}

fn kv() -> Result {
    for line in io::stdin().lock().lines() {
        let line = line?;
        match operation(&line.split(' ').collect::<Vec<_>>()) {
            Err(e) if e.errno == grid::DENIED => println!("denied"),
            done => println!("{}", done?),
        }
    }
    Ok(())
}

fn operation(words: &[&str]) -> Result<String> {
    let came = |done: bool| if done { "done" } else { "conflict" }.to_string();
    let text = |value: &[u8]| String::from_utf8_lossy(value).to_string();
    match *words {
        ["get", key] => Ok(grid::kv::get(key)?.map_or("none".to_string(), |e| text(&e.value))),
        ["put", key, value] => grid::kv::put(key, value).map(|_| came(true)),
        ["delete", key] => grid::kv::delete(key).map(|_| came(true)),
        ["list", prefix, limit] => {
            let limit = limit.parse()?;
            let mut all = grid::kv::list(prefix);
            for entry in all.by_ref().take(limit) {
                let entry = entry?;
                println!("{} = {}", entry.key, text(&entry.value));
            }
            Ok(if all.next().is_some() { "more" } else { "end" }.to_string())
        }
        ["add", key, n] => {
            let old = grid::kv::get(key)?;
            let (sum, version) = old.map_or(Ok((0, 0)), |e| text(&e.value).parse::<i64>().map(|n| (n, e.version)))?;
            let sum = (sum + n.parse::<i64>()?).to_string();
            Txn::new().expect(key, version).put(key, sum).commit().map(came)
        }
        ["new", key, other] => Txn::new().expect(key, 0).put(key, "").delete(other).commit().map(came),
        _ => Err(format!("what is {:?}?", words).into()),
    }
}

fn data() -> Result {
    let args = grid::args();
    io::copy(&mut grid::open(&args[0], &args[1])?, &mut io::stdout())?;
    Ok(())
}

#[link(wasm_import_module = "wasi_snapshot_preview1")]
extern "C" {
    fn random_get(p: *mut u8, len: usize) -> u32; // the standard library has no random numbers
}

fn random() -> Result {
    let mut b = [0u8; 8];
    unsafe { random_get(b.as_mut_ptr(), b.len()) };
    println!("{}", b.iter().map(|b| format!("{:02x}", b)).collect::<String>());
    Ok(())
}

fn clock() -> Result {
    println!("{}", SystemTime::now().duration_since(UNIX_EPOCH).map_err(grid::error)?.as_millis());
    Ok(())
}

fn fib(n: i64) -> Result<i64> {
    if n < 2 {
        return Ok(n);
    }
    let children = [n - 1, n - 2].map(|n| grid::spawn("fib", n.to_string().as_bytes(), &[]));
    let mut sum = 0;
    for c in children {
        sum += String::from_utf8(c?.wait()?)?.parse::<i64>()?;
    }
    Ok(sum)
}

fn children() -> Result {
    let names = ["args", "fail", "crash", "absent"];
    let children = names.iter().map(|name| grid::spawn(name, b"on purpose", &["a", "b c"])).collect::<Result<Vec<_>>>()?;
    for (name, c) in names.iter().zip(children).rev() {
        match c.wait() {
            Ok(out) => print!("{}: {}", name, String::from_utf8_lossy(&out)),
            Err(e) => println!("{}", e),
        }
    }
    Ok(())
}

fn fetch(url: Vec<u8>) -> Result<String> {
    let url = String::from_utf8(url)?;
    match grid::fetch(Request { method: "POST", url: &url, headers: &[("x-test", "yes")], body: b"hello" }) {
        Err(e) if e.errno == grid::DENIED => Ok("denied".to_string()),
        Err(e) => Err(e),
        Ok(mut r) => {
            let mut body = String::new();
            r.read_to_string(&mut body)?;
            Ok(format!("{} {} {}", r.status, r.header("X-Answer").unwrap_or("no"), body))
        }
    }
}

#[no_mangle]
extern "C" fn grid_call() -> i32 {
    let add = |a: &mut i64, b: i64| *a += b;
    let text = |b: Vec<u8>| String::from_utf8_lossy(&b).to_string();
    grid::call(&[
        grid::raw("echo", Ok).doc("Gives what it gets."),
        grid::raw("upper", |b| Ok(b.to_ascii_uppercase())).doc("Makes ASCII letters upper case."),
        grid::task("once", once).doc("Tells whether it is the first."),
        grid::task("args", args).doc("Prints its arguments."),
        grid::task("env", env).doc("Prints variables."),
        grid::task("number", number).doc("Prints the task's number."),
        grid::task("files", files).doc("Copies its inputs."),
        grid::task("lines", lines).doc("Counts lines and bytes."),
        grid::map("words", add, words).doc("Counts what is between semicolons."),
        grid::reduce("total", add, total).doc("Prints what words counted."),
        grid::raw("fail", move |b| Err::<String, _>(text(b).into())).doc("Fails with its input."),
        grid::task("crash", || panic!("on purpose")).doc("Panics."),
        grid::task("log", || {
            eprintln!("one\ntwo");
            Ok(())
        })
        .doc("Writes to the log."),
        grid::task("progress", progress).doc("Tells its progress."),
        grid::task("metrics", metrics).doc("Counts and measures."),
        grid::task("kv", kv).doc("Works on the realm's map."),
        grid::raw("secret", move |b| grid::secret(&text(b))).doc("Tells a secret."),
        grid::task("data", data).doc("Prints granted data."),
        grid::task("random", random).doc("Prints random bytes."),
        grid::task("clock", clock).doc("Prints the time."),
        grid::func("fib", fib).doc("Computes Fibonacci numbers by \"tasks\"."),
        grid::task("children", children).doc("Has others run."),
        grid::raw("fetch", fetch).doc("Sends a request."),
    ])
}
