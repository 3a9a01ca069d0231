package wasmhost

import (
	"strconv"
	"strings"
)

// plainStack has the functions of a guest's stack under the names that their authors gave them: Rust's compiler puts them
// into symbols such as _ZN4core9panicking9panic_fmt17h768731f43edd91bfE. What is none stays as it is.
func plainStack(stack string) string {
	if !strings.Contains(stack, rustMark) {
		return stack
	}
	lines := strings.Split(stack, "\n")
	for i, line := range lines {
		symbol, params, called := strings.Cut(line, "(")
		if name, ok := rustName(symbol); ok {
			if lines[i] = name; called {
				lines[i] += "(" + params
			}
		}
	}
	return strings.Join(lines, "\n")
}

// How symbols of Rust begin, and what their last part is: a hash, in hex behind an h.
const (
	rustMark = "_ZN"
	rustHash = len("h768731f43edd91bf")
)

// rustSigns are the signs of paths that cannot be in a symbol.
var rustSigns = strings.NewReplacer("$SP$", "@", "$BP$", "*", "$RF$", "&", "$LT$", "<", "$GT$", ">", "$LP$", "(", "$RP$", ")", "$C$", ",",
	"$u20$", " ", "$u27$", "'", "$u3d$", "=", "$u5b$", "[", "$u5d$", "]", "$u7b$", "{", "$u7d$", "}", "$u7e$", "~", "..", "::")

// rustName reads a path off a symbol: _ZN, parts with their lengths before them, of which the last one is a hash, and E.
func rustName(symbol string) (name string, ok bool) {
	rest, ok := strings.CutPrefix(symbol, rustMark)
	if !ok {
		return "", false
	}
	var parts []string
	for !strings.HasPrefix(rest, "E") {
		digits := len(rest) - len(strings.TrimLeft(rest, "0123456789"))
		n, err := strconv.ParseUint(rest[:digits], 10, 16)
		if err != nil || n == 0 || int(n) > len(rest)-digits {
			return "", false
		}
		part := rest[digits : digits+int(n)]
		rest = rest[digits+int(n):]
		if strings.HasPrefix(part, "_$") {
			part = part[1:]
		}
		parts = append(parts, rustSigns.Replace(part))
	}
	last := len(parts) - 1
	if last < 1 || len(parts[last]) != rustHash || parts[last][0] != 'h' || strings.Trim(parts[last][1:], "0123456789abcdef") != "" {
		return "", false
	}
	return strings.Join(parts[:last], "::"), true
}
