//! The programs of the corpus: what Rust programs do with its standard library. c/corpus.c has the same.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::path::Path;
use std::{env, fs, io, process, thread, time};

type Result = std::result::Result<(), Box<dyn std::error::Error>>;

/// Numbers is a linear congruential generator.
struct Numbers(u32);

impl Numbers {
    fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(1664525).wrapping_add(1013904223);
        self.0
    }
}

fn copy(from: &mut dyn Read, to: &mut dyn Write) -> io::Result<u64> {
    let mut buffer = vec![0; 64 << 10];
    let mut total = 0;
    loop {
        let n = from.read(&mut buffer)?;
        if n == 0 {
            return Ok(total);
        }
        to.write_all(&buffer[..n])?;
        total += n as u64;
    }
}

fn walk(dir: &Path) -> Result {
    let mut entries = fs::read_dir(dir)?.collect::<std::result::Result<Vec<_>, _>>()?;
    entries.sort_by_key(|e| e.file_name());
    for e in entries {
        if e.file_type()?.is_dir() {
            println!("{}/", e.path().display());
            walk(&e.path())?;
        } else {
            println!("{} {}", e.path().display(), e.metadata()?.len());
        }
    }
    Ok(())
}

fn ackermann(m: u32, n: u32) -> u32 {
    match (m, n) {
        (0, n) => n + 1,
        (m, 0) => ackermann(m - 1, 1),
        (m, n) => ackermann(m - 1, ackermann(m, n - 1)),
    }
}

/// Takes, grows and gives back blocks at random, and looks whether each still has what it held.
fn memory(rounds: usize) {
    let mut numbers = Numbers(1);
    let mut blocks: Vec<(u8, Vec<u8>)> = vec![(0, vec![]); 256];
    let mut sum = 0u32;
    for _ in 0..rounds {
        let (fill, block) = &mut blocks[(numbers.next() >> 24) as usize];
        let size = (numbers.next() >> 17) as usize;
        assert!(block.iter().step_by(97).all(|b| b == fill));
        sum = sum.wrapping_mul(31).wrapping_add(block.len() as u32);
        *fill = (numbers.next() >> 24) as u8;
        block.resize(size, 0);
        block.shrink_to_fit();
        block.fill(*fill);
    }
    println!("{}", sum);
}

fn sort(n: usize) {
    let mut numbers = Numbers(1);
    let mut list: Vec<u32> = (0..n).map(|_| numbers.next()).collect();
    list.sort_unstable();
    let sum = list.iter().fold(0u32, |sum, x| sum.wrapping_mul(31).wrapping_add(*x));
    println!("{} {} {}", list[0], list[n - 1], sum);
}

/// Counts the words of stdin.
fn words() -> Result {
    let mut text = String::new();
    io::stdin().read_to_string(&mut text)?;
    let mut counts = HashMap::new();
    for word in text.split_whitespace() {
        *counts.entry(word).or_insert(0) += 1;
    }
    let mut list: Vec<_> = counts.into_iter().collect();
    list.sort();
    for (word, n) in list {
        println!("{} {}", word, n);
    }
    Ok(())
}

fn world() -> Result {
    // The keys of hash maps are random.
    use std::hash::{BuildHasher, Hasher};
    print!("{:016x}", std::collections::hash_map::RandomState::new().build_hasher().finish());
    let before = time::SystemTime::now();
    thread::sleep(time::Duration::from_secs(3600));
    print!(" {}", before.duration_since(time::UNIX_EPOCH)?.as_secs());
    println!(" {}", before.elapsed()?.as_secs());
    Ok(())
}

#[inline(never)]
fn the_innermost(args: &[String]) {
    if !args.is_empty() {
        process::abort();
    }
}

#[inline(never)]
fn the_caller(args: &[String]) {
    the_innermost(args);
    println!("not reached");
}

fn main() -> Result {
    let args: Vec<String> = env::args().skip(1).collect();
    let arg = |i: usize| args.get(i).map(|s| s.as_str()).unwrap_or("");
    match arg(0) {
        "args" => args[1..].iter().for_each(|a| println!("[{}]", a)),
        "env" => env::vars().for_each(|(name, value)| println!("{}={}", name, value)),
        "cat" => {
            copy(&mut io::stdin().lock(), &mut io::stdout().lock())?;
        }
        "read" => println!("{}", copy(&mut fs::File::open(arg(1))?, &mut io::sink())?),
        "copy" => {
            let mut to = fs::OpenOptions::new().write(true).create_new(true).open(arg(2))?;
            println!("{}", copy(&mut fs::File::open(arg(1))?, &mut to)?);
        }
        "walk" => walk(Path::new(arg(1)))?,
        "ackermann" => println!("{}", ackermann(2, arg(1).parse()?)),
        "memory" => memory(arg(1).parse()?),
        "sort" => sort(arg(1).parse()?),
        "words" => words()?,
        "exit" => {
            print!("exits");
            io::stdout().flush()?;
            process::exit(arg(1).parse()?)
        }
        "world" => world()?,
        "trap" => the_caller(&args),
        "panic" => panic!("on purpose"),
        other => {
            eprintln!("no such program: {}", other);
            process::exit(2)
        }
    }
    Ok(())
}
