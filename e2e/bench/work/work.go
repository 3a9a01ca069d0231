// Package work is what Grid and its peers are both measured by, so that the figures beside one another are of the same work: the text whose words are counted
// and what they come to, tasks of unlike length, and what a process takes.
package work

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"
)

// Mixed is how many milliseconds tasks sleep: 400 of them 10, and 10 a second, which lie between the others.
func Mixed() []int {
	ms := make([]int, 410)
	for i := range ms {
		if ms[i] = 10; i%41 == 0 {
			ms[i] = 1000
		}
	}
	return ms
}

// LongLast is the same with those of a second at the end.
func LongLast() []int { return slices.Sorted(slices.Values(Mixed())) }

// Text writes so many files of a size into a folder, of words of which few are frequent and many are rare, as in any language. It is the same each time.
func Text(dir string, files, size int) error {
	r := rand.New(rand.NewPCG(1, 1))
	words := make([]string, 50_000)
	for i := range words {
		word := make([]byte, 2+r.IntN(9))
		for k := range word {
			word[k] = 'a' + byte(r.IntN(26))
		}
		if words[i] = string(word); i%20 == 0 {
			words[i] = "É" + words[i]
		}
	}
	zipf := rand.NewZipf(r, 1.1, 4, uint64(len(words)-1))
	var text bytes.Buffer
	for i := range files {
		text.Reset()
		for line := 0; text.Len() < size-12; line++ {
			word := words[zipf.Uint64()]
			if line%12 == 0 {
				_, n := utf8.DecodeRuneInString(word)
				word = strings.ToUpper(word[:n]) + word[n:]
			}
			text.WriteString(word)
			text.WriteByte(" \n"[min(line%12/11, 1)])
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%04d.txt", i)), text.Bytes(), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// Count counts the words of a folder's files by a plain program on all processors. A word is a run of letters and digits, in lower case.
func Count(dir string) (map[string]int, error) {
	names, err := filepath.Glob(filepath.Join(dir, "*.txt"))
	if err != nil {
		return nil, err
	}
	next := make(chan string, len(names))
	for _, name := range names {
		next <- name
	}
	close(next)
	parts, failed := make([]map[string]int, runtime.GOMAXPROCS(0)), make([]error, runtime.GOMAXPROCS(0))
	var all sync.WaitGroup
	for i := range parts {
		all.Go(func() {
			parts[i] = map[string]int{}
			for name := range next {
				data, err := os.ReadFile(name)
				if err != nil {
					failed[i] = err
					return
				}
				for _, w := range strings.FieldsFunc(string(data), func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) }) {
					parts[i][strings.ToLower(w)]++
				}
			}
		})
	}
	all.Wait()
	for _, part := range parts[1:] {
		for w, n := range part {
			parts[0][w] += n
		}
	}
	return parts[0], errors.Join(failed...)
}

// Table is counts as lines of a word, a tab and its count, in the order of words.
func Table(counts map[string]int) []string {
	lines := make([]string, 0, len(counts))
	for w, n := range counts {
		lines = append(lines, fmt.Sprintf("%s\t%d", w, n))
	}
	slices.Sort(lines)
	return lines
}

// Tabled reads such lines, in any order, and gives them in order.
func Tabled(file string) ([]string, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	lines := strings.Split(strings.TrimSuffix(string(data), "\n"), "\n")
	slices.Sort(lines)
	return lines, nil
}

// Processor is the time that a process has had of processors, in steps of some milliseconds. It needs /proc, as of Linux.
func Processor(pid int) (sum time.Duration, err error) {
	name := fmt.Sprintf("/proc/%d/stat", pid)
	stat, err := os.ReadFile(name)
	if err != nil {
		return 0, err
	}
	i := bytes.LastIndex(stat, []byte(") ")) // the name before may contain anything
	fields := strings.Fields(string(stat[i+1:]))
	if len(fields) < 13 {
		return 0, fmt.Errorf("%s is %q", name, stat)
	}
	for _, f := range fields[11:13] { // utime and stime, in hundredths of a second
		ticks, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", name, err)
		}
		sum += time.Duration(ticks) * 10 * time.Millisecond
	}
	return sum, nil
}

// Memory is how many bytes of memory a process has now, those that it shares with others included. It needs /proc.
func Memory(pid int) (bytes int64, err error) {
	name := fmt.Sprintf("/proc/%d/status", pid)
	status, err := os.ReadFile(name)
	if err != nil {
		return 0, err
	}
	_, rss, _ := strings.Cut(string(status), "VmRSS:")
	if _, err := fmt.Sscan(rss, &bytes); err != nil {
		return 0, fmt.Errorf("%s tells no VmRSS: %w", name, err)
	}
	return bytes << 10, nil
}
