package grid

import "fmt"

// Fits tells why a node with this capacity can never run tasks of a class: what they ask for and what it has. It is nil
// when the node can.
func (c *Capacity) Fits(cl *Class) error {
	require, err := ParseSelector(cl.Require)
	if err != nil {
		return err // which matches no node
	}
	what, asks, has := c.lacks(cl, require)
	if what == lacksNothing {
		return nil
	}
	if what == lacksLabel {
		return Errorf(Unavailable, "no label matches %s%s", asks.term, labelHere(c.Labels, require)).
			Hint("start a node with that label (grid up --label), or ask for less (--require)")
	}
	if what == lacksCores {
		return Errorf(Unavailable, "a task needs %d cores, the node has %d", asks.n, has).
			Hint("ask for fewer cores, or add a larger node")
	}
	return Errorf(Unavailable, "a task needs %s of %s, the node has %s for all of them", sizeText(asks.n), what, sizeText(has)).
		Hint("ask for less %s, or add a larger node", what)
}

// CanRun is Fits for those who ask often: require is the class's own selector, parsed.
func (c *Capacity) CanRun(cl *Class, require Selector) bool {
	what, _, _ := c.lacks(cl, require)
	return what == lacksNothing
}

type lacking string

const (
	lacksNothing lacking = ""
	lacksLabel   lacking = "labels"
	lacksCores   lacking = "cores"
	lacksMemory  lacking = "memory"
	lacksScratch lacking = "scratch"
)

type asked struct {
	term string
	n    uint64
}

func (c *Capacity) lacks(cl *Class, require Selector) (what lacking, asks asked, has uint64) {
	slots := uint64(max(c.Slots, 0))
	if cores := uint64(max(cl.Cores, 1)); cores > slots {
		return lacksCores, asked{n: cores}, slots
	}
	if c.Memory > 0 && cl.Memory > c.Memory {
		return lacksMemory, asked{n: cl.Memory}, c.Memory
	}
	if c.Scratch > 0 && cl.Scratch > c.Scratch {
		return lacksScratch, asked{n: cl.Scratch}, c.Scratch
	}
	if ok, missing := require.Match(c.Labels); !ok {
		return lacksLabel, asked{term: missing}, 0
	}
	return lacksNothing, asked{}, 0
}

const labelIsHere = ": here "

// labelHere adds what the node has instead, of the labels that require speaks of.
func labelHere(l Labels, require Selector) (s string) {
	for _, t := range require.terms {
		if v, ok := l[t.key]; ok && !t.match(l) {
			return labelIsHere + t.key + "=" + v
		}
	}
	return ""
}

// sizeText writes bytes for people.
func sizeText(n uint64) string {
	const units = "KMGTPE"
	if n < 1<<10 {
		return fmt.Sprintf("%d B", n)
	}
	f, i := float64(n)/(1<<10), 0
	for ; f >= 1<<10 && i < len(units)-1; i++ {
		f /= 1 << 10
	}
	if f == float64(uint64(f)) {
		return fmt.Sprintf("%.0f %ciB", f, units[i])
	}
	return fmt.Sprintf("%.1f %ciB", f, units[i])
}
