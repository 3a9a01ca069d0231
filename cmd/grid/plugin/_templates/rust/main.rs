//! It counts the words of texts: of one, by a function of bytes, or of any number of files on all nodes, by a map and a
//! reduce.
#[path = "sdk/grid.rs"]
mod grid;

use grid::{error, Emitter, Input, Result};

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty())
}

/// For one call: its whole input, and what it gives is the result. An error is told to the caller.
fn count(input: Vec<u8>) -> Result<String> {
    let n = words(&String::from_utf8_lossy(&input)).count();
    if n == 0 {
        return Err(error("there is no word in the text"));
    }
    eprintln!("counted {} words", n);
    Ok(format!("{}\n", n))
}

/// Called for each input file. What it emits is combined by adding.
fn count_words(input: &mut Input, out: &mut Emitter<u64>) -> Result {
    for word in words(&String::from_utf8_lossy(&input.rest()?)) {
        out.emit(word.to_lowercase(), 1);
    }
    Ok(())
}

/// Called once, with every key in order.
fn print_counts(all: Vec<(Vec<u8>, u64)>) -> Result {
    for (word, n) in all {
        println!("{} {}", n, String::from_utf8_lossy(&word));
    }
    Ok(())
}

#[no_mangle]
extern "C" fn grid_call() -> i32 {
    grid::call(&[
        grid::raw("count", count).doc("Counts the words of one text."),
        grid::map("map", |a, b| *a += b, count_words).doc("Counts the words of input files, for reduce."),
        grid::reduce("reduce", |a, b| *a += b, print_counts).doc("Adds up what map has counted, and prints it in order of words."),
    ])
}
