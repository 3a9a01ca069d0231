package api

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"

	"github.com/wasmgrid/wasmgrid/grid"
)

// Gateway answers IPFS clients: it is a trustless gateway (specs.ipfs.tech/http-gateways/trustless-gateway),
// which gives out blocks and CAR files and nothing that a client could not verify. It changes nothing, but
// whoever can reach it can read every block whose CID he knows.
type Gateway struct {
	Blocks  grid.Blocks
	Archive grid.Archive // of these blocks
	// Fetcher brings what is not here from other nodes; nil brings nothing. A gateway for strangers should
	// have none: they could make this node carry whatever they like.
	Fetcher grid.Fetcher
	// Reading is an archive of blocks that come from other nodes when they are read, for small parts of the DAG
	// of root. nil: the whole DAG is brought. It counts only with a Fetcher.
	Reading func(root cid.Cid) grid.Archive
	// Limit is for readers that are not trusted: so many requests are answered at once, others are told to
	// come back later, and one that reads too slowly is given up. 0 is for readers that are.
	Limit  int
	Logger *slog.Logger
}

const (
	gatewayPrefix = "/ipfs"
	rawType       = "application/vnd.ipld.raw"
	carName       = "application/vnd.ipld.car"
	immutable     = "public, max-age=29030400, immutable"
)

// Handler routes requests. Everything but GET and HEAD below /ipfs is refused.
func (g *Gateway) Handler() http.Handler {
	slots := make(chan struct{}, max(g.Limit, 1))
	mux := http.NewServeMux()
	serve := func(w http.ResponseWriter, r *http.Request) {
		if g.Limit == 0 {
			g.serve(&pacedWriter{statusWriter: statusWriter{ResponseWriter: w}}, r)
			return
		}
		pw := &pacedWriter{statusWriter: statusWriter{ResponseWriter: w}, control: http.NewResponseController(w), start: time.Now()}
		pw.pace(0)
		select {
		case slots <- struct{}{}:
			defer func() { <-slots }()
			g.serve(pw, r)
		default:
			w.Header().Set("Retry-After", "1")
			g.fail(pw, r, &statusError{http.StatusTooManyRequests, grid.Errorf(grid.Busy, "%d requests are being answered", g.Limit).Hint("try again later")})
		}
	}
	mux.HandleFunc("GET "+gatewayPrefix+"/{cid}", serve)
	mux.HandleFunc("GET "+gatewayPrefix+"/{cid}/{path...}", serve)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		status := http.StatusNotFound
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			status = http.StatusMethodNotAllowed
			w.Header().Set("Allow", "GET, HEAD")
		}
		g.fail(&pacedWriter{statusWriter: statusWriter{ResponseWriter: w}}, r,
			&statusError{status, grid.Errorf(grid.NotFound, "no route %s %s", r.Method, r.URL.Path).Hint("this gateway answers GET %s/CID", gatewayPrefix)})
	})
	return mux
}

// statusError is an error that has a status of its own.
type statusError struct {
	status int
	err    error
}

func (e *statusError) Error() string { return e.err.Error() }
func (e *statusError) Unwrap() error { return e.err }

// What a reader has to keep up with.
const (
	readerTime = 30 * time.Second // for each piece
	readerRate = 16 << 10         // bytes/s, on average
)

// pacedWriter gives up a reader that is too slow. Without a control it waits for any.
type pacedWriter struct {
	statusWriter
	control *http.ResponseController
	start   time.Time
	bytes   int64
}

func (w *pacedWriter) pace(n int) {
	if w.control == nil {
		return
	}
	w.bytes += int64(n)
	one := time.Now().Add(readerTime)
	if all := w.start.Add(readerTime + time.Duration(w.bytes)*time.Second/readerRate); all.Before(one) {
		one = all
	}
	_ = w.control.SetWriteDeadline(one) // a transport without deadlines is in this process
}

func (w *pacedWriter) Write(p []byte) (int, error) {
	w.pace(len(p))
	return w.statusWriter.Write(p)
}

func (g *Gateway) serve(w *pacedWriter, r *http.Request) {
	if err := g.answer(w, r); err != nil {
		if w.status != 0 { // what was cut short must not look whole
			g.Logger.Debug("gateway answer cut short", "path", r.URL.Path, "err", err)
			panic(http.ErrAbortHandler)
		}
		g.fail(w, r, err)
	}
}

// fail answers with a problem document.
func (g *Gateway) fail(w *pacedWriter, r *http.Request, err error) {
	for _, h := range []string{"Etag", "Content-Disposition", "Content-Location", "Accept-Ranges", "X-Ipfs-Path"} {
		w.Header().Del(h)
	}
	w.Header().Set("Cache-Control", "no-store")
	writeProblem(&w.statusWriter, r, problemOf(err), g.Logger, err)
}

// gatewayRequest is what a client asks for.
type gatewayRequest struct {
	root cid.Cid
	path string
	car  bool
	part grid.Selection // of a CAR
}

func (g *Gateway) answer(w *pacedWriter, r *http.Request) error {
	ask, err := parseGateway(r)
	if err != nil {
		return err
	}
	h := w.Header()
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Ipfs-Path", r.URL.EscapedPath())
	h.Set("Cache-Control", immutable)
	h.Set("Vary", "Accept")
	ext, format := ".bin", "raw"
	if ask.car {
		ext, format = ".car", "car"
	}
	h.Set("Content-Disposition", disposition(r.URL.Query().Get("filename"), ask.root.String()+ext))
	if q := r.URL.Query(); q.Get("format") != format {
		q.Set("format", format)
		h.Set("Content-Location", r.URL.EscapedPath()+"?"+q.Encode())
	}
	if ask.car {
		return g.sendCAR(w, r, ask)
	}
	return g.sendBlock(w, r, ask)
}

// fetches reports whether this gateway fetches what a request asks for.
func (g *Gateway) fetches(r *http.Request, root cid.Cid) bool {
	return g.Fetcher != nil && !onlyIfCached(r) && root.Prefix().MhType != mh.IDENTITY
}

// bring has what is asked for here, if this gateway fetches.
func (g *Gateway) bring(r *http.Request, root cid.Cid, shallow bool) error {
	if !g.fetches(r, root) {
		return nil
	}
	return g.Fetcher.Fetch(r.Context(), grid.Want{Roots: []cid.Cid{root}, Shallow: shallow})
}

func onlyIfCached(r *http.Request) bool {
	return strings.Contains(strings.ToLower(r.Header.Get("Cache-Control")), "only-if-cached")
}

// absent gives an error of what is not here the status that the client has asked for.
func (g *Gateway) absent(r *http.Request, err error) error {
	switch {
	case grid.CodeOf(err) != grid.NotFound:
	case onlyIfCached(r):
		return &statusError{http.StatusPreconditionFailed, err}
	case g.Fetcher == nil && grid.AdviceOf(err) == "":
		return grid.Errorf(grid.NotFound, "%w", err).Hint("this gateway gives out only what its node has")
	}
	return err
}

func (g *Gateway) sendBlock(w *pacedWriter, r *http.Request, ask gatewayRequest) error {
	data, err := g.block(r, ask.root)
	if err != nil {
		return g.absent(r, err)
	}
	w.Header().Set("Content-Type", rawType)
	w.Header().Set("Etag", `"`+ask.root.String()+`.raw"`)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
	return nil
}

func (g *Gateway) block(r *http.Request, c cid.Cid) ([]byte, error) {
	if c.Prefix().MhType == mh.IDENTITY { // clients try "bafkqaaa" to see whether this is a gateway
		d, err := mh.Decode(c.Hash())
		if err != nil {
			return nil, grid.Errorf(grid.Invalid, "CID %s: %w", c, err)
		}
		return d.Digest, nil
	}
	if err := g.bring(r, c, true); err != nil {
		return nil, err
	}
	return g.Blocks.Get(r.Context(), c)
}

func (g *Gateway) sendCAR(w *pacedWriter, r *http.Request, ask gatewayRequest) error {
	h := w.Header()
	tag := carTag(ask.part)
	h.Set("Etag", tag)
	h.Set("Accept-Ranges", "none")
	for _, have := range strings.Split(r.Header.Get("If-None-Match"), ",") {
		if strings.TrimPrefix(strings.TrimSpace(have), "W/") == strings.TrimPrefix(tag, "W/") {
			w.WriteHeader(http.StatusNotModified)
			return nil
		}
	}
	archive := g.Archive
	if g.Reading != nil && g.fetches(r, ask.root) && (ask.part.Bytes != nil || ask.part.Scope == grid.ScopeBlock) {
		archive = g.Reading(ask.root)
	} else if err := g.bring(r, ask.root, ask.part.Scope == grid.ScopeBlock && ask.path == ""); err != nil {
		return err
	}
	h.Set("Content-Type", carType)
	if ask.part.Repeats {
		h.Set("Content-Type", carDupsType)
	}
	if r.Method == http.MethodHead {
		head := grid.Selection{Root: ask.root, Path: ask.path, Scope: grid.ScopeBlock}
		if err := archive.Export(r.Context(), io.Discard, head); err != nil {
			return g.absent(r, err)
		}
		w.WriteHeader(http.StatusOK)
		return nil
	}
	return g.absent(r, archive.Export(r.Context(), w, ask.part))
}

// carTag names a CAR by what was asked for. It is a weak one, as another version of this program may put the
// same blocks into another order.
func carTag(s grid.Selection) string {
	sum := sha256.New()
	fmt.Fprintf(sum, "%q%v", s.Path, s.Repeats)
	if s.Bytes != nil {
		fmt.Fprintf(sum, "%d:%d", s.Bytes.From, s.Bytes.To)
	}
	return fmt.Sprintf(`W/"%s.car.%s.%s"`, s.Root, s.Scope, hex.EncodeToString(sum.Sum(nil)[:8]))
}

// disposition makes browsers save what they get.
func disposition(name, otherwise string) string {
	if name == "" || len(name) > 255 {
		name = otherwise
	}
	if strings.IndexFunc(name, func(c rune) bool { return c < ' ' || c > '~' || c == '"' || c == '\\' }) < 0 {
		return `attachment; filename="` + name + `"`
	}
	return mime.FormatMediaType("attachment", map[string]string{"filename": name})
}

func badRequest(format string, args ...any) *grid.Error {
	return grid.Errorf(grid.Invalid, format, args...)
}

// parseGateway reads a request.
func parseGateway(r *http.Request) (ask gatewayRequest, err error) {
	l, err := grid.ParseLink(r.PathValue("cid"))
	if err != nil {
		return ask, err
	}
	ask.root, ask.path = l.Cid, strings.Trim(r.PathValue("path"), "/")
	if ask.root.Prefix().MhType != mh.IDENTITY {
		if err := grid.CheckCID(ask.root); err != nil {
			return ask, err
		}
	}
	q := r.URL.Query()
	var dups bool
	if ask.car, dups, err = wantsCAR(q, r.Header.Values("Accept")); err != nil {
		return ask, err
	}
	if !ask.car {
		if ask.path != "" {
			return ask, badRequest("a block has no path: %s", r.URL.Path).Hint("ask for format=car, or for the block's own CID")
		}
		return ask, nil
	}
	ask.part = grid.Selection{Root: ask.root, Path: ask.path, Scope: grid.Scope(q.Get("dag-scope")), Repeats: dups}
	switch ask.part.Scope {
	case grid.ScopeAll, grid.ScopeEntity, grid.ScopeBlock:
	case "":
		ask.part.Scope = grid.ScopeAll
	default:
		return ask, badRequest("dag-scope=%q: want all, entity or block", ask.part.Scope)
	}
	if s := q.Get("entity-bytes"); s != "" {
		if ask.part.Bytes, err = parseBytes(s); err != nil {
			return ask, err
		}
		ask.part.Scope = grid.ScopeEntity
	}
	return ask, nil
}

func parseBytes(s string) (*grid.ByteRange, error) {
	from, to, ok := strings.Cut(s, ":")
	b := &grid.ByteRange{To: grid.ToEnd}
	var err, err2 error
	if b.From, err = strconv.ParseInt(from, 10, 64); to != "*" {
		b.To, err2 = strconv.ParseInt(to, 10, 64)
	}
	if !ok || err != nil || err2 != nil || (b.From < 0) == (b.To < 0) && b.From > b.To {
		return nil, badRequest("entity-bytes=%q: want FROM:TO, such as 0:1023, -1024:* or 5:-5", s)
	}
	return b, nil
}

// wantsCAR decides between the two forms, by the format of the URL, else by what the client accepts. dups tells
// whether a CAR is to repeat blocks.
func wantsCAR(q url.Values, accept []string) (car, dups bool, err error) {
	const formats = "ask for ?format=raw or ?format=car, or accept " + rawType + " or " + carName
	format := q.Get("format")
	if format != "" && format != "raw" && format != "car" {
		return false, false, badRequest("format=%q is not known here", format).Hint(formats)
	}
	best, whyNot := 0.0, error(nil)
	anything := true // nothing is named
	for _, part := range strings.Split(strings.Join(accept, ","), ",") {
		name, params, err := mime.ParseMediaType(part)
		if err != nil {
			continue
		}
		weight := 1.0
		if s, ok := params["q"]; ok {
			if weight, err = strconv.ParseFloat(s, 64); err != nil {
				continue
			}
		}
		anything = anything && name == "*/*"
		switch {
		case weight <= best || name != rawType && name != carName || format == "raw" || format == "car" && name == rawType:
		case name == rawType:
			best, car = weight, false
		default:
			again, err := checkCAR(q, params)
			if err != nil {
				whyNot = err
				continue
			}
			best, car, dups = weight, true, again
		}
	}
	switch {
	case format == "raw":
		return false, false, nil
	case best > 0:
		return car, car && dups, nil
	case whyNot != nil:
		return false, false, whyNot
	case format == "car":
		dups, err = checkCAR(q, nil)
		return true, dups, err
	case anything:
		return false, false, badRequest("the request does not say in what form to answer").Hint(formats)
	}
	return false, false, &statusError{http.StatusNotAcceptable, badRequest("none of the forms that the request accepts is to be had here").Hint(formats)}
}

// checkCAR refuses a kind of CAR that is not written here, and tells whether it is one that repeats blocks. The
// URL comes before the Accept header.
func checkCAR(q url.Values, accept map[string]string) (dups bool, err error) {
	for _, p := range []struct{ name, is, or string }{{"version", "1", ""}, {"order", "dfs", "unk"}, {"dups", "n", "y"}} {
		want := q.Get("car-" + p.name)
		if want == "" {
			want = accept[p.name]
		}
		if want != "" && want != p.is && want != p.or {
			return false, &statusError{http.StatusNotAcceptable, badRequest("a CAR with %s=%s is not to be had here, only %s=%s", p.name, want, p.name, p.is)}
		}
		dups = want == "y"
	}
	return dups, nil
}
