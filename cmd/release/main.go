// Command release builds what a release consists of, for each system and processor: an archive with the command, its manual and its
// completions; for Linux also Debian and RPM packages with a systemd unit; and SHA256SUMS of them all.
//
//	go run ./cmd/release                             into dist
//	go run ./cmd/release --only linux/amd64 --out DIR
//
// Two runs at one commit with one version of Go give the same bytes: times are the commit's, or $SOURCE_DATE_EPOCH. It publishes
// nothing, and signs nothing.
package main

import (
	"compress/gzip"
	"context"
	"crypto/sha256"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	out := flag.String("out", "dist", "the `FOLDER` for what is built; it must be empty, or not there")
	only := flag.String("only", "", "build only for these, `OS/ARCH,...`")
	flag.Parse()
	if err := release(ctx, *out, *only, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
}

// target is a system and a processor, by Go's names.
type target struct{ os, arch string }

func (t target) String() string { return t.os + "/" + t.arch }

// targets are those of a release.
var targets = []target{{"darwin", "amd64"}, {"darwin", "arm64"}, {"linux", "amd64"}, {"linux", "arm64"}, {"windows", "amd64"}, {"windows", "arm64"}}

// choose finds those that a list names; "" names all.
func choose(only string) (list []target, err error) {
	if only == "" {
		return targets, nil
	}
	for name := range strings.SplitSeq(only, ",") {
		i := slices.IndexFunc(targets, func(t target) bool { return t.String() == name })
		if i < 0 {
			return nil, fmt.Errorf("--only %q: it is none of %v", name, targets)
		}
		list = append(list, targets[i])
	}
	return list, nil
}

func release(ctx context.Context, out, only string, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("%q is one argument too many", args[0])
	}
	list, err := choose(only)
	if err != nil {
		return err
	}
	root, err := output(ctx, "go", "list", "-m", "-f", "{{.Dir}}")
	if err != nil {
		return err
	}
	when, err := stamp(ctx, root)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	if left, err := os.ReadDir(out); err != nil {
		return err
	} else if len(left) > 0 {
		return fmt.Errorf("%s holds %s: it must be empty", out, left[0].Name())
	}
	tmp, err := os.MkdirTemp("", "grid-release-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	var sums strings.Builder
	for _, t := range list {
		binary := filepath.Join(tmp, "grid-"+t.os+"-"+t.arch)
		if err := build(ctx, root, t, binary); err != nil {
			return err
		}
		files, err := contents(root, t, binary, when, gzip.BestCompression)
		if err != nil {
			return err
		}
		for name, data := range files {
			if err := os.WriteFile(filepath.Join(out, name), data, 0o644); err != nil {
				return err
			}
			fmt.Fprintf(&sums, "%x  %s\n", sha256.Sum256(data), name)
			fmt.Println(filepath.Join(out, name))
		}
	}
	lines := slices.SortedFunc(strings.Lines(sums.String()), func(a, b string) int { return strings.Compare(a[66:], b[66:]) })
	return os.WriteFile(filepath.Join(out, "SHA256SUMS"), []byte(strings.Join(lines, "")), 0o644)
}

// build compiles the command as docs/supply-chain.md says.
func build(ctx context.Context, root string, t target, to string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", to, "./cmd/grid")
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "GOFLAGS=", "CGO_ENABLED=0", "GOOS="+t.os, "GOARCH="+t.arch)
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("build for %s: %w", t, err)
	}
	return nil
}

// stamp is the time that all files have.
func stamp(ctx context.Context, root string) (time.Time, error) {
	text := os.Getenv("SOURCE_DATE_EPOCH")
	if text == "" {
		var err error
		if text, err = output(ctx, "git", "-C", root, "log", "-1", "--format=%ct"); err != nil {
			return time.Time{}, fmt.Errorf("the time of the commit is not known; set SOURCE_DATE_EPOCH: %w", err)
		}
	}
	sec, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("the time %q is not in seconds: %w", text, err)
	}
	return time.Unix(sec, 0).UTC(), nil
}

func output(ctx context.Context, name string, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, name, args...).Output()
	return strings.TrimSpace(string(out)), err
}
