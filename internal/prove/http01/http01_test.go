package http01_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/prove"
	"github.com/certfarm/certfarm/internal/prove/http01"
	"github.com/certfarm/certfarm/internal/prove/provetest"
)

// board is a Board in memory.
type board struct{ sync.Map }

func (b *board) Put(_ context.Context, token, value string) error {
	b.Store(token, value)
	return nil
}

func (b *board) Get(_ context.Context, token string) (string, bool, error) {
	v, ok := b.Load(token)
	s, _ := v.(string)
	return s, ok, nil
}

func (b *board) Remove(_ context.Context, token string) error {
	b.Delete(token)
	return nil
}

func TestGateway(t *testing.T) {
	onBoard(t, func(b http01.Board) prove.Solver { return http01.Gateway{Board: b} })
}
func TestRedirect(t *testing.T) {
	onBoard(t, func(b http01.Board) prove.Solver { return http01.Redirect{Gateway: http01.Gateway{Board: b}} })
}

func onBoard(t *testing.T, solver func(http01.Board) prove.Solver) {
	t.Parallel()
	b := &board{}
	server := httptest.NewServer(http01.Handler(b.Get))
	t.Cleanup(server.Close)
	provetest.Run(t, provetest.Suite{
		New: func(*testing.T) prove.Solver { return solver(b) },
		Challenge: func(n int) farm.Challenge {
			token := fmt.Sprintf("token-%037d", n)
			return farm.Challenge{Type: "http-01", Name: "www.farm.test", Token: token, Value: token + ".thumb"}
		},
		Seen: func(t *testing.T, c farm.Challenge) bool {
			status, body := get(t, server.URL+http01.Path+c.Token)
			return status == http.StatusOK && body == c.Value
		},
	})
}

func get(t *testing.T, url string) (status int, body string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

func TestHandler(t *testing.T) {
	t.Parallel()
	const token = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	asked := 0
	h := http01.Handler(func(_ context.Context, got string) (string, bool, error) {
		asked++
		switch got {
		case token:
			return token + ".thumb", true, nil
		case token + "-broken":
			return "", false, errors.New("database password is hunter2")
		}
		return "", false, nil
	})
	for name, c := range map[string]struct {
		method, path string
		status       int
		looked       bool
	}{
		"ours":           {http.MethodGet, http01.Path + token, 200, true},
		"head":           {http.MethodHead, http01.Path + token, 200, true},
		"post":           {http.MethodPost, http01.Path + token, 405, false},
		"unknown":        {http.MethodGet, http01.Path + token + "b", 404, true},
		"store is down":  {http.MethodGet, http01.Path + token + "-broken", 503, true},
		"too short":      {http.MethodGet, http01.Path + "aaaa", 404, false},
		"too long":       {http.MethodGet, http01.Path + strings.Repeat("a", 300), 404, false},
		"path in token":  {http.MethodGet, http01.Path + token + "/../x", 404, false},
		"encoded slash":  {http.MethodGet, http01.Path + token + "%2f", 404, false},
		"something else": {http.MethodGet, "/", 404, false},
	} {
		asked = 0
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), c.method, c.path, nil))
		if w.Code != c.status || (asked > 0) != c.looked {
			t.Errorf("%s: status %d, looked up %d times", name, w.Code, asked)
		}
		if strings.Contains(w.Body.String(), "hunter2") {
			t.Errorf("%s: the answer tells the error", name)
		}
		if c.status == 200 && w.Header().Get("Content-Type") != "application/octet-stream" {
			t.Errorf("%s: content type %q", name, w.Header().Get("Content-Type"))
		}
	}
}
