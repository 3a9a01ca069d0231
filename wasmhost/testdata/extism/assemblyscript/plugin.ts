// A plug-in for Extism, built with its AssemblyScript PDK.
import { Config, Host, Var } from "@extism/as-pdk";

function abort(message: string | null, file: string | null, line: u32, column: u32): void {}

export function greet(): i32 {
  const greeting = Config.get("greeting");
  Var.set("name", Uint8Array.wrap(String.UTF8.encode(Host.inputString())));
  const name = Var.get("name");
  if (name == null || name.length == 0) {
    return 4;
  }
  Host.outputString((greeting == null ? "Hello" : greeting) + ", " + String.UTF8.decode(name.buffer) + "!");
  return 0;
}
