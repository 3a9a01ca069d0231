package wasmhost

import "testing"

func TestPlainStack(t *testing.T) {
	const stack = `__rust_start_panic(i32) i32
_ZN3std9panicking20rust_panic_with_hook17h6ac9107c42850161E(i32,i32,i32)
_ZN3std9panicking19begin_panic_handler28_$u7b$$u7b$closure$u7d$$u7d$17h8ef066ac4d1e7406E(i32)
_ZN6plugin4grid4func28_$u7b$$u7b$closure$u7d$$u7d$17hf1df37bc30abd344E.llvm.7550805090878182807(i32,i32)
_ZN61_$LT$alloc..vec..Vec$LT$T$GT$$u20$as$u20$core..fmt..Debug$GT$3fmt17h0123456789abcdefE(i32) i32
_ZN5boost4callEv(i32)
_ZN99x17h0123456789abcdefE(i32)
_ZN
main.main.func2 (main.go:22)
_ZN4core5abort17h0123456789abcdefE`
	const want = `__rust_start_panic(i32) i32
std::panicking::rust_panic_with_hook(i32,i32,i32)
std::panicking::begin_panic_handler::{{closure}}(i32)
plugin::grid::func::{{closure}}(i32,i32)
<alloc::vec::Vec<T> as core::fmt::Debug>::fmt(i32) i32
_ZN5boost4callEv(i32)
_ZN99x17h0123456789abcdefE(i32)
_ZN
main.main.func2 (main.go:22)
core::abort`
	if got := plainStack(stack); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if got := plainStack("main.main(i32) i32"); got != "main.main(i32) i32" {
		t.Errorf("got %q", got)
	}
}

func FuzzPlainStack(f *testing.F) {
	f.Add("_ZN4core5abort17h0123456789abcdefE(i32)\n_ZN1a")
	f.Fuzz(func(t *testing.T, stack string) { plainStack(stack) })
}
