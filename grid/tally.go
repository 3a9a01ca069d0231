package grid

import (
	"cmp"
	"context"
	"slices"
	"sync"

	"github.com/ipfs/go-cid"
)

// maxTallied bounds what one node counts for all guests together: names, of each module.
const maxTallied = 1000

// tally is what the guests that a node ran have counted and measured, by module and name, since the node started.
type tally struct {
	mu      sync.Mutex
	modules map[cid.Cid]*ModuleMetrics
	series  int
	dropped uint64
}

// ModuleMetrics is what the guests of one module have counted and measured on a node.
type ModuleMetrics struct {
	Module  Link     `json:"module"`
	Plugin  string   `json:"plugin,omitempty"` // what the module calls itself, with its version
	Metrics []Metric `json:"metrics"`
}

// tallied adds what one guest counted to what its module has.
func (n *Node) tallied(ctx context.Context, module cid.Cid, list []Metric) {
	if len(list) == 0 {
		return
	}
	t := &n.tally
	t.mu.Lock()
	_, known := t.modules[module]
	t.mu.Unlock()
	plugin := ""
	if !known {
		if m, err := n.Engine.Inspect(ctx, module, false); err == nil && m.Manifest != nil {
			plugin = m.Manifest.String()
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	m := t.modules[module]
	if m == nil {
		if t.series >= maxTallied {
			t.dropped += uint64(len(list))
			return
		}
		if t.modules == nil {
			t.modules = make(map[cid.Cid]*ModuleMetrics)
		}
		m = &ModuleMetrics{Module: Link{module}, Plugin: clean(plugin, 2*MaxName)}
		t.modules[module] = m
	}
	had := len(m.Metrics)
	var dropped int
	m.Metrics, dropped = addMetrics(m.Metrics, list, had+maxTallied-t.series)
	t.series += len(m.Metrics) - had
	t.dropped += uint64(dropped)
}

// GuestMetrics tells what the guests that this node ran have counted and measured since it started, by module; and how
// often something was left out, as there are too many names.
func (n *Node) GuestMetrics() (list []ModuleMetrics, dropped uint64) {
	t := &n.tally
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, m := range t.modules {
		list = append(list, ModuleMetrics{m.Module, m.Plugin, cloneMetrics(m.Metrics)})
	}
	slices.SortFunc(list, func(a, b ModuleMetrics) int {
		return cmp.Or(cmp.Compare(a.Plugin, b.Plugin), cmp.Compare(a.Module.KeyString(), b.Module.KeyString()))
	})
	return list, t.dropped
}
