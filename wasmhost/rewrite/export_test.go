package rewrite

// Plainly has every result of arithmetic made canonical at once, and without jumps.
func Plainly(o Options) Options {
	o.plain = true
	return o
}
