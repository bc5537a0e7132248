package audit_test

import (
	"bufio"
	"database/sql"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	collector "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	"google.golang.org/protobuf/proto"

	"github.com/certfarm/certfarm/internal/access"
	"github.com/certfarm/certfarm/internal/audit"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/store"
	"github.com/certfarm/certfarm/internal/store/storetest"
)

func TestMain(m *testing.M) { os.Exit(storetest.Main(m)) }

// book is a new audit; by is how somebody writes into its file who should not.
func book(t *testing.T) (b audit.Book, by func(query string)) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "certfarm.db")
	s, err := store.Open(t.Context(), path, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return audit.Book{Store: s}, func(query string) {
		t.Helper()
		db, err := sql.Open("sqlite", path)
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		if _, err := db.ExecContext(t.Context(), query); err != nil {
			t.Fatal(err)
		}
	}
}

func write(t *testing.T, b audit.Book, actions ...string) {
	t.Helper()
	for _, a := range actions {
		if err := b.Write(t.Context(), audit.Entry{Actor: "alice", Action: a, Result: audit.Done}); err != nil {
			t.Fatal(err)
		}
	}
}

// Whatever is done to the lines afterwards is found: a word changed, a line taken out,
// the end cut off, all of it rebuilt.
func TestVerifyFindsEveryChange(t *testing.T) {
	honest := func(t *testing.T) (audit.Book, func(string), audit.Head) {
		b, by := book(t)
		write(t, b, "renew", "apply", "undo", "abort")
		p, err := b.Verify(t.Context(), nil)
		if err != nil || p.Lines != 4 {
			t.Fatal(p, err)
		}
		return b, by, audit.Head{Seq: 4, Hash: p.Head}
	}
	for name, c := range map[string]struct {
		sql  string
		seq  int64
		head bool // it takes a head that was kept elsewhere
	}{
		"a word":      {`UPDATE audit SET line = REPLACE(line, 'apply', 'renew') WHERE seq = 2`, 2, false},
		"a line":      {`DELETE FROM audit WHERE seq = 2`, 2, false},
		"the end":     {`DELETE FROM audit WHERE seq > 2`, 3, true},
		"a number":    {`UPDATE audit SET seq = 9 WHERE seq = 4`, 4, false},
		"a hash":      {`UPDATE audit SET hash = 'x' WHERE seq = 1`, 1, false},
		"all of it":   {`DELETE FROM audit`, 4, true},
		"not a line":  {`UPDATE audit SET line = '{}' WHERE seq = 3`, 3, false},
		"none at all": {``, 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			b, by, head := honest(t)
			if c.sql != "" {
				by(c.sql)
			}
			if name == "all of it" { // by somebody who can write lines and hashes
				write(t, b, "renew", "renew", "undo", "abort")
			}
			var heads []audit.Head
			if c.head {
				if _, err := b.Verify(t.Context(), nil); err != nil {
					t.Errorf("without the head: %v", err)
				}
				heads = []audit.Head{head}
			}
			_, err := b.Verify(t.Context(), heads)
			broken, ok := errors.AsType[*audit.Break](err)
			if ok != (c.seq > 0) || ok && broken.Seq != c.seq {
				t.Errorf("got %v, want a break at %d", err, c.seq)
			}
		})
	}
}

// Several controllers write into one chain.
func TestOneChain(t *testing.T) {
	storetest.Each(t, func(t *testing.T, open func(store.Options) *store.Store) {
		b := audit.Book{Store: open(store.Options{})}
		var all sync.WaitGroup
		for i := range 4 {
			all.Go(func() {
				for n := range 5 {
					if err := b.Write(t.Context(), audit.Entry{Actor: strconv.Itoa(i), Action: strconv.Itoa(n)}); err != nil {
						t.Error(err)
					}
				}
			})
		}
		all.Wait()
		if p, err := b.Verify(t.Context(), nil); err != nil || p.Lines != 20 {
			t.Error(p, err)
		}
	})
}

// What must be written first is not done when it cannot be; a renewal is.
func TestFailsClosedForWhatMattersMost(t *testing.T) {
	b, by := book(t)
	d := audit.Doorkeeper{Book: b, Log: slog.New(slog.DiscardHandler)}
	ask := func(method string, needs access.Permission) audit.Ask {
		return audit.Ask{
			Route: access.Route{ID: "x", Method: method, Needs: needs}, Caller: access.Local("root"), From: "127.0.0.1",
			Word: func(word string) string { return map[string]string{"farm": "f", "site": "shop"}[word] },
		}
	}
	ended, err := d.Begin(t.Context(), ask("POST", access.Edit))
	if err != nil {
		t.Fatal(err)
	}
	ended(409)
	if ended, err = d.Begin(t.Context(), ask("GET", access.View)); err != nil {
		t.Fatal(err)
	}
	ended(200) // reading is nobody's business
	if ended, err = d.Begin(t.Context(), ask("POST", access.View)); err != nil {
		t.Fatal(err)
	}
	ended(200) // nor is a plan
	lines, err := b.Lines(t.Context(), 0, 0)
	if err != nil || len(lines) != 2 {
		t.Fatalf("%d lines, %v", len(lines), err)
	}
	var first, last audit.Entry
	if err := errors.Join(json.Unmarshal(lines[0].Entry, &first), json.Unmarshal(lines[1].Entry, &last)); err != nil {
		t.Fatal(err)
	}
	if first.Result != audit.Begun || last.Result != audit.Refused || first.Request != last.Request || last.Object != "site shop" || last.After != "" || last.Role != "admin" {
		t.Errorf("%+v\n%+v", first, last)
	}
	by(`DROP TABLE audit`)
	for needs, closed := range map[access.Permission]bool{access.Edit: true, access.Secrets: true, access.Access: true, access.Operate: false, access.Approve: false} {
		ended, err := d.Begin(t.Context(), ask("POST", needs))
		if errors.Is(err, audit.ErrUnwritten) != closed {
			t.Errorf("%s: %v", needs, err)
		}
		if err == nil {
			ended(200)
		}
	}
	if err := d.HandOver(t.Context(), ask("GET", access.KeyExport), "leaf"); !errors.Is(err, audit.ErrUnwritten) {
		t.Errorf("a key leaves, and nobody knows: %v", err)
	}
}

// Lines arrive elsewhere in their order, each once while nothing fails and none left
// out when something does.
func TestSend(t *testing.T) {
	b, _ := book(t)
	var got []string
	fails := true
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if fails {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		if !strings.HasPrefix(r.Header.Get("Certfarm-Signature"), "t=") {
			t.Error("it is not signed")
		}
		for lines := bufio.NewScanner(r.Body); lines.Scan(); {
			got = append(got, lines.Text())
		}
	}))
	defer server.Close()
	to, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	s := audit.Sender{Book: b, To: to, HTTP: server.Client(), Key: farm.NewSecret([]byte("k")), Log: slog.New(slog.DiscardHandler)}
	write(t, b, "one", "two")
	if _, err := s.Send(t.Context()); err == nil {
		t.Error("a refusal is no success")
	}
	fails = false
	for _, more := range []string{"three", "four"} {
		write(t, b, more)
		if _, err := s.Send(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if len(got) != 4 || !strings.Contains(got[0], "one") || !strings.Contains(got[3], "four") {
		t.Errorf("got %q", got)
	}
}

func TestSendToACollector(t *testing.T) {
	b, _ := book(t)
	var got collector.ExportLogsServiceRequest
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err == nil {
			err = proto.Unmarshal(body, &got)
		}
		if err != nil || r.URL.Path != "/base/v1/logs" || r.Header.Get("Content-Type") != "application/x-protobuf" {
			t.Errorf("%s %s: %v", r.URL.Path, r.Header, err)
		}
	}))
	defer server.Close()
	to, err := url.Parse("otlp+" + server.URL + "/base/")
	if err != nil {
		t.Fatal(err)
	}
	write(t, b, "renew", "undo")
	s := audit.Sender{Book: b, To: to, HTTP: server.Client(), Log: slog.New(slog.DiscardHandler)}
	if n, err := s.Send(t.Context()); n != 2 || err != nil {
		t.Fatal(n, err)
	}
	lines, err := b.Lines(t.Context(), 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	records := got.GetResourceLogs()[0].GetScopeLogs()[0].GetLogRecords()
	for i, r := range records {
		var l audit.Line
		if err := json.Unmarshal([]byte(r.GetBody().GetStringValue()), &l); err != nil || l.Hash != lines[i].Hash || r.GetTimeUnixNano() == 0 {
			t.Errorf("%v %v", r, err)
		}
	}
	if len(records) != 2 {
		t.Errorf("%d records", len(records))
	}
}

func TestSendToSyslog(t *testing.T) {
	b, _ := book(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	got := make(chan string, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		text, _ := io.ReadAll(c)
		got <- string(text)
	}()
	write(t, b, "renew")
	s := audit.Sender{Book: b, To: &url.URL{Scheme: "syslog+tcp", Host: l.Addr().String()}, Log: slog.New(slog.DiscardHandler)}
	if _, err := s.Send(t.Context()); err != nil {
		t.Fatal(err)
	}
	text := <-got
	length, message, _ := strings.Cut(text, " ")
	if n, err := strconv.Atoi(length); err != nil || n != len(message) || !strings.HasPrefix(message, "<109>1 ") || !strings.Contains(message, `"renew"`) {
		t.Errorf("got %q", text)
	}
}

// The audit is read back page by page, through a filter, and no line is left out.
func TestBackReadsPageByPage(t *testing.T) {
	b, by := book(t)
	write(t, b, "renew", "apply", "renew", "undo", "renew")
	by(`UPDATE audit SET line = 'x' WHERE seq = 4`) // that nobody can read is shown, too
	s, err := b.Back(t.Context(), audit.Filter{}, 0, 3)
	if err != nil || len(s.Entries) != 3 || s.Entries[0].Seq != 5 || s.Entries[1].Result != audit.Failed || s.Next != 3 {
		t.Fatalf("%+v, %v", s, err)
	}
	if s, err = b.Back(t.Context(), audit.Filter{}, s.Next, 3); err != nil || len(s.Entries) != 2 || s.Next != 0 {
		t.Errorf("the rest: %+v, %v", s, err)
	}
	if s, err = b.Back(t.Context(), audit.Filter{Find: "ren", Actor: "alice"}, 0, 9); err != nil || len(s.Entries) != 3 || s.Entries[2].Seq != 1 {
		t.Errorf("filtered: %+v, %v", s, err)
	}
	if s, err = b.Back(t.Context(), audit.Filter{Actor: "bob"}, 0, 9); err != nil || len(s.Entries) != 0 {
		t.Errorf("of nobody: %+v, %v", s, err)
	}
}
