//! The least program that says something.

fn main() {
    println!("hello");
}
