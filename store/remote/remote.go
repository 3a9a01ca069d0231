// Package remote streams files from and to places outside the grid: http and https URLs, and buckets that
// speak S3.
//
// It acts with the credentials and from the network of whoever calls it, so only the command line does: a
// node never dereferences a URL that somebody gives it. It does not know of blocks; what it reads is
// handed to a node like any local file.
//
// A stream that breaks off is taken up again where it broke, and what comes is held against what was
// promised: the size that the server gave, and the checksums of a pinned Ref. The reader sees io.EOF only
// when all of that is right.
package remote

import (
	"context"
	"crypto/tls"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
)

// Config says how to reach what lies outside. The zero value is ready for use.
type Config struct {
	// MaxDownload is how many bytes one file may have. It guards the disk against a stream without end.
	// Default DefaultMaxDownload.
	MaxDownload int64
	// ConnectTimeout is how long a connection may take, to TCP and again to TLS. Default 15 s.
	ConnectTimeout time.Duration
	// StallTimeout is how long neither side may make progress. There is no limit on the whole, since
	// large files take long. Default 1 min.
	StallTimeout time.Duration
	// Backoff is the pause before the second try; it doubles from then on. Default 500 ms.
	Backoff time.Duration
	// LookupEnv finds the settings of S3: see docs/outside.md. Default os.LookupEnv.
	LookupEnv func(string) (string, bool)
	// TLS is for servers whose certificates the system does not know. Default nil.
	TLS *tls.Config
}

// DefaultMaxDownload is how many bytes one file may have unless told otherwise.
const DefaultMaxDownload = 64 << 30

const (
	maxTries   = 5       // in a row, without progress
	progress   = 1 << 20 // bytes that make a try count as a success
	maxBackoff = 15 * time.Second
)

// Client reads and writes what lies outside. It is safe for concurrent use.
type Client struct {
	cfg       Config
	transport *http.Transport
	web       *http.Client
	part      int64 // bytes of an object that go in one request

	mu sync.Mutex
	s3 *bucketClient // nil until needed
}

// New makes a client. Nothing is read or sent yet.
func New(cfg Config) *Client {
	if cfg.MaxDownload <= 0 {
		cfg.MaxDownload = DefaultMaxDownload
	}
	if cfg.ConnectTimeout <= 0 {
		cfg.ConnectTimeout = 15 * time.Second
	}
	if cfg.StallTimeout <= 0 {
		cfg.StallTimeout = time.Minute
	}
	if cfg.Backoff <= 0 {
		cfg.Backoff = 500 * time.Millisecond
	}
	if cfg.LookupEnv == nil {
		cfg.LookupEnv = os.LookupEnv
	}
	c := &Client{cfg: cfg, transport: newTransport(cfg), part: minPart}
	c.web = &http.Client{Transport: c.transport, CheckRedirect: checkRedirect}
	return c
}

// Close frees idle connections.
func (c *Client) Close() { c.transport.CloseIdleConnections() }

// Open begins to read one file. ctx bounds all reads. The caller closes the stream.
func (c *Client) Open(ctx context.Context, r Ref) (*Stream, error) {
	if r.Folder() {
		return nil, grid.Errorf(grid.Invalid, "%s is a folder, not an object", r)
	}
	src := source(webSource{c, r.web})
	if r.S3() {
		s3, err := c.bucket()
		if err != nil {
			return nil, grid.Errorf(grid.CodeOf(err), "%s: %w", r, err)
		}
		src = objectSource{s3, r}
	}
	return c.stream(ctx, r, src)
}

// wait pauses before a try, counted from 1, or as long as the server asks.
func (c *Client) wait(ctx context.Context, try int, asked time.Duration) error {
	pause := c.cfg.Backoff << (try - 1)
	pause = min(max(pause, asked), maxBackoff)
	t := time.NewTimer(pause)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
