package deploytest

import (
	"time"

	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/farm"
)

// Names are what NewBundle's certificates are for.
var Names = []string{"www.example.org", "example.org"}

// NewBundle makes a leaf for Names with an issuer above it, and its key.
func NewBundle(t T, kind farm.KeyType) farm.Bundle {
	t.Helper()
	b, err := deploy.Throwaway(Names, kind, time.Now())
	if err != nil {
		t.Fatalf("%v", err)
	}
	return b
}

func must(t T, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%v", err)
	}
}
