// Counts letters: a function of text, typed ones, and a map with its reduce over many files.
import { Emitter, Input, Pair, func, map, reduce, stdout } from "./grid";
export { grid_call } from "./grid";

func<string, string>("shout", "Makes letters upper case.", (text) => text.toUpperCase());

func<i64, i64>("square", "Multiplies a number by itself.", (n) => n * n);

func<f64, f64>("half", "Halves a number.", (x) => x / 2);

map<i64>("letters", "Counts the letters of its input files.", (a, b) => a + b, (input: Input, out: Emitter<i64>) => {
  const text = input.text().toLowerCase();
  for (let i = 0; i < text.length; i++) {
    const c = text.charAt(i);
    if (c >= "a" && c <= "z") out.emit(c, 1);
  }
});

reduce<i64>("print", "Prints what letters counted.", (a, b) => a + b, (all: Pair<i64>[]) => {
  for (let i = 0; i < all.length; i++) stdout.line(all[i].key + " " + all[i].value.toString());
});
