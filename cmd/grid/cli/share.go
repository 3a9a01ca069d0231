package cli

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/spf13/pflag"

	"github.com/wasmgrid/wasmgrid/cmd/grid/jobfile"
	"github.com/wasmgrid/wasmgrid/grid"
)

// shareFlags say what a node lends to other realms, and to whom.
type shareFlags struct {
	share       string
	allow, deny []string
}

func (f *shareFlags) add(fl *pflag.FlagSet) {
	fl.StringVar(&f.share, "share", "", "lend a `PART` to nodes of other realms, such as cpu=50%,mem=4GiB,disk=10GiB,time=10m: cpu in per cent of the slots or as a number of them, time for one task (default nothing)")
	fl.StringSliceVar(&f.allow, "share-allow", nil, "lend to this `NODE` or realm only, by its ID; may be repeated")
	fl.StringSliceVar(&f.deny, "share-deny", nil, "do not lend to this `NODE` or realm, by its ID; may be repeated")
}

// parse reads what was said.
func (f *shareFlags) parse() (p grid.Portion, allow, deny []peer.ID, err error) {
	if f.share != "" {
		if p, err = parseShare(f.share); err != nil {
			return p, nil, nil, err
		}
	}
	if allow, err = parseNodes("--share-allow", f.allow); err != nil {
		return p, nil, nil, err
	}
	if deny, err = parseNodes("--share-deny", f.deny); err != nil {
		return p, nil, nil, err
	}
	s := grid.Share{Slots: max(p.Percent, p.Slots), Allow: allow, Deny: deny}
	return p, allow, deny, s.Check()
}

func parseNodes(flag string, list []string) (ids []peer.ID, err error) {
	for _, text := range list {
		id, err := peer.Decode(text)
		if err != nil {
			return nil, grid.Errorf(grid.Invalid, "%s: %.80q is not the ID of a node or realm", flag, text).Hint("`grid peers` lists nodes and their realms")
		}
		ids = append(ids, id)
	}
	return ids, nil
}

// minLent is the least memory or disk that is lent without naming a unit: less was meant in another one.
const minLent = 1 << 20

// parseShare reads cpu=50%,mem=4GiB,disk=10GiB,time=10m.
func parseShare(text string) (p grid.Portion, err error) {
	bad := func(format string, args ...any) (grid.Portion, error) {
		return grid.Portion{}, grid.Errorf(grid.Invalid, "--share %.80q: "+format, append([]any{text}, args...)...).
			Hint("write cpu=50%%,mem=4GiB,disk=10GiB,time=10m: cpu in per cent of the node's slots, or as a number of them; mem, in per cent or bytes, disk, and time for one task may be left out")
	}
	seen := map[string]bool{}
	for part := range strings.SplitSeq(text, ",") {
		key, value, ok := strings.Cut(part, "=")
		if !ok || value == "" {
			return bad("%.40q is not KEY=VALUE", part)
		}
		if seen[key] {
			return bad("%.40s is given twice", key)
		}
		seen[key] = true
		digits, percent := strings.CutSuffix(value, "%")
		n, err := strconv.Atoi(digits)
		if percent && (err != nil || n < 1 || n > 100 || strconv.Itoa(n) != digits) {
			return bad("%.40s=%.40s: want 1%% to 100%%", key, value)
		}
		switch {
		case key == "cpu" && percent:
			p.Percent = n
		case key == "cpu":
			if err != nil || n < 1 || n > grid.MaxCores || strconv.Itoa(n) != value {
				return bad("cpu=%.40s: want per cent, such as 50%%, or a number of slots", value)
			}
			p.Slots = n
		case key == "mem" && percent:
			p.MemoryPercent = n
		case key == "mem", key == "disk" && !percent:
			size, err := jobfile.ParseSize(value)
			if err == nil && size == 0 {
				return bad("%s=0 lends nothing; leave it out for the default", key)
			}
			if err != nil {
				return bad("%s: %w", key, err)
			}
			if size < minLent && value == strconv.FormatUint(size, 10) {
				return bad("%s=%s is so many bytes; did you mean %sGiB?", key, value, value)
			}
			if key == "mem" {
				p.Memory = size
			} else {
				p.Scratch = size
			}
		case key == "time" && !percent:
			d, err := time.ParseDuration(value)
			if err != nil || d < time.Second || d > grid.MaxLimits.Wall {
				return bad("time=%.40s: want 1s to %v", value, grid.MaxLimits.Wall)
			}
			p.Time = d
		case key == "time":
			return bad("time=%.40s: want a time, such as 10m", value)
		case key == "disk":
			return bad("disk=%.40s: want bytes, such as 10GiB", value)
		default:
			return bad("%.40q is nothing that is lent: cpu, mem, disk and time are", key)
		}
	}
	if !seen["cpu"] {
		return bad("cpu is missing")
	}
	return p, nil
}

// lends says what a node lends to other realms.
func lends(s *grid.ShareView) string {
	if s == nil {
		return "nothing to other realms"
	}
	text := fmt.Sprintf("%s, %s of memory and %s of disk, for %v a task, to ", plural(s.Slots, "slot"), formatSize(s.Memory), formatSize(s.Scratch), time.Duration(s.TimeMS)*time.Millisecond)
	switch {
	case len(s.Allow) > 0:
		text += fmt.Sprintf("%d of other realms", len(s.Allow))
	default:
		text += "other realms"
	}
	if len(s.Deny) > 0 {
		text += fmt.Sprintf(" but %d", len(s.Deny))
	}
	return text + fmt.Sprintf(": %s run, %d refused", plural(s.Ran, "task"), s.Refused)
}
