package main

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/issue/issuetest"
	"github.com/certfarm/certfarm/internal/lab"
)

// TestRunOnce does all of it in one process against a CA and machines, twice: the
// second time there is nothing to do.
func TestRunOnce(t *testing.T) {
	dir := t.TempDir()
	m, err := lab.StartMachines(lab.Layout{Dir: dir, Nodes: 2})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() })
	challenges := freeAddr(t)
	m.Balancer.RouteChallenges(challenges)
	port := m.Balancer.HTTPAddr()[strings.LastIndexByte(m.Balancer.HTTPAddr(), ':')+1:]
	ca, err := issuetest.Start(issuetest.Options{
		DNS: m.DNS.Addr(), HTTPPort: number(t, port), Profiles: map[string]time.Duration{"default": 90 * 24 * time.Hour},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ca.Close() })
	file, err := m.WriteFarm(lab.FarmFile{Directory: ca.Directory, Profile: "default", Roots: ca.ListenRoots + ca.Roots})
	if err != nil {
		t.Fatal(err)
	}
	state := filepath.Join(dir, "state")
	once := func() (string, string, int) {
		u, out, errs := testUI()
		u.now = time.Now
		code := run(t.Context(), u, []string{"run", "--once", "-f", file, "--state", state, "--challenge-listen", challenges, "--for", "60s"})
		return out.String(), errs.String(), code
	}
	out, errs, code := once()
	if code != exitDone || !strings.Contains(out, "✓ shop: done, 2 of 2 targets serve") || !strings.Contains(errs, "web2          verified") {
		t.Fatalf("exit %d\n%s\n%s", code, out, errs)
	}
	orders := ca.Stats().Total()
	if out, errs, code = once(); code != exitDone || !strings.Contains(out, "✓ shop: in-sync, 2 of 2 targets serve") {
		t.Errorf("the second time: exit %d\n%s\n%s", code, out, errs)
	}
	if again := ca.Stats().Total() - orders; again > 3 { // it may ask for renewal information
		t.Errorf("the second time the CA was asked %d times", again)
	}
}

func number(t *testing.T, text string) (n int) {
	t.Helper()
	for _, c := range text {
		n = n*10 + int(c-'0')
	}
	return n
}
