package sdk

import (
	"encoding/binary"
	"math/bits"
	"unicode"
	"unicode/utf8"
)

// Words calls f for each word of text: a run of letters and digits, in lower case. It changes text,
// and the word it passes is often a part of it: f may use it until the next call of f, and must not
// change it.
//
// Eight bytes of ASCII are looked at together, since each step of a loop costs a guest as much as a
// dozen operations.
func Words(text []byte, f func(word []byte)) {
	const ones, high = 0x0101010101010101, 0x8080808080808080 // in every byte 1, and its highest bit
	var other []byte                                          // a word with other characters than ASCII
	for i := 0; i < len(text); {
		start := i
		for {
			if len(text)-i < 8 {
				for i < len(text) && asciiWord(&text[i]) {
					i++
				}
				break
			}
			x := binary.LittleEndian.Uint64(text[i:])
			low := x &^ high
			// The highest bit of each byte tells whether it is at least one character and not above another.
			letter := low | 0x20*ones
			letter = (letter + (0x80-'a')*ones) &^ (letter + (0x7f-'z')*ones)
			digit := (low + (0x80-'0')*ones) &^ (low + (0x7f-'9')*ones)
			word := (letter | digit) &^ x & high
			binary.LittleEndian.PutUint64(text[i:], x|letter&word>>2) // 0x80 becomes 0x20, which makes lower case
			if word != high {
				i += bits.TrailingZeros64(word^high) / 8
				break
			}
			i += 8
		}
		switch {
		case i < len(text) && text[i] >= utf8.RuneSelf:
			i, other = unicodeWord(text, start, other[:0])
			if len(other) > 0 {
				f(other)
			}
			continue
		case i > start:
			f(text[start:i])
		}
		i++ // what ends a word is in none
	}
}

// asciiWord reports whether a byte is an ASCII letter, which it makes lower case, or digit.
func asciiWord(c *byte) bool {
	if 'A' <= *c && *c <= 'Z' {
		*c += 'a' - 'A'
	}
	return 'a' <= *c && *c <= 'z' || '0' <= *c && *c <= '9'
}

// unicodeWord appends to word one that has other characters than ASCII, and tells where it ends.
func unicodeWord(text []byte, start int, word []byte) (int, []byte) {
	i := start
	for i < len(text) {
		r, size := utf8.DecodeRune(text[i:])
		if !unicode.IsLetter(r) && !unicode.IsDigit(r) {
			if i == start {
				i += size // at least one character further
			}
			break
		}
		word = utf8.AppendRune(word, unicode.ToLower(r))
		i += size
	}
	return i, word
}
