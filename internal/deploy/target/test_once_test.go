package target

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/deploy/deploytest"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/host/hosttest"
)

// The configuration of a reload group need not be tested for each of its targets:
// Stage says whether it was, takes the caller's word that it was, and an error that
// is of the configuration alone can be told from others.
func TestStageTestsTheConfigurationUnlessItWasTested(t *testing.T) {
	bad := errors.New("unexpected }")
	var verdict error
	h := &hosttest.Mem{Exec: func(context.Context, []string, []byte) ([]byte, error) { return nil, verdict }}
	open := func(name string) deploy.Deployer {
		d, err := All().Open("nginx", []byte(`{"pem": "/etc/`+name+`.pem", "test": ["nginx", "-t"]}`), deploy.Setup{Host: h})
		must(t, err)
		return d
	}
	tests := func() (n int) {
		return len(slices.DeleteFunc(h.Ran(), func(line string) bool { return line != "nginx -t" }))
	}
	stage := func(d deploy.Deployer, epoch int64, tested bool) (deploy.Receipt, error) {
		return d.Stage(t.Context(), deploy.Stage{
			Site: "shop", Names: deploytest.Names, Epoch: epoch, Tested: tested, Bundles: []farm.Bundle{deploytest.NewBundle(t, farm.EC256)},
		})
	}
	a, b := open("a"), open("b")
	for _, d := range []deploy.Deployer{a, b} {
		r, err := stage(d, 1, false)
		must(t, err)
		if r.Tested {
			t.Error("a first installation was tested, though its files are not there yet")
		}
		must(t, d.Activate(t.Context(), []deploy.Receipt{r}))
	}
	before := tests()
	r, err := stage(a, 2, false)
	if err != nil || !r.Tested || tests() != before+1 {
		t.Errorf("%d tests, tested %t, %v", tests()-before, r.Tested, err)
	}
	if _, err := stage(b, 2, r.Tested); err != nil || tests() != before+1 {
		t.Errorf("%d tests of one configuration, %v", tests()-before, err)
	}
	verdict = bad
	if _, err := stage(a, 3, false); !errors.Is(err, deploy.ErrTest) || !errors.Is(err, bad) {
		t.Errorf("got %v", err)
	}
}
