package dash

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"net/http"
	"strings"
	"sync"
)

// Local serves the page and the API to one browser of the user who started it, on a port that all users of the machine, and the pages of
// all sites in its browsers, can reach. The URL that it is opened by has a secret that is good once: the page turns it into a session, which it sends with
// each request. So who sees the URL afterwards, in a list of processes or a history, has nothing. If the secret comes a second
// time, two have it, of whom one should not: the session ends.
//
// A browser is started with its URL on its command line, which other users of the machine can read before it has used it. So it is given a
// secret of its own, which is good only from a connection of this user, where the system tells whose it is.
type Local struct {
	api          http.Handler
	page         http.Handler
	stolen       func()
	once, handed string
	ours         func(*http.Request) bool // a connection of this user

	mu      sync.Mutex
	used    bool
	session string // "": none yet, or none any more
}

// NewLocal makes one that passes what comes with the session on to api, below /v1/, without the header Authorization. stolen is
// told when the secret comes a second time.
func NewLocal(api http.Handler, stolen func()) *Local {
	return &Local{api: api, page: Handler(), stolen: stolen, once: rand.Text(), handed: rand.Text(), ours: ours}
}

// Path is what the URL to print ends with.
func (l *Local) Path() string { return Prefix + "#once=" + l.once }

// HandedPath is what the URL ends with that goes on a command line.
func (l *Local) HandedPath() string { return Prefix + "#once=" + l.handed }

// Headers of the page's first request, and of what the page is served with.
const (
	headerOnce = "Grid-Once"
	headerDash = "Grid-Dash"
)

// ServeHTTP serves the page to anybody, and the API to who has the session.
func (l *Local) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.URL.Path == Prefix+"session" && r.Method == http.MethodPost:
		l.begin(w, r)
	case r.URL.Path == Prefix+"session" && r.Method == http.MethodDelete && l.may(r):
		l.mu.Lock()
		l.session = ""
		l.mu.Unlock()
		w.WriteHeader(http.StatusNoContent)
	case Serves(r.URL.Path):
		w.Header().Set(headerDash, "command")
		l.page.ServeHTTP(w, r)
	case r.URL.Path == "/":
		http.Redirect(w, r, Prefix, http.StatusFound)
	case !l.may(r):
		refuse(w, http.StatusUnauthorized, "the request has no session of this dashboard", "run `grid dash` again, and open the URL that it prints")
	case !strings.HasPrefix(r.URL.Path, "/v1/"):
		refuse(w, http.StatusNotFound, "the dashboard passes on the API alone, which lies under /v1", "")
	default:
		r.Header.Del("Authorization") // it was for us
		l.api.ServeHTTP(w, r)
	}
}

// begin makes the session, for who has the secret.
func (l *Local) begin(w http.ResponseWriter, r *http.Request) {
	secret := r.Header.Get(headerOnce)
	handed := same(secret, l.handed)
	if !handed && !same(secret, l.once) {
		refuse(w, http.StatusForbidden, "that is not the secret of this dashboard", "run `grid dash` again, and open the URL that it prints")
		return
	}
	if handed && !l.ours(r) {
		refuse(w, http.StatusForbidden, "the browser was started for another user of this machine", "open the URL that `grid dash` prints")
		return
	}
	l.mu.Lock()
	again := l.used
	l.used, l.session = true, ""
	if !again {
		l.session = rand.Text() + rand.Text()
	}
	session := l.session
	l.mu.Unlock()
	if again {
		l.stolen()
		refuse(w, http.StatusForbidden, "the URL was used before, so its session has ended: somebody else may have seen it", "run `grid dash` again, and open the URL that it prints")
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_ = json.NewEncoder(w).Encode(map[string]string{"session": session})
}

// may reports whether a request has the session.
func (l *Local) may(r *http.Request) bool {
	l.mu.Lock()
	session := l.session
	l.mu.Unlock()
	got, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	return ok && session != "" && same(got, session)
}

// same compares secrets in a time that tells nothing of them.
func same(a, b string) bool {
	x, y := sha256.Sum256([]byte(a)), sha256.Sum256([]byte(b))
	return subtle.ConstantTimeCompare(x[:], y[:]) == 1
}

// refuse answers with a problem document, as the API does.
func refuse(w http.ResponseWriter, status int, detail, hint string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"title": http.StatusText(status), "status": status, "code": "denied", "detail": detail, "hint": hint})
}
