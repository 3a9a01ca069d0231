package cli

import (
	"archive/tar"
	"context"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"sort"
	"strconv"
	"sync"

	"github.com/spf13/cobra"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/api"
	"github.com/wasmgrid/wasmgrid/store/remote"
)

// outside reaches what lies outside the grid, as the user who runs the command.
type outside struct {
	maxDownload sizeFlag

	mu     sync.Mutex
	client *remote.Client // nil until needed
}

func (e *env) maxDownloadFlag(cmd *cobra.Command) {
	cmd.Flags().Var(&e.outside.maxDownload, "max-download", "how much one file from a URL may have (default "+formatSize(int64(remote.DefaultMaxDownload))+")")
}

func (e *env) remote() *remote.Client {
	o := &e.outside
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.client == nil {
		o.client = remote.New(remote.Config{MaxDownload: int64(o.maxDownload), LookupEnv: e.lookupEnv})
	}
	return o.client
}

func (o *outside) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.client != nil {
		o.client.Close()
	}
}

// open begins to read the file that a URL names.
func (e *env) open(ctx context.Context, url string) (*remote.Stream, error) {
	r, err := remote.Parse(url)
	if err != nil {
		return nil, err
	}
	return e.remote().Open(ctx, r)
}

// maxListed is how many objects one folder or pattern may have.
const maxListed = 1 << 20

// listed gathers a listing. A key that no URL can name is an error.
type listed []remote.Object

func (l *listed) add(o remote.Object) error {
	if len(*l) == maxListed {
		return grid.Errorf(grid.Limit, "there are more than %d objects", maxListed).Hint("name a part of them")
	}
	if r, err := remote.Parse(o.Ref.Object()); err != nil || r.Pinned() || r.Object() != o.Ref.Object() {
		return grid.Errorf(grid.Unsupported, "the key of %q reads like a checksum", o.Ref.Object())
	}
	*l = append(*l, o)
	return nil
}

// list finds the objects of a folder, of which there has to be one.
func (e *env) list(ctx context.Context, r remote.Ref) (listed, error) {
	var l listed
	if err := e.remote().List(ctx, r, l.add); err != nil {
		return nil, err
	}
	if len(l) == 0 {
		return nil, grid.Errorf(grid.NotFound, "%s holds no objects", r)
	}
	return l, nil
}

// itemsOf is the file or folder that a URL names, to be archived under the given name.
func (e *env) itemsOf(ctx context.Context, name, url string) ([]item, error) {
	r, err := remote.Parse(url)
	if err != nil {
		return nil, err
	}
	if !r.Folder() {
		return []item{{name, url}}, nil
	}
	l, err := e.list(ctx, r)
	if err != nil {
		return nil, err
	}
	items := make([]item, len(l))
	for i, o := range l {
		items[i] = item{path.Join(name, o.Name), o.Ref.Object()}
	}
	return items, nil
}

// addURL adds what a URL names.
func (e *env) addURL(ctx context.Context, s *session, url string) (grid.FileInfo, error) {
	r, err := remote.Parse(url)
	if err != nil {
		return grid.FileInfo{}, err
	}
	if !r.Folder() {
		return e.addItems(ctx, s, r.String(), uploading{what: "adding " + r.String()}, []item{{itemFile, url}}, true)
	}
	items, err := e.itemsOf(ctx, "", url)
	if err != nil {
		return grid.FileInfo{}, grid.Errorf(grid.CodeOf(err), "add: %w", err)
	}
	return e.addItems(ctx, s, r.String(), uploading{what: "adding " + r.String()}, items, false)
}

// planURL plans to upload the one file that a URL names.
func (p *plan) planURL(name, url string) error {
	r, err := remote.Parse(url)
	if err != nil {
		return err
	}
	if r.Folder() {
		return grid.Errorf(grid.Invalid, "%s is a folder, not an object", r)
	}
	p.items = append(p.items, item{name, url})
	return nil
}

// held finds which items are pinned to a CID that the node has already, so that they need not be fetched.
func (e *env) held(ctx context.Context, s *session, items []item) (map[string]grid.FileInfo, error) {
	urls := map[grid.Link][]string{}
	for _, it := range items {
		if r, err := remote.Parse(it.path); err == nil && r.CID().Defined() {
			l := grid.Link{Cid: r.CID()}
			urls[l] = append(urls[l], it.path)
		}
	}
	missing, err := s.Missing(ctx, slices.Collect(maps.Keys(urls)))
	if err != nil {
		return nil, err
	}
	for _, l := range missing {
		delete(urls, l)
	}
	held := map[string]grid.FileInfo{}
	for l, same := range urls {
		info, err := s.Stat(ctx, l.Cid, "")
		if err != nil {
			return nil, err
		}
		if info.CID = l; info.Kind == grid.KindFile {
			for _, u := range same {
				held[u] = info
			}
		}
	}
	return held, nil
}

// findInputs expands patterns, of which some may be URLs. What an HTTP server has cannot be
// listed, so its URLs name one file each.
//
// The name of a file on an HTTP server is the last part of its path, that of an object is its path below
// the part of the pattern without wildcards. If names clash, those from outside begin with host or bucket.
func (e *env) findInputs(ctx context.Context, f finding, patterns []string) ([]input, error) {
	var local []string
	var found []input
	seen := map[string]bool{} // URLs
	for _, p := range patterns {
		if !remote.Is(p) {
			local = append(local, p)
			continue
		}
		more, err := e.expandURL(ctx, p)
		if err != nil {
			return nil, grid.Errorf(grid.CodeOf(err), "%s: %w", f.what, err)
		}
		for _, in := range more {
			if !seen[in.path] {
				seen[in.path] = true
				found = append(found, in)
			}
		}
	}
	if len(found) == 0 {
		return f.inputs(local)
	}
	all := found
	if len(local) > 0 {
		more, err := f.inputs(local)
		if err != nil {
			return nil, err
		}
		all = append(found, more...)
	}
	if clash(all) {
		for i := range found {
			r, err := remote.Parse(all[i].path)
			if err != nil {
				return nil, err
			}
			all[i].name = r.Path()
		}
	}
	for _, in := range all {
		if !fs.ValidPath(in.name) {
			return nil, grid.Errorf(grid.Invalid, "input %q: its name is not UTF-8", in.name)
		}
	}
	if clash(all) {
		return nil, grid.Errorf(grid.Invalid, "%s names inputs whose names clash even with their hosts", f.what).Hint("run them as several jobs")
	}
	sort.Slice(all, func(i, j int) bool { return all[i].name < all[j].name })
	return all, nil
}

// expandURL finds what one URL or pattern of URLs names.
func (e *env) expandURL(ctx context.Context, p string) ([]input, error) {
	r, err := remote.Parse(p)
	if err != nil {
		return nil, err
	}
	if !r.S3() || r.Pinned() {
		return []input{{name: r.Name(), path: p}}, nil
	}
	var l listed
	if r.Folder() {
		l, err = e.list(ctx, r)
	} else {
		err = e.remote().Glob(ctx, p, l.add)
	}
	if err != nil {
		return nil, err
	}
	out := make([]input, len(l))
	for i, o := range l {
		out[i] = input{name: o.Name, path: o.Ref.Object(), size: o.Size}
	}
	return out, nil
}

// openedAhead is how many files outside are asked for before their turn: a server takes a while to begin,
// and an archive has one file after the other.
const openedAhead = 8

// ahead opens what lies outside, in order.
type ahead struct {
	queue chan chan opened
	stop  func() // closes what was not taken; nothing is taken afterwards
}

type opened struct {
	stream *remote.Stream
	err    error
}

func (a *archiver) openAhead(ctx context.Context, items []item) *ahead {
	ctx, cancel := context.WithCancel(ctx)
	h := &ahead{queue: make(chan chan opened, openedAhead-1)}
	go func() {
		defer close(h.queue)
		for _, it := range items {
			if _, ok := a.held[it.path]; ok || !remote.Is(it.path) {
				continue
			}
			c := make(chan opened, 1)
			select {
			case h.queue <- c:
			case <-ctx.Done():
				return
			}
			go func() {
				s, err := a.open(ctx, it.path)
				c <- opened{s, err}
			}()
		}
	}()
	h.stop = func() {
		cancel()
		for c := range h.queue {
			if o := <-c; o.err == nil {
				o.stream.Close()
			}
		}
	}
	return h
}

// outside writes a file from outside, whose turn it is.
func (a *archiver) outside(ctx context.Context, it item, h *ahead) error {
	if info, ok := a.held[it.path]; ok {
		return a.header(&tar.Header{Typeflag: tar.TypeReg, Name: it.name, Mode: 0o644, PAXRecords: map[string]string{
			api.RecordCID: info.CID.String(), api.RecordSize: strconv.FormatInt(info.Size, 10),
		}})
	}
	c, ok := <-h.queue
	if !ok {
		return context.Cause(ctx)
	}
	o := <-c
	if o.err != nil {
		return o.err
	}
	defer o.stream.Close()
	var r io.Reader = o.stream
	size, count := o.stream.Size, a.count
	if size < 0 { // an archive tells the size before the content
		spool, err := a.spool(ctx, o.stream)
		if err != nil {
			return err
		}
		defer os.Remove(spool.Name())
		defer spool.Close()
		info, err := spool.Stat()
		if err != nil {
			return grid.Errorf(codeOfOS(err), "keep what comes from outside: %w", err)
		}
		r, size, count = spool, info.Size(), func(int) {}
	} else {
		a.expect(size)
	}
	if err := a.header(&tar.Header{Typeflag: tar.TypeReg, Name: it.name, Size: size, Mode: 0o644}); err != nil {
		return err
	}
	return a.content(ctx, it.name, r, size, count)
}

// spool copies a stream to a temporary file, at whose beginning it then stands.
func (a *archiver) spool(ctx context.Context, s *remote.Stream) (_ *os.File, err error) {
	f, err := os.CreateTemp("", "grid-download-*")
	if err != nil {
		return nil, grid.Errorf(codeOfOS(err), "keep what comes from outside: %w", err)
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	if _, err = io.CopyBuffer(struct{ io.Writer }{f}, &countingReader{s, a.count}, a.buf); err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil && grid.CodeOf(err) == grid.Unknown {
		err = grid.Errorf(codeOfOS(err), "keep what comes from outside: %w", err)
	}
	return f, err
}
