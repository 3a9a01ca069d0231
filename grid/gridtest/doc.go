// Package gridtest holds the contract suite of each interface in package grid: what every implementation
// must do, as tests that each of them runs. It tests behaviour that callers rely on, not how it comes
// about, and implements nothing itself.
package gridtest
