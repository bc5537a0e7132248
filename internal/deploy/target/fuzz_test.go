package target

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/deploy/deploytest"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/host"
	"github.com/certfarm/certfarm/internal/host/hosttest"
)

// FuzzReceipt gives deployers receipts that nobody staged: they may change the
// store and the live paths that the receipt names, and nothing else.
func FuzzReceipt(f *testing.F) {
	m := &hosttest.Mem{}
	d, err := All().Open("files", []byte(`{"chain": "/etc/c.pem", "key": "/etc/k.pem"}`), deploy.Setup{Host: m})
	must(f, err)
	r, err := d.Stage(f.Context(), deploy.Stage{Names: deploytest.Names, Epoch: 3, Bundles: []farm.Bundle{deploytest.NewBundle(f, farm.EC256)}})
	must(f, err)
	note := string(r.Note)
	f.Add(note)
	for _, change := range [][2]string{{"/etc/c.pem", "/etc/passwd"}, {`"New":"3-`, `"New":"../../etc/`}, {"-placeholder", "-placeholder/../../.."}, {"/etc/k.pem", "/var/lib/certfarm/x"}, {"Places", "places"}, {"true", "false"}} {
		if !strings.Contains(note, change[0]) {
			f.Fatalf("no %s in %s", change[0], note)
		}
		f.Add(strings.Replace(note, change[0], change[1], 1))
	}
	f.Fuzz(func(t *testing.T, text string) {
		m := &hosttest.Mem{}
		d, err := All().Open("files", []byte(`{"chain": "/etc/c.pem", "key": "/etc/k.pem"}`), deploy.Setup{Host: m})
		must(t, err)
		must(t, m.Mkdir(t.Context(), "/etc", host.Attr{Mode: 0o755}))
		must(t, m.Write(t.Context(), "/etc/passwd", []byte("root"), host.Attr{Mode: 0o644}))
		staged, err := d.Stage(t.Context(), deploy.Stage{Names: deploytest.Names, Epoch: 3, Bundles: []farm.Bundle{deploytest.NewBundle(t, farm.EC256)}})
		must(t, err)
		if len(staged.Note) == 0 {
			t.Fatal("no note")
		}
		before := m.Tree()
		r := deploy.Receipt{Note: json.RawMessage(text)}
		_ = d.Activate(t.Context(), []deploy.Receipt{r})
		_ = d.Restore(t.Context(), []deploy.Receipt{r})
		_ = d.Discard(t.Context(), r)
		var n known
		_ = json.Unmarshal([]byte(text), &n)
		after := m.Tree()
		for name, was := range before {
			if after[name] != was && !n.may(name) {
				t.Errorf("%s was changed by %s", name, text)
			}
		}
		for name := range after {
			if _, was := before[name]; !was && after[name] != "/" && !n.may(name) {
				t.Errorf("%s was made by %s", name, text)
			}
		}
	})
}

// known is what the test knows of a note.
type known struct{ Places []place }

func (n known) may(name string) bool {
	for _, p := range n.Places {
		for _, f := range p.Files {
			if name == f.Live {
				return true
			}
		}
	}
	return strings.HasPrefix(name, "/var/lib/certfarm")
}
