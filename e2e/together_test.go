//go:build unix

package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// All nodes of a realm are ended at the same moment, as when a lab is shut down, and started again together with one more. They are
// one realm, with what it had.
func TestEndTogether(t *testing.T) {
	t.Parallel()
	for _, private := range []bool{false, true} {
		t.Run(map[bool]string{false: "open", true: "private"}[private], func(t *testing.T) {
			t.Parallel()
			w := NewWorld(t)
			var join []string
			if private {
				w.swarm = ""
				w.Must("swarm", "init", "--name", "lab", "--home", filepath.Join(w.dir, "a"))
			}
			nodes := []*Node{w.Up("a")}
			if private {
				join = []string{"--join", strings.TrimSpace(nodes[0].Must("swarm", "invite", "--role", "voter", "--uses", "2"))}
			}
			nodes = append(nodes, upTogether(w, join, "b", "c")...)
			realmOf(t, 3, nodes...)
			nodes[0].Must("kv", "put", "k", "v")
			var all sync.WaitGroup
			for _, n := range nodes {
				if err := n.cmd.Process.Signal(os.Interrupt); err != nil {
					t.Fatal(err)
				}
			}
			for _, n := range nodes {
				all.Go(func() { <-n.done })
			}
			all.Wait()
			nodes = upTogether(w, nil, "a", "b", "c")
			if private { // the ports are others
				join = []string{"--join", strings.TrimSpace(nodes[0].Must("swarm", "invite"))}
			}
			nodes = append(nodes, w.Up("d", join...))
			realmOf(t, 3, nodes...)
			for _, n := range nodes {
				Eventually(t, "it has what the realm had", func(context.Context) error {
					if r := n.Grid("kv", "get", "k"); r.Exit != 0 || strings.TrimSpace(r.Stdout) != "v" {
						return fmt.Errorf("%+v", r)
					}
					return nil
				})
			}
		})
	}
}

// upTogether starts nodes at the same moment.
func upTogether(w *World, flags []string, names ...string) []*Node {
	w.t.Helper()
	nodes := make([]*Node, len(names))
	for i, name := range names {
		nodes[i] = w.launchUp(name, flags...)
	}
	for i, n := range nodes {
		n.answers(names[i])
	}
	return nodes
}
