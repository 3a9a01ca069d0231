package work

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"unicode/utf8"
)

func TestCount(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"1.txt": "One two, ONE;\ttwo_three", "2.txt": "École école 4\xffone", "3.md": "nobody asks"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, err := Count(dir)
	if want := map[string]int{"one": 3, "two": 2, "three": 1, "école": 2, "4": 1}; err != nil || !maps.Equal(got, want) {
		t.Errorf("%v, %v, want %v", got, err, want)
	}
	if lines := Table(got); !slices.Equal(lines, []string{"4\t1", "one\t3", "three\t1", "two\t2", "école\t2"}) {
		t.Errorf("%q", lines)
	}
}

// TestText: it is whole, of many words, and the same when it is written again.
func TestText(t *testing.T) {
	one, two := t.TempDir(), t.TempDir()
	for _, dir := range []string{one, two} {
		if err := Text(dir, 3, 20_000); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"0000.txt", "0001.txt", "0002.txt"} {
		a, err := os.ReadFile(filepath.Join(one, name))
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(filepath.Join(two, name))
		if err != nil || string(a) != string(b) || !utf8.Valid(a) || len(a) < 19_000 || len(a) > 20_012 {
			t.Errorf("%s: %d bytes, and then %d, %v", name, len(a), len(b), err)
		}
	}
	counts, err := Count(one)
	if err != nil || len(counts) < 500 {
		t.Errorf("%d words, %v", len(counts), err)
	}
}

func TestSkewed(t *testing.T) {
	for name, list := range map[string][]int{"mixed": Mixed(), "long last": LongLast()} {
		long, sum := 0, 0
		for _, ms := range list {
			if sum += ms; ms == 1000 {
				long++
			}
		}
		if long != 10 || sum != 14_000 || (list[len(list)-1] == 1000) != (name == "long last") {
			t.Errorf("%s: %d long ones, %d ms in all", name, long, sum)
		}
	}
}

func TestProcess(t *testing.T) {
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		t.Skip("this needs /proc:", err)
	}
	before, err := Processor(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for spent := before; spent == before; { // until it is a tick more
		if spent, err = Processor(os.Getpid()); err != nil {
			t.Fatal(err)
		}
	}
	if m, err := Memory(os.Getpid()); err != nil || m < 1<<20 || m > 1<<34 {
		t.Errorf("%d bytes, %v", m, err)
	}
	if _, err := Processor(-1); err == nil {
		t.Error("there is no such process")
	}
}
