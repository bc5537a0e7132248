package cloud

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/deploy/deploytest"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/host/hosttest"
	"github.com/certfarm/certfarm/internal/outbound"
)

// runner does the request that is in the context of a command.
type runner struct{ hosttest.Linked }

type request struct{}

func (runner) Run(ctx context.Context, _ []string, _ []byte) ([]byte, error) {
	return nil, ctx.Value(request{}).(func() error)()
}

// wire carries requests over a host that can be made to fail.
type wire struct {
	faulty *hosttest.Faulty
	server http.RoundTripper
}

func newWire(server http.RoundTripper) wire {
	return wire{&hosttest.Faulty{Linked: runner{}}, server}
}

func (w wire) RoundTrip(r *http.Request) (answer *http.Response, err error) {
	ctx := context.WithValue(r.Context(), request{}, func() (err error) {
		answer, err = w.server.RoundTrip(r) //nolint:bodyclose // whoever asked closes it
		return err
	})
	if _, err = w.faulty.Run(ctx, []string{r.Method, r.URL.Path}, nil); err != nil {
		return nil, err
	}
	return answer, nil
}

// Do is policy.Transporter's.
func (w wire) Do(r *http.Request) (*http.Response, error) { return w.RoundTrip(r) }

// handler answers requests in place.
type handler struct{ http.Handler }

func (h handler) RoundTrip(r *http.Request) (*http.Response, error) {
	w, at := httptest.NewRecorder(), r.Clone(r.Context())
	if at.Body == nil {
		at.Body = http.NoBody // as a server has it
	}
	h.ServeHTTP(w, at)
	answer := w.Result()
	answer.Request = r
	return answer, nil
}

// records remembers what is staged, as the controller's store does.
type records struct {
	deploy.Deployer
	mu  sync.Mutex
	all map[string]farm.Bundle
}

// remember gives a deployer records of what is staged with it.
func remember(d deploy.Deployer) *records {
	r := &records{all: map[string]farm.Bundle{}}
	r.Deployer = d.(deploy.Borrower).With(deploy.Records{Farm: "lab", Bundle: r.bundle})
	return r
}

func (r *records) Stage(ctx context.Context, s deploy.Stage) (deploy.Receipt, error) {
	r.mu.Lock()
	for _, b := range s.Bundles {
		r.all[b.Leaf] = b
	}
	r.mu.Unlock()
	return r.Deployer.Stage(ctx, s)
}

func (r *records) bundle(_ context.Context, leaf string) (farm.Bundle, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if b, ok := r.all[leaf]; ok {
		return b, nil
	}
	return farm.Bundle{}, errors.New("no such leaf")
}

// forget loses what is remembered, as when a key was erased.
func (r *records) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.all)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func stageOf(bs ...farm.Bundle) deploy.Stage {
	return deploy.Stage{Site: "shop", Names: deploytest.Names, Bundles: bs, Epoch: 1}
}

func install(t *testing.T, d deploy.Deployer, b farm.Bundle) deploy.Receipt {
	t.Helper()
	r, err := d.Stage(t.Context(), stageOf(b))
	must(t, err)
	must(t, d.Activate(t.Context(), []deploy.Receipt{r}))
	return r
}

func holds(t *testing.T, d deploy.Deployer, leaves ...string) {
	t.Helper()
	in, err := d.Inspect(t.Context())
	must(t, err)
	if strings.Join(in.Leaves, " ") != strings.Join(leaves, " ") || in.Placeholder {
		t.Fatalf("holds %+v, want %.8q", in, leaves)
	}
}

// says checks an error for words, and for the lack of secrets.
func says(t *testing.T, err error, words []string, secrets ...farm.Secret) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want %q", words)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%q does not say %q", err, w)
		}
	}
	for _, s := range secrets {
		if outbound.Hide(err.Error(), s) != err.Error() {
			t.Errorf("%q holds a secret", err)
		}
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("%q has more than one line", err)
	}
}

func badOptions(t *testing.T, kind string, cases map[string]string) {
	t.Helper()
	for text, field := range cases {
		_, err := deploy.NewKinds(All()...)[kind].Check([]byte(text), "hmac")
		mistake, ok := err.(*deploy.FieldError)
		if !ok || mistake.Field != field {
			t.Errorf("%s: got %v, want a mistake in %s", text, err, field)
		}
	}
}
