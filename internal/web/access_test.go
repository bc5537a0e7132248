package web

import (
	"testing"

	"github.com/certfarm/certfarm/internal/access"
)

// Who gives a role sees what it may do: no permission is without words.
func TestEveryPermissionHasWords(t *testing.T) {
	for _, p := range access.Permissions() {
		if mays[p] == "" {
			t.Errorf("%s has none", p)
		}
	}
}
