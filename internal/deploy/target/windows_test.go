package target

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/deploy/deploytest"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/host"
	"github.com/certfarm/certfarm/internal/host/hosttest"
)

// The commands of a service on Windows.
var (
	httpdTest    = []string{"C:/Apache24/bin/httpd.exe", "-t", "-n", "Apache2.4"}
	httpdRestart = []string{"C:/Apache24/bin/httpd.exe", "-k", "restart", "-n", "Apache2.4"}
)

// onDrive are kinds as a node with Windows has them.
func onDrive(kind string) store {
	s := store{kind: kind, ext: ".pem", part: combined, test: strings.Join(httpdTest, " "), reload: strings.Join(httpdRestart, " ")}
	s.options = map[string]any{"test": httpdTest, "reload": httpdRestart, "start": []string{"net", "start", "Apache2.4"}}
	switch kind {
	case "pfx":
		s.ext, s.part = ".pfx", pkcs12
	case "jks":
		s.ext, s.part, s.format.Alias = ".jks", javaStore, "certfarm"
	}
	return s
}

// driveBench is a node with Windows.
func (s store) driveBench(t *testing.T, h hosttest.Linked) deploytest.Bench {
	t.Helper()
	return s.driveBenchAt(t, h, "C:/Apache24/conf/tls")
}

// driveBenchAt is one with its files at root. The store lies below it, where the
// contract looks.
func (s store) driveBenchAt(t *testing.T, h hosttest.Linked, root string) deploytest.Bench {
	t.Helper()
	must(t, h.Mkdir(t.Context(), root+"/store", host.Attr{Mode: 0o755}))
	f := &hosttest.Faulty{Linked: h}
	s.format.Password = secrets()[password]
	live := func(name string) string { return path.Join(root, name+s.ext) }
	open := func(name, more string) deploytest.Target {
		o := map[string]any{"store": root + "/store", "pem": live(name)}
		of := deploytest.Target{Keys: []farm.KeyType{farm.EC256}, Live: [][2]string{{live(name), live(name)}}}
		if s.part != combined {
			o["path"] = o["pem"]
			delete(o, "pem")
		}
		if more != "" {
			o["more"] = []any{map[string]any{"keys": "rsa2048", "pem": live(more)}}
			of.Keys = append(of.Keys, farm.RSA2048)
			of.Live = append(of.Live, [2]string{live(more), live(more)})
		}
		maps.Copy(o, s.options)
		text, err := json.Marshal(o)
		must(t, err)
		of.Deployer, err = All().Open(s.kind, text, deploy.Setup{Host: f, Secrets: secrets()})
		must(t, err)
		return of
	}
	b := deploytest.Bench{
		Host: f, Target: open("shop", ""), Second: open("blog", ""), Test: s.test, Reload: s.reload,
		Plain: func(_ deploytest.T, of deploytest.Target, b farm.Bundle) {
			text, err := s.format.text(s.part, b)
			must(t, err)
			must(t, h.Write(t.Context(), of.Live[0][0], text, host.Attr{Mode: 0o600}))
		},
	}
	if s.part == combined {
		b.Double = open("both", "both-rsa")
	} else {
		b.Open = s.opener()
	}
	return b
}

func TestApacheOnWindows(t *testing.T) {
	deploytest.Run(t, func(t *testing.T) deploytest.Bench { return onDrive("apache").driveBench(t, &hosttest.Windows{}) })
}

func TestJKSOnWindows(t *testing.T) {
	deploytest.Run(t, func(t *testing.T) deploytest.Bench { return onDrive("jks").driveBench(t, &hosttest.Windows{}) })
}

// The other kinds are the same engine with other files and commands.
func TestKindsOnWindows(t *testing.T) {
	for _, kind := range []string{"nginx", "lighttpd", "files", "pfx"} {
		t.Run(kind, func(t *testing.T) { thereAndBack(t, onDrive(kind).driveBench(t, &hosttest.Windows{})) })
	}
}

var errCut = errors.New("cut")

// Activation and restoration are cut between any two steps of the node itself, within
// a replacement, too: they can be finished or undone, and after a cut that nobody
// comes back from, the next Stage has a way back to a certificate.
func TestCutWithinAReplacementOnWindows(t *testing.T) {
	for _, then := range []string{"finish", "undo", "stage anew"} {
		t.Run(then, func(t *testing.T) {
			for n := 0; ; n++ {
				if n == 200 {
					t.Fatal("it never ends")
				}
				if !cutWithin(t, n, then) {
					return
				}
				if t.Failed() {
					t.Fatalf("cut after %d steps", n)
				}
			}
		})
	}
}

// cutWithin is false where n is past the last step.
func cutWithin(t *testing.T, n int, then string) bool {
	w := &hosttest.Windows{}
	b := onDrive("apache").driveBench(t, w)
	d := b.Target.Deployer
	w.Exec = func(ctx context.Context, argv []string, _ []byte) ([]byte, error) { // every command needs the file
		_, err := w.Read(ctx, b.Target.Live[0][0])
		if err != nil {
			err = &host.ExitError{Argv: argv, Status: 1, Output: []byte(err.Error())}
		}
		return nil, err
	}
	stage := func(epoch int64, c farm.Bundle) []deploy.Receipt {
		r, err := d.Stage(t.Context(), deploy.Stage{Names: deploytest.Names, Epoch: epoch, Bundles: []farm.Bundle{c}})
		must(t, err)
		return []deploy.Receipt{r}
	}
	old, next := deploytest.NewBundle(t, farm.EC256), deploytest.NewBundle(t, farm.EC256)
	must(t, d.Activate(t.Context(), stage(1, old)))
	rs := stage(2, next)
	left := n
	w.Step = func(string) error {
		if left--; left < 0 {
			return errCut
		}
		return nil
	}
	err := d.Activate(t.Context(), rs)
	w.Step = nil
	want := old
	switch then {
	case "finish":
		must(t, d.Activate(t.Context(), rs))
		want = next
	case "undo":
		must(t, d.Restore(t.Context(), rs))
	default:
		again := stage(3, deploytest.NewBundle(t, farm.EC256))
		must(t, d.Activate(t.Context(), again))
		must(t, d.Restore(t.Context(), again))
		if in, err := d.Inspect(t.Context()); err != nil || in.Placeholder || len(in.Leaves) != 1 || (in.Leaves[0] != old.Leaf && in.Leaves[0] != next.Leaf) {
			t.Errorf("holds %+v (%v)", in, err)
		}
		return err != nil
	}
	if in, err := d.Inspect(t.Context()); err != nil || fmt.Sprint(in.Leaves) != fmt.Sprint([]string{want.Leaf}) {
		t.Errorf("holds %+v (%v)", in, err)
	}
	return err != nil
}

// A server that has the file open is waited for; if it never lets go, what was live
// is, and the server is not told to reload.
func TestServerHoldsItsFileOnWindows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &hosttest.Windows{}
		b := onDrive("apache").driveBench(t, w)
		d, live := b.Target.Deployer, b.Target.Live[0][0]
		install := func(epoch int64, c farm.Bundle) error {
			r, err := d.Stage(t.Context(), deploy.Stage{Names: deploytest.Names, Epoch: epoch, Bundles: []farm.Bundle{c}})
			must(t, err)
			return d.Activate(t.Context(), []deploy.Receipt{r})
		}
		must(t, install(1, deploytest.NewBundle(t, farm.EC256)))
		time.AfterFunc(5*time.Second, w.Open(live))
		next, begin := deploytest.NewBundle(t, farm.EC256), time.Now()
		must(t, install(2, next))
		if took := time.Since(begin); took < 5*time.Second || took > 6*time.Second {
			t.Errorf("it took %s", took)
		}
		defer w.Open(live)()
		ran := len(w.Ran())
		if err := install(3, deploytest.NewBundle(t, farm.EC256)); !errors.Is(err, hosttest.ErrHeld) {
			t.Errorf("got %v", err)
		}
		for _, line := range w.Ran()[ran:] {
			if line == b.Reload {
				t.Error("it was reloaded")
			}
		}
		if in, err := d.Inspect(t.Context()); err != nil || fmt.Sprint(in.Leaves) != fmt.Sprint([]string{next.Leaf}) {
			t.Errorf("holds %+v (%v)", in, err)
		}
	})
}

// What a person does between Stage and Activate is not overwritten on Windows either,
// a broken file at the first installation included.
func TestSomebodyElseWasThereOnWindows(t *testing.T) {
	for _, first := range []string{"nothing", "a broken file", "a certificate"} {
		w := &hosttest.Windows{}
		b := onDrive("files").driveBench(t, w)
		d := b.Target.Deployer
		put := func(text string) { must(t, w.Write(t.Context(), b.Target.Live[0][0], []byte(text), host.Attr{})) }
		switch first {
		case "a broken file":
			put("broken")
		case "a certificate":
			b.Plain(t, b.Target, deploytest.NewBundle(t, farm.EC256))
		}
		stage := func(epoch int64) []deploy.Receipt {
			r, err := d.Stage(t.Context(), deploy.Stage{Names: deploytest.Names, Epoch: epoch, Bundles: []farm.Bundle{deploytest.NewBundle(t, farm.EC256)}})
			must(t, err)
			return []deploy.Receipt{r}
		}
		rs, night := stage(1), deploytest.NewBundle(t, farm.EC256)
		b.Plain(t, b.Target, night)
		if err := d.Activate(t.Context(), rs); !errors.Is(err, errChanged) {
			t.Errorf("%s: got %v", first, err)
		}
		if err := d.Restore(t.Context(), rs); !errors.Is(err, errChanged) {
			t.Errorf("%s: got %v", first, err)
		}
		if in, err := d.Inspect(t.Context()); err != nil || len(in.Leaves) != 1 || in.Leaves[0] != night.Leaf {
			t.Fatalf("%s: holds %+v (%v)", first, in, err)
		}
		must(t, d.Activate(t.Context(), stage(2))) // with assent
	}
}

// Folders are not made on Windows: they would have the rights of what is above them.
func TestFoldersMustBeThereOnWindows(t *testing.T) {
	w := &hosttest.Windows{}
	must(t, w.Mkdir(t.Context(), "C:/tls", host.Attr{}))
	for store, missing := range map[string]string{"C:/store": "C:/store", "C:/tls/store": "C:/tls/store"} {
		d, err := All().Open("files", fmt.Appendf(nil, `{"pem": "C:/tls/a.pem", "store": %q}`, store), deploy.Setup{Host: w})
		must(t, err)
		_, err = d.Stage(t.Context(), deploy.Stage{Names: deploytest.Names, Bundles: []farm.Bundle{deploytest.NewBundle(t, farm.EC256)}})
		if err == nil || !strings.Contains(err.Error(), "the folder "+missing+" is not there: make it") {
			t.Errorf("got %v", err)
		}
	}
}

func TestOptionsOnWindows(t *testing.T) {
	const rest = `"store": "C:/store", "test": [], "reload": [], "start": []`
	for text, field := range map[string]string{
		`{"pem": "C:/a.pem"}`:                                                             "store",
		`{"pem": "/a.pem", "store": "C:/store"}`:                                          "store",
		`{"pem": "C:/store/a.pem", ` + rest + `}`:                                         "store",
		`{"pem": "c:/STORE/a.pem", ` + rest + `}`:                                         "store",
		`{"pem": "C:\\a.pem", ` + rest + `}`:                                              "pem",
		`{"pem": "\\\\files\\tls\\a.pem", ` + rest + `}`:                                  "pem",
		`{"pem": "/C:/a.pem", ` + rest + `}`:                                              "pem",
		`{"pem": "C:a.pem", ` + rest + `}`:                                                "pem",
		`{"pem": "C:/a/../b.pem", ` + rest + `}`:                                          "pem",
		`{"pem": "C:/a.pem:stream", ` + rest + `}`:                                        "pem",
		`{"pem": "C:/tls./a.pem", ` + rest + `}`:                                          "pem",
		`{"pem": "C:/tls/nul.pem", ` + rest + `}`:                                         "pem",
		`{"pem": "C:/` + strings.Repeat("x", maxDrivePath) + `", ` + rest + `}`:           "pem",
		`{"chain": "C:/a.pem", "key": "C:/a.key", ` + rest + `}`:                          "chain",
		`{"pem": "C:/a.pem", "owner": "me", ` + rest + `}`:                                "owner",
		`{"pem": "C:/a.pem", "mode": "0640", ` + rest + `}`:                               "mode",
		`{"pem": "C:/a.pem", "store": "C:/store", "start": [], "reload": []}`:             "test",
		`{"pem": "C:/a.pem", "more": [{"keys":"rsa2048","pem":"C:/A.PEM"}],` + rest + `}`: "more[0].chain",
	} {
		_, err := All()["apache"].Check([]byte(text))
		mistake, ok := err.(*deploy.FieldError)
		if !ok || mistake.Field != field || mistake.Hint == "" {
			t.Errorf("%s: got %v, want a mistake in %s, and a hint", text, err, field)
		}
	}
	upper, err := All()["apache"].Check([]byte(`{"pem": "C:/TLS/a.pem", ` + rest + `}`))
	must(t, err)
	lower, err := All()["apache"].Check([]byte(`{"pem": "c:/tls/A.pem", ` + rest + `}`))
	must(t, err)
	if upper.Identity != lower.Identity || fmt.Sprint(upper.Places) != fmt.Sprint(lower.Places) {
		t.Errorf("one file is two: %+v and %+v", upper, lower)
	}
	if _, err := All()["envoy"].Check([]byte(`{"path": "C:/a.json", "store": "C:/store"}`)); err == nil {
		t.Error("Envoy on Windows passed")
	}
}
