//! Counts letters: a function of bytes, typed ones, and a map with its reduce over many files.
mod grid;

use grid::{Emitter, Input, Result};

fn shout(input: Vec<u8>) -> Result<Vec<u8>> {
    Ok(input.to_ascii_uppercase())
}

fn square(n: i64) -> Result<i64> {
    Ok(n.checked_mul(n).ok_or_else(|| format!("{} is too large", n))?)
}

fn half(x: f64) -> Result<f64> {
    Ok(x / 2.0)
}

fn letters(input: &mut Input, out: &mut Emitter<u64>) -> Result {
    for c in input.rest()? {
        if c.is_ascii_alphabetic() {
            out.emit([c.to_ascii_lowercase()], 1);
        }
    }
    Ok(())
}

fn print(all: Vec<(Vec<u8>, u64)>) -> Result {
    for (key, n) in all {
        println!("{} {}", String::from_utf8_lossy(&key), n);
    }
    Ok(())
}

#[no_mangle]
extern "C" fn grid_call() -> i32 {
    grid::call(&[
        grid::raw("shout", shout).doc("Makes letters upper case."),
        grid::func("square", square).doc("Multiplies a number by itself."),
        grid::func("half", half).doc("Halves a number."),
        grid::map("letters", |a, b| *a += b, letters).doc("Counts the letters of its input files."),
        grid::reduce("print", |a, b| *a += b, print).doc("Prints what letters counted."),
    ])
}
