// How long words are: a histogram over any number of texts.
import { Emitter, Input, Pair, map, reduce, stdout } from "../../sdk/assemblyscript/grid";
export { grid_call } from "../../sdk/assemblyscript/grid";

// The length of a word is counted in characters: letters, digits, and all that is not ASCII.
function inWord(c: i32): bool {
  return (c >= 0x30 && c <= 0x39) || (c >= 0x41 && c <= 0x5a) || (c >= 0x61 && c <= 0x7a) || c >= 0x80;
}

map<i64>("lengths", "Counts words by their length.", (a, b) => a + b, (input: Input, out: Emitter<i64>) => {
  for (let line = input.line(); line !== null; line = input.line()) {
    let n = 0;
    for (let i = 0; i <= line.length; ) {
      const c = i < line.length ? line.codePointAt(i) : 0;
      i += c > 0xffff ? 2 : 1;
      if (inWord(c)) {
        n++;
      } else if (n > 0) {
        out.emit(n.toString().padStart(3), 1); // so that keys are in order of lengths
        n = 0;
      }
    }
  }
});

reduce<i64>("histogram", "Draws what lengths counted.", (a, b) => a + b, (all: Pair<i64>[]) => {
  let most: i64 = 1;
  for (let i = 0; i < all.length; i++) most = max(most, all[i].value);
  for (let i = 0; i < all.length; i++) {
    const bar = "#".repeat(<i32>((all[i].value * 40 + most - 1) / most));
    stdout.line(all[i].key + " " + bar.padEnd(40) + " " + all[i].value.toString());
  }
});
