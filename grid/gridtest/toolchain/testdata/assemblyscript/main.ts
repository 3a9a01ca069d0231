export function double(n: i32): i32 { return 2 * n; }
