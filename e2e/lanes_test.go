//go:build linux

package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// lane is a network of its own on this machine, with nothing but a loopback, in which one node lives. What lives in other lanes it
// reaches by proxies at their addresses.
type lane struct {
	jobs chan func() // run by the one thread that lives there
	addr string      // of its node
}

// lanePort is where the node of each lane listens.
const lanePort = 4001

// newLanes makes n lanes whose nodes reach one another with a delay, each way. The error says why the machine allows none.
func newLanes(t *testing.T, n int, delay time.Duration) ([]*lane, error) {
	t.Helper()
	var lanes []*lane
	for i := range n {
		l := &lane{jobs: make(chan func()), addr: fmt.Sprintf("127.0.1.%d", i+1)}
		made := make(chan error)
		go l.live(made)
		if err := <-made; err != nil {
			return nil, err
		}
		t.Cleanup(func() { close(l.jobs) })
		lanes = append(lanes, l)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	t.Cleanup(func() { // before the lanes close
		cancel()
		wg.Wait()
	})
	for _, from := range lanes {
		for _, to := range lanes {
			if from == to {
				continue
			}
			var l net.Listener
			var err error
			from.do(func() { l, err = net.Listen("tcp", to.at()) })
			if err != nil {
				t.Fatal(err)
			}
			context.AfterFunc(ctx, func() { _ = l.Close() })
			wg.Go(func() {
				for {
					c, err := l.Accept()
					if err != nil {
						return
					}
					wg.Go(func() { to.carry(ctx, c, delay) })
				}
			})
		}
	}
	return lanes, nil
}

// live keeps a thread in a new network until there are no more jobs. The thread ends with it.
func (l *lane) live(made chan<- error) {
	runtime.LockOSThread()
	err := unix.Unshare(unix.CLONE_NEWNET)
	if err == nil {
		err = loopbackUp()
	}
	if made <- err; err != nil {
		return
	}
	for f := range l.jobs {
		f()
	}
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req)
}

// do runs f in the lane.
func (l *lane) do(f func()) {
	done := make(chan struct{})
	l.jobs <- func() {
		defer close(done)
		f()
	}
	<-done
}

// at is where the node of the lane listens.
func (l *lane) at() string { return net.JoinHostPort(l.addr, strconv.Itoa(lanePort)) }

// start starts a process in the lane.
func (l *lane) start(cmd *exec.Cmd) (err error) {
	l.do(func() { err = cmd.Start() })
	return err
}

// carry takes a connection to the node of the lane.
func (l *lane) carry(ctx context.Context, from net.Conn, delay time.Duration) {
	defer from.Close()
	var to net.Conn
	var err error
	l.do(func() { to, err = net.Dial("tcp", l.at()) })
	if err != nil {
		return
	}
	defer to.Close()
	stop := context.AfterFunc(ctx, func() {
		_ = from.Close()
		_ = to.Close()
	})
	defer stop()
	var wg sync.WaitGroup
	wg.Go(func() { late(to.(*net.TCPConn), from, delay) })
	late(from.(*net.TCPConn), to, delay)
	wg.Wait()
}

// late copies what comes from one end to the other, each byte after the delay.
func late(to *net.TCPConn, from io.Reader, delay time.Duration) {
	type piece struct {
		data []byte
		due  time.Time
	}
	pieces := make(chan piece, 256) // 16 MiB under way at most
	gone := make(chan struct{})
	go func() {
		defer close(pieces)
		for {
			buf := make([]byte, 64<<10)
			n, err := from.Read(buf)
			if n > 0 {
				select {
				case pieces <- piece{buf[:n:n], time.Now().Add(delay)}:
				case <-gone:
					return
				}
			}
			if err != nil {
				return
			}
		}
	}()
	defer close(gone)
	for p := range pieces {
		<-time.After(time.Until(p.due))
		if _, err := to.Write(p.data); err != nil {
			return
		}
	}
	if err := to.CloseWrite(); err != nil && !errors.Is(err, net.ErrClosed) {
		_ = to.Close()
	}
}
