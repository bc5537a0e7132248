package remote

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/encode"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/host"
)

// example is a call with all that a call may have.
func example() Call {
	return Call{
		ID: "c1", Do: DoStage, Farm: "shop", Node: "web1", Lane: "node web1", At: time.UnixMilli(1795442491971).UTC(), Deadline: time.Minute,
		Lease:  deploy.Lease{Owner: "ctl", Epoch: 7, Nonce: "n", Rollout: "r"},
		Target: "shop/nginx@web1", Kind: "nginx", Options: []byte(`{"pem":"/etc/x.pem"}`),
		Secrets: map[string]farm.Secret{"password": farm.NewSecret([]byte("hunter2"))},
		Stage: deploy.Stage{Site: "shop", Names: []string{"www.example.org"}, Epoch: 7, Tested: true, Bundles: []farm.Bundle{
			{Version: "v1", Leaf: "ab", KeyType: farm.EC256, Names: []string{"www.example.org"}, Chain: []byte("chain"), Key: farm.NewSecret([]byte("key"))},
		}},
	}
}

var secrets = cmp.Comparer(func(a, b farm.Secret) bool { return bytes.Equal(a.Reveal(), b.Reveal()) })

func TestSealAndOpen(t *testing.T) {
	want := example()
	text, err := Seal(want)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Open(text)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, secrets); diff != "" {
		t.Errorf("(-sent +came):\n%s", diff)
	}
	if other := fmt.Sprintf("%v %+v", want, got); strings.Contains(other, "hunter2") {
		t.Errorf("a call prints its secrets: %s", other)
	}
	if plain, err := json.Marshal(want); err != nil || bytes.Contains(plain, []byte("chain")) {
		t.Errorf("a call that is not sealed goes over a line: %s (%v)", plain, err)
	}
}

func TestOpenIsStrict(t *testing.T) {
	good, err := Seal(example())
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string][]byte{
		"nothing":              nil,
		"something after it":   append(bytes.Clone(good), `{}`...),
		"an unknown field":     bytes.Replace(good, []byte(`"id"`), []byte(`"run":"sh","id"`), 1),
		"no id":                bytes.Replace(good, []byte(`"c1"`), []byte(`""`), 1),
		"a verb":               bytes.Replace(good, []byte(`"stage"`), []byte(`"shell"`), 1),
		"a verb without stage": bytes.Replace(good, []byte(`"do":"stage"`), []byte(`"do":"discard"`), 1),
		"no lease":             bytes.Replace(good, []byte(`"epoch":7,"nonce":"n"`), []byte(`"epoch":0,"nonce":"n"`), 1),
		"a long deadline":      bytes.Replace(good, []byte(`60000000000`), []byte(`6000000000000`), 1),
		"a line feed":          bytes.Replace(good, []byte(`"web1"`), []byte(`"web1\n"`), 1),
		"too much":             append(bytes.Clone(good), make([]byte, MaxCall)...),
	} {
		if c, err := Open(text); err == nil {
			t.Errorf("%s: opened %v", name, c)
		} else if strings.Contains(err.Error(), "aHVudGVy") || strings.Contains(err.Error(), "hunter") {
			t.Errorf("%s: the error holds a secret: %v", name, err)
		}
	}
}

// What opens is sealed again to the same; nothing else happens, whatever comes.
func FuzzOpen(f *testing.F) {
	good, err := Seal(example())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"id":"a","do":"inspect","node":"n","deadline":1}`))
	f.Add([]byte(`{"id":"a","do":"forget","node":"n","lane":"l","lease":{"epoch":1,"nonce":"x"},"deadline":1,"keys":["00"]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := Open(text)
		if err != nil {
			return
		}
		again, err := Seal(c)
		if err != nil {
			t.Fatalf("what opened is not sealed: %v", err)
		}
		same, err := Open(again)
		if err != nil {
			t.Fatalf("what was sealed does not open: %v", err)
		}
		third, err := Seal(same)
		if err != nil || !bytes.Equal(again, third) {
			t.Fatalf("%s became %s (%v)", again, third, err)
		}
	})
}

// caller answers with what it is told to.
type caller struct {
	answer Answer
	err    error
	got    []Call
}

func (c *caller) Call(_ context.Context, call Call) (Answer, error) {
	c.got = append(c.got, call)
	if c.answer.ID == "" {
		c.answer.ID = call.ID
		defer func() { c.answer.ID = "" }()
	}
	return c.answer, c.err
}

func TestClassesAreErrors(t *testing.T) {
	for class, want := range map[Class]error{
		FailedTry: deploy.ErrTest, Mismatch: encode.ErrMismatch, Denied: ErrDenied, Unheard: ErrDenied, Stale: ErrStale, TooEarly: ErrStale,
	} {
		c := &caller{answer: Answer{Error: "no", Class: class}}
		_, err := New(Setup{Caller: c, Node: "web1"}).Inspect(t.Context())
		for _, other := range []error{deploy.ErrTest, encode.ErrMismatch, ErrDenied, ErrStale, host.ErrUnreachable} {
			if errors.Is(err, other) != errors.Is(want, other) {
				t.Errorf("%s is %v: %v", class, other, errors.Is(err, other))
			}
		}
		if class != FailedTry && class != Mismatch && ClassOf(err) != Failed {
			t.Errorf("%s became %s", class, ClassOf(err))
		}
	}
	for name, c := range map[string]*caller{
		"not reached":            {err: host.ErrUnreachable},
		"another call's answers": {answer: Answer{ID: "x"}},
	} {
		if _, err := New(Setup{Caller: c, Node: "web1"}).Inspect(t.Context()); !errors.Is(err, host.ErrUnreachable) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A whole reload group is one call, whose every word says whose it is.
func TestOneCallForAGroup(t *testing.T) {
	c := &caller{}
	d := New(Setup{Caller: c, Farm: "shop", Node: "web1", Lane: "node web1", Lease: deploy.Lease{Owner: "ctl", Epoch: 7, Nonce: "n"}, Kind: "nginx", Options: []byte("{}")})
	rs := []deploy.Receipt{{Note: json.RawMessage(`1`), Around: json.RawMessage(`{"drain":1}`)}, {Note: json.RawMessage(`2`)}}
	if err := errors.Join(d.Activate(t.Context(), rs), d.Restore(t.Context(), rs)); err != nil || len(c.got) != 2 {
		t.Fatalf("%d calls (%v)", len(c.got), err)
	}
	for _, got := range c.got {
		if len(got.Receipts) != 2 || got.Receipts[0].Around != nil || got.Lease.Epoch != 7 || got.Lane != "node web1" || got.check() != nil {
			t.Errorf("sent %+v (%v)", got, got.check())
		}
	}
	if c.got[0].ID == c.got[1].ID {
		t.Error("two calls have one id")
	}
	if rs[0].Around == nil {
		t.Error("the caller's receipts were changed")
	}
}

// runner writes what it is told to.
type runner struct {
	out string
	err error
	in  []byte
}

func (r *runner) Run(_ context.Context, _ []string, stdin []byte) ([]byte, error) {
	r.in = stdin
	return []byte(r.out), r.err
}

func TestLine(t *testing.T) {
	call := example()
	for name, c := range map[string]struct {
		runner
		want string // a part of the error; empty: none
	}{
		"an answer":                {runner{out: "certfarm-answer: {\"id\":\"c1\"}\n"}, ""},
		"an answer between others": {runner{out: "Welcome!\ncertfarm-answer: {\"id\":\"c1\"}\nlogged out\n"}, ""},
		"an answer and a status":   {runner{out: "certfarm-answer: {\"id\":\"c1\"}\n", err: &host.ExitError{Status: 1}}, ""},
		"a shell":                  {runner{out: "sh: certfarm: not found", err: &host.ExitError{Status: 127}}, "certfarm snippet receiver web1"},
		"nothing":                  {runner{}, "certfarm snippet receiver web1"},
		"no line":                  {runner{err: host.ErrUnreachable}, "cannot be reached"},
		"no time":                  {runner{err: context.DeadlineExceeded}, "cannot be reached"},
		"half an answer":           {runner{out: "certfarm-answer: {\"id\":"}, "it is not one"},
	} {
		a, err := Line{&c.runner}.Call(t.Context(), call)
		if c.want == "" && (err != nil || a.ID != "c1") || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %+v, %v", name, a, err)
		}
		if got, err := Open(c.in); err != nil || got.ID != "c1" {
			t.Errorf("%s: it was sent %s (%v)", name, got.ID, err)
		}
	}
}
