package grid

import (
	"context"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// Measured is one thing that was measured of a node, beside what the machine can do at most.
type Measured struct {
	Name  string  `json:"name"`  // such as "block-write"
	Does  string  `json:"does"`  // in words
	Value float64 `json:"value"` // in units of Unit
	Unit  string  `json:"unit"`  // "s", or what there is of a second: "bytes/s", "tasks/s"
	// Limit is what the machine did of the same in the same run without the grid, as Against tells; 0: it was not measured. Ratio is how much of
	// that was reached: 1 is all.
	Limit   float64 `json:"limit,omitempty"`
	Against string  `json:"against,omitempty"`
	Ratio   float64 `json:"ratio,omitempty"`
	Peer    string  `json:"peer,omitempty"`  // with which it was measured
	Note    string  `json:"note,omitempty"`  // what is to be known of it
	Error   string  `json:"error,omitempty"` // why there is no value
}

// protoSpeed is how a node finds out how fast another one sends: speedMsg, speedReply. Only nodes of one realm answer.
const protoSpeed Protocol = "speed/1"

type (
	speedMsg struct {
		Bytes uint32 `cbor:"bytes"` // to be sent back
	}
	speedReply struct {
		Data []byte `cbor:"data"`
	}
)

// What one answer carries at most, and how many are under way at a time: enough to fill a connection.
const (
	MaxSpeed    = 1 << 20
	speedAtOnce = 4
)

func (n *Node) serveSpeed() {
	var once sync.Once
	var zeros []byte // nobody compresses
	serveCall(n, protoSpeed, func(_ context.Context, from peer.ID, m speedMsg) (speedReply, error) {
		switch {
		case !n.inRealm(from):
			return speedReply{}, Errorf(Denied, "%s is of another realm", from)
		case m.Bytes > MaxSpeed:
			return speedReply{}, Errorf(Limit, "%d bytes, at most %d are sent", m.Bytes, MaxSpeed)
		}
		once.Do(func() { zeros = make([]byte, MaxSpeed) })
		return speedReply{zeros[:m.Bytes]}, nil
	})
}

// Trip measures the round trip of an empty message to a node of the realm.
func (n *Node) Trip(ctx context.Context, to peer.ID) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	began := time.Now()
	_, err := call[speedReply](ctx, n, to, protoSpeed, speedMsg{})
	return time.Since(began), err
}

// Speed measures how many bytes a second a node of the realm sends to this one, for about as long as is said.
func (n *Node) Speed(ctx context.Context, from peer.ID, long time.Duration) (float64, error) {
	ctx, cancel := context.WithTimeout(ctx, long+callTimeout)
	defer cancel()
	var mu sync.Mutex
	var failed error
	var wg sync.WaitGroup
	began, bytes := time.Now(), 0
	for range speedAtOnce {
		wg.Go(func() {
			for time.Since(began) < long {
				r, err := call[speedReply](ctx, n, from, protoSpeed, speedMsg{MaxSpeed})
				mu.Lock()
				if bytes += len(r.Data); err != nil && failed == nil {
					failed = err
				}
				stop := failed != nil
				mu.Unlock()
				if stop {
					return
				}
			}
		})
	}
	wg.Wait()
	if failed != nil && CodeOf(failed) != Limit { // that we ask too often does not make it slower
		return 0, failed
	}
	return float64(bytes) / time.Since(began).Seconds(), nil
}
