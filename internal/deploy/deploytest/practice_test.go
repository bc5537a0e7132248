package deploytest_test

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/deploy/deploytest"
	"github.com/certfarm/certfarm/internal/deploy/target"
	"github.com/certfarm/certfarm/internal/host"
	"github.com/certfarm/certfarm/internal/host/hosttest"
)

// A registry is a kind on a node that has no files: a command keeps its certificate.
type registry struct {
	Name string `json:"name"`

	host    host.Host
	records deploy.Records
}

func (r registry) Facts() (identity, group string, err error) {
	return "registry " + r.Name, "registry " + r.Name, nil
}

func (r registry) Shadow(t deploy.Trial) (deploy.Shadow, error) {
	return deploy.Shadow{Options: registry{Name: r.Name + "-" + t.Mark + t.Place}, Bare: true, Drop: func(ctx context.Context, d deploy.Deployer) error {
		_, err := d.(registry).host.Run(ctx, []string{"set", d.(registry).Name, ""}, nil)
		return err
	}}, nil
}

func (r registry) With(records deploy.Records) deploy.Deployer { r.records = records; return r }

func (r registry) Inspect(ctx context.Context) (in deploy.Installed, err error) {
	text, err := r.host.Run(ctx, []string{"get", r.Name}, nil)
	if len(text) > 0 {
		in.Leaves = []string{string(text)}
	}
	return in, err
}

func (r registry) Stage(ctx context.Context, s deploy.Stage) (deploy.Receipt, error) {
	before, err := r.Inspect(ctx)
	note, _ := json.Marshal([][]string{{s.Bundles[0].Leaf}, before.Leaves})
	return deploy.Receipt{Note: note}, err
}

func (r registry) put(ctx context.Context, rs []deploy.Receipt, which int) error {
	var note [2][]string
	err := json.Unmarshal(rs[0].Note, &note)
	leaf := ""
	if len(note[which]) > 0 {
		leaf = note[which][0]
	}
	if err == nil && which == 0 {
		_, err = r.records.Bundle(ctx, leaf)
	}
	if err == nil {
		_, err = r.host.Run(ctx, []string{"set", r.Name, leaf}, nil)
	}
	return err
}

func (r registry) Activate(ctx context.Context, rs []deploy.Receipt) error { return r.put(ctx, rs, 0) }
func (r registry) Restore(ctx context.Context, rs []deploy.Receipt) error  { return r.put(ctx, rs, 1) }
func (r registry) Discard(context.Context, deploy.Receipt) error           { return nil }

// A kind on a node that writes no files is cut at its commands, in places of new names
// that are taken away in the end.
func TestPracticeOfCommands(t *testing.T) {
	kept := map[string]string{"shop": "live"}
	m := &hosttest.Mem{Exec: func(_ context.Context, argv []string, _ []byte) ([]byte, error) {
		if argv[0] == "get" {
			return []byte(kept[argv[1]]), nil
		}
		if kept[argv[1]] = argv[2]; argv[2] == "" {
			delete(kept, argv[1])
		}
		return nil, nil
	}}
	kind := deploy.Define(deploy.Kind{Name: "registry"}, registry{}, func(o registry, s deploy.Setup) (deploy.Deployer, error) {
		o.host = s.Host
		return o, nil
	})
	all, err := (&deploytest.Practice{
		Kinds: deploy.NewKinds(kind), Kind: "registry", Options: []byte(`{"name": "shop"}`), Setup: deploy.Setup{Host: m}, Mark: "-try-",
	}).Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	result := map[string]string{}
	for _, o := range all {
		result[o.Rule] = o.Result
	}
	for rule, want := range map[string]string{
		"an activation cut anywhere can be undone":            deploytest.Kept,
		"every step may be repeated":                          deploytest.Kept,
		"restoring a first installation leaves a placeholder": deploytest.Kept,
		"bytes changed on the way are found by staging":       deploytest.NotForIt,
		"a key that is not the leaf's is refused by staging":  deploytest.Broken, // it looks at nothing
	} {
		if result[rule] != want {
			t.Errorf("%s: %q, not %q", rule, result[rule], want)
		}
	}
	if len(kept) != 1 || kept["shop"] != "live" {
		t.Errorf("it holds %v", kept)
	}
}

// A kind without a shadow place is not tried at all.
func TestNoPracticeWithoutAShadow(t *testing.T) {
	kind := deploy.Define(deploy.Kind{Name: "bare"}, bare{}, func(bare, deploy.Setup) (deploy.Deployer, error) { return nil, errors.New("opened") })
	_, err := (&deploytest.Practice{Kinds: deploy.NewKinds(kind), Kind: "bare", Options: []byte(`{}`)}).Run(t.Context())
	if !errors.Is(err, deploy.ErrNoShadow) || kind.Describe().Trial {
		t.Errorf("got %v", err)
	}
}

type bare struct{}

func (bare) Facts() (identity, group string, err error) { return "bare", "bare", nil }

// The description is what the struct says.
func TestDescribe(t *testing.T) {
	type options struct {
		bare
		Test []string          `json:"test" doc:"a command"`
		Port int               `json:"port" doc:"a port"`
		Set  map[string]string `json:"set" doc:"fields"`
		None string            `json:"none,omitempty" doc:"nothing"`
	}
	d := deploy.Define(deploy.Kind{Name: "x", Fence: "fenced", Secrets: []deploy.Secret{{Name: "s"}}}, options{Test: []string{"a", "b"}, Port: 8080, Set: map[string]string{"k": "v", "e": ""}},
		func(options, deploy.Setup) (deploy.Deployer, error) { return nil, nil }).Describe()
	var got []string
	for _, o := range d.Options {
		got = append(got, o.Name+"="+o.Text())
	}
	if want := []string{"test=[a, b]", "port=8080", "set={k: v}", "none="}; !slices.Equal(got, want) || d.Fence != "fenced" || len(d.Secrets) != 1 {
		t.Errorf("got %q of %+v", got, d)
	}
}

// A config test that fails already would break most rules, and tell nothing of them.
func TestPracticeWantsAServerThatWorks(t *testing.T) {
	passes := false
	m := &hosttest.Mem{Exec: func(_ context.Context, argv []string, _ []byte) ([]byte, error) {
		if passes || argv[0] != "nginx" {
			return nil, nil
		}
		return nil, &host.ExitError{Argv: argv, Status: 1, Output: []byte("no such file\ntest failed\n")}
	}}
	p := &deploytest.Practice{Kinds: target.All(), Kind: "nginx", Options: []byte(`{"pem": "/tls/shop.pem"}`), Setup: deploy.Setup{Host: m}, Mark: "try"}
	if err := p.Reach(t.Context()); !errors.Is(err, deploy.ErrTest) || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("got %v", err)
	}
	passes = true
	if err := p.Reach(t.Context()); err != nil {
		t.Error(err)
	}
	p.Setup.Host = &hosttest.Faulty{Linked: m, Refuse: func(string) error { return errors.New("no rights there") }}
	if err := p.Reach(t.Context()); err == nil || !strings.Contains(err.Error(), "no rights there") {
		t.Errorf("got %v", err)
	}
}
