//! Statistics of the columns of CSV files: how many numbers there are in each, their sum, mean, least and greatest.
#[path = "../../sdk/rust/grid.rs"]
mod grid;

use grid::{Emitter, Input, Json, Result};
use std::io::BufRead;

/// What is known of some numbers. It travels from map to reduce as a JSON array.
struct Stats {
    n: u64,
    sum: f64,
    min: f64,
    max: f64,
}

impl Json for Stats {
    fn from_json(text: &str) -> Option<Stats> {
        let list: Vec<f64> = text.strip_prefix('[')?.strip_suffix(']')?.split(',').map(f64::from_json).collect::<Option<_>>()?;
        match list[..] {
            [n, sum, min, max] => Some(Stats { n: n as u64, sum, min, max }),
            _ => None,
        }
    }

    fn to_json(&self) -> String {
        format!("[{},{},{},{}]", self.n, self.sum.to_json(), self.min.to_json(), self.max.to_json())
    }
}

fn combine(a: &mut Stats, b: Stats) {
    a.n += b.n;
    a.sum += b.sum;
    a.min = a.min.min(b.min);
    a.max = a.max.max(b.max);
}

/// Divides a line at its commas that are not in quotes.
fn fields(line: &str) -> Vec<String> {
    let (mut all, mut field, mut quoted) = (Vec::new(), String::new(), false);
    let mut rest = line.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '"' if quoted && rest.peek() == Some(&'"') => field.extend(rest.next()),
            '"' => quoted = !quoted,
            ',' if !quoted => all.push(std::mem::take(&mut field)),
            _ => field.push(c),
        }
    }
    all.push(field);
    all
}

fn sum(input: &mut Input, out: &mut Emitter<Stats>) -> Result {
    let mut names = Vec::new();
    for (i, line) in input.lines().enumerate() {
        let line = line?;
        let values = fields(line.trim_end_matches('\r'));
        if i == 0 {
            names = values;
            continue;
        }
        if values.len() > names.len() {
            return Err(format!("line {}: {} fields, but {} columns", i + 1, values.len(), names.len()).into());
        }
        for (name, value) in names.iter().zip(values) {
            match value.trim().parse::<f64>() {
                Ok(v) if v.is_finite() => out.emit(name, Stats { n: 1, sum: v, min: v, max: v }),
                _ => grid::count("not_numbers", 1),
            }
        }
    }
    Ok(())
}

fn table(all: Vec<(Vec<u8>, Stats)>) -> Result {
    println!("column,n,sum,mean,min,max");
    for (name, s) in all {
        let mut name = String::from_utf8(name)?;
        if name.contains([',', '"', '\n']) {
            name = format!("\"{}\"", name.replace('"', "\"\""));
        }
        println!("{},{},{},{},{},{}", name, s.n, s.sum, s.sum / s.n as f64, s.min, s.max);
    }
    Ok(())
}

#[no_mangle]
extern "C" fn grid_call() -> i32 {
    grid::call(&[
        grid::map("sum", combine, sum).doc("Collects the numbers of each column of CSV files, whose first lines name the columns."),
        grid::reduce("table", combine, table).doc("Prints what sum collected, as CSV."),
    ])
}
