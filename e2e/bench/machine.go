package main

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
)

// machine is where figures come from. What is not known is empty.
type machine struct {
	CPU    string `json:"cpu"`
	Cores  int    `json:"cores"`
	Memory uint64 `json:"memory"` // bytes
	Kernel string `json:"kernel"`
	System string `json:"system"`
	Go     string `json:"go"`
}

func thisMachine() machine {
	kib, _, _ := strings.Cut(field("/proc/meminfo", "MemTotal"), " ")
	memory, _ := strconv.ParseUint(kib, 10, 53)
	return machine{
		CPU: field("/proc/cpuinfo", "model name"), Cores: runtime.NumCPU(), Memory: memory << 10, Kernel: firstWord("/proc/sys/kernel/osrelease"),
		System: runtime.GOOS + "/" + runtime.GOARCH, Go: runtime.Version(),
	}
}

// String is the machine in a line.
func (m machine) String() string {
	cpu := m.CPU
	if cpu == "" {
		cpu = "unknown processor"
	}
	return fmt.Sprintf("%s, %d processors, %s, %s %s, %s", cpu, m.Cores, amount(float64(m.Memory), "B"), m.System, m.Kernel, m.Go)
}

// load is how many threads ran or wanted to in the last minute; 0 where that is not to be had.
func load() float64 {
	l, _ := strconv.ParseFloat(firstWord("/proc/loadavg"), 64)
	return l
}

func firstWord(file string) string {
	data, _ := os.ReadFile(file)
	if words := strings.Fields(string(data)); len(words) > 0 {
		return words[0]
	}
	return ""
}

// field is the first value of a name in a file of lines of names and values.
func field(file, name string) string {
	data, _ := os.ReadFile(file)
	for line := range strings.Lines(string(data)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}
