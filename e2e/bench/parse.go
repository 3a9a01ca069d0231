package main

import (
	"regexp"
	"strconv"
	"strings"
)

// Bounds of what a benchmark prints: what is beyond is not looked at.
const (
	maxOutput = 4 << 20
	maxCount  = 100
	maxUnits  = 64 // in a line
)

// measured is what a benchmark printed: for each of its parts by name, without "Benchmark", and each unit, one figure a count.
type measured struct {
	figures map[string]map[string][]float64
	// why some have no figures: what they said when they skipped or failed.
	skipped, failed map[string]string
}

var ended = regexp.MustCompile(`^\s*--- (SKIP|FAIL): Benchmark(\S+)`)

var logged = regexp.MustCompile(`^\s+\S+\.go:\d+: (.+)`)

// parse reads the output of `go test -v -bench`. Lines it does not know are no business of its own.
func parse(output string) measured {
	m := measured{map[string]map[string][]float64{}, map[string]string{}, map[string]string{}}
	log := "" // what the benchmark said first that runs
	for line := range strings.SplitSeq(output[:min(len(output), maxOutput)], "\n") {
		if e := ended.FindStringSubmatch(line); e != nil {
			why := m.skipped
			if e[1] == "FAIL" {
				why = m.failed
			}
			why[bare(e[2])], log = log, ""
			continue
		}
		if strings.HasPrefix(line, "Benchmark") {
			log = ""
		} else if said := logged.FindStringSubmatch(line); said != nil && log == "" {
			log = short(said[1])
		}
		name, figures, ok := parseLine(line)
		if !ok {
			continue
		}
		if m.figures[name] == nil {
			m.figures[name] = map[string][]float64{}
		}
		for unit, v := range figures {
			if len(m.figures[name][unit]) < maxCount {
				m.figures[name][unit] = append(m.figures[name][unit], v)
			}
		}
	}
	return m
}

// parseLine reads a line of figures: a name, how often it ran, and pairs of a figure and its unit.
func parseLine(line string) (name string, figures map[string]float64, ok bool) {
	rest, ok := strings.CutPrefix(line, "Benchmark")
	if !ok {
		return "", nil, false
	}
	fields := strings.Fields(rest)
	if len(fields) < 4 || len(fields)%2 != 0 || len(fields) > 2+2*maxUnits {
		return "", nil, false
	}
	if _, err := strconv.ParseUint(fields[1], 10, 63); err != nil {
		return "", nil, false
	}
	figures = map[string]float64{}
	for i := 2; i < len(fields); i += 2 {
		v, err := strconv.ParseFloat(fields[i], 64)
		if err != nil || v-v != 0 { // infinite, or no number
			return "", nil, false
		}
		figures[fields[i+1]] = v
	}
	return bare(fields[0]), figures, true
}

// bare is a name without the number of processors, which go test appends where there is more than one.
func bare(name string) string {
	if i := strings.LastIndexByte(name, '-'); i > 0 {
		if _, err := strconv.ParseUint(name[i+1:], 10, 16); err == nil {
			return name[:i]
		}
	}
	return name
}

// short keeps a text to what fits a table.
func short(text string) string {
	const most = 160
	if r := []rune(text); len(r) > most {
		return string(r[:most-1]) + "…"
	}
	return text
}
