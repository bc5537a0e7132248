package ccs

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/encode"
	"github.com/certfarm/certfarm/internal/host"
)

func TestAudit(t *testing.T) {
	s := newShop(t, func(o *Options) {
		o.Names = []string{"*.example.org", "example.org", "www.example.org"}
		o.Canary = "canary.example.org"
	})
	audit := func(at time.Time, known ...string) string {
		t.Helper()
		found, err := s.Audit(t.Context(), deploy.Audit{Now: at, Names: known, Places: []string{"ccs /srv/certs/theirs.example.net.pfx"}})
		must(t, err)
		var all []string
		for _, f := range found {
			if f.Problem == "" || f.Hint == "" {
				t.Errorf("%+v says too little", f)
			}
			all = append(all, fmt.Sprint(strings.TrimSuffix(f.Place, ".pfx"), " ", f.Trouble))
		}
		return strings.Join(all, ", ")
	}
	pfx := func(file string, o encode.PFXOptions, names ...string) {
		t.Helper()
		data, err := encode.PFX(bundleFor(t, names...), o)
		must(t, err)
		s.put(t, file, data)
	}
	ours := encode.PFXOptions{Password: secret()}

	if got := audit(now); got != "_.example.org missing, example.org missing, www.example.org missing" {
		t.Errorf("an empty store: %s", got)
	}
	s.install(t, 1, bundleFor(t, "*.example.org", "example.org"))
	if got := audit(now); got != "" {
		t.Errorf("a store as it should be: %s", got)
	}
	before := s.mem.Tree()
	pfx("Old.example.org.pfx", ours, "old.example.org")
	pfx("blog.example.net.pfx", ours, "blog.example.net")
	pfx("theirs.example.net.pfx", ours, "theirs.example.net")
	pfx("left.example.net.pfx", ours, "left.example.net")
	pfx("a.example.net.pfx", encode.PFXOptions{Password: encode.NewPFXPassword()}, "a.example.net")
	pfx("www.example.org.pfx", ours, "shop.example.net")
	s.put(t, "b.example.net.pfx", []byte("no PFX"))
	s.put(t, "readme.txt", []byte("no concern of ours"))
	want := "a.example.net orphan, a.example.net password, b.example.net orphan, b.example.net unreadable, left.example.net orphan, " +
		"old.example.org shadow, www.example.org uncovered"
	if got := sorted(audit(now, "blog.example.net", "old.example.org", "192.0.2.1")); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	for name, data := range s.mem.Tree() {
		if was, there := before[name]; there && was != data && !strings.Contains(name, "www") {
			t.Errorf("%s was changed", name)
		}
	}
	if got := audit(now.AddDate(30, 0, 0)); !strings.Contains(got, "example.org expired") {
		t.Errorf("30 years later: %s", got)
	}
	s.options.Readers = Readers2016
	if got := audit(now); !strings.Contains(got, "_.example.org cipher") {
		t.Errorf("with older readers: %s", got)
	}
}

func sorted(list string) string {
	all := strings.Split(list, ", ")
	slices.Sort(all)
	return strings.Join(all, ", ")
}

// A file that may not be read is a finding; a share that cannot be reached is an
// error.
func TestAuditOfWhatCannotBeRead(t *testing.T) {
	s := newShop(t, plain)
	s.install(t, 1, bundleFor(t, "www.example.org", "example.org"))
	s.host.Refuse = func(call string) error {
		if call == "read /srv/certs/example.org.pfx" {
			return errors.New("access denied")
		}
		return nil
	}
	found, err := s.Audit(t.Context(), deploy.Audit{Now: now})
	if err != nil || len(found) != 1 || found[0].Trouble != Unreadable {
		t.Errorf("got %+v (%v)", found, err)
	}
	s.host.DieAfter(1, false)
	if _, err := s.Audit(t.Context(), deploy.Audit{Now: now}); !errors.Is(err, host.ErrUnreachable) {
		t.Errorf("got %v", err)
	}
}

// A person is told what is there, and not what a parser makes of it.
func TestAuditTellsPeople(t *testing.T) {
	s := newShop(t, plain)
	s.install(t, 1, bundleFor(t, "www.example.org", "example.org"))
	must(t, s.mem.Write(t.Context(), "/srv/certs/junk.example.org.pfx", []byte("garbage"), host.Attr{Mode: 0o644}))
	found, err := s.Audit(t.Context(), deploy.Audit{Now: now})
	must(t, err)
	for _, f := range found {
		if f.Trouble == Unreadable && f.Problem != "it is no PFX that the readers open: what is in it is something else" {
			t.Errorf("got %q", f.Problem)
		}
	}
	if len(found) == 0 || found[0].Trouble != Unreadable {
		t.Errorf("got %+v", found)
	}
}
