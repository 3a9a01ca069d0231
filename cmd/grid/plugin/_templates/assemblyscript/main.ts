// It counts the words of texts: of one, by a function of text, or of any number of files on all nodes, by a map and a reduce.
import { Emitter, Input, Pair, fail, func, log, map, reduce, stdout } from "./sdk/grid";
export { grid_call } from "./sdk/grid";

function inWord(c: i32): bool {
  return (c >= 0x30 && c <= 0x39) || (c >= 0x41 && c <= 0x5a) || (c >= 0x61 && c <= 0x7a) || c >= 0x80;
}

function words(text: string): string[] {
  const list: string[] = [];
  let start = -1;
  for (let i = 0; i <= text.length; i++) {
    if (i < text.length && inWord(text.charCodeAt(i))) {
      if (start < 0) start = i;
    } else if (start >= 0) {
      list.push(text.substring(start, i));
      start = -1;
    }
  }
  return list;
}

// For one call: text in, text out. A failure is told to the caller.
func<string, string>("count", "Counts the words of one text.", (text) => {
  const n = words(text).length;
  if (n == 0) fail("there is no word in the text");
  log("counted " + n.toString() + " words");
  return n.toString() + "\n";
});

// Called for each input file. What it emits is combined by adding.
map<i64>("map", "Counts the words of input files, for reduce.", (a, b) => a + b, (input: Input, out: Emitter<i64>) => {
  const list = words(input.text().toLowerCase());
  for (let i = 0; i < list.length; i++) out.emit(list[i], 1);
});

// Called once, with every key in order.
reduce<i64>("reduce", "Adds up what map has counted, and prints it in order of words.", (a, b) => a + b, (all: Pair<i64>[]) => {
  for (let i = 0; i < all.length; i++) stdout.line(all[i].value.toString() + " " + all[i].key);
});
