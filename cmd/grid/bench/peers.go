package bench

import (
	"context"
	"io"
	"net"
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
)

// peers measures the network to nodes of the realm that are connected, beside connections of this machine with itself.
func (b *bench) peers(ctx context.Context) error {
	var near []grid.PeerInfo
	for _, p := range b.Node.Peers() {
		if p.Realm == "ours" && len(near) < maxPeers {
			near = append(near, p)
		}
	}
	if len(near) == 0 {
		return nil
	}
	long := pick(b, 200*time.Millisecond, time.Second)
	trip, speed, err := loopback(long)
	for _, p := range near {
		var times []time.Duration
		perr := err
		for range 20 {
			if perr != nil {
				break
			}
			var took time.Duration
			took, perr = b.Node.Trip(ctx, p.ID)
			times = append(times, took)
		}
		m := grid.Measured{Name: "peer-trip", Does: "a message there and back", Value: median(times).Seconds(), Unit: "s", Peer: p.ID.String(), Note: "by " + p.Transport,
			Limit: trip.Seconds(), Against: "TCP from this machine to itself"}
		if terr := b.time(m, perr); terr != nil {
			return terr
		}
		if perr != nil {
			continue
		}
		m.Name, m.Does, m.Unit, m.Limit = "peer-speed", "what it sends to this node", "bytes/s", speed
		m.Value, perr = b.Node.Speed(ctx, p.ID, long)
		if terr := b.rate(m, perr); terr != nil {
			return terr
		}
	}
	return nil
}

// loopback measures a round trip of 64 bytes by TCP within this machine, and how many bytes a second go through.
func loopback(long time.Duration) (trip time.Duration, speed float64, err error) {
	fail := func(err error) (time.Duration, float64, error) {
		return 0, 0, grid.Errorf(grid.Internal, "measure loopback: %w", err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fail(err)
	}
	defer l.Close()
	const word, trips, chunk = 64, 200, 256 << 10
	served := make(chan error, 1)
	go func() { // ends with the connection
		c, err := l.Accept()
		if err != nil {
			served <- err
			return
		}
		defer c.Close()
		buf := make([]byte, chunk)
		for range trips {
			if _, err = io.ReadFull(c, buf[:word]); err == nil {
				_, err = c.Write(buf[:word])
			}
			if err != nil {
				served <- err
				return
			}
		}
		_, err = io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{c}, buf)
		served <- err
	}()
	c, err := net.DialTimeout("tcp", l.Addr().String(), time.Second)
	if err != nil {
		return fail(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(long + 5*time.Second))
	buf := make([]byte, chunk)
	times := make([]time.Duration, trips)
	for i := range times {
		began := time.Now()
		if _, err = c.Write(buf[:word]); err == nil {
			_, err = io.ReadFull(c, buf[:word])
		}
		if err != nil {
			return fail(err)
		}
		times[i] = time.Since(began)
	}
	began, n := time.Now(), 0
	for time.Since(began) < long {
		k, err := c.Write(buf)
		if n += k; err != nil {
			return fail(err)
		}
	}
	c.Close()
	if err := <-served; err != nil {
		return fail(err)
	}
	return median(times), float64(n) / time.Since(began).Seconds(), nil
}
