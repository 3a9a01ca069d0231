// A library in Rust, as its author would write one for the grid.
use std::io::{self, BufRead, Write};
use std::sync::atomic::{AtomicU32, Ordering};

static CALLS: AtomicU32 = AtomicU32::new(0);

/// count tells how often it was called, which is once.
#[no_mangle]
pub extern "C" fn count() {
    println!("{}", CALLS.fetch_add(1, Ordering::SeqCst) + 1);
}

/// lines counts those of stdin, and gives 3 when there are none.
#[no_mangle]
pub extern "C" fn lines() -> i32 {
    let n = io::stdin().lock().lines().count();
    println!("{}", n);
    io::stdout().flush().unwrap();
    if n > 0 { 0 } else { 3 }
}
