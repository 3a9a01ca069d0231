package dash

import (
	"encoding/json"
	"io/fs"
	"math"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

func ask(h http.Handler, method, path string, header ...string) *http.Response {
	w, r := httptest.NewRecorder(), httptest.NewRequest(method, path, nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	h.ServeHTTP(w, r)
	return w.Result()
}

// TestFiles: each file is served as what it is, with the policy, once until it changes.
func TestFiles(t *testing.T) {
	h := Handler()
	for path, kind := range map[string]string{"/dash/": "text/html", "/dash/app.js": "text/javascript", "/dash/style.css": "text/css", "/dash/icon.svg": "image/svg+xml", "/dash/views/jobs.js": "text/javascript"} {
		resp := ask(h, "GET", path)
		if resp.StatusCode != 200 || !strings.HasPrefix(resp.Header.Get("Content-Type"), kind) || resp.Header.Get("X-Content-Type-Options") != "nosniff" ||
			resp.Header.Get("Content-Security-Policy") != policy || resp.Header.Get("Referrer-Policy") != "no-referrer" {
			t.Errorf("%s: %s %v", path, resp.Status, resp.Header)
		}
		if again := ask(h, "GET", path, "If-None-Match", resp.Header.Get("ETag")); again.StatusCode != http.StatusNotModified {
			t.Errorf("%s again: %s", path, again.Status)
		}
	}
	for _, x := range []struct {
		method, path string
		status       int
	}{{"GET", "/dash", 302}, {"GET", "/dash/nothing.js", 404}, {"GET", "/dash/views/", 404}, {"GET", "/dash/../dash.go", 404}, {"POST", "/dash/", 405}, {"HEAD", "/dash/", 200}} {
		if resp := ask(h, x.method, x.path); resp.StatusCode != x.status {
			t.Errorf("%s %s: %s", x.method, x.path, resp.Status)
		}
	}
	if Serves("/dashboard") || !Serves("/dash") || !Serves("/dash/x") {
		t.Error("other paths are the page's")
	}
}

// TestPlain: the page names nothing outside, and makes no elements of text.
func TestPlain(t *testing.T) {
	bad := regexp.MustCompile(`innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|\bstyle="|\son[a-z]+="|(src|href)="(https?:)?//`)
	outside := regexp.MustCompile(`https?://[^\s'"]+`)
	err := fs.WalkDir(page, "page", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := page.ReadFile(p)
		if found := bad.Find(data); found != nil {
			t.Errorf("%s has %s", p, found)
		}
		for _, url := range outside.FindAll(data, -1) {
			if s := string(url); !strings.HasPrefix(s, "http://www.w3.org/") && s != "https://HOST:PORT" {
				t.Errorf("%s names %s", p, url)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestLocal: the secret makes one session, and is not to come again.
func TestLocal(t *testing.T) {
	stolen, got := 0, ""
	l := NewLocal(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { got = r.URL.Path + r.Header.Get("Authorization") }), func() { stolen++ })
	_, once, ok := strings.Cut(l.Path(), "#once=")
	if !ok || len(once) < 20 {
		t.Fatal(l.Path())
	}
	if resp := ask(l, "GET", "/v1/node", "Authorization", "Bearer "); resp.StatusCode != 401 {
		t.Errorf("before there is a session: %s", resp.Status)
	}
	if resp := ask(l, "POST", "/dash/session", headerOnce, once+"x"); resp.StatusCode != 403 || stolen != 0 {
		t.Errorf("a wrong secret: %s, %d", resp.Status, stolen)
	}
	var made struct{ Session string }
	resp := ask(l, "POST", "/dash/session", headerOnce, once)
	if err := json.NewDecoder(resp.Body).Decode(&made); err != nil || len(made.Session) < 40 || resp.Header.Get("Cache-Control") != "no-store" {
		t.Fatal(resp.Status, made, err)
	}
	good := []string{"Authorization", "Bearer " + made.Session}
	if resp := ask(l, "GET", "/v1/node", good...); resp.StatusCode != 200 || got != "/v1/node" {
		t.Errorf("with the session: %s, %q", resp.Status, got)
	}
	if resp := ask(l, "GET", "/ipfs/x", good...); resp.StatusCode != 404 {
		t.Errorf("beside the API: %s", resp.Status)
	}
	if resp := ask(l, "GET", "/dash/"); resp.StatusCode != 200 || resp.Header.Get(headerDash) == "" {
		t.Errorf("the page: %s", resp.Status)
	}
	if resp := ask(l, "POST", "/dash/session", headerOnce, once); resp.StatusCode != 403 || stolen != 1 {
		t.Errorf("the secret again: %s, %d", resp.Status, stolen)
	}
	if resp := ask(l, "GET", "/v1/node", good...); resp.StatusCode != 401 {
		t.Errorf("the session after that: %s", resp.Status)
	}
}

// TestContrast: in both themes words stand out from what is behind them by 4.5 to 1, and marks and borders of fields by 3 to 1 (WCAG 2.2, AA).
func TestContrast(t *testing.T) {
	css, err := page.ReadFile("page/style.css")
	if err != nil {
		t.Fatal(err)
	}
	themes := regexp.MustCompile(`(?s):root[^{]*\{(.*?)\}`).FindAllSubmatch(css, -1)
	if len(themes) != 3 || string(themes[1][1]) != string(themes[2][1]) {
		t.Fatalf("%d themes, or the dark one is not the same both times", len(themes))
	}
	for i, theme := range themes[:2] {
		light := make(map[string]float64)
		for _, v := range regexp.MustCompile(`--([\w-]+): #([0-9a-f]{6});`).FindAllSubmatch(theme[1], -1) {
			light[string(v[1])] = luminance(t, string(v[2]))
		}
		check := func(least float64, words, behind []string) {
			for _, w := range words {
				for _, b := range behind {
					x, y := light[w], light[b]
					if ratio := (max(x, y) + .05) / (min(x, y) + .05); ratio < least {
						t.Errorf("theme %d: %s on %s: %.2f", i, w, b, ratio)
					}
				}
			}
		}
		check(4.5, []string{"text", "dim", "accent", "ok", "warn", "bad"}, []string{"bg", "surface"})
		check(4.5, []string{"text", "dim"}, []string{"sunken"})
		check(4.5, []string{"accent"}, []string{"accent-soft"})
		check(4.5, []string{"accent-text"}, []string{"accent"})
		check(4.5, []string{"text", "bad"}, []string{"bad-soft"})
		check(4.5, []string{"text"}, []string{"warn-soft"})
		check(3, []string{"line-strong"}, []string{"bg", "surface"})
	}
}

// TestColours: two jobs are told apart in both themes, by who sees red and green alike, too (after Machado and others, 2009), and from what has failed; and each from
// what is behind it, by 3 to 1.
func TestColours(t *testing.T) {
	js, err := page.ReadFile("page/colours.js")
	if err != nil {
		t.Fatal(err)
	}
	for theme, x := range map[string]struct {
		failed string
		behind []string
	}{"light": {"b3261e", []string{"ffffff", "f6f7f9"}}, "dark": {"ff8a80", []string{"0e1116", "161a21"}}} {
		list := regexp.MustCompile(`const ` + theme + ` = \[(.*)\]`).FindSubmatch(js)
		if list == nil {
			t.Fatalf("no colours of the theme %s", theme)
		}
		var all []string
		for _, m := range regexp.MustCompile(`#([0-9a-f]{6})`).FindAllSubmatch(list[1], -1) {
			all = append(all, string(m[1]))
		}
		if len(all) != 10 {
			t.Errorf("%s: %d colours", theme, len(all))
		}
		for i, a := range all {
			for _, b := range x.behind {
				x, y := luminance(t, a), luminance(t, b)
				if ratio := (max(x, y) + .05) / (min(x, y) + .05); ratio < 3 {
					t.Errorf("%s: %s on %s: %.2f", theme, a, b, ratio)
				}
			}
			for _, b := range append(all[:i:i], x.failed) {
				for sight, least := range map[string]float64{"": .12, "protan": .08, "deutan": .08} {
					if b == x.failed {
						least = .06
					}
					if d := apart(t, a, b, sight); d < least {
						t.Errorf("%s: %s and %s are alike (%s): %.3f", theme, a, b, sight, d)
					}
				}
			}
		}
	}
}

// sights are how linear red, green and blue are seen.
var sights = map[string][3][3]float64{
	"":       {{1, 0, 0}, {0, 1, 0}, {0, 0, 1}},
	"protan": {{.152286, 1.052583, -.204868}, {.114503, .786281, .099216}, {-.003882, -.048116, 1.051998}},
	"deutan": {{.367322, .860646, -.227968}, {.280085, .672501, .047413}, {-.011820, .042940, .968881}},
}

// apart is how far two colours are from each other in OKLab.
func apart(t *testing.T, a, b, sight string) float64 {
	lab := func(hex string) [3]float64 {
		var seen [3]float64
		for i := range 3 {
			for j := range 3 {
				seen[i] += sights[sight][i][j] * linear(t, hex, j)
			}
			seen[i] = min(max(seen[i], 0), 1)
		}
		r, g, b := seen[0], seen[1], seen[2]
		l := math.Cbrt(.4122214708*r + .5363325363*g + .0514459929*b)
		m := math.Cbrt(.2119034982*r + .6806995451*g + .1073969566*b)
		s := math.Cbrt(.0883024619*r + .2817188376*g + .6299787005*b)
		return [3]float64{.2104542553*l + .7936177850*m - .0040720468*s, 1.9779984951*l - 2.4285922050*m + .4505937099*s, .0259040371*l + .7827717662*m - .8086757660*s}
	}
	x, y := lab(a), lab(b)
	return math.Hypot(math.Hypot(x[0]-y[0], x[1]-y[1]), x[2]-y[2])
}

// linear is red, green or blue of a colour, in proportion to light.
func linear(t *testing.T, hex string, i int) float64 {
	n, err := strconv.ParseUint(hex[2*i:2*i+2], 16, 8)
	if err != nil {
		t.Fatal(err)
	}
	v := float64(n) / 255
	if v <= .04045 {
		return v / 12.92
	}
	return math.Pow((v+.055)/1.055, 2.4)
}

// luminance is the relative one of a colour, as WCAG defines it.
func luminance(t *testing.T, hex string) float64 {
	var sum float64
	for i, weight := range []float64{.2126, .7152, .0722} {
		sum += weight * linear(t, hex, i)
	}
	return sum
}

// TestHanded: the secret on a browser's command line is good for this user only, and that somebody else tries it ends nothing; who signs out has no session.
func TestHanded(t *testing.T) {
	l := NewLocal(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), func() { t.Error("it counts as used twice") })
	mine := false
	l.ours = func(*http.Request) bool { return mine }
	_, handed, _ := strings.Cut(l.HandedPath(), "#once=")
	if resp := ask(l, "POST", "/dash/session", headerOnce, handed); resp.StatusCode != 403 {
		t.Errorf("another user: %s", resp.Status)
	}
	mine = true
	resp := ask(l, "POST", "/dash/session", headerOnce, handed)
	var made struct{ Session string }
	if err := json.NewDecoder(resp.Body).Decode(&made); err != nil || resp.StatusCode != 200 {
		t.Fatal(resp.Status, err)
	}
	good := []string{"Authorization", "Bearer " + made.Session}
	if resp := ask(l, "DELETE", "/dash/session"); resp.StatusCode != 405 {
		t.Errorf("who has no session ends one: %s", resp.Status)
	}
	if resp := ask(l, "GET", "/v1/node", good...); resp.StatusCode != 200 {
		t.Errorf("with the session: %s", resp.Status)
	}
	if resp := ask(l, "DELETE", "/dash/session", good...); resp.StatusCode != 204 {
		t.Errorf("signing out: %s", resp.Status)
	}
	if resp := ask(l, "GET", "/v1/node", good...); resp.StatusCode != 401 {
		t.Errorf("after signing out: %s", resp.Status)
	}
}
